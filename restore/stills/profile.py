"""ICC profiles: from ink to RGB, and an RGB profile that keeps the tones of a gray one.

Source: ICC.1:2022, 7.2 (header), 7.3 (tag table), 8.4 and 9.2 (tags).
"""

from __future__ import annotations

import logging
import struct
from functools import cache
from typing import Any

import imagecodecs
import numpy as np
from PIL import ImageCms

from restore.clip import Plane

_log = logging.getLogger(__name__)

_DATE = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
"""Written as the date of a made profile, so that the same run gives the same bytes."""


def space_of(icc: bytes) -> str:
    """Return the colour space of a profile's code values, ``RGB``, ``GRAY``, ``CMYK`` or another, by its signature."""
    return icc[16:20].decode("latin-1").strip()


@cache
def srgb() -> bytes:
    """Return an sRGB profile, the same bytes at any time."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made[:24] + _DATE + made[36:84] + bytes(16) + made[100:]


def rgb_from_gray(icc: bytes) -> bytes:
    """Return an RGB profile in which equal R', G' and B' look as that gray does under a gray profile.

    The curve of the gray profile becomes the curve of each channel, with sRGB's primaries, so the code values
    of the luma stay and so does how light they look.

    Args:
        icc: A gray profile. If it has no curve to XYZ, the result is sRGB, and that is logged.
    """
    tags = _tags(icc)
    if icc[20:24] != b"XYZ " or b"kTRC" not in tags:
        _log.warning("the gray ICC profile has no simple curve: sRGB takes its place, and tones may look different")
        return srgb()
    base = _tags(srgb())
    name = "Gray curve of the source, sRGB primaries".encode("utf-16-be")
    base[b"desc"] = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(name), 28) + name
    return _profile(srgb(), {**base, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), tags[b"kTRC"])})


def rgb_from_cmyk(cmyk: Plane, icc: bytes | None) -> Plane:
    """Convert ink to sRGB, through the profile if there is one, else as light through ideal inks.

    Args:
        cmyk: Shape (H, W, 4), uint8 or uint16, 0 for no ink.
        icc: The CMYK profile of the samples.

    Returns:
        Shape (H, W, 3), at the same depth.
    """
    if icc is not None and space_of(icc) == "CMYK":
        converted: Any = imagecodecs.cms_transform(
            cmyk, icc, srgb(), colorspace="cmyk", outcolorspace="rgb", outdtype=cmyk.dtype, intent=0
        )
        return np.ascontiguousarray(converted)
    top = np.iinfo(cmyk.dtype).max
    rgb = np.empty((*cmyk.shape[:2], 3), cmyk.dtype)
    for row, inks in zip(rgb, cmyk, strict=True):
        paper = 1 - inks / top
        row[:] = np.rint(paper[:, :3] * paper[:, 3:] * top)
    return rgb


def _tags(icc: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack(">I", icc[128:132])
    entries = [struct.unpack(">4sII", icc[132 + 12 * n : 144 + 12 * n]) for n in range(count)]
    return {name: icc[start : start + size] for name, start, size in entries}


def _profile(header: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, data, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(data), len(content))
        data += content + b"\0" * (-len(content) % 4)
    return struct.pack(">I", start + len(data)) + header[4:128] + table + data
