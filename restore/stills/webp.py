"""WebP: samples by libwebp, metadata from its RIFF chunks. Source: RFC 9649, 2.3 to 2.7."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from restore.errors import MediaError
from restore.stills.exif import orientation_of, resolution_of
from restore.stills.still import Metadata, Picture

SIDE = 16_383
"""Greatest width and height that the format can say."""


def read(path: Path) -> Picture:
    """Read a WebP picture, lossy or lossless.

    Raises:
        MediaError: It is animated.
    """
    data = path.read_bytes()
    chunks = dict(_chunks(data))
    if b"ANMF" in chunks:
        raise MediaError("is an animated WebP, not a still; give its frames as separate files", str(path))
    samples = imagecodecs.webp_decode(data)
    exif = chunks.get(b"EXIF", b"").removeprefix(b"Exif\0\0") or None
    metadata = Metadata(icc=chunks.get(b"ICCP"), exif=exif, xmp=chunks.get(b"XMP "), resolution=resolution_of(exif))
    alpha = np.ascontiguousarray(samples[..., 3]) if samples.shape[2] == 4 else None
    pixels = np.ascontiguousarray(samples[..., :3])
    return Picture(pixels, 8, alpha, metadata=metadata, orientation=orientation_of(exif))


def write(path: Path, picture: Picture) -> None:
    """Write a lossless WebP: the lossy one has 4:2:0 chroma and a luma of limited range."""
    samples: Any = picture.pixels if picture.pixels.ndim == 3 else np.dstack([picture.pixels] * 3)
    if picture.alpha is not None:
        samples = np.dstack((samples, picture.alpha))
    metadata = picture.metadata
    held = {"icc_profile": metadata.icc, "exif": metadata.exif, "xmp": metadata.xmp}
    settings = {name: value for name, value in held.items() if value is not None}
    Image.fromarray(samples).save(path, "WEBP", lossless=True, exact=True, quality=75, method=4, **settings)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack("<4sI", data[at : at + 8])
        yield name, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
