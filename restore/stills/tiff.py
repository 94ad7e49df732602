"""TIFF through tifffile; descriptive tags, EXIF and GPS are moved by `exif`. Source: TIFF 6.0."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from restore.clip import Plane
from restore.errors import MediaError
from restore.stills import exif
from restore.stills.still import AlphaKind, Metadata, Picture, Resolution, rescaled

_log = logging.getLogger(__name__)

_ALPHA_KINDS: dict[int, AlphaKind] = {0: "unspecified", 1: "associated", 2: "unassociated"}
_UNITS: dict[int, Literal["inch", "cm", "none"]] = {1: "none", 2: "inch", 3: "cm"}
_COMPRESSIONS = {
    "NONE": None,
    "LZW": "lzw",
    "PACKBITS": "packbits",
    "ZSTD": "zstd",
    "LZMA": "lzma",
}
"""Lossless compressions that are kept; everything else is written as deflate."""
_PREDICTED = frozenset({"lzw", "adobe_deflate", "zstd"})
_SAMPLES = {"MINISWHITE": 1, "MINISBLACK": 1, "PALETTE": 1, "RGB": 3, "YCBCR": 3, "SEPARATED": 4}
_XMP, _IPTC, _DNG = 700, 33723, 50706


def size_of(path: Path) -> tuple[int, int]:
    """Return width and height from the first directory."""
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        return int(page.imagewidth), int(page.imagelength)


def read(path: Path) -> Picture:
    """Read the one picture of a TIFF file; reduced copies and masks beside it are left out.

    Raises:
        MediaError: It holds several pictures, or samples that are not a photograph's.
    """
    with tifffile.TiffFile(path) as file:
        page = _picture_page(file, path)
        _check(page, path)
        samples, depth = _samples(page)
        alpha = None
        colors = _SAMPLES[page.photometric.name]
        if samples.ndim == 3:
            alpha = np.ascontiguousarray(samples[..., colors]) if samples.shape[2] > colors else None
            samples = np.ascontiguousarray(samples[..., 0] if colors == 1 else samples[..., :colors])
        if page.photometric.name == "PALETTE":
            samples = _mapped(samples, page.colormap)
        if page.photometric.name == "MINISWHITE":
            samples = np.asarray(2**depth - 1 - samples, samples.dtype)
        return Picture(
            samples,
            depth,
            alpha,
            _ALPHA_KINDS[int(page.extrasamples[0])] if page.extrasamples else "unassociated",
            _metadata(path, page),
            _orientation(page),
            page.compression.name,
        )


def write(path: Path, picture: Picture) -> None:
    """Write a TIFF file, compressed as the source was if that is lossless, else by deflate."""
    metadata = picture.metadata
    layout, told = exif.directory_of(metadata.exif) or (exif.Layout("<"), {})
    if metadata.exif is not None and not told:
        _log.warning("the damaged EXIF block cannot be put into TIFF: left out")
    extra = {tag: field for tag, field in told.items() if tag in exif.DESCRIPTIVE}
    if metadata.xmp is not None:
        extra[_XMP] = exif.Tag(exif.BYTE, metadata.xmp)
    if metadata.iptc is not None:
        extra[_IPTC] = exif.Tag(exif.UNDEFINED, metadata.iptc)
    samples: Any = picture.pixels
    if picture.alpha is not None:
        samples = np.dstack((samples, picture.alpha))
    compression = _COMPRESSIONS.get(picture.compression or "", "adobe_deflate")
    tifffile.imwrite(
        path,
        samples,
        byteorder=layout.order,
        photometric="rgb" if picture.pixels.ndim == 3 else "minisblack",
        planarconfig="contig" if samples.ndim == 3 else None,
        extrasamples=[_alpha_code(picture.alpha_kind)] if picture.alpha is not None else None,
        compression=compression,
        predictor=compression in _PREDICTED,
        iccprofile=metadata.icc,
        software=False,
        metadata=None,
        **_resolution_settings(metadata.resolution),
    )
    if extra:
        with path.open("r+b") as file:
            exif.append_tags(file, extra)


def _picture_page(file: tifffile.TiffFile, path: Path) -> Any:
    pages = [page for page in file.pages if not _subfile(page) & 0b101]
    if len(pages) != 1:
        raise MediaError(
            f"holds {len(pages)} pictures, expected one: split it into single-page files first (tiffsplit does)",
            str(path),
        )
    if len(file.pages) > 1:
        _log.warning("%s: the reduced copies or masks beside the picture are not carried over", path)
    return pages[0]


def _subfile(page: Any) -> int:
    tag = page.tags.get(254)
    return 0 if tag is None else int(tag.value)


def _check(page: Any, path: Path) -> None:
    """Raise `MediaError` for samples that are not an integer photograph's, or are not all there."""
    kind = getattr(page.photometric, "name", str(page.photometric))
    if _DNG in page.tags or kind in ("CFA", "LINEAR_RAW"):
        raise MediaError("is a camera's raw file: develop it to a 16-bit TIFF first", str(path))
    if kind not in _SAMPLES or (kind == "YCBCR" and page.compression.name not in ("JPEG", "OJPEG")):
        raise MediaError(f"has {kind} samples; convert it to gray or RGB TIFF first", str(path))
    if page.sampleformat != 1 or page.bitspersample > 16:
        form = {1: "integer", 2: "signed integer", 3: "floating-point"}.get(page.sampleformat, "unknown")
        raise MediaError(
            f"has {page.bitspersample}-bit {form} samples, whose black and white are not defined; "
            "scale them to 16-bit integers first",
            str(path),
        )
    if page.samplesperpixel > _SAMPLES[kind] + 1 or page.samplesperpixel < _SAMPLES[kind] or page.imagedepth > 1:
        raise MediaError(f"has {page.samplesperpixel} channels; expected {kind} with at most one more", str(path))
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or min(page.databytecounts) == 0 or max(ends) > path.stat().st_size:
        raise MediaError("is truncated: part of the picture is missing", str(path))


def _samples(page: Any) -> tuple[Plane, int]:
    """Return the samples, channels last, and their depth; below 8 bits become 8, 9 to 15 become 16, reversibly."""
    samples = page.asarray()
    if samples.ndim == 3 and page.planarconfig == 2:
        samples = np.moveaxis(samples, 0, -1)
    bits = page.bitspersample
    if samples.dtype == bool:
        samples = samples.astype(np.uint8)
    depth = 8 if bits <= 8 else 16
    return samples if page.photometric.name == "PALETTE" else rescaled(samples, bits, depth), depth


def _mapped(indices: Plane, colormap: Any) -> Plane:
    """Look a palette up; its 16-bit entries become 8-bit samples (some writers left them at 8 bits)."""
    colors = colormap.T
    table = colors if colors.max() < 256 else colors >> 8
    return np.asarray(table.astype(np.uint8)[indices], np.uint8)


def _metadata(path: Path, page: Any) -> Metadata:
    with path.open("rb") as file:
        told = exif.exif_of_tiff(file)
    values = {code: page.tags[code].value for code in (_XMP, _IPTC, 34675) if code in page.tags}
    return Metadata(
        icc=_bytes(values.get(34675)),
        exif=told,
        xmp=_bytes(values.get(_XMP)),
        iptc=_bytes(values.get(_IPTC)),
        resolution=_resolution(page),
    )


def _bytes(value: Any) -> bytes | None:
    return None if value is None else value if isinstance(value, bytes) else bytes(bytearray(value))


def _orientation(page: Any) -> int:
    tag = page.tags.get(exif.ORIENTATION)
    return int(tag.value) if tag is not None and 1 <= int(tag.value) <= 8 else 1


def _resolution(page: Any) -> Resolution | None:
    ratios = [page.tags[code].value for code in (exif.X_RESOLUTION, exif.Y_RESOLUTION) if code in page.tags]
    if len(ratios) != 2 or any(0 in ratio for ratio in ratios):
        return None
    tag = page.tags.get(exif.RESOLUTION_UNIT)
    return Resolution(
        Fraction(*ratios[0]), Fraction(*ratios[1]), _UNITS.get(2 if tag is None else int(tag.value), "none")
    )


def _resolution_settings(resolution: Resolution | None) -> dict[str, Any]:
    if resolution is None:
        return {}
    ratios = [(side.numerator, side.denominator) for side in (resolution.x, resolution.y)]
    code = next(code for code, unit in _UNITS.items() if unit == resolution.unit)
    return {"resolution": tuple(ratios), "resolutionunit": code}


def _alpha_code(kind: AlphaKind) -> int:
    return next(code for code, name in _ALPHA_KINDS.items() if name == kind)
