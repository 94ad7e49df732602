from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from jobs import log_of, start, states, write_config, write_photo
from media import make_film

from restore.cli.logs import set_up
from restore.job import Exit
from restore.job.jsonlog import JsonLines, redacted
from restore.job.look import look
from restore.job.report import Entry, RunReport
from restore.storage import place

STARTED = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)


@pytest.fixture
def report() -> RunReport:
    entries = [
        Entry("in/a.mov", "out/a.mov", "film", "done", frames=250, total_frames=250, frames_per_second=12.34),
        Entry(
            "in/<b>&.mov", "out/b.mov", "film", "failed", error="<script>alert(1)</script>", warnings=['it\'s "odd"']
        ),
        Entry("in/c.png", "out/c.png", "still", "skipped", frames=1, total_frames=1, colourfulness=33.0),
    ]
    report = RunReport("out", STARTED, "job.yaml", entries={entry.source: entry for entry in entries})
    report.add_picture("in/a.mov", b"jpeg")
    return report


class Page(HTMLParser):
    """Notes tags, text, and what points outside the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def test_the_page_is_whole_needs_nothing_else_and_shows_failures_first(report: RunReport) -> None:
    report.finished, report.exit_code, report.note = STARTED, 3, "a <note>"
    page = Page(report.html())
    assert page.open == []
    assert "script" not in page.tags
    assert page.links == ["data:image/jpeg;base64,anBlZw=="]
    for text in ("<script>alert(1)</script>", "in/<b>&.mov", 'it\'s "odd"', "a <note>", "12.3", "33.0", "exit code 3"):
        assert text in page.text
    assert page.text.index("in/<b>&.mov") < page.text.index("in/a.mov") < page.text.index("in/c.png")


def test_a_page_of_a_run_that_goes_on_says_so(report: RunReport) -> None:
    assert "1 done, 1 skipped, 1 failed; started 2026-01-01 02:00:00 UTC, running" in report.html()


def test_the_json_holds_every_film_and_no_pictures(report: RunReport) -> None:
    found = json.loads(report.json())
    assert found["counts"] == {"done": 1, "skipped": 1, "failed": 1}
    assert (found["started"], found["finished"], found["exit_code"]) == ("2026-01-01T02:00:00Z", None, None)
    assert [film["state"] for film in found["films"]] == ["done", "failed", "skipped"]
    assert found["films"][0]["frames_per_second"] == 12.34
    assert "jpeg" not in report.json()


def test_pictures_of_a_long_batch_do_not_fill_the_memory() -> None:
    report = RunReport("out", STARTED)
    for number in range(300):
        report.add_picture(str(number), b"x")
    assert list(report.pictures) == [str(number) for number in range(100, 300)]


def test_a_run_that_watches_for_long_forgets_what_is_done_but_not_what_failed() -> None:
    states = ["failed", "done", "skipped", "done", "waiting", "done"]
    entries = {str(n): Entry(str(n), str(n), "film", state) for n, state in enumerate(states)}  # type: ignore[arg-type]
    report = RunReport("out", STARTED, entries=entries, pictures={"1": b"x", "5": b"y"})
    report.forget_finished(2)
    assert list(report.entries) == ["0", "3", "4", "5"]
    assert list(report.pictures) == ["5"]
    report.forget_finished(9)
    assert len(report.entries) == 4


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("cannot read s3://key:secret@bucket/in", "cannot read s3://***@bucket/in"),
        ("https://b.s3/x?X-Amz-Credential=AKI&X-Amz-Signature=abc&y=1", "https://b.s3/x?X-Amz-Credential=***&X-Amz-Signature=***&y=1"),
        ("secret_access_key='abc/def'", "secret_access_key='***'"),
        ("the value hidden-in-the-environment was refused", "the value *** was refused"),
        ("/scans/a@b.mov: 3 tokens, secretly", "/scans/a@b.mov: 3 tokens, secretly"),
    ],
)  # fmt: skip
def test_secrets_do_not_reach_a_log(text: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-in-the-environment")
    assert redacted(text) == kept


def test_secrets_do_not_reach_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    entry = Entry("in/a", "out/a", "film", "failed", error="hidden was refused", warnings=["hidden too"])
    report = RunReport("out", STARTED, note="hidden", entries={"in/a": entry})
    assert "hidden" not in report.json() + report.html() + "".join(report.lines())


def test_a_log_line_is_json_with_utc_and_what_is_known() -> None:
    record = logging.LogRecord("restore.film", logging.WARNING, "film.py", 1, "%s: odd\nor\u2028not", ("in.mov",), None)
    record.created = 1767232800.25
    vars(record).update(film="in.mov", frames=12)
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-01-01T02:00:00.250Z", "level": "warning", "logger": "restore.film",
        "message": "in.mov: odd\nor\u2028not", "film": "in.mov", "frames": 12,
    }  # fmt: skip


def test_a_traceback_is_one_line_of_json_too() -> None:
    try:
        raise ValueError("wrong")
    except ValueError:
        record = logging.LogRecord("restore", logging.ERROR, "x.py", 1, "a fault", (), sys.exc_info())
    line = json.loads(JsonLines().format(record))
    assert line["error"].endswith("ValueError: wrong")
    assert "film" not in line


@pytest.mark.parametrize(("verbose", "level"), [(False, logging.WARNING), (True, logging.INFO)])
def test_the_command_line_logs_json_if_asked(
    verbose: bool, level: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    set_up(verbose=verbose, as_json=True)
    try:
        logging.getLogger("restore.film").log(level, "something happened")
        logging.getLogger("restore.film").log(level - 10, "something else")
    finally:
        logging.captureWarnings(False)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "something happened"


def test_a_name_that_is_no_utf8_stops_neither_the_job_nor_its_reports(tmp_path: Path, tiny_weights: Path) -> None:
    name = os.fsdecode(b"Stra\xdfe.png")
    write_photo(tmp_path / "in" / "a.png").rename(tmp_path / "in" / name)
    process = start(write_config(tmp_path, tiny_weights))  # what is logged here, pytest cannot pass on
    process.communicate(timeout=120)
    assert process.returncode == Exit.DONE
    assert states(tmp_path / "out") == {name: "done"}
    assert {Path(line["film"]).name for line in log_of(tmp_path / "out") if "film" in line} == {name}
    assert r"Stra\udcdfe.png" in (tmp_path / "out" / ".restore-job" / "report.html").read_text()


def test_a_look_measures_colour_and_shows_both_sides(tmp_path: Path) -> None:
    grey, colour = make_film(tmp_path / "g.mp4", frames=5), make_film(tmp_path / "c.mp4", frames=5, colored=True)
    seen, dull = look(place(grey), place(colour), still=False), look(place(grey), place(grey), still=False)
    assert seen
    assert dull
    assert seen.colourfulness > 20 > 2 > dull.colourfulness
    picture = cv2.imdecode(np.frombuffer(seen.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (64, 192, 3)
    assert np.ptp(picture[:, :90].astype(int), axis=2).mean() < 5 < np.ptp(picture[:, 102:].astype(int), axis=2).mean()


def test_a_look_at_a_still_measures_it(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "a.png")
    seen = look(place(photo), place(photo), still=True)
    assert seen
    assert seen.colourfulness < 1


@pytest.mark.parametrize("still", [True, False])
def test_what_cannot_be_shown_is_left_out(tmp_path: Path, still: bool) -> None:
    (tmp_path / "x").write_bytes(b"not a picture")
    assert look(place(tmp_path / "x"), place(tmp_path / "x"), still=still) is None
    assert look(place(tmp_path / "gone"), place(tmp_path / "gone"), still=still) is None
