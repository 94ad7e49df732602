"""Colour photographs for training: read from a folder or from tar files, never unpacked to disk.

A sample depends on the seed and its number alone, so a resumed run sees the pictures that an undisturbed one
would have seen, in whatever thread they are made.
"""

from __future__ import annotations

import hashlib
import logging
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore.errors import MediaError
from restore.train.augment import Augmentation, augment
from restore.train.degrade import Degradation, Plane, age

log = logging.getLogger(__name__)

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True, slots=True)
class Photo:
    """Where the bytes of one picture lie."""

    path: Path
    offset: int
    length: int
    name: str

    def read(self) -> bytes:
        """Return the encoded picture."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


def find(folder: Path) -> list[Photo]:
    """List the pictures in a folder and in the tar files in it, in order of name.

    Raises:
        MediaError: The folder does not exist, holds no pictures, or a tar file is damaged.
    """
    if not folder.is_dir():
        raise MediaError("expected a folder of colour photographs or of tar files of them", str(folder))
    photos: list[Photo] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES:
            photos.append(Photo(path, 0, path.stat().st_size, path.name))
        elif path.suffix.lower() == ".tar":
            photos += _members(path)
    if not photos:
        raise MediaError(f"found no pictures ({', '.join(sorted(_SUFFIXES))}) and no tar files of them", str(folder))
    return photos


def _members(path: Path) -> list[Photo]:
    try:
        with tarfile.open(path, "r:") as tar:
            return [
                Photo(path, member.offset_data, member.size, member.name)
                for member in tar
                if member.isfile() and Path(member.name).suffix.lower() in _SUFFIXES
            ]
    except (tarfile.TarError, OSError) as error:
        raise MediaError(f"cannot be read as an uncompressed tar file: {error}", str(path)) from error


def fingerprint(photos: list[Photo]) -> str:
    """Return a SHA-256 of the names and lengths of the pictures."""
    lines = "\n".join(f"{photo.name} {photo.length}" for photo in photos)
    return hashlib.sha256(lines.encode()).hexdigest()


def decode(photo: Photo) -> NDArray[np.uint8] | None:
    """Return (H, W, 3) R'G'B', or None if the picture is broken or smaller than 32 pixels."""
    data = np.frombuffer(photo.read(), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    return np.asarray(picture, np.uint8) if picture is not None and min(picture.shape[:2]) >= 32 else None


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
        """Return the aged grey (H, W), the clean R'G'B' (H, W, 3) and its ab (H / 2, W / 2, 2) of one sample."""
        rng = np.random.default_rng((self.seed, number))
        rgb = augment(self._picture(number), pixels, self.augmentation, rng)
        ab = cv2.resize(lab(rgb)[..., 1:], (pixels // 2, pixels // 2), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(age(rgb, self.degradation, rng)), rgb, np.asarray(ab, np.float32)

    def _picture(self, number: int) -> NDArray[np.uint8]:
        for attempt in range(100):
            photo = self.photos[self._index(number + attempt)]
            if photo.name in self.broken:
                continue
            picture = decode(photo)
            if picture is not None:
                return picture
            self.broken.add(photo.name)
            log.warning("%s: %s cannot be decoded and is skipped (%d so far)", photo.path, photo.name, len(self.broken))
        raise MediaError("100 pictures in a row cannot be decoded", str(self.photos[0].path.parent))

    def _index(self, number: int) -> int:
        epoch, place = divmod(number, len(self.photos))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.seed, 1 << 40, epoch)).permutation(len(self.photos))
        return int(self._order[1][place])


def _channels_first(pictures: Sequence[Plane]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
