"""Say how a job, an output root or one result stands, from what lies there alone; changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from restore.errors import MediaError
from restore.job.config import JobConfig, load
from restore.job.find import find
from restore.job.journal import FOLDER
from restore.job.record import read_record
from restore.lease import holder_of
from restore.storage import Place, place


@dataclass(frozen=True)
class FilmStatus:
    """One source or result."""

    name: str
    state: str
    """``done``, ``running``, ``failed``, ``interrupted``, ``waiting`` or ``elsewhere``."""
    frames: int = 0
    total_frames: int | None = None
    parts: int | None = None
    total_parts: int | None = None
    note: str | None = None
    """The error, or who works on it."""


_NOTHING = FilmStatus("", "interrupted")


@dataclass(frozen=True)
class Status:
    """How something stands."""

    target: str
    running: str | None
    """Who runs the job now."""
    last_run: dict[str, Any] | None
    """Start, end and exit code of the job's last run, which may be going on."""
    films: list[FilmStatus] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many are in which state."""
        return dict(sorted(Counter(film.state for film in self.films).items()))

    def json(self) -> str:
        """Return it for programs."""
        return json.dumps({**asdict(self), "counts": self.counts}, indent=1, ensure_ascii=False)

    def text(self) -> str:
        """Return it for people: what is done is only counted, unless it is all there is."""
        lines = [f"job: running ({self.running})" if self.running else _told(self.last_run)]
        shown = [film for film in self.films if film.state != "done"]
        lines += [_line(film) for film in (shown or self.films if len(self.films) == 1 else shown)]
        lines.append(", ".join(f"{number} {state}" for state, number in self.counts.items()) or "nothing found")
        return "\n".join(line for line in lines if line)


def status(target: Path | str) -> Status:
    """Look at a job by its configuration or its output root, or at one result or its work folder.

    Raises:
        ConfigError: The configuration is wrong.
        MediaError: There is nothing of that name, or nothing is known of it.
    """
    if Path(target).suffix in (".yaml", ".yml"):
        config = load(Path(target))
        return _of_root(place(config.output), str(target), config)
    where = place(str(target).removesuffix("/").removesuffix(".restore"))
    if _work(where).is_folder() or (where.stat() and read_record(where) is not None):
        return Status(str(where), None, None, [_of_result(where)])
    if where.stat():
        raise MediaError("has no record of how it was made, as results of films and of jobs have", str(where))
    if not where.is_folder():
        raise MediaError("there is no result, work folder, output root or configuration of this name", str(where))
    return _of_root(where, str(where), None)


def _of_root(root: Place, target: str, config: JobConfig | None) -> Status:
    holder = holder_of(root / FOLDER / "lease")
    report = _json(root / FOLDER / "report.json")
    films: dict[str, FilmStatus] = {}
    above = f"{report.get('output', '')}".rstrip("/") + "/"
    for entry in report.pop("films", []):
        name = _named_here(entry["output"], above, root)
        films[name] = _of_entry(name, entry, alive=holder is not None)
    for output in _outputs(root):
        # what lies there now is newer than the report
        told = films.get(str(output), _NOTHING)
        if told.state not in ("done", "failed", "elsewhere") or _work(output).is_folder():
            films[str(output)] = _of_result(output, told)
    for item in find(config)[0] if config else ():
        name = str(root / item.output)
        films.setdefault(name, FilmStatus(name, "waiting"))
    return Status(target, str(holder) if holder else None, report or None, sorted(films.values(), key=lambda f: f.name))


def _named_here(output: str, above: str, root: Place) -> str:
    """Name a result as here, where the root may be called otherwise: by a relative path, or as it is mounted."""
    return str(root / output.removeprefix(above)) if output.startswith(above) else output


def _of_entry(name: str, entry: dict[str, Any], *, alive: bool) -> FilmStatus:
    state = {"skipped": "done"}.get(entry["state"], entry["state"])
    if state == "running" and not alive:
        state = "interrupted"
    return FilmStatus(name, state, entry["frames"], entry["total_frames"], entry["parts"], note=entry["error"])


def _outputs(folder: Place) -> Iterator[Place]:
    """Find what has a work folder or a record; folders that are symbolic links are not entered."""
    listing = folder.listing()
    for name, stat in listing.items():
        if name.endswith(".restore") and stat is None:
            yield folder / name.removesuffix(".restore")
        elif stat is not None and name.endswith(".json") and name.removesuffix(".json") in listing:
            yield folder / name.removesuffix(".json")
        elif stat is None and not name.startswith(".") and not name.endswith(".lease"):
            below = folder / name
            if not (below.is_local and below.path.is_symlink()):
                yield from _outputs(below)


def _of_result(output: Place, told: FilmStatus = _NOTHING) -> FilmStatus:
    """Look at one result: its work folder if there is one, else its record."""
    if _work(output).is_folder():
        return _of_work(output, _work(output), told)
    record = read_record(output) or {}
    frames = record.get("frames")
    return FilmStatus(str(output), "done", frames or 0, frames, record.get("parts"), record.get("parts"))


def _of_work(output: Place, work: Place, told: FilmStatus) -> FilmStatus:
    holder = holder_of(output.parent / f"{output.name}.lease") or holder_of(work / "lease")
    plan = _json(work / "plan.json")
    records = [_json(file) for file in (work / "parts").children() if file.suffix == ".json"]
    done = [record for record in records if record.get("key") == plan.get("key")]
    first, stop = plan.get("frames") or (0, 0)
    return FilmStatus(
        name=str(output),
        state="running" if holder else told.state if told.state == "failed" else "interrupted",
        frames=sum(record["stop"] - record["first"] for record in done),
        total_frames=(stop - first) or None,
        parts=len(done),
        total_parts=len(plan.get("parts") or ()) or None,
        note=str(holder) if holder else told.note,
    )


def _work(output: Place) -> Place:
    return output.parent / f"{output.name}.restore"


def _json(file: Place) -> dict[str, Any]:
    """Read what another process may be writing or removing."""
    try:
        content = json.loads(file.read_if_there() or b"{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _told(run: dict[str, Any] | None) -> str:
    if run is None:
        return ""
    if run["exit_code"] is None:
        return f"job: not running; its run of {run['started']} died"
    return f"job: not running; its last run ended {run['finished']} with exit code {run['exit_code']}"


def _line(film: FilmStatus) -> str:
    share = f", {film.frames} of {film.total_frames} frames" if film.total_frames else ""
    parts = f", {film.parts} of {film.total_parts} parts" if film.total_parts else ""
    return f"{film.state}: {film.name}{share}{parts}" + (f" ({film.note})" if film.note else "")
