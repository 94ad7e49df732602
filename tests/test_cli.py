"""The command line as a user meets it: what it prints, where, and how it exits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import pytest
from media import make_film

from restore import __version__, cli, weights
from restore.cli.bars import Bars
from restore.cli.options import Rate, Time
from restore.lease import lease
from restore.storage import place


def test_a_run_says_where_the_result_is_and_how_long_it_took(
    tmp_path: Path, tiny_weights: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    film, output = make_film(tmp_path / "in.mp4", frames=6), tmp_path / "out.mp4"
    assert call("run", film, "-o", output, "--weights", tiny_weights, "--device", "cpu") == 0
    said = capsys.readouterr()
    assert f"{output}: 6 frames in" in said.out
    assert "frames a second" in said.out
    assert output.is_file()


def test_a_users_error_is_one_line_and_exit_status_1(
    tmp_path: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", tmp_path / "nothing.mp4", "-o", tmp_path / "out.mp4") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("restore: ")
    assert said.err.count("\n") == 1
    assert "nothing.mp4" in said.err


def test_a_run_on_whose_output_another_works_exits_with_75(
    tmp_path: Path, tiny_weights: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    films = [make_film(tmp_path / name, frames=3) for name in ("a.mp4", "b.mp4")]
    done = tmp_path / "done"
    with lease(place(done / "a.mp4.restore" / "lease")):
        assert call("run", films[0], "-o", done / "a.mp4", "--weights", tiny_weights) == 75
        said = capsys.readouterr().err
        assert f"restore: {done / 'a.mp4'}: another run is working on this output" in said
        assert said.count("\n") == 1
        assert call("run", *films, "-o", done, "--weights", tiny_weights) == 75
        assert call("run", films[0], tmp_path / "none.mp4", "-o", done, "--weights", tiny_weights) == 1
    assert (done / "b.mp4").is_file()


def test_debug_keeps_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "restore", "run", str(tmp_path / "no.mp4"), "-o", str(tmp_path / "out.mp4")]
    quiet = subprocess.run(command, capture_output=True, text=True, check=False)
    loud = subprocess.run(command, capture_output=True, text=True, check=False, env={"RESTORE_DEBUG": "1"})
    assert quiet.returncode == 1
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr


def test_usage_errors_name_the_option(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "in.mp4") == 2
    assert "--output" in capsys.readouterr().err
    assert call("run", "in.mp4", "-o", "out.mp4", "--start", "soon") == 2
    assert "not a time" in capsys.readouterr().err
    assert call("run", "in.mp4", "-o", "out.mp4", "--rate", "fast") == 2
    assert "not a frame rate" in capsys.readouterr().err


def test_the_version_is_told(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert __version__ in capsys.readouterr().out


def test_ctrl_c_tells_how_to_continue(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: Any) -> None:
        raise click.Abort

    monkeypatch.setattr(cli.cli, "main", interrupted)
    assert call() == 130
    assert "run the same command again to continue" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("12", 12), ("1:30", 90), ("01:00:00.5", Fraction(7201, 2)), ("0.04", Fraction(1, 25))]
)
def test_times_are_exact(text: str, seconds: Fraction) -> None:
    assert Time().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    ("text", "rate"),
    [("18", 18), ("24000/1001", Fraction(24000, 1001)), ("23.976", Fraction(24000, 1001)), ("16.5", Fraction(33, 2))],
)
def test_rates_are_exact(text: str, rate: Fraction) -> None:
    assert Rate().convert(text, None, None) == rate


def test_inspect_tells_people_and_programs(
    tmp_path: Path, tiny_weights: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    film = make_film(tmp_path / "in.mp4", frames=20, shots=(9,), audio="aac")
    words = ["inspect", film, "--weights", tiny_weights, "--device", "cpu"]
    assert call(*words) == 0
    told = capsys.readouterr().out
    for part in (
        "h264",
        "96x64",
        "20 in 0.80 s",
        "constant frame rate, 25.000 frames a second",
        "transfer SMPTE170M",
        "colour 20 frames in 1 part\n",
        "assumed",
        "cuts at frames 9",
        "aac",
        "about",
    ):
        assert part in told
    assert call(*words, "--json", "--no-estimate") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["shots"] == "2, cuts at frames 9"
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_inspect_names_a_variable_frame_rate(
    tmp_path: Path, tiny_weights: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    film = make_film(tmp_path / "in.mp4", frames=6, pts=[0, 1, 3, 4, 8, 9])
    assert call("inspect", film, "--weights", tiny_weights, "--no-estimate") == 0
    assert "variable frame rate" in capsys.readouterr().out


def test_weights_are_listed_and_verified(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("weights", "list") == 0
    told = capsys.readouterr().out
    for name in weights.entries():
        assert name in told
    assert "default" in told
    assert call("weights", "verify", weights.default_name()) == 0
    assert capsys.readouterr().out.startswith("ok ")


def test_unknown_weights_are_refused_with_near_names(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("weights", "fetch", "deoldify-vidoe") == 1
    assert "deoldify-video" in capsys.readouterr().err


def test_bars_are_silent_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    bars = Bars()
    bars("scan", 5, 10)
    bars("restore", 10, 10)
    bars.close()
    assert capsys.readouterr().err == ""


def test_bars_show_frames_speed_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bars = Bars()
    bars("restore", 0, 10)
    monkeypatch.setattr(bars._bars["restore"], "_time", lambda: time.time() + 20)
    bars("restore", 5, 10)
    bars.close()
    shown = capsys.readouterr().err
    assert "restore" in shown
    assert "5/10" in shown
    assert re.search(r"0\.2\dframe/s", shown), "frames a second, also where that is less than one"


def test_a_list_of_commands_says_what_each_does_in_whole_sentences() -> None:
    waiting: list[click.Group] = [cli.cli]
    while waiting:
        for name, command in waiting.pop().commands.items():
            assert not command.get_short_help_str(limit=66).endswith("..."), name  # what fits into 80 columns
            waiting += [command] if isinstance(command, click.Group) else []


def test_names_of_files_that_are_no_text_are_printed_all_the_same(tmp_path: Path) -> None:
    """Under most locales stdout is strict UTF-8, and a name of other bytes would end the command with a traceback."""
    (tmp_path / os.fsdecode(b"caf\xe9.restore") / "parts").mkdir(parents=True)
    command = [sys.executable, "-m", "restore", "status", str(tmp_path)]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stderr == ""
    assert r"caf\udce9" in done.stdout
