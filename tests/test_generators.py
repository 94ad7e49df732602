"""The table of generators, loading weights into them, and the 2016 network."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import restore.generators as generators
from restore import weights
from restore.color import lightness
from restore.errors import ConfigError, WeightsError
from restore.generators import GENERATORS, Generator, build, load, load_state
from restore.generators.eccv16 import Eccv16
from restore.generators.fold import PACKS, PackedConv2d

TINY_WIDE: dict[str, object] = {"depths": [1, 2, 2, 1], "width": 4, "nf": 0.125}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are too small to share out
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _own_weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A file of weights with a record, as training writes them."""
    return saved(settled(), tmp_path / "tiny.safetensors", TINY_WIDE)


@cache
def settled() -> Generator:
    torch.manual_seed(0)
    module = build("deoldify_wide", **TINY_WIDE).train()
    with torch.no_grad():
        for _ in range(5):  # the norms settle
            module.colorize(grey(2))
    return module


def saved(module: Generator, path: Path, settings: dict[str, object] | None, half: bool = False) -> Path:
    state = {
        key: value.half() if half and value.is_floating_point() else value for key, value in module.state_dict().items()
    }
    record = {} if settings is None else {"generator": "deoldify_wide", "settings": json.dumps(settings)}
    save_file(state, path, metadata=record)
    return path


def grey(batch: int = 1, side: int = 32) -> Tensor:
    return torch.rand(batch, 1, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["compact", "deoldify_deep", "deoldify_wide", "eccv16"])
def test_every_generator_is_built_by_name_and_gives_ab_of_grey(name: str) -> None:
    tiny: dict[str, dict[str, object]] = {
        "deoldify_deep": {"depths": (1, 1, 1, 1), "width": 8},
        "deoldify_wide": TINY_WIDE,
        "eccv16": {"width": 8},
    }
    module = build(name, **tiny.get(name, {})).eval()
    height, width = module.size(480, 640)
    assert height > 0
    assert width > 0
    with torch.inference_mode():
        ab = module.colorize(grey(2))
    assert ab.shape[:2] == (2, 2)
    assert ab.dtype == torch.float32


def test_an_unknown_generator_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ConfigError, match=r"generator 'deoldify' \(did you mean deoldify_\w+\? known: cnn, compact"):
        build("deoldify")


def test_an_unknown_setting_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ConfigError, match=r"eccv16 has no setting 'depth' \(did you mean width\? known: width"):
        build("eccv16", depth=3)


def test_a_setting_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="deoldify_wide cannot be built with"):
        build("deoldify_wide", depths=3)


def test_a_file_with_a_record_loads_into_the_generator_that_it_names(tiny: Path) -> None:
    loaded = load(tiny, precision="fp32")
    assert (loaded.generator, loaded.precision, loaded.device) == ("deoldify_wide", "fp32", torch.device("cpu"))
    assert loaded.size(720, 1280) == (336, 336)
    plain = build("deoldify_wide", **TINY_WIDE).eval()
    load_state(plain, weights.read_state(tiny), "deoldify_wide", tiny)
    with torch.inference_mode():
        expected = plain.colorize(grey(2))
    assert expected.std() > 1
    assert (loaded(grey(2)) - expected).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("generator", "settings"),
    [("deoldify_wide", {}), ("deoldify_deep", {}), ("eccv16", {}), ("compact", {})],
)
def test_a_file_without_a_record_is_recognised_by_its_keys(generator: str, settings: dict[str, object]) -> None:
    with torch.device("meta"):
        state = build(generator, **settings).state_dict()
    assert generators._recognised(Path("x.pth"), state) == (generator, {})


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"none of the generators \(cnn, compact, .*; its first key is fc.weight"):
        load(tmp_path / "other.safetensors")


@pytest.mark.needs_shared
def test_a_published_checkpoint_is_imported_and_loaded_by_name(shared: Path) -> None:
    file = shared / "reference" / "TinyWide_gen.pth"
    weights.import_file(file, name="tiny", generator="deoldify_wide", settings=TINY_WIDE)
    loaded = load("tiny", precision="fp32", render_factor=2)
    assert loaded.size(100, 100) == (32, 32)
    assert loaded(grey()).std() > 1


def test_wrong_keys_are_counted_and_the_first_of_each_kind_is_named(tiny: Path) -> None:
    state = dict(weights.read_state(tiny))
    del state["layers.1.bias"]
    state["opt.momentum"] = torch.zeros(1)
    state["layers.11.0.bias"] = torch.zeros(4)
    module = build("deoldify_wide", **TINY_WIDE)
    message = (
        r"tiny.safetensors does not fit the generator deoldify_wide: of \d+ keys 1 missing \(first: layers.1.bias\), "
        r"1 unexpected \(first: opt.momentum\), "
        r"1 of another shape \(first: layers.11.0.bias\): \(4,\) instead of \(3,\)"
    )
    with pytest.raises(WeightsError, match=message):
        load_state(module, state, "deoldify_wide", tiny)


def test_half_precision_weights_are_computed_with_in_fp32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = saved(build("deoldify_wide", **TINY_WIDE), tmp_path / "half.safetensors", TINY_WIDE, half=True)
    module = build("deoldify_wide", **TINY_WIDE)
    load_state(module, weights.read_state(path), "deoldify_wide", path)
    assert {value.dtype for value in module.parameters()} == {torch.float32}


def test_weights_are_loaded_once_for_the_same_arguments_and_again_for_a_new_file(tiny: Path) -> None:
    first = load(tiny, precision="fp32")
    assert load(tiny, "cpu", "fp32") is first
    assert load(tiny, precision="fp32", render_factor=3) is not first
    saved(build("deoldify_wide", **(TINY_WIDE | {"nf": 0.25})), tiny, TINY_WIDE | {"nf": 0.25})
    assert load(tiny, precision="fp32") is not first


def test_a_render_factor_is_refused_where_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "eccv16.safetensors"
    save_file(build("eccv16", width=8).state_dict(), path, metadata={"generator": "eccv16", "settings": '{"width": 8}'})
    assert load(path).size(9, 9) == (256, 256)
    with pytest.raises(ConfigError, match="eccv16 has no setting 'render_factor'"):
        load(path, render_factor=21)


def test_auto_is_bf16_where_the_cpu_computes_in_it_and_fp32_elsewhere(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generators, "_cpu_has_bf16", lambda: False)
    assert load(tiny, render_factor=4).precision == "fp32"
    monkeypatch.setattr(generators, "_cpu_has_bf16", lambda: True)
    assert load(tiny, render_factor=5).precision == "bf16"


def test_bf16_colours_are_near_those_of_fp32(tiny: Path) -> None:
    if not generators._cpu_takes_bf16():
        pytest.skip("this CPU does not take bf16")
    difference = (load(tiny, precision="bf16")(grey()) - load(tiny, precision="fp32")(grey())).abs()
    assert 0 < difference.mean() < 0.3


def test_convolutions_are_packed_on_the_cpu(tiny: Path) -> None:
    packed = any(isinstance(m, PackedConv2d) for m in load(tiny, precision="fp32").module.modules())
    assert packed == PACKS


def test_precisions_that_a_cpu_does_not_have_are_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="fp16 is for GPUs"):
        load(tiny, precision="fp16")
    with pytest.raises(ConfigError, match="unknown precision 'int8'; known: auto, fp32"):
        load(tiny, precision="int8")  # type: ignore[arg-type]
    monkeypatch.setattr(generators, "_cpu_takes_bf16", lambda: False)
    with pytest.raises(ConfigError, match="this CPU does not compute in bf16"):
        load(tiny, precision="bf16")


@pytest.mark.needs_shared
def test_the_2016_network_has_the_published_keys_and_the_original_output(shared: Path) -> None:
    seeded: dict[str, Callable[..., Any]] = runpy.run_path(str(shared / "reference" / "seeded_weights.py"))
    keys = json.loads((shared / "reference" / "eccv16.keys.json").read_text())
    module = Eccv16().eval()
    found = [[key, list(v.shape), str(v.dtype).removeprefix("torch.")] for key, v in module.state_dict().items()]
    assert found == keys
    load_state(module, seeded["seeded_state_dict"](keys, 0), "eccv16", "seeded")
    with torch.inference_mode():
        ab = module(100 * seeded["seeded_input"]((1, 1, 64, 64), 0)).numpy()
    assert np.abs(ab - np.load(shared / "reference" / "eccv16.seed0.64.npy")).max() <= 1e-4


@pytest.mark.parametrize("size", [(1, 1), (30, 50), (61, 64)])
def test_the_2016_network_takes_any_size(size: tuple[int, int]) -> None:
    with torch.inference_mode():
        assert Eccv16(8).eval().colorize(torch.rand(2, 1, *size)).shape == (2, 2, *size)


def test_the_2016_network_sees_the_lightness_of_the_grey() -> None:
    torch.manual_seed(0)
    module = Eccv16(8).eval()
    with torch.inference_mode():
        module.model_out.weight.normal_()
        assert torch.equal(module.colorize(grey()), module(lightness(grey())))
        assert module.colorize(grey()).std() > 1


def test_the_table_names_the_generators_that_the_registry_needs() -> None:
    assert {entry.generator for entry in weights.entries().values()} <= set(GENERATORS)
