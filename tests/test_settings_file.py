"""Settings files: what may stand in them follows from the types of a dataclass's fields, at any depth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from restore.errors import ConfigError
from restore.settings_file import build, find, parsed, read


@dataclass(frozen=True)
class Lens:
    focal: float
    stops: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.focal <= 0:
            raise ConfigError(f"focal must be positive, found {self.focal:g}")


@dataclass(frozen=True)
class Reel:
    frames: int
    spliced: bool = False

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, found {self.frames}")


@dataclass(frozen=True)
class Camera:
    name: str
    folder: Path
    main: Lens = field(default_factory=lambda: Lens(50.0))
    spare: Lens | None = None
    reels: tuple[Reel, ...] = ()
    lenses: dict[str, Lens] = field(default_factory=dict)
    gate: tuple[float, float] = (0.0, 0.0)
    geared: Literal[0, 1] = 0
    speed: int | str = 16
    note: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    serial: str = field(default="", init=False)


GIVEN = "name: Debrie\nfolder: a/b\n"


def load(folder: Path, text: str) -> Camera:
    file = folder / "camera.yaml"
    file.write_text(text, encoding="utf-8")
    return build(Camera, read(file), file)


def test_a_file_becomes_the_dataclass_and_all_that_is_in_it(tmp_path: Path) -> None:
    text = """
name: Debrie
folder: a/b
main: {focal: 35, stops: [2, 4]}
spare: {focal: 2.5e1}
reels: [{frames: 3}, {frames: 4, spliced: true}]
lenses: {wide: {focal: 18}}
gate: [1, 2.5]
geared: 1
speed: slow
notes: {on: [1, {a: null}]}
"""
    camera = load(tmp_path, text)
    assert camera == Camera(
        "Debrie", Path("a/b"), Lens(35.0, (2, 4)), Lens(25.0), (Reel(3), Reel(4, True)), {"wide": Lens(18.0)},
        (1.0, 2.5), 1, "slow", notes={"on": [1, {"a": None}]},
    )  # fmt: skip
    assert isinstance(camera.main.focal, float)


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    assert load(tmp_path, GIVEN + "spare: null\nnote: ~\n") == Camera("Debrie", Path("a/b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam: x\n", r": unknown setting 'nam' \(did you mean name\? known: name, folder, main, "),
        (GIVEN + "serial: x\n", r": unknown setting 'serial' \(known: "),
        (GIVEN + "main: {fokal: 1}\n", r": main: unknown setting 'fokal' \(did you mean focal\? known: focal, stops\)"),
        (GIVEN + "spare: {zzz: 1}\n", r": spare: unknown setting 'zzz' \(known: focal, stops\)"),
        (GIVEN + "reels: [{frames: 1}, {fps: 1}]\n", r": reels\[1\]: unknown setting 'fps' \(known: frames, spliced\)"),
        (GIVEN + "lenses: {wide: {f: 1}}\n", r": lenses.wide: unknown setting 'f' \("),
        ("{}", r": name and folder must be given"),
        (GIVEN + "main: {}\n", r": main: focal must be given"),
        (GIVEN + "main:\n", r": main: expected settings as `name: value`, found None"),
        (GIVEN + "spare: 50\n", r": spare: expected settings as `name: value`, found 50"),
        (GIVEN + "reels: {frames: 1}\n", r": reels: input should be a valid array \(found \{'frames': 1\}\)"),
        (GIVEN + "main: {focal: a}\n", r": main.focal: input should be a valid number \(found 'a'\)"),
        (GIVEN + "main: {focal: '3'}\n", r": main.focal: input should be a valid number \(found '3'\)"),
        (GIVEN + "main: {focal: true}\n", r": main.focal: input should be a valid number \(found True\)"),
        (GIVEN + "spare: {focal: 1, stops: [1, 2.5]}\n", r": spare.stops\[1\]: input should be a valid integer"),
        (GIVEN + "reels: [{frames: 1, spliced: 1}]\n", r": reels\[0\].spliced: input should be a valid boolean"),
        (GIVEN + "gate: [1, x]\n", r": gate\[1\]: input should be a valid number \(found 'x'\)"),
        (GIVEN + "gate: [1]\n", r": gate\[1\]: field required"),
        (GIVEN + "geared: 2\n", r": geared: input should be 0 or 1 \(found 2\)"),
        (GIVEN + "speed: 1.5\n", r": speed: input should be a valid integer \(found 1.5\); speed: .* string"),
        (GIVEN + "note: 3\n", r": note: input should be a valid string \(found 3\)"),
        (GIVEN + "notes: {a: !!binary aGk=}\n", r": notes.a: expected text, numbers, lists or mappings \(found b"),
        (GIVEN + "notes: {a: &x [*x]}\n", r": notes.a: expected text, numbers, lists or mappings"),
        (GIVEN + "reels: [{frames: 1}, {frames: 0}]\n", r": reels\[1\]: frames must be at least 1, found 0"),
        (GIVEN + "main: {focal: -1}\n", r": main: focal must be positive, found -1"),
        ("- a\n", r": expected settings as `name: value`, found \['a'\]"),
        ("", r": expected settings as `name: value`, found None"),
        ("name: a\nname: b\n", r":2: 'name' is given twice"),
        ("name: [a\n", r":2: expected ',' or '\]'"),
        ("name: \0", r": cannot be read: unacceptable character"),
    ],
)
def test_a_mistake_is_one_line_with_the_file_and_the_full_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"camera\.yaml{message}") as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_class_refuses_its_own_values_under_the_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml: frames must be at least 1, found 0$"):
        build(Reel, {"frames": 0}, "x.yaml")


def test_a_setting_given_elsewhere_is_named_by_its_own_place() -> None:
    places = {"frames": "--set frames", "spliced": "x.yaml:7"}
    for values, message in (
        ({"frames": "a"}, "--set frames: reel.frames: input should be a valid integer"),
        ({"frames": 1, "spliced": 1}, "x.yaml:7: reel.spliced: input should be a valid boolean"),
        ({"spliced": True}, "x.yaml: reel: frames must be given"),
    ):
        with pytest.raises(ConfigError, match=f"^{message}"):
            build(Reel, values, "x.yaml", "reel", places)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read: No such file or directory$"):
        read(tmp_path / "gone.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match=r"latin\.yaml: cannot be read: .*can't decode byte 0xff"):
        read(tmp_path / "latin.yaml")


def test_a_file_is_found_by_the_name_of_a_shipped_one_or_its_own_path(tmp_path: Path) -> None:
    for name in ("fast.yaml", "slow.yaml", "notes.txt"):
        (tmp_path / name).write_text("")
    assert find("slow", tmp_path, "camera") == tmp_path / "slow.yaml"
    assert find("mine/slow.yml", tmp_path, "camera") == Path("mine/slow.yml")
    message = r"^there is no camera 'slo' \(did you mean slow\? known: fast, slow\); a file of your own must end"
    with pytest.raises(ConfigError, match=message):
        find("slo", tmp_path, "camera")


def test_text_that_is_no_yaml_is_named_by_where_it_was_given() -> None:
    with pytest.raises(ConfigError, match=r"^--settings:1: "):
        parsed("{a: [", "--settings")
    with pytest.raises(ConfigError, match=r"^--settings: expected settings as `name: value`, found 3"):
        parsed("3", "--settings")
    assert parsed("{temperature: 1e-3}", "--settings") == {"temperature": 0.001}
