"""Jobs from a bucket to a bucket."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest
from dask_programs import free_port
from jobs import figures_of, start, wait_until, write_config, write_photo
from media import frame_hashes, make_film
from s3server import SECRET

from restore.batch import run
from restore.errors import ConfigError
from restore.job import Exit, load, run_job
from restore.job.find import find
from restore.job.process import Slot
from restore.job.status import status
from restore.storage import place


def test_a_bucket_is_restored_into_a_prefix_and_only_what_changed_is_done_again(
    bucket: str, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(tmp_path / "reel.mp4", frames=6)
    (place(bucket) / "in/1922/reel.mp4").put(film)
    (place(bucket) / "in/photo.png").put(write_photo(tmp_path / "photo.png"))
    (place(bucket) / "in/damaged.mp4").write_bytes(film.read_bytes()[:900])
    scratch = tmp_path / "scratch"
    config = write_config(
        tmp_path, tiny_weights, inputs=f"{bucket}/in/", output=f"{bucket}/out", scratch=str(scratch), retries=1
    )
    report = run_job(config)
    assert report.exit_code == Exit.FAILED
    assert {name.rpartition("/")[2]: entry.state for name, entry in report.entries.items()} == {
        "reel.mp4": "done", "photo.png": "done", "damaged.mp4": "failed",
    }  # fmt: skip
    entry = report.entries[f"{bucket}/in/1922/reel.mp4"]
    assert (entry.output, entry.frames) == (f"{bucket}/out/1922/reel.mp4", 6)
    assert entry.colourfulness
    assert report.entries[f"{bucket}/in/damaged.mp4"].attempts == 1
    root = place(bucket) / "out"
    assert sorted(root.listing()) == [".restore-job", "1922", "photo.png", "photo.png.json"]
    assert sorted((root / "1922").listing()) == ["reel.mp4", "reel.mp4.json"]
    (root / "1922/reel.mp4").fetch(tmp_path / "fetched.mp4")
    run(film, tmp_path / "here.mp4", weights=str(tiny_weights), device="cpu", precision="fp32")
    assert frame_hashes(tmp_path / "fetched.mp4", "all") == frame_hashes(tmp_path / "here.mp4", "all")

    told = status(str(root))
    assert told.counts == {"done": 2, "failed": 1}
    log = next(file for file in (root / ".restore-job/runs").children() if file.suffix == ".jsonl").read_bytes()
    assert b"botocore" not in log
    assert any(json.loads(line)["message"].endswith("done, 6 frames") for line in log.splitlines())
    everything = [
        log,
        (root / ".restore-job/report.json").read_bytes(),
        (root / ".restore-job/report.html").read_bytes(),
    ]
    assert not any(SECRET.encode() in data or os.environ["AWS_ACCESS_KEY_ID"].encode() in data for data in everything)
    assert [path for path in scratch.rglob("*") if path.is_file() and path.name not in ("lock", "damaged.mp4")] == []

    (place(bucket) / "in/damaged.mp4").remove()
    begun: list[str] = []
    monkeypatch.setattr(Slot, "begin", lambda self, task: begun.append(task.item.name))
    assert run_job(config).counts == {"skipped": 2}
    (place(bucket) / "in/photo.png").put(write_photo(tmp_path / "photo.png", seed=5))
    run_job(write_config(tmp_path, tiny_weights, inputs=f"{bucket}/in/", output=f"{bucket}/out", minutes=0.15))
    assert begun == [f"{bucket}/in/photo.png"]


def test_globs_work_in_buckets_and_results_are_no_sources(bucket: str, tmp_path: Path, tiny_weights: Path) -> None:
    for name in ("a.mov", "x/b.mov", "x/y/c.mov", "x/.hidden.mov", "out/d.mov", "e.mov.restore/plan.mov"):
        (place(bucket) / name).write_bytes(b"1")

    def names(inputs: str) -> list[str]:
        config = load(write_config(tmp_path, tiny_weights, inputs=f"{bucket}/{inputs}", output=f"{bucket}/out"))
        return [item.output for item in find(config)[0]]

    assert names("*.mov") == ["a.mov"]
    assert names("x/*.mov") == ["b.mov"]
    assert names("**/*.mov") == ["a.mov", "x/b.mov", "x/y/c.mov"]
    assert names("x") == ["b.mov", "y/c.mov"]
    assert names("nothing/yet/") == []


def test_credentials_in_a_configuration_are_refused_and_not_told(tmp_path: Path, tiny_weights: Path) -> None:
    config = write_config(tmp_path, tiny_weights, inputs="s3://key:verysecret@bucket/in", output="out")
    with pytest.raises(ConfigError, match="a URL must not hold credentials") as caught:
        run_job(config)
    assert "verysecret" not in str(caught.value)


def test_a_store_that_is_out_of_reach_is_told(
    bucket: str, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from restore.errors import MediaError
    from restore.storage import disconnect

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        disconnect()
        try:
            with pytest.raises(MediaError, match=r"cannot be reached|could not"):
                run_job(write_config(tmp_path, tiny_weights, inputs=f"{bucket}/in", output=f"{bucket}/out"))
        finally:
            disconnect()


def test_a_prefix_is_watched_for_what_arrives(bucket: str, tmp_path: Path, tiny_weights: Path) -> None:
    photo = write_photo(tmp_path / "photo.png")
    paths = {"inputs": f"{bucket}/in/", "output": f"{bucket}/out", "scratch": str(tmp_path / "scratch")}
    config, port = write_config(tmp_path, tiny_weights, settle_seconds=0.3, **paths), free_port()
    process = start(config, "--watch=0.2", f"--metrics-port={port}")
    try:
        root = place(bucket) / "out"
        wait_until(lambda: root.listing() or process.poll() is not None)
        (place(bucket) / "in/1922/photo.png").put(photo)
        wait_until(lambda: 'restore_films_total{result="done"} 1.0' in figures_of(port))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
    assert (root / "1922/photo.png").is_file()
