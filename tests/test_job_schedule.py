"""Retries, limits and deaths, with a process that is not one; `test_job.py` has real ones."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, ClassVar

import pytest

from restore.errors import ClusterError, ConfigError, MediaError, StageError
from restore.job import Figures, JobConfig, RunReport
from restore.job.attempt import ChangedError, Outcome, Task, attempt, may_pass
from restore.job.find import Item
from restore.job.job import Arrivals, Stop
from restore.job.process import Advance, Message
from restore.job.record import write_record
from restore.job.schedule import Keys, Schedule
from restore.lease import Holder, LeaseHeld, LeaseLost, lease
from restore.storage import Place, Stat, place


class FakeSlot:
    """Answers with what a test has put down; without an answer it hangs."""

    answers: ClassVar[deque[Sequence[Message]]] = deque()
    tasks: ClassVar[tuple[Task, ...]] = ()
    asked: ClassVar[int] = 0
    ends: ClassVar[int] = 0

    def __init__(self, config: JobConfig) -> None:
        self.pipe, self._other = Pipe()
        self._messages: deque[Message] = deque()

    def begin(self, task: Task) -> None:
        type(self).tasks += (task,)
        self._messages.extend(self.answers.popleft() if self.answers else ())
        for _ in self._messages:
            self._other.send("a message")

    def receive(self) -> Message:
        self.pipe.recv()
        return self._messages.popleft()

    def ask_to_end(self) -> None:
        assert not self.ends, "all are asked before one is waited for"
        type(self).asked += 1

    def end(self) -> None:
        type(self).ends += 1

    def close(self) -> None:
        self.pipe.close()


Make = Callable[..., tuple[Schedule, RunReport, Figures]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make a schedule of sources `a.mov`, `b.mov` ..., whose attempts end as told."""
    monkeypatch.setattr("restore.job.schedule.Slot", FakeSlot)
    monkeypatch.setattr(FakeSlot, "answers", deque())
    monkeypatch.setattr(FakeSlot, "tasks", ())
    monkeypatch.setattr(FakeSlot, "asked", 0)
    monkeypatch.setattr(FakeSlot, "ends", 0)

    def make(*answers: Sequence[Message], sources: str = "a", **settings: Any) -> tuple[Schedule, RunReport, Figures]:
        FakeSlot.answers.extend(answers)
        values: dict[str, Any] = {"inputs": (str(tmp_path),), "output": f"{tmp_path}/out", "backoff_seconds": 0.01}
        report, figures = RunReport("out", datetime.now(UTC)), Figures()
        config = JobConfig(**(values | settings))
        schedule = Schedule(config, place(config.output), Keys("f", "s"), report, figures, settings.get("films") == 9)
        schedule.offer([_item(tmp_path, name) for name in sources], {})
        return schedule, report, figures

    return make


def _item(folder: Path, name: str) -> Item:
    path = folder / f"{name}.mov"
    path.write_text(name)
    stat = place(path).stat()
    assert stat
    return Item(place(path), f"{name}.mov", "film", stat)


def run(schedule: Schedule, steps: int = 200) -> None:
    while not schedule.idle and steps:
        schedule.step(0.01)
        steps -= 1


DIED = Outcome("failed", error="its process died (SIGKILL)", may_pass=True)
DONE = Outcome("done", frames=7, parts=2, resumed_parts=1, mean_chroma=3.5, colourfulness=9.0)


def test_an_error_that_may_pass_is_tried_again(make: Make) -> None:
    schedule, report, figures = make([DIED], [DIED], [DONE])
    run(schedule)
    (entry,) = report.entries.values()
    assert (entry.state, entry.attempts, entry.error, entry.frames) == ("done", 3, None, 7)
    assert (figures.retries, figures.films["done"], figures.failures) == (2, 1, 0)


def test_a_source_that_kills_its_process_again_and_again_fails_and_the_others_are_done(make: Make) -> None:
    schedule, report, figures = make([DIED], [DONE], [DIED], [DIED], sources="ab")
    run(schedule)
    a, b = report.entries.values()
    assert (a.state, a.attempts) == ("failed", 3)
    assert "died" in str(a.error)
    assert b.state == "done"
    assert (figures.retries, figures.failures) == (2, 1)


def test_a_damaged_source_is_not_tried_again(make: Make) -> None:
    schedule, report, figures = make([Outcome("failed", error="is not a film")])
    run(schedule)
    assert [(e.state, e.attempts) for e in report.entries.values()] == [("failed", 1)]
    assert figures.retries == 0


def test_each_wait_is_twice_the_last(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    schedule, _, _ = make([DIED], [DIED], [DIED], [DONE], retries=3)
    run(schedule)
    pauses = [record.getMessage().split(" in ")[1] for record in caplog.records if "follows" in record.getMessage()]
    assert pauses == ["0.01 s", "0.02 s", "0.04 s"]


def test_no_more_than_so_many_are_worked_on_at_once(make: Make) -> None:
    schedule, report, figures = make(sources="abcde", films=2)
    schedule.step(0)
    assert sorted(report.counts.items()) == [("running", 2), ("waiting", 3)]
    assert (figures.running, figures.queue) == (2, 3)
    schedule.stop("enough")
    assert sorted(report.counts.items()) == [("interrupted", 2), ("waiting", 3)]
    assert not (Path(str(next(iter(FakeSlot.tasks)).output) + ".lease")).exists()


def test_all_that_work_are_told_to_stop_before_one_is_waited_for(make: Make) -> None:
    schedule, report, _ = make(sources="abc", films=2)
    schedule.step(0.01)
    schedule.stop("stopped")
    assert (FakeSlot.asked, FakeSlot.ends) == (2, 2)
    assert report.counts == {"waiting": 1, "interrupted": 2}


def test_a_film_that_takes_too_long_is_ended_and_the_next_begins(make: Make) -> None:
    schedule, report, _ = make([], [DONE], sources="ab", film_minutes=0.001)
    run(schedule)
    a, b = report.entries.values()
    assert (a.state, b.state, a.attempts) == ("failed", "done", 1)
    assert "took longer than film_minutes (0.001)" in str(a.error)
    assert FakeSlot.ends == 1


def test_a_source_on_which_another_works_is_left_to_it(make: Make, tmp_path: Path) -> None:
    schedule, report, _ = make([DONE], sources="ab")
    with lease(place(tmp_path / "out" / "a.mov.lease"), owner="somebody else"):
        run(schedule)
    a, b = report.entries.values()
    assert (a.state, b.state) == ("elsewhere", "done")
    assert "somebody else" in str(a.error)


def test_a_film_whose_work_folder_is_held_is_left_to_its_holder(make: Make) -> None:
    schedule, report, _ = make([Outcome("elsewhere", error="another run is working on this output")])
    run(schedule)
    assert [entry.state for entry in report.entries.values()] == ["elsewhere"]


def test_work_whose_lease_is_lost_is_ended(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(self: object) -> None:
        raise LeaseLost("it was taken over")

    schedule, report, _ = make()
    monkeypatch.setattr("restore.lease.Lease.check", lost)
    run(schedule)
    assert [(entry.state, entry.error) for entry in report.entries.values()] == [("elsewhere", "it was taken over")]
    assert FakeSlot.ends == 1


def test_what_another_finished_meanwhile_is_not_done_again(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, report, _ = make()
    output = place(tmp_path / "out" / "a.mov")
    monkeypatch.setattr("restore.job.schedule.source_version", lambda item: "v")

    def finish_first(folder: Place, owner: str) -> Any:
        output.write_bytes(b"12345")
        write_record(output, {"version": "v", "settings": "f", "bytes": 5, "frames": 3, "source": "a"})
        return lease(folder, owner=owner)

    monkeypatch.setattr("restore.job.schedule.lease", finish_first)
    run(schedule)
    assert [(entry.state, entry.frames) for entry in report.entries.values()] == [("skipped", 3)]
    assert FakeSlot.tasks == ()


def test_a_source_that_has_gone_fails(make: Make, tmp_path: Path) -> None:
    schedule, report, _ = make()
    (tmp_path / "a.mov").unlink()
    run(schedule)
    assert [(entry.state, entry.error) for entry in report.entries.values()] == [
        ("failed", f"{tmp_path}/a.mov: is gone")
    ]


def test_sources_with_one_output_fail_and_neither_is_written(make: Make, tmp_path: Path) -> None:
    schedule, report, _ = make(sources="")
    item = _item(tmp_path, "a")
    schedule.offer([item], {item.name: "its result would be b.mov, as that of c"})
    run(schedule)
    assert [entry.state for entry in report.entries.values()] == ["failed"]
    assert FakeSlot.tasks == ()


def test_a_file_that_is_not_complete_is_looked_at_again_but_not_for_ever(make: Make) -> None:
    answers = [[Outcome("incomplete")]] * 10
    schedule, report, _ = make(*answers, [Outcome("failed", error="is damaged")], films=9, settle_seconds=0.01)
    run(schedule, 2000)
    assert [(entry.state, entry.attempts) for entry in report.entries.values()] == [("failed", 1)]
    assert [task.arriving for task in FakeSlot.tasks] == [True] * 10 + [False]


def test_progress_and_warnings_reach_report_figures_and_log(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    warning = logging.LogRecord("restore.film", logging.WARNING, "film.py", 1, "it is interlaced", None, None)
    news = [
        Advance("scan", 5, 100, {}), Advance("restore", 40, 100, {"cuda:0": (1, 2)}), warning, warning,
        Advance("parts", 1, 4, {}), Advance("restore", 60, 100, {}),
    ]  # fmt: skip
    schedule, report, figures = make(news)
    with caplog.at_level(logging.INFO):
        for _ in range(20):
            schedule.step(0.001)
    (entry,) = report.entries.values()
    assert (entry.state, entry.phase, entry.frames, entry.total_frames) == ("running", "restore", 60, 100)
    assert entry.warnings == ["it is interlaced"]
    assert (figures.frames, figures.parts, figures.gpu_bytes) == (20, 1, {"cuda:0": (1, 2)})
    told = next(record for record in caplog.records if record.name == "restore.film")
    assert (vars(told)["film"], vars(told)["frames"]) == (entry.source, 40)


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (MediaError("is damaged", "in.mov"), False),
        (MediaError("no space left", "out.mov"), False),
        (_caused(MediaError("the store could not read it", "s3://bucket/in.mov"), OSError("reset")), True),
        (_caused(MediaError("no permission", "s3://bucket/in.mov"), PermissionError("no")), False),
        (_caused(MediaError("is damaged", "s3://bucket/in.mov"), MediaError("is damaged", "copy.mov")), False),
        (MediaError("is damaged", "s3://bucket/in.mov"), False),
        (ChangedError("was changed", "in.mov"), True),
        (StageError("its worker died several times", "part", (0, 9)), True),
        (StageError("out of memory", "neural", (0, 9)), False),
        (ClusterError("the scheduler is lost"), True),
        (LeaseLost("taken over"), True),
        (ConnectionResetError("reset"), True),
        (TimeoutError("slow"), True),
        (ConfigError("wrong"), False),
        (ValueError("a fault"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, passing: bool) -> None:
    assert may_pass(error) is passing


def _attempt(tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    def fail(*_: object) -> Outcome:
        raise error

    monkeypatch.setattr("restore.job.attempt._restored", fail)
    config = JobConfig(inputs=("in",), output=str(tmp_path))
    task = Task(_item(tmp_path, "a"), place(tmp_path / "out" / "a.mov"), "key")
    return attempt(task, config, lambda: (None, config.options()), lambda *_: None)


def test_a_fault_of_the_program_fails_one_film_and_is_logged_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = _attempt(tmp_path, ZeroDivisionError("division by zero"), monkeypatch)
    assert outcome == Outcome("failed", error="division by zero")
    assert caplog.records[0].exc_info


def test_a_film_that_somebody_else_holds_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Holder("t", "restore", "host", "m", 1, "b", "now", 60, 0.0)
    assert _attempt(tmp_path, LeaseHeld("held", "x", holder), monkeypatch).state == "elsewhere"


def test_files_that_arrive_are_told_once_when_they_have_settled() -> None:
    def item(name: str, version: str) -> Item:
        return Item(place(f"in/{name}"), name, "film", Stat(1, version))

    arrivals = Arrivals(settle_seconds=10)
    assert arrivals.settled([item("a", "1")], 0) == []
    assert arrivals.settled([item("a", "1"), item("b", "1")], 9) == []
    assert arrivals.settled([item("a", "2"), item("b", "1")], 15) == []  # a is still being written
    assert arrivals.settled([item("a", "2"), item("b", "1")], 20) == [item("b", "1")]
    assert arrivals.settled([item("a", "2"), item("b", "1")], 25) == [item("a", "2")]
    assert arrivals.settled([item("a", "2"), item("b", "1")], 99) == []
    assert arrivals.settled([item("b", "1")], 100) == []
    assert arrivals.settled([item("a", "2")], 101) == []
    assert arrivals.settled([item("a", "2")], 111) == [item("a", "2")]  # it had gone, and came back


def test_a_signal_is_told_by_name() -> None:
    stop = Stop()
    stop.by_signal(15, None)
    assert stop.reason == "stopped by SIGTERM"


def test_the_speed_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    figures = Figures()
    assert figures.frames_per_second == 0
    figures.add_frames(1)
    for _ in range(30):
        now[0] += 1
        figures.add_frames(10)
    assert figures.frames_per_second == pytest.approx(301 / 30)
    now[0] += 61
    assert figures.frames_per_second == 0
    figures.add_frames(5)
    assert figures.frames == 306
