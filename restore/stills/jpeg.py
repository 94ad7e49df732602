"""JPEG through Pillow.

The plugin class is used instead of `PIL.Image.open`: the format is known, and the limit that Pillow puts on the
size of any picture in the process stays as the caller set it. `files` has a limit of its own.
"""

from __future__ import annotations

import io
import logging
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin

from restore.stills.exif import orientation_of, resolution_of
from restore.stills.still import Metadata, Picture, Resolution

_log = logging.getLogger(__name__)

QUALITY = 95
_SEGMENT = 65_535 - 2
"""Bytes that one JPEG segment holds."""
_IPTC_RESOURCE = 0x0404


def size_of(path: Path) -> tuple[int, int]:
    """Return width and height from the header."""
    with JpegImagePlugin.JpegImageFile(path) as image:
        return image.size


def read(path: Path) -> Picture:
    """Read a gray, colour or CMYK JPEG.

    Adobe's programs store CMYK inverted and say so by an Adobe marker; without the marker it is as it stands.
    """
    with JpegImagePlugin.JpegImageFile(path) as image:
        image.load()
        pixels = np.array(image)
        if image.mode == "CMYK" and "adobe" not in image.info:
            pixels = 255 - pixels  # Pillow takes every CMYK file for Adobe's
        info: dict[Any, Any] = image.info
    exif = _exif(info)
    resources: dict[int, bytes] = info.get("photoshop", {})
    metadata = Metadata(
        icc=info.get("icc_profile"),
        exif=exif,
        xmp=info.get("xmp"),
        iptc=resources.get(_IPTC_RESOURCE),
        resolution=_density(info) or resolution_of(exif),
        comment=info.get("comment"),
    )
    return Picture(pixels, 8, metadata=metadata, orientation=orientation_of(exif))


def write(path: Path, picture: Picture) -> None:
    """Write a JPEG at quality 95 with chroma at full size."""
    metadata, settings = picture.metadata, {}
    if metadata.icc is not None:
        settings["icc_profile"] = metadata.icc
    if metadata.exif is not None and _fits("EXIF", metadata.exif, 6):
        settings["exif"] = b"Exif\0\0" + metadata.exif
    if metadata.xmp is not None and _fits("XMP", metadata.xmp, 29):
        settings["xmp"] = metadata.xmp
    if metadata.comment is not None:
        settings["comment"] = metadata.comment
    if metadata.iptc is not None and _fits("IPTC", metadata.iptc, 28):
        settings["extra"] = _iptc_segment(metadata.iptc)
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, "JPEG", quality=QUALITY, subsampling=0, **settings)
    data = buffer.getbuffer()
    if metadata.resolution is not None:
        data[13:18] = _jfif_density(metadata.resolution)
    path.write_bytes(data)


def _exif(info: dict[Any, Any]) -> bytes | None:
    exif: bytes = info.get("exif", b"").removeprefix(b"Exif\0\0")
    return exif or None


def _density(info: dict[Any, Any]) -> Resolution | None:
    """Return JFIF's density. Source: ITU-T T.871, 10.1; 1:1 without a unit says nothing."""
    unit, (x, y) = info.get("jfif_unit", 0), info.get("jfif_density", (1, 1))
    if unit not in (0, 1, 2) or not x or not y or (unit == 0 and x == y):
        return None
    return Resolution(Fraction(x), Fraction(y), "none" if unit == 0 else "inch" if unit == 1 else "cm")


def _jfif_density(resolution: Resolution) -> bytes:
    """Return unit, x and y as JFIF holds them: 16-bit integers."""
    x, y = resolution.x, resolution.y
    if resolution.unit == "cm" and (x.denominator, y.denominator) != (1, 1):
        x, y = (side * Fraction(254, 100) for side in (x, y))
        unit = 1
    else:
        unit = {"none": 0, "inch": 1, "cm": 2}[resolution.unit]
    return struct.pack(">BHH", unit, *(min(65535, max(1, round(side))) for side in (x, y)))


def _iptc_segment(iptc: bytes) -> bytes:
    """Return an APP13 segment with one Photoshop resource, IPTC-NAA, in it."""
    resource = b"8BIM" + struct.pack(">H2sI", _IPTC_RESOURCE, b"\0\0", len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    body = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


def _fits(name: str, block: bytes, header: int) -> bool:
    if len(block) + header <= _SEGMENT:
        return True
    _log.warning("JPEG cannot hold %d bytes of %s: left out; TIFF, PNG and WebP can", len(block), name)
    return False
