"""Photographs made for tests: smooth patches of colour."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np


def picture(seed: int, height: int = 70, width: int = 90) -> bytes:
    """Smooth patches of colour, as JPEG."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    done, code = cv2.imencode(".jpg", cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    assert done
    return code.tobytes()


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
