from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from restore import config
from restore.clip import Clip
from restore.config import dump_pipeline, load_pipeline, settings_hash
from restore.errors import ConfigError
from restore.stage import Stage, Writes


@dataclass(frozen=True)
class Tint:
    """A stage with a setting of every usual kind."""

    name: ClassVar[str] = "tint"
    writes: ClassVar[Writes] = "ab"

    weights: str = "compact-v1"
    mode: Literal["warm", "on"] = "warm"
    batch: int = 4
    strength: float = 1.0
    flat: bool = False
    factor: int | None = None
    shift: tuple[float, float] = (0.0, 0.0)
    folder: Path = Path()

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")

    @property
    def radius(self) -> int:
        return 0

    def __call__(self, clip: Clip) -> Clip:
        return clip


@dataclass(frozen=True)
class Gate:
    """A stage with a setting that has no default."""

    name: ClassVar[str] = "gate"
    writes: ClassVar[Writes] = "luma"

    reach: int
    label: str | int = ""

    @property
    def radius(self) -> int:
        return self.reach

    def __call__(self, clip: Clip) -> Clip:
        return clip


@dataclass(frozen=True)
class Tag:
    """Settings of something that is not a stage."""

    name: ClassVar[str] = "tag"

    weight: float = 1.0


STAGES: dict[str, type[Stage]] = {"tint": Tint, "gate": Gate}


def load(tmp_path: Path, text: str, *overrides: str) -> tuple[Stage, ...]:
    path = tmp_path / "film.yaml"
    path.write_text(text, encoding="utf-8")
    return load_pipeline(path, overrides, STAGES)


def test_pipeline_is_read_in_order_with_defaults_for_what_it_does_not_say(tmp_path: Path) -> None:
    text = """
stages:
  - gate: {reach: 2}
  - tint:
      strength: 2
      shift: [1, 2.5]
      mode: on
  - tint
  - tint:
"""
    first = Tint(strength=2.0, shift=(1.0, 2.5), mode="on")
    assert load(tmp_path, text) == (Gate(reach=2), first, Tint(), Tint())


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("batch=8", Tint(batch=8)),
        ("strength=1e-3", Tint(strength=0.001)),
        ("strength=2", Tint(strength=2.0)),
        ("flat=true", Tint(flat=True)),
        ("factor=null", Tint()),
        ("shift=[1, 2]", Tint(shift=(1.0, 2.0))),
        ("mode=on", Tint(mode="on")),
        ("weights=2024", Tint(weights="2024")),
        ("weights=", Tint(weights="")),
        ("weights='quoted: text'", Tint(weights="quoted: text")),
        ("weights=reel #2: the = end.pth", Tint(weights="reel #2: the = end.pth")),
        ("weights=[half", Tint(weights="[half")),
        ("folder=a/b", Tint(folder=Path("a/b"))),
    ],
)
def test_option_sets_a_field_from_yaml_or_else_text(tmp_path: Path, override: str, expected: Tint) -> None:
    assert load(tmp_path, "stages: [tint]", f"tint.{override}") == (expected,)


def test_last_option_wins_over_earlier_ones_and_the_file(tmp_path: Path) -> None:
    text = "stages: [{tint: {batch: 2, strength: 3}}]"
    assert load(tmp_path, text, "tint.batch=5", "tint.batch=6") == (Tint(batch=6, strength=3.0),)


def test_option_can_give_what_the_file_leaves_out_or_has_wrong(tmp_path: Path) -> None:
    assert load(tmp_path, "stages: [gate, tint: {batch: many}]", "gate.reach=1", "tint.batch=1") == (
        Gate(1),
        Tint(batch=1),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "stages:\n- tint\n- tintt:\n",
            r"film.yaml:3: unknown stage 'tintt' \(did you mean tint\? known: tint, gate\)",
        ),
        (
            "stages:\n- tint:\n    bach: 3\n",
            r"film.yaml:3: tint: unknown setting 'bach' \(did you mean batch\? known: weights,",
        ),
        (
            "stages:\n- tint:\n    batch: '3'\n",
            r"film.yaml:3: tint.batch: input should be a valid integer \(found '3'\)",
        ),
        ("stages: [{tint: {batch: 3.5}}]", r"film.yaml:1: tint.batch: input should be a valid integer"),
        ("stages: [{tint: {batch: true}}]", r"tint.batch: input should be a valid integer \(found True\)"),
        ("stages: [{tint: {flat: 1}}]", r"tint.flat: input should be a valid boolean \(found 1\)"),
        ("stages: [{tint: {weights: 3}}]", r"tint.weights: input should be a valid string \(found 3\)"),
        ("stages: [{tint: {mode: cold}}]", r"tint.mode: input should be 'warm' or 'on' \(found 'cold'\)"),
        ("stages: [{tint: {shift: [1, x]}}]", r"tint.shift\[1\]: input should be a valid number \(found 'x'\)"),
        ("stages: [{tint: {weights: !!binary aGk=}}]", r"tint.weights: expected text, numbers, lists or mappings"),
        ("stages:\n- gate\n\n- tint:\n    batch: 0\n", r"film.yaml:2: gate: reach must be given"),
        ("stages:\n- tint:\n    batch: 0\n", r"film.yaml:2: tint: batch must be at least 1, got 0"),
        ("stages:\n- tint:\n    batch: 1\n    batch: 2\n", r"film.yaml:4: 'batch' is given twice"),
        ("stages: [tint]\nstages: [gate]\n", r"film.yaml:2: 'stages' is given twice"),
        ("stages: [{tint: {weights: {a: 1, a: 2}}}]", r"film.yaml:1: 'a' is given twice"),
        ("stages: [{[tint]: 1}]", r"film.yaml:1: a key must be text"),
        ("stages: [{tint: 3}]", r"film.yaml:1: the settings of tint must be `field: value`"),
        ("stages: [{tint: , gate: }]", r"film.yaml:1: expected one stage, as in `- smooth: \{radius: 3\}`"),
        ("stages: [[tint]]", r"film.yaml:1: expected one stage"),
        ("stages: tint", r"film.yaml: expected a list `stages:` with at least one stage"),
        ("stages: []", r"expected a list `stages:`"),
        ("- tint", r"expected a list `stages:`"),
        ("", r"expected a list `stages:`"),
        ("stage: [tint]", r"film.yaml:1: unknown key 'stage' \(did you mean stages\? known: stages\)"),
        ("stages: [tint", r"film.yaml:1: expected ',' or '\]'"),
        ("stages: [tint]\n---\nstages: [tint]", r"film.yaml:2: but found another document"),
        ("stages: [{tint: {weights: !!python/name:os.system }}]", r"film.yaml:1: could not determine a constructor"),
        ("stages: [\0]", r"film.yaml: cannot be read"),
    ],
)
def test_mistake_in_a_file_is_reported_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tint", r"--set tint: expected STAGE.FIELD=VALUE"),
        ("tint=3", r"--set tint=3: expected STAGE.FIELD=VALUE"),
        (".batch=3", r"film.yaml has no stage '' \(known: tint, gate\)"),
        ("tnt.batch=3", r"--set tnt.batch=3: film.yaml has no stage 'tnt' \(did you mean tint\? known: tint, gate\)"),
        ("tint.bach=3", r"--set tint.bach=3: tint: unknown setting 'bach' \(did you mean batch\?"),
        ("tint.batch=many", r"--set tint.batch=many: tint.batch: input should be a valid integer \(found 'many'\)"),
        ("tint.batch=1.5", r"--set tint.batch=1.5: tint.batch: input should be a valid integer"),
        ("tint.batch=", r"tint.batch: input should be a valid integer \(found None\)"),
        ("tint.shift=[1, 2", r"tint.shift: input should be a valid array \(found '\[1, 2'\)"),
        ("tint.batch=-1", r"film.yaml:1, --set tint.batch=-1: tint: batch must be at least 1, got -1"),
    ],
)
def test_mistake_in_an_option_is_reported_with_its_text(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, "stages: [tint, gate: {reach: 1}]", override)


def test_option_for_a_stage_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"film.yaml has tint 2 times; change the file instead"):
        load(tmp_path, "stages: [tint, tint]", "tint.batch=1")


def test_pipeline_is_found_by_name_among_the_shipped_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "film.yaml").write_text("stages: [tint]")
    monkeypatch.setattr(config, "data_folder", lambda kind: tmp_path)
    assert load_pipeline("film", [], STAGES) == (Tint(),)
    with pytest.raises(ConfigError, match=r"no pipeline 'flim' \(did you mean film\? known: film\); .* end in .yaml"):
        load_pipeline("flim", [], STAGES)


def test_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone.yaml: cannot be read: No such file"):
        load_pipeline(tmp_path / "gone.yaml", [], STAGES)
    (tmp_path / "latin.yml").write_bytes(b"stages: [\xff]")
    with pytest.raises(ConfigError, match=r"latin.yml: cannot be read: .*can't decode"):
        load_pipeline(tmp_path / "latin.yml", [], STAGES)


@pytest.mark.parametrize(
    "text", ["", "yes", "1e-3", "12", "012", "null", "~", "2020-01-01", "1:30", "a: b #c", "<<", "\n", "ü", "'", "true"]
)
def test_dumped_pipeline_loads_back_to_equal_stages(tmp_path: Path, text: str) -> None:
    tint = Tint(text, "on", 7, 1e-7, True, 3, (1e22, -0.5), Path("a") / "b")
    stages = (Gate(3, text), tint, Tint(), Tint(strength=float("inf")))
    dumped = dump_pipeline(stages)
    assert load(tmp_path, dumped) == stages
    assert dump_pipeline(load(tmp_path, dumped)) == dumped


def test_dump_shows_every_setting(tmp_path: Path) -> None:
    assert dump_pipeline([Gate(3)]) == "stages:\n- gate:\n    reach: 3\n    label: ''\n"


def test_stage_made_with_a_wrong_type_cannot_be_dumped() -> None:
    with pytest.raises(ConfigError, match=r"Gate.reach: input should be a valid integer.*found 'far'"):
        dump_pipeline([Gate("far")])  # type: ignore[arg-type]


def test_hash_does_not_depend_on_the_order_of_keys_or_on_how_a_number_is_written() -> None:
    assert settings_hash({"a": 1, "b": (2, None)}) == settings_hash({"b": [2, None], "a": 1})
    assert settings_hash(Tint(strength=2)) == settings_hash(Tint(strength=2.0))


def test_hash_depends_on_every_setting_stage_and_order() -> None:
    variants = [
        settings_hash((Tint(), Gate(1))),
        settings_hash((Gate(1), Tint())),
        settings_hash((Tint(), Gate(2))),
        settings_hash((Tint(),), Gate(1)),
        settings_hash((Tint(), Gate(1)), None),
        settings_hash((Tint(flat=True), Gate(1))),
        settings_hash((replace(Tint(), folder=Path("x")), Gate(1))),
        settings_hash({"a": 1}),
        settings_hash({"a": "1"}),
        settings_hash([["a", 1]]),
        settings_hash(Path("a")),
    ]
    assert len(set(variants)) == len(variants)


def test_hash_is_that_of_a_text_which_no_process_or_machine_changes() -> None:
    text = '[{"a":null,"b":["\\u00fc",0.1]},["tag",{"weight":2.0}]]'
    assert settings_hash({"b": ["ü", 0.1], "a": None}, Tag(2)) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("value", [Fraction(1, 2), {1, 2}, {1: 2}, Tint])
def test_hash_refuses_what_has_no_stable_text(value: object) -> None:
    with pytest.raises(TypeError, match="cannot hash a "):
        settings_hash(value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        settings_hash(float("nan"))


@pytest.mark.parametrize(("name", "length"), [("film", 3), ("still", 2)])
def test_shipped_pipelines_name_the_stages_of_colouring(name: str, length: int) -> None:
    stages: dict[str, type[Stage]] = {"neural": Tint, "smooth": Tint, "paint": Tint}
    assert len(load_pipeline(name, [], stages)) == length
