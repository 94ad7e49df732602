"""Training samples: crops of colour photographs, read from a folder or from tar files, never copied to disk.

A sample depends on the seed and its number alone, so a resumed run sees the pictures that an undisturbed one
would have seen, in whatever thread or process they are made.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore.errors import MediaError
from restore.photographs import Opened, Photo
from restore.train.augment import Augmentation, crop, draw, reduction
from restore.train.degrade import Degradation, Plane, age

log = logging.getLogger(__name__)

SMALLEST = 32
"""Shortest side, in pixels, of a picture to learn from."""


def opened(photo: Photo) -> Opened | None:
    """Read the header of a picture; None if it is broken, tiny, or of 16 bits and so not in colour."""
    found = Opened.of(photo)
    unfit = found is None or min(found.image.size) < SMALLEST or found.image.mode.startswith("I;16")
    return None if unfit else found


def lab(rgb: Plane) -> Plane:
    """Convert (H, W, 3) sRGB in [0, 1] to CIE Lab (D65), L* in 0..100."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab), np.float32)


@dataclass(frozen=True, slots=True)
class Batch:
    """Training samples; float32, H = W."""

    grey: Tensor
    """The network's input: aged grey, shape (B, 1, H, W), sRGB-coded, [0, 1]."""
    rgb: Tensor
    """The same crops as they were: R'G'B', shape (B, 3, H, W), [0, 1]."""
    ab: Tensor
    """Colours of `rgb` in CIE Lab units, shape (B, 2, H / 2, W / 2)."""

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on a device."""
        return Batch(*(plane.to(device, non_blocking=True) for plane in (self.grey, self.rgb, self.ab)))


class Photos:
    """An endless, shuffled, augmented stream of training samples, addressed by number."""

    def __init__(self, photos: list[Photo], degradation: Degradation, augmentation: Augmentation, seed: int) -> None:
        self.photos, self.degradation, self.augmentation, self.seed = photos, degradation, augmentation, seed
        self.broken: set[str] = set()
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def batch(self, first: int, count: int, pixels: int) -> Batch:
        """Return samples `first` to `first + count - 1`, `pixels` wide and high.

        Raises:
            MediaError: Hardly any picture can be decoded.
        """
        greys, rgbs, abs_ = zip(*(self.sample(first + i, pixels) for i in range(count)), strict=True)
        return Batch(torch.from_numpy(np.stack(greys)[:, None]), _channels_first(rgbs), _channels_first(abs_))

    def sample(self, number: int, pixels: int) -> tuple[Plane, Plane, Plane]:
        """Return the aged grey (H, W), the clean R'G'B' (H, W, 3) and its ab (H / 2, W / 2, 2) of one sample.

        Raises:
            MediaError: A hundred pictures in a row cannot be decoded.
        """
        for attempt in range(100):
            photo = self.photos[self._index(number + attempt)]
            if str(photo) in self.broken:
                continue
            rng = np.random.default_rng((self.seed, number))
            rgb = _read(photo, pixels, self.augmentation, rng)
            if rgb is not None:
                ab = cv2.resize(lab(rgb)[..., 1:], (pixels // 2, pixels // 2), interpolation=cv2.INTER_AREA)
                return age(rgb, self.degradation, rng), rgb, np.asarray(ab, np.float32)
            self.broken.add(str(photo))
            log.warning("%s: cannot be decoded and is skipped (%d so far)", photo, len(self.broken))
        raise MediaError("100 pictures in a row cannot be decoded", str(self.photos[0].path))

    def _index(self, number: int) -> int:
        epoch, place = divmod(number, len(self.photos))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.seed, 1 << 40, epoch)).permutation(len(self.photos))
        return int(self._order[1][place])


def _read(photo: Photo, pixels: int, augmentation: Augmentation, rng: np.random.Generator) -> Plane | None:
    """Return a crop of a picture, or None if it is broken; a large JPEG is not decoded finer than the crop needs."""
    found = opened(photo)
    if found is None:
        return None
    view = draw(found.width, found.height, augmentation, rng)
    picture = found.pixels(reduction(view, pixels))
    return None if picture is None else crop(picture, view, pixels, round(found.width / picture.shape[1]))


def _channels_first(pictures: Sequence[Plane]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
