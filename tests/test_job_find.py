from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from restore.errors import ConfigError, MediaError
from restore.job import JobConfig
from restore.job.find import Item, find, output_place
from restore.job.record import claim, disclaim, finished, read_record, record_place, write_record
from restore.storage import Stat, place


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of files whose content does not matter."""
    for name in (
        "in/a.mov", "in/b.AVI", "in/deep/er/c.mp4", "in/deep/photo.tif", "in/notes.txt", "in/.hidden.mov",
        "in/.cache/x.mov", "in/d.mov.part", "in/e.tmp", "in/old.mov.restore/parts/1.mkv", "in/a.mov.lease/1.json",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def found(root: Path, inputs: str = "in", **settings: Any) -> dict[str, str]:
    """Return sources and outputs, relative to their roots."""
    config = JobConfig(inputs=(f"{root}/{inputs}",), output=settings.pop("output", f"{root}/out"), **settings)
    return {str(item.source.path.relative_to(root / "in")): item.output for item in find(config)[0]}


def test_films_and_stills_are_found_by_suffix_and_mirrored(tree: Path) -> None:
    assert found(tree) == {
        "a.mov": "a.mov", "b.AVI": "b.mp4", "deep/er/c.mp4": "deep/er/c.mp4", "deep/photo.tif": "deep/photo.tif",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        ("in/*.mov", {"a.mov": "a.mov"}),
        ("in/a.mov", {"a.mov": "a.mov"}),
        ("in/**/*.mp4", {"deep/er/c.mp4": "deep/er/c.mp4"}),
        ("in/deep/*", {"deep/photo.tif": "photo.tif"}),
        ("in/deep/**", {"deep/er/c.mp4": "er/c.mp4", "deep/photo.tif": "photo.tif"}),
        ("in/d*/e?/c.mp4", {"deep/er/c.mp4": "deep/er/c.mp4"}),
        ("in/nothing*", {}),
        ("in/Reels [1922]", {"Reels [1922]/What?.mov": "What?.mov"}),
        ("in/Reels [1922]/*.mov", {"Reels [1922]/What?.mov": "What?.mov"}),
        ("in/Reels [1922]/What?.mov", {"Reels [1922]/What?.mov": "What?.mov"}),
    ],
)
def test_what_a_glob_names_is_mirrored_below_its_fixed_part(tree: Path, inputs: str, names: dict[str, str]) -> None:
    if "Reels" in inputs:  # names with wildcards in them
        (tree / "in" / "Reels [1922]").mkdir()
        (tree / "in" / "Reels [1922]" / "What?.mov").write_text("a film")
    assert found(tree, inputs) == names


def test_patterns_choose_names(tree: Path) -> None:
    assert set(found(tree, include=("*.mov", "notes.*"))) == {"a.mov", "notes.txt"}
    assert set(found(tree, include=("deep/**",))) == {"deep/er/c.mp4", "deep/photo.tif"}
    assert set(found(tree, exclude=("*.tif", "deep/er/*"))) == {"a.mov", "b.AVI"}


def test_an_archive_profile_names_its_container(tree: Path) -> None:
    assert found(tree, profile="archive")["a.mov"] == "a.mkv"


def test_results_below_an_input_are_no_sources(tree: Path) -> None:
    (tree / "in" / "colour").mkdir()
    (tree / "in" / "colour" / "a.mov").write_text("a result")
    assert "colour/a.mov" not in found(tree, output=f"{tree}/in/colour")
    with pytest.raises(ConfigError, match="is the output root; results would be taken for sources"):
        found(tree, output=f"{tree}/in")
    (tree / "link").symlink_to("in")
    with pytest.raises(ConfigError, match="is the output root; results would be taken for sources"):
        found(tree, output=f"{tree}/link")


def test_an_input_that_is_not_there_is_an_error_and_not_an_empty_one(tree: Path) -> None:
    with pytest.raises(ConfigError, match=r"inputs: .*gone is neither a file nor a folder; create or mount it"):
        found(tree, "gone/**/*.mov")


def test_an_input_cannot_leave_its_root_after_a_wildcard(tree: Path) -> None:
    with pytest.raises(ConfigError, match=r"has \.\. after a wildcard"):
        found(tree, "in/*/../../secret/*.mov")


def test_links_in_circles_and_to_nowhere_do_no_harm(tree: Path) -> None:
    (tree / "in" / "circle").symlink_to(tree / "in")
    (tree / "in" / "nowhere.mov").symlink_to(tree / "gone.mov")
    (tree / "in" / "linked.mov").symlink_to(tree / "in" / "a.mov")
    assert set(found(tree)) == {"a.mov", "b.AVI", "deep/er/c.mp4", "deep/photo.tif", "linked.mov"}


def test_a_folder_that_cannot_be_read_is_named(
    tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def walk(top: Path, onerror: Any) -> Any:
        onerror(PermissionError(13, "Permission denied", str(top)))
        return iter(())

    monkeypatch.setattr("os.walk", walk)
    with caplog.at_level(logging.WARNING):
        assert found(tree) == {}
    assert "in: the folder cannot be read (Permission denied); what is in it is left out" in caplog.text


def test_sources_with_one_output_are_all_named(tree: Path) -> None:
    (tree / "in" / "b.mkv").write_text("another b")
    (tree / "in" / "b.mp4").write_text("yet another b")
    config = JobConfig(inputs=(f"{tree}/in",), output=f"{tree}/out", profile="archive")
    _, conflicts = find(config)
    assert sorted(Path(name).name for name in conflicts) == ["b.AVI", "b.mkv", "b.mp4"]
    assert "its result would be b.mkv, as that of" in conflicts[f"{tree}/in/b.mp4"]


@pytest.mark.parametrize("name", ["../a.mov", "/etc/a.mov", "x/../../a.mov"])
def test_an_output_cannot_have_a_name_outside_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a name inside"):
        output_place(place(tmp_path), name)


@pytest.mark.parametrize(
    "link", ["reels", "reels/a.mov", "reels/a.mov.json", "reels/a.mov.restore", "reels/a.mov.lease"]
)
def test_an_output_cannot_leave_the_root_through_a_link(tmp_path: Path, link: str) -> None:
    root, outside = tmp_path / "out", tmp_path / "outside"
    (root / link).parent.mkdir(parents=True)
    outside.mkdir()
    (root / link).symlink_to(outside)
    with pytest.raises(MediaError, match="a symbolic link leads out of the output root"):
        output_place(place(root), "reels/a.mov")


def test_links_inside_the_root_are_fine(tmp_path: Path) -> None:
    (tmp_path / "1922").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "1922")
    assert output_place(place(tmp_path), "latest/a.mov") == place(tmp_path / "latest" / "a.mov")


def _item(tmp_path: Path) -> Item:
    return Item(place(tmp_path / "in.mov"), "out.mov", "film", Stat(1, "1"))


def test_a_result_is_finished_if_content_settings_and_size_are_the_same(tmp_path: Path) -> None:
    output = place(tmp_path / "out.mov")
    output.path.write_bytes(b"12345")
    record = {"version": "v", "settings": "s", "bytes": 5, "source": "somewhere/else"}
    write_record(output, record)
    assert finished(output, "v", "s") == record
    assert finished(output, "w", "s") is None
    assert finished(output, "v", "t") is None
    output.path.write_bytes(b"123")
    assert finished(output, "v", "s") is None
    output.path.unlink()
    assert finished(output, "v", "s") is None


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_record_that_is_none_does_not_count(tmp_path: Path, text: str) -> None:
    output = place(tmp_path / "out.mov")
    record_place(output).path.write_text(text)
    assert read_record(output) is None


def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    output, item = place(tmp_path / "out.mov"), _item(tmp_path)
    output.path.write_bytes(b"precious")
    with pytest.raises(
        MediaError, match=r"exists already, and is no result of .*in.mov; move it away, or set overwrite"
    ):
        claim(item, "v", output, overwrite=False)
    write_record(output, {"source": "another.mov", "version": "w"})
    with pytest.raises(MediaError, match="exists already"):
        claim(item, "v", output, overwrite=False)
    assert json.loads(record_place(output).read_bytes())["source"] == "another.mov"
    claim(item, "v", output, overwrite=True)
    claim(item, "w", output, overwrite=False)  # its own by now


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_source_is_never_replaced_by_its_result(tmp_path: Path, overwrite: bool) -> None:
    item = _item(tmp_path)
    item.source.path.write_bytes(b"the original")
    (tmp_path / "link").symlink_to(".")
    with pytest.raises(MediaError, match="the output would overwrite the source; give it another name"):
        claim(item, "v", place(tmp_path / "link" / "in.mov"), overwrite)
    assert {path.name for path in tmp_path.iterdir()} == {"in.mov", "link"}


def test_the_same_content_under_another_name_may_be_done_again(tmp_path: Path) -> None:
    output = place(tmp_path / "out.mov")
    output.path.write_bytes(b"a result")
    write_record(output, {"source": "old/mount/in.mov", "version": "v"})
    claim(_item(tmp_path), "v", output, overwrite=False)


def test_a_claim_of_which_nothing_came_is_forgotten(tmp_path: Path) -> None:
    output = place(tmp_path / "out.mov")
    claim(_item(tmp_path), "v", output, overwrite=False)
    disclaim(output)
    assert list(tmp_path.iterdir()) == []
    claim(_item(tmp_path), "v", output, overwrite=False)
    output.path.write_bytes(b"the result of an earlier run")
    disclaim(output)
    assert record_place(output).stat()
