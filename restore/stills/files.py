"""Reading a still file as a clip, and writing a painted clip back whole."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from restore.clip import Clip, Plane, subsampling_of
from restore.errors import ConfigError, MediaError, RestoreError
from restore.stills import dpx, jpeg, png, profile, tiff, webp
from restore.stills.exif import reset, xmp_reset
from restore.stills.kinds import format_of_file, format_to_write
from restore.stills.still import (
    Format,
    Metadata,
    Picture,
    Resolution,
    Still,
    clip_of,
    luma_from_rgb,
    rescaled,
    rgb_from_clip,
    tone_of,
    upright,
)

_log = logging.getLogger(__name__)

MAX_PIXELS = 2_000_000_000
"""A header that claims more is taken for damaged; 40000x50000 is beyond the largest glass plate scans."""


@dataclass(frozen=True, slots=True)
class _Codec:
    size_of: Callable[[Path], tuple[int, int]] | None
    """Reads width and height from the header; None where the format itself allows no absurd size."""
    read: Callable[[Path], Picture]
    write: Callable[[Path, Picture], None]
    depths: tuple[int, ...]
    alpha: frozenset[str]
    """Kinds of alpha it can hold."""
    side: int
    """Greatest width and height."""
    keeps: frozenset[str]
    """Fields of `Metadata` that it can hold."""


_COVERAGE = frozenset({"unassociated"})
_CODECS: dict[Format, _Codec] = {
    "tiff": _Codec(
        tiff.size_of,
        tiff.read,
        tiff.write,
        (8, 16),
        frozenset({"unassociated", "associated", "unspecified"}),
        2**31 - 1,
        frozenset({"icc", "exif", "xmp", "iptc", "resolution"}),
    ),
    "png": _Codec(
        png.size_of,
        png.read,
        png.write,
        (8, 16),
        _COVERAGE,
        1_000_000,
        frozenset({"icc", "exif", "xmp", "resolution", "chunks"}),
    ),
    "jpeg": _Codec(
        jpeg.size_of,
        jpeg.read,
        jpeg.write,
        (8,),
        frozenset(),
        65_500,
        frozenset({"icc", "exif", "xmp", "iptc", "resolution", "comment"}),
    ),
    "webp": _Codec(
        None,
        webp.read,
        webp.write,
        (8,),
        _COVERAGE,
        webp.SIDE,
        frozenset({"icc", "exif", "xmp"}),
    ),
    "dpx": _Codec(dpx.size_of, dpx.read, dpx.write, (8, 10, 12, 16), _COVERAGE, 2**31 - 1, frozenset({"header"})),
}


def read(path: str | os.PathLike[str]) -> Still:
    """Read a photograph as one upright frame of luma.

    Colour, if there is some, only gives its luma. CMYK is converted to sRGB first.

    Raises:
        MediaError: The file is missing, empty, damaged, truncated, or not a still that is supported.
    """
    path = Path(path)
    form = format_of_file(path)
    codec = _CODECS[form]
    with _decoding(path, form):
        if codec.size_of is not None:
            _check_size(codec.size_of(path), path)
        picture = _as_rgb(codec.read(path), path)
    gray = picture.pixels.ndim == 2
    luma = upright(picture.pixels if gray else luma_from_rgb(picture.pixels), picture.orientation)
    return Still(
        source=path,
        format=form,
        clip=clip_of(luma, picture.depth),
        alpha=None if picture.alpha is None else upright(picture.alpha, picture.orientation),
        alpha_kind=picture.alpha_kind,
        toned="gray" if gray else tone_of(picture.pixels, picture.depth),
        metadata=_turned(picture.metadata, picture.orientation, luma.shape[1], luma.shape[0]),
        compression=picture.compression,
    )


def check_output(path: str | os.PathLike[str], still: Still) -> None:
    """Refuse an output that cannot hold a still, before any work is done.

    Raises:
        ConfigError: The suffix is unknown, the output is the source, or the format lacks alpha or is too small.
    """
    path = Path(path)
    codec = _CODECS[format_to_write(path)]
    if path.exists() and path.samefile(still.source):
        raise ConfigError(f"{path}: the output is the source; give another name or folder")
    if still.alpha is not None and still.alpha_kind not in codec.alpha:
        able = "TIFF, PNG or WebP" if still.alpha_kind == "unassociated" else "TIFF"
        kind = "alpha" if still.alpha_kind == "unassociated" else f"{still.alpha_kind} alpha"
        raise ConfigError(f"{path}: {path.suffix} cannot hold the {kind} of {still.source}; write {able}")
    if still.alpha is not None and (_output_depth(codec, still.clip), codec) in [(d, _CODECS["dpx"]) for d in (10, 12)]:
        raise ConfigError(f"{path}: DPX of {still.clip.color.depth} bits cannot hold alpha; write TIFF or PNG")
    if max(still.clip.luma.shape[1:]) > codec.side:
        height, width = still.clip.luma.shape[1:]
        raise ConfigError(
            f"{path}: {path.suffix} holds at most {codec.side} samples a side, {still.source} has {width}x{height}; "
            "write TIFF or PNG"
        )


def write(path: str | os.PathLike[str], still: Still, clip: Clip) -> None:
    """Write a painted still, in the format that the suffix names, with all that its source held.

    The file appears whole or not at all. Depth stays the clip's where the format can hold it. Without chroma the
    result is gray.

    Args:
        path: The output; its folder is made.
        still: As read.
        clip: Its clip, one frame of full range with 4:4:4 chroma or none.

    Raises:
        ConfigError: As `check_output`.
        MediaError: It cannot be written: the disk is full, or the place may not be written to.
    """
    path = Path(path)
    check_output(path, still)
    if len(clip) != 1 or subsampling_of(clip) not in (None, "444") or not clip.color.full_range:
        raise ValueError(f"a still is one full-range frame with 4:4:4 chroma, got {clip}")
    if still.alpha is not None and still.alpha.shape != clip.luma.shape[1:]:
        raise ValueError(f"alpha has shape {still.alpha.shape}, the picture {clip.luma.shape[1:]}")
    form = format_to_write(path)
    picture = _painted(path, _CODECS[form], still, clip)
    with _appearing(path) as partial:
        _CODECS[form].write(partial, picture)


def _painted(path: Path, codec: _Codec, still: Still, clip: Clip) -> Picture:
    depth, metadata = _output_depth(codec, clip), still.metadata
    if depth < clip.color.depth:
        _log.warning("%s: %s holds %d bits, the source has %d", path, path.suffix, depth, clip.color.depth)
    gray = clip.chroma is None and (metadata.icc is None or profile.space_of(metadata.icc) == "GRAY")
    if gray:
        pixels = rescaled(clip.luma[0], clip.color.depth, depth)
    else:
        pixels = rgb_from_clip(clip, depth)
        _warn_of_changed_luma(path, pixels, clip, depth)
        if metadata.icc is not None and profile.space_of(metadata.icc) == "GRAY":
            chunks = tuple(chunk for chunk in metadata.chunks if chunk[0] not in png.COLOR_CHUNKS)
            metadata = replace(metadata, icc=profile.rgb_from_gray(metadata.icc), chunks=chunks)
    lost = [item.name for item in fields(Metadata) if getattr(metadata, item.name) and item.name not in codec.keeps]
    if lost:
        _log.warning("%s: %s cannot hold these of the source: %s", path, path.suffix, ", ".join(lost))
    kept = Metadata(**{name: getattr(metadata, name) for name in codec.keeps})
    alpha = None if still.alpha is None else rescaled(still.alpha, still.clip.color.depth, depth)
    return Picture(pixels, depth, alpha, still.alpha_kind, kept, compression=still.compression)


def _warn_of_changed_luma(path: Path, rgb: Plane, clip: Clip, depth: int) -> None:
    changed = np.count_nonzero(luma_from_rgb(rgb) != clip.luma[0]) if depth == clip.color.depth else 0
    if changed:
        _log.warning("%s: %d pixels were painted out of gamut, and their luma changed", path, changed)


def _output_depth(codec: _Codec, clip: Clip) -> int:
    return next((depth for depth in codec.depths if depth >= clip.color.depth), codec.depths[-1])


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; when the block ends well, the file is on disk and gets its name."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "; free some space or write elsewhere" if full else ""
        raise MediaError(f"cannot be written: {error.strerror or error}{advice}", str(path)) from error


@contextmanager
def _decoding(path: Path, form: Format) -> Iterator[None]:
    """Turn whatever a decoder raises into a `MediaError`: every library has its own errors for damaged files."""
    try:
        yield
    except RestoreError:
        raise
    except Exception as error:
        name = {"webp": "WebP"}.get(form, form.upper())
        detail = str(error) or type(error).__name__
        raise MediaError(f"is damaged or truncated, and cannot be decoded as {name}: {detail}", str(path)) from error


def _check_size(size: tuple[int, int], path: Path) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise MediaError(f"has no pixels: its header says {width}x{height}", str(path))
    if width * height > MAX_PIXELS:
        raise MediaError(f"is damaged: its header says {width}x{height}, over {MAX_PIXELS:,} pixels", str(path))


def _as_rgb(picture: Picture, path: Path) -> Picture:
    """Convert CMYK to sRGB, and drop an ICC profile that cannot be the samples'."""
    icc = picture.metadata.icc
    if picture.pixels.ndim == 3 and picture.pixels.shape[2] == 4:
        through = "its ICC profile" if icc is not None and profile.space_of(icc) == "CMYK" else "no ICC profile"
        _log.warning("%s: CMYK is converted to sRGB, through %s", path, through)
        pixels = profile.rgb_from_cmyk(picture.pixels, icc)
        return replace(picture, pixels=pixels, metadata=replace(picture.metadata, icc=profile.srgb()))
    allowed = ("RGB", "GRAY") if picture.pixels.ndim == 2 else ("RGB",)
    if icc is not None and profile.space_of(icc) not in allowed:
        _log.warning("%s: its ICC profile is for %s, not for its samples: left out", path, profile.space_of(icc))
        return replace(picture, metadata=replace(picture.metadata, icc=None))
    return picture


def _turned(metadata: Metadata, orientation: int, width: int, height: int) -> Metadata:
    """Return the metadata of the upright picture."""
    exif = None if metadata.exif is None else reset(metadata.exif, width, height)
    xmp = (
        xmp_reset(metadata.xmp) if metadata.xmp is not None and (orientation > 1 or exif is not None) else metadata.xmp
    )
    resolution = metadata.resolution
    if resolution is not None and orientation >= 5:
        resolution = Resolution(resolution.y, resolution.x, resolution.unit)
    return replace(metadata, exif=exif, xmp=xmp, resolution=resolution)
