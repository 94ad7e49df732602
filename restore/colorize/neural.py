"""Predict ab from luma with a generator, in batches of one size."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from restore import generators
from restore.clip import Clip, Color, Plane
from restore.color import luma_scale
from restore.errors import ConfigError, StageError
from restore.generators import Loaded, Precision
from restore.stage import Writes
from restore.weights import default_name

log = logging.getLogger(__name__)

TILE_MULTIPLE = 32
"""Sides of tiles are multiples of this, as all generators take them."""


@dataclass(frozen=True)
class Neural:
    """Colour each frame with a generator.

    Frames are independent. Every batch has `batch` frames, the last one padded, so that the bits of a frame depend
    neither on its neighbours nor on how the film was cut.
    """

    name: ClassVar[str] = "neural"
    writes: ClassVar[Writes] = "ab"

    weights: str = field(default_factory=default_name)
    """A name in the registry (`restore weights list`) or a file."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, several with commas (batches are dealt to them in order), or ``auto``."""
    precision: Precision = "auto"
    """``fp32`` is the reference; ``bf16`` and ``fp16`` are faster; ``auto`` is the fastest that suits the device."""
    batch: int = 4
    """Frames per pass of the generator."""
    render_factor: int | None = None
    """DeOldify generators: side of their square input divided by 16; higher is finer and paler."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")
        if self.render_factor is not None and not 3 <= self.render_factor <= 100:
            raise ValueError(f"render_factor must be between 3 and 100, got {self.render_factor}")

    @property
    def radius(self) -> int:
        return 0

    def __call__(self, clip: Clip) -> Clip:
        devices = devices_of(self.device)
        planes = []
        for start in range(0, len(clip), self.batch):
            device = devices[(clip.first + start) // self.batch % len(devices)]
            generator = generators.load(self.weights, device, self.precision, render_factor=self.render_factor)
            gray = generator_input(clip.luma[start : start + self.batch], clip.color, generator)
            planes.append(self._colour(generator, gray, clip[start : start + len(gray)].span))
        return clip.with_planes(ab=np.concatenate(planes))

    def _colour(self, generator: Loaded, gray: NDArray[np.float32], span: tuple[int, int]) -> NDArray[np.float32]:
        """Run one padded batch; where memory does not hold it, halve it, then cut frames into tiles, then fail."""
        size = self.batch
        while size >= 1:
            try:
                return _in_batches(generator, gray, size)
            except torch.OutOfMemoryError:
                size = (size + 1) // 2 if size > 1 else 0
                how = f"batches of {size}" if size else "tiles, which may differ in colour"
                log.warning("out of memory on %s: frames %d-%d go in %s", generator.device, *span, how)
        try:
            return np.concatenate([_in_tiles(generator, gray[i : i + 1]) for i in range(len(gray))])
        except torch.OutOfMemoryError as error:
            raise StageError(
                f"a frame of {gray.shape[3]}x{gray.shape[2]} in tiles does not fit the memory of {generator.device}; "
                "use a smaller --render-factor, smaller weights, or --device cpu",
                self.name,
                span,
            ) from error


def _in_batches(generator: Loaded, gray: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    planes = []
    for start in range(0, len(gray), size):
        batch = gray[start : start + size]
        padding = np.repeat(batch[-1:], size - len(batch), axis=0)
        ab = generator(torch.from_numpy(np.concatenate([batch, padding])))
        planes.append(ab[: len(batch)].float().cpu().numpy())
    return np.concatenate(planes)


def _in_tiles(generator: Loaded, gray: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run one frame, shape (1, 1, h, w), as four tiles that overlap and are blended where they do."""
    height, width = gray.shape[2:]
    high, wide = (min(side, -(-side * 5 // 8 // TILE_MULTIPLE) * TILE_MULTIPLE) for side in (height, width))
    sums: NDArray[np.float32] | None = None
    for top in sorted({0, height - high}):
        for left in sorted({0, width - wide}):
            tile = gray[:, :, top : top + high, left : left + wide]
            ab = generator(torch.from_numpy(np.ascontiguousarray(tile))).float().cpu().numpy()
            scale = ab.shape[2] / high
            if sums is None:
                sums = np.zeros((3, round(height * scale), round(width * scale)), np.float32)
            y, x = round(top * scale), round(left * scale)
            weight = np.outer(_ramp(ab.shape[2]), _ramp(ab.shape[3]))
            sums[:2, y : y + ab.shape[2], x : x + ab.shape[3]] += ab[0] * weight
            sums[2, y : y + ab.shape[2], x : x + ab.shape[3]] += weight
    assert sums is not None
    blended: NDArray[np.float32] = sums[:2] / sums[2]
    return blended[None]


def _ramp(length: int) -> NDArray[np.float32]:
    """Rise from both ends to the middle, so that overlapping tiles blend."""
    place = np.arange(length, dtype=np.float32) + 1
    return np.minimum(place, place[::-1])


def generator_input(luma: Plane, what: Color, generator: Loaded) -> NDArray[np.float32]:
    """Resize luma to the generator's input: shape (T, 1, h, w), float32, black 0, white 1."""
    height, width = generator.size(*luma.shape[1:])
    shrinks = height <= luma.shape[1] and width <= luma.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    black, span = luma_scale(what)
    small = np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in luma])
    unit: NDArray[np.float32] = (small[:, None].astype(np.float32) - np.float32(black)) / np.float32(span)
    return unit.clip(0, 1)


def devices_of(names: str) -> list[str]:
    """Return the devices that a setting means, e.g. ``["cuda:0", "cuda:1"]``.

    Raises:
        ConfigError: A device is unknown, or not on this machine.
    """
    if names == "auto":
        return ["cuda" if torch.cuda.is_available() else "cpu"]
    devices = [name.strip() for name in names.split(",")]
    for name in devices:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ConfigError(f"unknown device {name!r}; use cpu, cuda, cuda:0,cuda:1 or auto") from error
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"device {name!r} is not on this machine, which has {torch.cuda.device_count()} CUDA devices"
            )
        if device.type not in ("cpu", "cuda"):
            raise ConfigError(f"device {name!r} is not supported; use cpu, cuda, cuda:0,cuda:1 or auto")
    return devices
