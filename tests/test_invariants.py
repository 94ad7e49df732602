"""What every stage in the table must hold to, whatever it does."""

from __future__ import annotations

import pickle
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_clip
from numpy.typing import NDArray

from restore.clip import Clip
from restore.config import dump_pipeline, load_pipeline
from restore.stage import Stage, apply
from restore.stages import STAGES

PLANES = ("luma", "ab", "chroma", "pts")


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest, tiny_weights: Path) -> Stage:
    cls = STAGES[request.param]
    return cls(weights=str(tiny_weights), device="cpu") if request.param == "neural" else cls()  # type: ignore[call-arg]


def written(stage: Stage, clip: Clip) -> NDArray[np.generic]:
    plane = getattr(stage(clip), stage.writes)
    assert isinstance(plane, np.ndarray)
    return plane


def test_a_stage_is_a_frozen_dataclass_named_as_in_the_table(stage: Stage) -> None:
    assert is_dataclass(stage)
    assert STAGES[stage.name] is type(stage)
    assert stage.writes in ("luma", "ab", "chroma")
    assert stage.radius >= 0
    with pytest.raises(AttributeError):
        stage.radius = 99


@pytest.mark.parametrize("frames", [1, 2, 9])
@pytest.mark.parametrize("depth", [8, 10, 16])
def test_a_stage_keeps_the_frames_and_the_planes_it_does_not_write(stage: Stage, frames: int, depth: int) -> None:
    clip = make_clip(frames, 36, 52, depth=depth)
    out = apply(stage, clip, slice(0, frames))
    assert len(out) == frames
    assert out.color == clip.color
    for name in PLANES:
        if name != stage.writes:
            assert np.array_equal(getattr(out, name), getattr(clip, name)) or getattr(clip, name) is None
    plane = getattr(out, stage.writes)
    assert plane.dtype == (np.float32 if stage.writes == "ab" else clip.luma.dtype)
    assert np.isfinite(plane).all()


def test_a_stage_does_not_write_into_what_it_is_given(stage: Stage) -> None:
    clip = make_clip(5, 36, 52)
    before = {name: getattr(clip, name).copy() for name in ("luma", "ab", "pts")}
    stage(clip)
    for name, plane in before.items():
        assert np.array_equal(getattr(clip, name), plane)


def test_a_stage_has_no_state(stage: Stage) -> None:
    clip, other = make_clip(7, 36, 52), make_clip(7, 36, 52, seed=5)
    first = written(stage, clip)
    written(stage, other)
    assert np.array_equal(written(stage, clip), first)


def test_the_radius_is_honest(stage: Stage) -> None:
    """A frame does not change with what lies beyond the radius."""
    clip, middle = make_clip(15, 36, 52), 7
    near = slice(middle - stage.radius, middle + stage.radius + 1)
    alone = written(stage, clip[near])[stage.radius]
    assert np.array_equal(written(stage, clip)[middle], alone)


def test_a_stage_pickles_and_does_the_same(stage: Stage) -> None:
    clip = make_clip(4, 36, 52)
    copy = pickle.loads(pickle.dumps(stage))
    assert copy == stage
    assert np.array_equal(written(copy, clip), written(stage, clip))


def test_a_stage_is_its_own_yaml(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(dump_pipeline([stage]))
    assert load_pipeline(path, [], STAGES) == (stage,)


def test_every_setting_is_described(stage: Stage) -> None:
    import inspect

    source = inspect.getsource(type(stage))
    for field in fields(stage):  # type: ignore[arg-type]
        _, _, after = source.partition(f"    {field.name}: ")
        assert '"""' in after.split("\n", 2)[1], f"{stage.name}.{field.name} has no docstring"


def test_a_still_is_a_clip_of_one_frame(stage: Stage) -> None:
    clip = make_clip(5, 36, 52)
    still = replace(clip[2:3], shot=(2, 3))
    assert written(stage, still).shape[0] == 1
