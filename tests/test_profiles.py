"""Profiles: which an output name chooses, what they make of a source, and what is refused before work starts."""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from parts import like

from restore.clip import Subsampling
from restore.errors import ConfigError
from restore.output.encode import check_profile
from restore.output.profiles import Profile, choose_profile, index_clock, load_profile, subsampling_for
from restore.source.probe import Source


@pytest.mark.parametrize("kept", ["420", "422", "444", None])
def test_archive_never_has_less_chroma_than_the_source(small_source: Source, kept: Subsampling | None) -> None:
    source = replace(small_source, subsampling=kept)
    assert subsampling_for(load_profile("archive"), source) == ("444" if kept == "444" else "422")


def test_the_clock_of_a_part_is_never_finer_than_matroska_can_count(small_source: Source) -> None:
    assert index_clock(replace(small_source, average_rate=Fraction(90000))) == 500


def test_access_says_that_it_rounds_luma(small_source: Source, caplog: pytest.LogCaptureFixture) -> None:
    check_profile(load_profile("access"), like(small_source, depth=12))
    assert "rounds luma from 12 to 10 bits" in caplog.text


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("a.mp4", "access"),
        ("a.M4V", "access"),
        ("a.mov", "access"),
        ("a.mkv", "access"),
        ("out", "sequence"),
        ("out/scan_%06d.dpx", "sequence"),
    ],
)
def test_the_name_of_the_output_chooses_the_profile(output: str, name: str) -> None:
    assert choose_profile(Path(output)) == name


def test_unknown_outputs_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a\.avi: films are written to \.mp4, \.m4v, \.mov, \.mkv"):
        choose_profile(Path("a.avi"))
    with pytest.raises(ConfigError, match=r"a pattern as in frame_%06d\.png"):
        choose_profile(Path("a.png"))
    with pytest.raises(ConfigError, match=r"the archive profile writes \.mkv"):
        load_profile("archive", Path("a.mp4"))
    assert load_profile("sequence", Path("out/a_%d.PNG")).part_suffix == ".png"
    assert load_profile("sequence", Path("out")).part_suffix == ".dpx"
    assert load_profile("edit", Path("a.mov")).part_suffix == ".mkv"


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"did you mean access\? known: access, archive, edit, sequence"):
        load_profile("acces")


def test_a_profile_of_the_user_is_read_and_checked(small_source: Source, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "description": "Small.",
        "suffixes": [".mkv"],
        "codec": "libx264",
        "depths": [8],
        "subsampling": "420",
        "range": "source",
        "options": {"crf": "30"},
        "threads": 1,
    }
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(settings))
    assert load_profile(file).name == "small"
    check_profile(load_profile(file), small_source)
    for change, message in (
        ({"subsampling": "411"}, "small.yaml: subsampling: input should be"),
        ({"preset": "slow"}, r"unknown setting 'preset' \(.*known: name, description"),
        ({"depths": []}, "must not be empty"),
    ):
        file.write_text(yaml.safe_dump(settings | change))
        with pytest.raises(ConfigError, match=message):
            load_profile(file)
    file.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="expected settings as `name: value`"):
        load_profile(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_profile(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("change", "reason"), [({"codec": "h267"}, "h267"), ({"options": {"preset": "x"}}, "Invalid argument")]
)
def test_an_encoder_that_does_not_open_is_said_before_work_starts(
    small_source: Source, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=f"cannot encode 96x64: .*{reason}.*choose another with --profile"):
        check_profile(replace(load_profile("access"), **change), replace(small_source, width=96, height=64))


def test_interlaced_heights_that_h264_cannot_hold_get_full_chroma(small_source: Source) -> None:
    source = like(small_source, 64, 46, field_order="tff")
    assert subsampling_for(load_profile("access"), source) == "444"
    assert subsampling_for(load_profile("access"), replace(source, field_order="progressive")) == "420"
    assert isinstance(load_profile("access"), Profile)


def test_nothing_is_logged_for_an_ordinary_film(small_source: Source, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_profile(load_profile("access"), like(small_source))
        check_profile(load_profile("archive"), like(small_source, depth=10))
        check_profile(load_profile("sequence"), like(small_source))
    assert caplog.text == ""
