"""What a job removes of dead runs and vanished sources."""

from __future__ import annotations

import logging
import os
import threading
import time
from itertools import count
from pathlib import Path

import pytest
from jobs import write_photo
from test_lease import elsewhere

from restore.job.clean import clean
from restore.job.record import write_record
from restore.lease import lease
from restore.storage import place


def test_what_dead_runs_have_left_is_removed_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "out"
    source = write_photo(tmp_path / "in" / "here.png")

    def work(name: str, plan: str, *more: str) -> None:
        for file in ("plan.json", "parts/000000.mkv", *more):
            (root / f"{name}.restore" / file).parent.mkdir(parents=True, exist_ok=True)
            (root / f"{name}.restore" / file).write_text("x")
        (root / f"{name}.restore" / "plan.json").write_text(plan)

    work("gone.mp4", '{"source": "/nowhere/gone.mp4"}')
    work("deep/gone.mp4", "")
    write_record(place(root / "deep" / "gone.mp4"), {"source": "/nowhere/gone.mp4"})
    work("stays.mp4", f'{{"source": "{source}"}}')  # of a run by hand, perhaps
    work("foreign.mp4", '{"source": "/nowhere/gone.mp4"}', "notes.txt")
    work("unknown.mp4", "")
    work("busy.mp4", '{"source": "/nowhere/gone.mp4"}')
    (root / "done.mp4").write_text("a result")
    write_record(place(root / "done.mp4"), {"source": "/nowhere/done.mp4"})
    for name in (".new.mp4.0a1b2c3d.tmp", ".old.mp4.0a1b2c3d.tmp", ".old.17.partial.png"):
        (root / name).write_text("half")
    for name in (".old.mp4.0a1b2c3d.tmp", ".old.17.partial.png"):
        os.utime(root / name, (1, 1))
    with lease(place(root / "busy.mp4.restore" / "lease")), caplog.at_level(logging.INFO):
        clean(place(root), [])
    left = {str(path.relative_to(root)) for path in root.iterdir()}
    assert left == {
        "deep", "stays.mp4.restore", "foreign.mp4.restore", "unknown.mp4.restore", "busy.mp4.restore",
        "done.mp4", "done.mp4.json", ".new.mp4.0a1b2c3d.tmp",
    }  # fmt: skip
    assert list((root / "deep").iterdir()) == []
    assert "gone.mp4.restore: removed, nothing needs it any more" in caplog.text


def test_a_run_whose_clock_goes_wrong_keeps_its_work_folder(tmp_path: Path) -> None:
    """Its notes look an hour old here; that they change shows that it lives."""
    folder = tmp_path / "out" / "reel.mp4.restore"
    (folder / "lease").mkdir(parents=True)
    (folder / "plan.json").write_text('{"source": "/nowhere/reel.mp4"}')
    stop = threading.Event()

    def renew() -> None:
        for second in count():
            elsewhere(place(folder / "lease"), time.time() - 3600 + second, seconds=2)
            if stop.wait(0.2):
                return

    elsewhere(place(folder / "lease"), time.time() - 3600, seconds=2)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        clean(place(tmp_path / "out"), [])
    finally:
        stop.set()
        thread.join()
    assert (folder / "plan.json").exists()
    clean(place(tmp_path / "out"), [])
    assert not folder.exists()
