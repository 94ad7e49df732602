"""What becomes of the sources of a job: as a record in memory, as JSON for programs, as one HTML page for people."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Any, Literal

from restore import __version__
from restore.job.jsonlog import redacted

State = Literal["waiting", "running", "done", "skipped", "failed", "elsewhere", "interrupted"]
MEANINGS: dict[State, str] = {
    "waiting": "not begun",
    "running": "being restored",
    "done": "restored in this run",
    "skipped": "finished by an earlier run",
    "failed": "could not be restored",
    "elsewhere": "another process is working on it",
    "interrupted": "stopped; the next run continues it",
}
PICTURES = 200
"""Pictures in a page at most."""


@dataclass
class Entry:
    """One source and what became of it."""

    source: str
    output: str
    kind: Literal["film", "still"]
    state: State = "waiting"
    phase: str | None = None
    """Of a running film: ``scan``, ``restore`` or ``join``."""
    frames: int = 0
    total_frames: int | None = None
    parts: int = 0
    """Parts finished, those of earlier runs included."""
    attempts: int = 0
    seconds: float = 0.0
    """Wall time in this run, without waiting."""
    frames_per_second: float | None = None
    mean_chroma: float | None = None
    """Mean of sqrt(a*^2 + b*^2) of what the generator gave."""
    colourfulness: float | None = None
    """Of the result (Hasler and Suesstrunk): 0 grey, 15 slightly, 33 moderately, 59 quite colourful."""
    warnings: list[str] = field(default_factory=list)
    error: str | None = None


@dataclass
class RunReport:
    """A run of a job."""

    output: str
    started: datetime
    config: str = ""
    finished: datetime | None = None
    exit_code: int | None = None
    """None while it runs."""
    note: str | None = None
    """Why it stopped, if it was stopped."""
    entries: dict[str, Entry] = field(default_factory=dict)
    """By source."""
    pictures: dict[str, bytes] = field(default_factory=dict, repr=False)
    """JPEG of before and after, by source; shown in the page only."""

    @property
    def counts(self) -> dict[str, int]:
        """How many sources are in which state."""
        found = Counter(entry.state for entry in self.entries.values())
        return {state: found[state] for state in MEANINGS if found[state]}

    @property
    def progress(self) -> int:
        """What differs whenever something has happened."""
        return hash(tuple((e.source, e.state, e.phase, e.frames, e.attempts) for e in self.entries.values()))

    @property
    def age_seconds(self) -> float:
        """How long ago it was started."""
        return (datetime.now(UTC) - self.started).total_seconds()

    def forget_finished(self, keep: int) -> None:
        """Forget the oldest of many sources that are done, so that a run that watches for months stays small."""
        finished = [name for name, entry in self.entries.items() if entry.state in ("done", "skipped")]
        for name in finished[: max(0, len(finished) - keep)]:
            del self.entries[name]
            self.pictures.pop(name, None)

    def add_picture(self, source: str, jpeg: bytes) -> None:
        """Keep a picture, and forget the oldest of too many."""
        self.pictures[source] = jpeg
        while len(self.pictures) > PICTURES:
            self.pictures.pop(next(iter(self.pictures)))

    def lines(self) -> Iterator[str]:
        """Say in a few lines what became of the sources."""
        for entry in sorted(self.entries.values(), key=_by_urgency):
            if entry.error:
                yield f"{entry.state}: {redacted(entry.error)}"
        counts = [f"{number} {state}" for state, number in self.counts.items()]
        told = "; ".join(filter(None, (", ".join(counts), self.note))) or "nothing to do"
        yield f"{self.output}: {redacted(told)}"

    def json(self) -> str:
        """Return the report for programs."""
        content = {
            "restore": __version__,
            "config": self.config,
            "output": self.output,
            "started": stamp(self.started),
            "finished": stamp(self.finished) if self.finished else None,
            "exit_code": self.exit_code,
            "note": self.note,
            "counts": self.counts,
            "films": [asdict(entry) for entry in self.entries.values()],
        }
        return json.dumps(_clean(content), indent=1, ensure_ascii=False) + "\n"

    def html(self) -> str:
        """Return the report as one page without links to anything outside it."""
        rows = "\n".join(self._row(entry) for entry in sorted(self.entries.values(), key=_by_urgency))
        counts = ", ".join(f"{number} {state}" for state, number in self.counts.items()) or "no sources"
        ended = f"ended {self.finished:%Y-%m-%d %H:%M:%S} UTC" if self.finished else "running"
        heading = f"{counts}; started {self.started:%Y-%m-%d %H:%M:%S} UTC, {ended}"
        if self.exit_code is not None:
            heading += f", exit code {self.exit_code}"
        note = f"<p>{escape(redacted(self.note))}</p>" if self.note else ""
        names = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        return (
            f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>restore: {escape(counts)}</title>\n'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>\n'
            f"<h1>{escape(redacted(self.output))}</h1><p>{escape(heading)}</p>{note}\n"
            f"<table><thead><tr>{names}</tr></thead><tbody>\n{rows}\n</tbody></table>\n</html>\n"
        )

    def _row(self, entry: Entry) -> str:
        total = f" of {entry.total_frames}" if entry.total_frames and entry.total_frames != entry.frames else ""
        notes = [f"<b>{escape(redacted(entry.error))}</b>"] if entry.error else []
        notes += [escape(redacted(line)) for line in entry.warnings]
        picture = self.pictures.get(entry.source)
        shown = (
            f'<img alt="before and after" src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">'
            if picture
            else ""
        )
        cells = (
            f'<span title="{MEANINGS[entry.state]}">{entry.state}</span>',
            escape(redacted(entry.source)),
            f"{entry.frames}{total}",
            _number(entry.frames_per_second),
            _number(entry.mean_chroma),
            _number(entry.colourfulness),
            "<br>".join(notes),
            shown,
        )
        return f'<tr class="{entry.state}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


_COLUMNS = ("state", "source", "frames", "frames/s", "mean chroma", "colourfulness", "notes", "before, after")
_STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2em;color:#222;background:#fff}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.35em .6em;text-align:left;vertical-align:top;"
    "border-bottom:1px solid #ddd;overflow-wrap:anywhere}td:nth-child(n+3):nth-child(-n+6){text-align:right;"
    "white-space:nowrap}.failed td:first-child{color:#b00020;font-weight:bold}.done td:first-child{color:#1b6e2e}"
    ".interrupted td:first-child,.elsewhere td:first-child{color:#8a5a00}img{display:block;max-width:20em}"
)


def stamp(moment: datetime) -> str:
    """Write a time in UTC as ISO 8601."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _by_urgency(entry: Entry) -> tuple[int, str]:
    order = ("failed", "interrupted", "elsewhere", "running", "waiting", "done", "skipped")
    return order.index(entry.state), entry.source


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value
