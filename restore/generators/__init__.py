"""Generators: networks that take grey and give ab, by name, and ready to run.

Each is a module with `size(height, width)`, the size of its input for a frame of that size, and `colorize(gray)`, from
grey R'G'B' in 0..1, shape (B, 1, h, w), to CIE ab (D65), shape (B, 2, s, t), both float32.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor

from restore import weights
from restore.errors import ConfigError, WeightsError
from restore.generators.cnn import Cnn
from restore.generators.compact import Compact
from restore.generators.deoldify import DeOldifyDeep, DeOldifyWide
from restore.generators.eccv16 import Eccv16
from restore.generators.fold import PACKS, cast, fold, pack
from restore.generators.pix2pix import Pix2Pix
from restore.settings_file import unknown

__all__ = ["GENERATORS", "Generator", "Loaded", "Precision", "build", "load", "load_state", "read"]

logger = logging.getLogger(__name__)

Generator = Cnn | Compact | DeOldifyDeep | DeOldifyWide | Eccv16 | Pix2Pix
Precision = Literal["auto", "fp32", "bf16", "fp16"]

GENERATORS: dict[str, type[Generator]] = {
    "cnn": Cnn,
    "compact": Compact,
    "deoldify_deep": DeOldifyDeep,
    "deoldify_wide": DeOldifyWide,
    "eccv16": Eccv16,
    "pix2pix": Pix2Pix,
}

_TELLING = {
    "layers.4.conv1.0.weight_orig": "deoldify_deep",
    "layers.4.conv.0.weight_orig": "deoldify_wide",
    "model_out.weight": "eccv16",
    "encoder._conv_stem.weight": "compact",
    "down.0.0.weight": "pix2pix",
    "body.0.weight": "cnn",
}
"""A key that only one generator has."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LOADING = Lock()


@dataclass(frozen=True, eq=False)
class Loaded:
    """A generator with its weights, on a device, folded, in the precision asked for."""

    module: Generator
    generator: str
    """Its name in `GENERATORS`."""
    device: torch.device
    precision: Literal["fp32", "bf16", "fp16"]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the input for a frame of this size."""
        return self.module.size(height, width)

    def __call__(self, gray: Tensor) -> Tensor:
        """Colour a batch.

        Args:
            gray: Shape (B, 1, h, w), float32, R'G'B' in 0..1, on any device.

        Returns:
            CIE ab, shape (B, 2, s, t), float32, on `device`.
        """
        with torch.inference_mode():
            return self.module.colorize(gray.to(self.device, memory_format=torch.channels_last))


def build(name: str, **settings: object) -> Generator:
    """Make a generator with random weights.

    Raises:
        ConfigError: There is no such generator, or it does not have or take a setting.
    """
    if name not in GENERATORS:
        raise ConfigError(f"unknown generator {unknown(name, GENERATORS)}")
    known = inspect.signature(GENERATORS[name]).parameters
    for setting in settings:
        if setting not in known:
            raise ConfigError(f"the generator {name} has no setting {unknown(setting, known)}")
    try:
        return GENERATORS[name](**settings)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the generator {name} cannot be built with {settings}: {error}") from error


def load(
    name_or_file: str | Path,
    device: str | torch.device = "cpu",
    precision: Precision = "auto",
    *,
    render_factor: int | None = None,
) -> Loaded:
    """Load weights into their generator, once a process; later calls with the same arguments return the same object.

    Args:
        name_or_file: A name in the registry, or a file.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto`` is bf16 where the device computes in it, fp16 on older GPUs, else fp32, the reference.
        render_factor: For DeOldify: sixteenths of the side of the square at which frames are coloured.

    Raises:
        WeightsError: Unknown, missing or damaged weights, or they do not fit their generator.
        ConfigError: The device does not have the precision, or the generator has no render factor.
    """
    path = Path(name_or_file)
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    with _LOADING:
        return _load(str(name_or_file), stamp, torch.device(device), precision, render_factor)


@lru_cache(maxsize=16)
def _load(
    name: str, stamp: tuple[int, int] | None, device: torch.device, precision: Precision, render_factor: int | None
) -> Loaded:
    exact = _resolved(precision, device)
    generator, module = _read(name, render_factor)
    fast = cast(fold(module), _DTYPES[exact]).to(device)
    if device.type == "cpu" and PACKS:
        pack(fast)
    if device.type == "cuda" and exact == "fp32":
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # not TF32, which has ten bits
    logger.info("%s: generator %s on %s in %s", name, generator, device, exact)
    return Loaded(fast, generator, device, exact)


def read(name_or_file: str | Path) -> tuple[str, Generator]:
    """Return the name of a generator and the generator with its weights, in fp32 on the CPU, as it was trained.

    Raises:
        WeightsError: Unknown, missing or damaged weights, or they do not fit their generator.
    """
    return _read(str(name_or_file), None)


def _read(name: str, render_factor: int | None) -> tuple[str, Generator]:
    found = weights.find(name)
    state = weights.read_state(found.path)
    if found.entry is None:
        generator, settings = _recognised(found.path, state)
    else:
        generator, settings = found.entry.generator, dict(found.entry.settings)
    if render_factor is not None:
        settings["render_factor"] = render_factor
    with torch.device("meta"):  # nothing is drawn at random only to be overwritten
        module = build(generator, **settings)
    load_state(module, state, generator, found.path)
    return generator, module


def _recognised(path: Path, state: Mapping[str, Tensor]) -> tuple[str, dict[str, object]]:
    """Find which generator an unregistered file is for: by its record if it has one, or else by its keys."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            record = file.metadata() or {}
        if record.get("generator") in GENERATORS:
            return record["generator"], dict(json.loads(record.get("settings", "{}")))
    for key, generator in _TELLING.items():
        if key in state:
            return generator, {}
    first, known = next(iter(state)), ", ".join(GENERATORS)
    raise WeightsError(f"{path} holds weights of none of the generators ({known}); its first key is {first}")


def load_state(module: Generator, state: Mapping[str, Tensor], generator: str, path: str | Path) -> None:
    """Give a generator its weights, as fp32; their memory is shared, so the module may be on the meta device.

    Raises:
        WeightsError: A key is missing, unexpected or of another shape.
    """
    expected = module.state_dict()
    faults = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": [key for key in state if key in expected and state[key].shape != expected[key].shape],
    }
    if any(faults.values()):
        found = ", ".join(f"{len(keys)} {fault} (first: {keys[0]})" for fault, keys in faults.items() if keys)
        wrong = faults["of another shape"]
        if wrong:
            shapes = tuple(state[wrong[0]].shape), tuple(expected[wrong[0]].shape)
            found += f": {shapes[0]} instead of {shapes[1]}"
        raise WeightsError(f"{path} does not fit the generator {generator}: of {len(expected)} keys {found}")
    exact = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    module.load_state_dict(exact, assign=True)
    module.eval()


def automatic_precision(device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """Return what ``auto`` means on a device of this machine."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _resolved(precision: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    if precision == "auto":
        return automatic_precision(device)
    if precision not in _DTYPES:
        raise ConfigError(f"unknown precision {precision!r}; known: auto, {', '.join(_DTYPES)}")
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("fp16 is for GPUs; on a CPU use --precision auto, bf16 or fp32")
    if precision == "bf16" and device.type == "cpu" and not _cpu_takes_bf16():
        raise ConfigError("this CPU does not compute in bf16; use --precision auto or fp32")
    return precision


def _cpu_has_bf16() -> bool:
    """Return whether the CPU has instructions for bf16; without them it is emulated, slower than fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _cpu_takes_bf16() -> bool:
    return bool(PACKS and torch.ops.mkldnn._is_mkldnn_bf16_supported())
