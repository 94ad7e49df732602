"""A look at a result: how colourful it is, and a small picture of before and after."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import av
import cv2
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from restore.errors import RestoreError
from restore.metrics import colorfulness
from restore.storage import Place

log = logging.getLogger(__name__)

SAMPLES = 5
"""Frames of a film that are looked at."""
_WIDTH = 160
_MEASURED = 320

Picture = NDArray[np.uint8]
"""Shape (H, W, 3), sRGB."""


@dataclass(frozen=True)
class Look:
    """What was seen of a result."""

    colourfulness: float
    jpeg: bytes
    """Source and result side by side."""


def look(source: Place, output: Place, *, still: bool) -> Look | None:
    """Look at a few frames of a film, or at a still; None if one of the two cannot be shown.

    Of what lies in an object store, only as much is read as is needed for that.
    """
    after, before = _pictures(output, still), _pictures(source, still)
    if not after or not before:
        log.info("%s: no picture of it can be shown in the report", output)
        return None
    value = float(np.mean([colorfulness(_narrow(picture, _MEASURED)) for picture in after]))
    pair = [_narrow(pictures[len(pictures) // 2], _WIDTH) for pictures in (before, after)]
    return Look(round(value, 2), _jpeg(pair))


def _pictures(file: Place, still: bool) -> list[Picture]:
    found: list[Picture] = []
    # A still may be in a format that only its own reader knows; a source without an index may not be searched, and one
    # that ends early has no frame there: what was seen counts, and a look is no reason to fail.
    with suppress(av.FFmpegError, cv2.error, OSError, RestoreError):
        if still:
            picture = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
            return [] if picture is None else [np.asarray(picture, np.uint8)]
        with _opened(file) as media, av.open(media, metadata_errors="replace") as container:
            found.extend(_samples(container))
    return found


@contextmanager
def _opened(file: Place) -> Iterator[Any]:
    if file.is_local:
        yield f"file:{file}"
        return
    import fsspec

    with fsspec.open(str(file), "rb", default_block_size=1 << 20) as opened:
        yield opened


def _samples(container: InputContainer) -> Iterator[Picture]:
    start, length = container.start_time or 0, container.duration or 0
    for number in range(SAMPLES):
        if number:
            container.seek(start + length * number // SAMPLES)
        if (frame := next(container.decode(container.streams.video[0]), None)) is not None:
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _narrow(picture: Picture, width: int) -> Picture:
    if picture.shape[1] <= width:
        return picture
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg(pair: list[Picture]) -> bytes:
    height = min(picture.shape[0] for picture in pair)
    joined = np.concatenate([picture[:height, :, ::-1] for picture in pair], axis=1)
    return bytes(cv2.imencode(".jpg", joined, [cv2.IMWRITE_JPEG_QUALITY, 75])[1])
