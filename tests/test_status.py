from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from jobs import write_config, write_photo

from restore.cli.job import status as command
from restore.errors import ConfigError, MediaError
from restore.job.journal import FOLDER
from restore.job.record import write_record
from restore.job.status import status
from restore.lease import lease
from restore.storage import place


def work_folder(output: Path, parts: int = 4, done: int = 2) -> Path:
    """Write what a film that is being restored has in its work folder; the key of one part is an old one."""
    folder = Path(f"{output}.restore")
    (folder / "parts").mkdir(parents=True)
    spans = [(number * 10, number * 10 + 10) for number in range(parts)]
    plan = {"key": "now", "frames": [0, 10 * parts], "parts": spans, "source": "in.mov"}
    (folder / "plan.json").write_text(json.dumps(plan))
    for number in range(done + 1):
        key = "now" if number < done else "old"
        record = {"key": key, "first": number * 10, "stop": number * 10 + 10}
        (folder / "parts" / f"{number:06d}.json").write_text(json.dumps(record))
    return folder


def report(root: Path, exit_code: int | None, **states: str) -> None:
    """Write the report of a job's run."""
    films = [
        {
            "output": str(root / f"{name}.mov"), "state": state, "frames": 5, "total_frames": 50, "parts": 1,
            "error": "is damaged" if state == "failed" else None,
        }
        for name, state in states.items()
    ]  # fmt: skip
    content = {"started": "2026-01-01T02:00:00Z", "finished": None, "exit_code": exit_code, "films": films}
    content["output"] = str(root)
    if exit_code is not None:
        content["finished"] = "2026-01-01T03:00:00Z"
    (root / FOLDER).mkdir(parents=True)
    (root / FOLDER / "report.json").write_text(json.dumps(content))


def result(output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(b"12345")
    write_record(place(output), {"source": "in.mov", "frames": 7, "parts": 2})


def test_a_film_that_is_being_restored_is_told_by_its_work_folder(tmp_path: Path) -> None:
    output = tmp_path / "out.mkv"
    folder = work_folder(output)
    for target in (output, folder, f"{folder}/"):
        (film,) = status(target).films
        assert (film.state, film.frames, film.total_frames, film.parts, film.total_parts) == (
            "interrupted", 20, 40, 2, 4,
        )  # fmt: skip
    with lease(place(folder / "lease"), owner="restore"):
        told = status(output)
        assert told.films[0].state == "running"
        assert told.text().startswith(f"running: {output}, 20 of 40 frames, 2 of 4 parts (restore on ")


def test_a_finished_film_is_told_by_its_record(tmp_path: Path) -> None:
    result(tmp_path / "out.mkv")
    assert status(tmp_path / "out.mkv").text() == f"done: {tmp_path}/out.mkv, 7 of 7 frames, 2 of 2 parts\n1 done"


def test_a_file_without_a_record_is_not_called_done(tmp_path: Path) -> None:
    (tmp_path / "in.mkv").write_bytes(b"a source")
    with pytest.raises(MediaError, match="has no record of how it was made"):
        status(tmp_path / "in.mkv")


def test_a_root_tells_done_running_failed_and_what_waits(tmp_path: Path) -> None:
    root = tmp_path / "out"
    report(root, None, a="running", b="done", c="failed", d="waiting", e="skipped", f="elsewhere")
    folder = work_folder(root / "a.mov")
    result(root / "b.mov")
    result(root / "by" / "hand.mov")
    with lease(place(root / FOLDER / "lease"), owner="restore job"), lease(place(folder / "lease")):
        told = status(root)
    assert told.running
    assert told.running.startswith("restore job on ")
    assert told.counts == {"done": 3, "elsewhere": 1, "failed": 1, "running": 1, "waiting": 1}
    lines = told.text().splitlines()
    assert lines[0].startswith("job: running (restore job on ")
    assert lines[1].startswith(f"running: {root}/a.mov, 20 of 40 frames, 2 of 4 parts (")
    assert lines[2] == f"failed: {root}/c.mov, 5 of 50 frames (is damaged)"
    assert lines[-1] == "3 done, 1 elsewhere, 1 failed, 1 running, 1 waiting"


@pytest.mark.parametrize("name", ["out", "./out/", "mounted"])
def test_a_root_by_another_name_tells_each_result_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    report(tmp_path / "out", 3, a="done", b="failed")
    result(tmp_path / "out" / "a.mov")
    (tmp_path / "mounted").symlink_to("out")
    monkeypatch.chdir(tmp_path)
    told = status(name)
    assert told.counts == {"done": 1, "failed": 1}
    assert [film.name for film in told.films] == [f"{Path(name)}/a.mov", f"{Path(name)}/b.mov"]


def test_of_a_job_that_died_nothing_is_running(tmp_path: Path) -> None:
    report(tmp_path, None, a="running", b="running")
    work_folder(tmp_path / "a.mov")
    told = status(tmp_path)
    assert told.counts == {"interrupted": 2}
    assert told.text().startswith("job: not running; its run of 2026-01-01T02:00:00Z died")


def test_the_last_run_is_told(tmp_path: Path) -> None:
    report(tmp_path, 3, a="failed")
    last = "job: not running; its last run ended 2026-01-01T03:00:00Z with exit code 3"
    assert status(tmp_path).text().startswith(last)
    work_folder(tmp_path / "a.mov")
    assert status(tmp_path).counts == {"failed": 1}


def test_by_its_configuration_a_job_also_tells_what_it_has_not_seen_yet(tmp_path: Path) -> None:
    config = write_config(tmp_path, "tiny")
    write_photo(tmp_path / "in" / "a.png")
    write_photo(tmp_path / "in" / "b.png")
    assert status(config).counts == {"waiting": 2}
    result(tmp_path / "out" / "b.png")
    assert status(config).counts == {"done": 1, "waiting": 1}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"frames": null}'])
def test_what_is_being_written_does_no_harm(tmp_path: Path, text: str) -> None:
    folder = work_folder(tmp_path / "a.mov")
    (folder / "plan.json").write_text(text)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "report.json").write_text(text)
    assert status(tmp_path).counts == {"interrupted": 1}


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="nothing: there is no result, work folder, output root or configuration"):
        status(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read"):
        status(tmp_path / "nothing.yaml")


def test_the_command_prints_lines_or_json(tmp_path: Path) -> None:
    result(tmp_path / "out.mkv")
    assert "1 done" in CliRunner().invoke(command, [str(tmp_path)]).output
    found = json.loads(CliRunner().invoke(command, [str(tmp_path), "--json"]).output)
    assert found["counts"] == {"done": 1}
    assert found["films"][0]["name"] == str(tmp_path / "out.mkv")
