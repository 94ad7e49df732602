"""Progress bars; this package is the only one that prints."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

SHARES = "{desc}: {percentage:3.1f}% |{bar}| [{elapsed}<{remaining}{postfix}]"
_COUNTS = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
"""As tqdm's own, but the speed is always so many a second."""
_UNITS = {"files": "file", "join": "packet"}


class Bars:
    """Progress bars on stderr, one a phase; silent where nobody watches."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm[Any]] = {}

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        if phase == "parts":
            if "restore" in self._bars:
                self._bars["restore"].set_postfix_str(f"parts {done}/{total}", refresh=False)
            return
        if phase not in self._bars:
            if phase != "files":
                self.close(keep="files")
            unit = _UNITS.get(phase, "frame")
            silent = not sys.stderr.isatty()
            self._bars[phase] = tqdm(
                desc=phase, unit=unit, total=total, initial=done, disable=silent, dynamic_ncols=True, smoothing=0.05,
                bar_format=_COUNTS if total else None,
            )  # fmt: skip
        bar = self._bars[phase]
        if total is not None and bar.total != total:
            bar.total = max(total, done)
        bar.update(done - bar.n)

    def close(self, keep: str | None = None) -> None:
        """End the bars, but one."""
        for phase in [phase for phase in self._bars if phase != keep]:
            self._bars.pop(phase).close()
