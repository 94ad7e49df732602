"""The pictures to look at: grey, coloured and true side by side, the worst first, as many as fit."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from restore.photographs import Picture

_QUALITY = 88


@dataclass(frozen=True, slots=True)
class Sheet:
    """One picture in all its versions."""

    name: str
    caption: str
    badness: float
    """What sheets are sorted by, the greatest first."""
    panels: tuple[tuple[str, bytes], ...]
    """Methods and JPEG files, in the order in which they are shown."""


class Gallery:
    """Keeps the worst sheets of those it is offered, so that memory and the page are bounded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sheets: dict[Hashable, Sheet] = {}

    def offer(self, group: Hashable, name: str, caption: str, badness: float, panels: Mapping[str, Picture]) -> None:
        """Keep a picture if it is among the worst; of a group, for example a second of film, only the worst one."""
        if self._limit == 0:
            return
        rival = group
        if group not in self._sheets and len(self._sheets) == self._limit:
            rival = min(self._sheets, key=lambda one: self._sheets[one].badness)
        if rival in self._sheets:
            if badness <= self._sheets[rival].badness:
                return
            del self._sheets[rival]
        encoded = tuple((method, _jpeg(picture)) for method, picture in panels.items())
        self._sheets[group] = Sheet(name, caption, badness, encoded)

    def sheets(self) -> tuple[Sheet, ...]:
        """Return what was kept, the worst first."""
        return tuple(sorted(self._sheets.values(), key=lambda sheet: -sheet.badness))


def _jpeg(picture: Picture) -> bytes:
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    return data.tobytes()
