"""Photographs made for tests: smooth patches of colour."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def patches(seed: int, height: int = 70, width: int = 90) -> NDArray[np.uint8]:
    """Smooth patches of colour, shape (H, W, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def jpeg(rgb: NDArray[np.uint8], quality: int = 95, orientation: int | None = None) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(rgb).save(file, "JPEG", quality=quality, subsampling=0, exif=exif)
    return file.getvalue()


def picture(seed: int, height: int = 70, width: int = 90) -> bytes:
    """Smooth patches of colour, as JPEG."""
    return jpeg(patches(seed, height, width))


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
