"""Photographs made for tests: patches of colour."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def patches(seed: int, height: int = 70, width: int = 90) -> NDArray[np.uint8]:
    """Smooth patches of colour, shape (H, W, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def photo(seed: int, height: int = 120, width: int = 150) -> NDArray[np.uint8]:
    """Patches of colour with texture, which pass as a photograph, shape (H, W, 3)."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    texture = rng.integers(-8, 9, (height, width, 1))
    return np.clip(smooth.astype(int) * 0.8 + 25 + texture, 0, 255).astype(np.uint8)


def toned(gain: tuple[float, float, float]) -> NDArray[np.uint8]:
    """A black-and-white photograph whose tones have a colour."""
    grey = cv2.cvtColor(photo(1), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    return np.asarray(np.rint(np.stack([grey**g for g in gain], -1) * 255), np.uint8)


def encoded(
    rgb: NDArray[np.unsignedinteger[Any]], kind: str = "JPEG", orientation: int | None = None, **settings: object
) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    quality = {} if kind == "PNG" else {"quality": 95}
    Image.fromarray(rgb).save(file, kind, **{**quality, "exif": exif, **settings})
    return file.getvalue()


def picture(seed: int, height: int = 70, width: int = 90) -> bytes:
    """Smooth patches of colour, as JPEG."""
    return encoded(patches(seed, height, width), subsampling=0)


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    path.write_bytes(tar_of(files))
