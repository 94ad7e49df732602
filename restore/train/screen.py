"""Which pictures are colour photographs worth training on, and how they are made equal in form."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from restore.metrics import colorfulness
from restore.photographs import BROKEN, Picture
from restore.train.nearby import perceptual_hash

MEASURED = 128
"""Shorter side, in pixels, at which pictures are judged, whatever their size."""

_TONES = 50
"""Steps of L* within which a tinted black-and-white picture has one colour."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """Thresholds beyond which a picture is dropped; they hold for the picture at a shorter side of 128 pixels."""

    smallest_side: int = 128
    """Pixels of the shorter side, borders cut: less is `tiny`."""
    longest_aspect: float = 2.2
    """Longer side by shorter: more is `elongated`."""
    transparent: float = 0.01
    """Share of pixels one can look through: more is `transparent`, a logo or a cut-out."""
    dark: float = 0.7
    """Share of pixels with L* under 8: more is `dark`."""
    bright: float = 0.6
    """Share of pixels with L* over 97: more is `bright`."""
    equal: float = 0.55
    """Share of neighbouring pixels of one colour: more is `flat`, a drawing or a screen."""
    colors: int = 60
    """Different colours in steps of 16 code values: fewer is `flat`."""
    colorfulness: float = 12.0
    """Of Hasler and Suesstrunk 2003: less is `grey`."""
    chroma: float = 10.0
    """Distance from grey, in ab units, from which on a pixel counts as coloured ..."""
    colored: float = 0.08
    """... and the share of pixels that must: less is `grey`."""
    spread: float = 2.0
    """Deviation of ab among pixels equally light: less is `tinted`, sepia and the like ..."""
    toned_spread: float = 3.5
    """... and so is less than this ..."""
    one_hue: float = 0.95
    """... if the mean colour is more than this share of the mean chroma: a toned print with stains or noise."""
    duplicate: int = 6
    """Bits of the perceptual hash: no more to a picture already kept is `duplicate`."""


@dataclass(frozen=True, slots=True)
class Form:
    """How kept pictures are written."""

    short_side: int = 256
    """Pixels; smaller pictures are not enlarged."""
    quality: int = 90
    """Of JPEG, 1 to 95."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What became of one picture."""

    reason: str = ""
    """Why it is dropped; empty if it is good."""
    measured: str = ""
    """What was found."""
    width: int = 0
    """As written."""
    height: int = 0
    """As written."""
    hash: int = 0
    """Perceptual, 64 bits."""
    jpeg: bytes = field(default=b"", repr=False)
    """The picture as it is to be written."""

    @property
    def digest(self) -> str:
        """Name of the picture, by what is in it: 16 hexadecimal digits of SHA-256."""
        return hashlib.sha256(self.jpeg).hexdigest()[:16]


def examine(content: bytes, criteria: Criteria, form: Form) -> Examined:
    """Judge an encoded picture and, if it is good, encode it anew: upright, sRGB, without borders, not too large."""
    try:
        with warnings.catch_warnings(action="ignore"):  # odd metadata and huge pictures: Pillow reads them all the same
            return _examined(content, criteria, form)
    except BROKEN as error:
        return Examined("broken", re.sub(r" ?<.*>", "", f"{type(error).__name__}: {error}")[:120])  # no addresses


def _examined(content: bytes, criteria: Criteria, form: Form) -> Examined:
    image = Image.open(io.BytesIO(content))
    if min(image.size) < criteria.smallest_side:
        return Examined("tiny", f"{image.width} x {image.height}")
    image.draft("RGB", (2 * form.short_side, 2 * form.short_side))
    image.load()
    if image.mode[0] in "1LIF":
        return Examined("grey", f"mode {image.mode}")
    if (seen_through := _transparent(image)) > criteria.transparent:
        return Examined("transparent", f"{seen_through:.2f} of pixels")
    picture = trim(np.asarray(_srgb(ImageOps.exif_transpose(image)), np.uint8))
    height, width = picture.shape[:2]
    if min(width, height) < criteria.smallest_side:
        return Examined("tiny", f"{width} x {height} without borders")
    if max(width, height) > criteria.longest_aspect * min(width, height):
        return Examined("elongated", f"{width} x {height}")
    small = _resized(picture, MEASURED)
    reason, measured = judge(np.asarray(small), criteria)
    if reason:
        return Examined(reason, measured)
    final, file = _resized(picture, form.short_side), io.BytesIO()
    final.save(file, "JPEG", quality=form.quality, subsampling="4:2:0")
    return Examined("", "", *final.size, perceptual_hash(np.asarray(small.convert("L"))), file.getvalue())


def judge(picture: Picture, criteria: Criteria) -> tuple[str, str]:
    """Return why a picture (H, W, 3) is dropped and what was measured; two empty texts if it is good."""
    lab = np.asarray(cv2.cvtColor(picture.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2Lab), np.float32)
    lightness, ab = lab[..., 0], lab[..., 1:]
    same = ((picture[:, 1:] == picture[:, :-1]).all(2).mean() + (picture[1:] == picture[:-1]).all(2).mean()) / 2
    coarse, chroma = picture.astype(np.int32) >> 4, np.hypot(ab[..., 0], ab[..., 1])
    hue = float(np.hypot(*ab.mean((0, 1))) / max(chroma.mean(), 1e-6))
    tests = (
        ("dark", float((lightness < 8).mean()), criteria.dark),
        ("bright", float((lightness > 97).mean()), criteria.bright),
        ("flat", float(same), criteria.equal),
        ("tinted", -spread(lightness, ab), -criteria.toned_spread if hue > criteria.one_hue else -criteria.spread),
        ("grey", -colorfulness(picture), -criteria.colorfulness),
        ("grey", -float((chroma > criteria.chroma).mean()), -criteria.colored),
        ("flat", -len(np.unique(coarse @ np.array([256, 16, 1]))), -criteria.colors),
    )
    for reason, found, limit in tests:
        if found > limit:
            return reason, f"{abs(found):.3g}, limit {abs(limit):g}"
    return "", ""


def spread(lightness: NDArray[np.float32], ab: NDArray[np.float32]) -> float:
    """Return by how much pixels as light as each other differ in ab, root mean square.

    A toned print has one colour a tone, whatever the tone's colour; a colour photograph has many.
    """
    tone = np.clip(lightness.ravel() * (_TONES / 100), 0, _TONES - 1).astype(np.int64)
    count = np.maximum(np.bincount(tone, minlength=_TONES), 1)
    total = 0.0
    for channel in ab.reshape(-1, 2).T:
        mean = np.bincount(tone, channel, _TONES) / count
        total += float(np.square(channel - mean[tone]).mean())
    return float(np.sqrt(total))


def trim(picture: Picture, share: float = 0.25) -> Picture:
    """Cut borders of plain black or white, at most `share` of the picture at each side."""
    height, width = picture.shape[:2]
    top, bottom = _border(picture, share), height - _border(picture[::-1], share)
    rows = picture[top:bottom].swapaxes(0, 1)
    left, right = _border(rows, share), width - _border(rows[::-1], share)
    return np.ascontiguousarray(picture[top:bottom, left:right])


def _border(rows: Picture, share: float) -> int:
    """Count the rows from the first on that are plain black or white; a row of ringing beside them goes too.

    What goes on beyond `share` of the rows is no border but the picture, a night sky for example.
    """
    first = rows[: int(len(rows) * share)]
    plain = (first.max((1, 2)) < 24) | (first.min((1, 2)) > 231)
    return int(plain.argmin()) + 1 if plain[:1].all() and not plain.all() else 0


def _resized(picture: Picture, side: int) -> Image.Image:
    image = Image.fromarray(picture)
    scale = side / min(image.size)
    if scale >= 1:
        return image
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _transparent(image: Image.Image) -> float:
    if image.mode not in ("RGBA", "PA", "LA") and "transparency" not in image.info:
        return 0.0
    return float((np.asarray(image.convert("RGBA").getchannel("A")) < 250).mean())


def _srgb(image: Image.Image) -> Image.Image:
    """Convert to sRGB through the picture's ICC profile, if it has one that fits."""
    if image.mode not in ("RGB", "CMYK"):
        icc, image = image.info.get("icc_profile"), image.convert("RGBA").convert("RGB")
    else:
        icc = image.info.get("icc_profile")
    transform = _transform(icc, image.mode) if icc else None
    if transform is None:
        return image.convert("RGB")
    return ImageCms.applyTransform(image, transform) or image


@lru_cache(maxsize=16)
def _transform(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):  # damaged, or for samples of another kind: cameras and web sites make such
        return None
