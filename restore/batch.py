"""Restore anything: the public `run`, which finds out what its sources are and does them one after another."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from restore import stills
from restore.config import settings_hash
from restore.errors import ConfigError, MediaError, RestoreError
from restore.film import FilmReport, Progress, restore_film
from restore.naming import Location, check_output, frames_for, name_for, output_for
from restore.photo import Ledger, PhotoReport, restore_photo
from restore.setup import Options, film_for, stages_for, versions
from restore.stills.kinds import SUFFIXES
from restore.storage import Place, place
from restore.units import counted

if TYPE_CHECKING:
    from restore.cluster import Crew

log = logging.getLogger(__name__)

Report = FilmReport | PhotoReport
Work = Callable[[], Report]


class BatchError(RestoreError):
    """Some of several sources failed; the rest is done.

    Attributes:
        failures: The error of each source that failed, in order.
        reports: What became of the others.
    """

    def __init__(self, failures: list[RestoreError], reports: list[Report]) -> None:
        super().__init__(failures, reports)
        self.failures, self.reports = failures, reports
        self.exit_code = min(failure.exit_code for failure in failures)  # of a held lease only if all were held

    def __str__(self) -> str:
        lines = "\n".join(f"  {failure}" for failure in self.failures)
        total = len(self.failures) + len(self.reports)
        return f"{len(self.failures)} of {total} sources failed, the rest is done:\n{lines}"


def run(
    source: Location | Sequence[Location], output: Location, *, progress: Progress | None = None, **options: Any
) -> list[Report]:
    """Restore a film, a still, a folder of stills, a numbered sequence, or several of them.

    Args:
        source: A file, a folder of stills (its tree is mirrored), a numbered sequence (a pattern as in
            ``scan_%06d.dpx``, or a folder together with `rate`), or several of these. Films and stills may also lie
            in an object store, as in ``s3://bucket/reel.mkv``.
        output: A file; a folder for a folder of stills or several sources; a pattern or a folder for a sequence. All
            but a sequence may also be a URL; that of a folder ends with a slash.
        progress: Called with a phase, what is done of it and its total, if known.
        **options: The fields of `restore.setup.Options`, which are also the options of the command line.

    Returns:
        What became of each source, in order.

    Raises:
        RestoreError: Something a user can set right; a `BatchError` if some of several sources failed.
        TypeError: An option is unknown.
    """
    chosen = Options(**options)
    sources = [place(source)] if isinstance(source, str | os.PathLike | Place) else [place(one) for one in source]
    if not sources:
        raise ConfigError("no source given")
    with ExitStack() as stack:
        works = list(_works(sources, output, chosen, _crew(chosen, stack), progress))
        if len(works) == 1:
            return [works[0]()]
        return _all(works, progress)


def _all(works: Sequence[Work], progress: Progress | None) -> list[Report]:
    reports: list[Report] = []
    failures: list[RestoreError] = []
    for number, work in enumerate(works, 1):
        try:
            reports.append(work())
        except RestoreError as error:
            failures.append(error)
        if progress:
            progress("files", number, len(works))
    if failures:
        raise BatchError(failures, reports)
    return reports


def _crew(options: Options, stack: ExitStack) -> Callable[[], Crew | None]:
    """Return what finds or starts the workers when the first film needs them."""

    @cache
    def crew() -> Crew | None:
        if not options.elsewhere:
            return None
        from restore.cluster import connect  # imported late: `distributed` takes a second to import

        return stack.enter_context(connect(options))

    return crew


def _works(
    sources: Sequence[Place],
    output: Location,
    options: Options,
    crew: Callable[[], Crew | None],
    progress: Progress | None,
) -> Iterator[Work]:
    """Say what is to be done for each source; nothing is done before all are known."""
    several = len(sources) > 1
    if several:
        _check_apart(sources, output, options)
    for source in sources:
        if options.rate is None and source.is_folder():
            yield from _folder(source, place(output) / source.name if several else place(output), options)
        elif _is_still(source):
            yield partial(_still, source, output, options, several)
        else:
            yield partial(_film, source, output, options, several, crew, progress)


def _check_apart(sources: Sequence[Place], output: Location, options: Options) -> None:
    """Refuse several sources of which one's output would replace another's."""
    taken: dict[Place, Place] = {}
    for source in sources:
        if options.rate is None and source.is_folder():
            target = place(output) / source.name
        elif (still := _is_still(source)) or not _makes_frames(output, options):
            target = name_for(source, output, profile=options.profile, several=True, still=still)
        else:
            target = place(output) / source.stem
        if target in taken:
            raise ConfigError(f"{taken[target]} and {source} would both become {target}; restore them one by one")
        taken[target] = source


def _makes_frames(output: Location, options: Options) -> bool:
    return options.profile == "sequence" or "%" in place(output).name


def _is_still(source: Place) -> bool:
    """Tell whether a source is a still; of what lies in an object store, only the name is looked at."""
    if source.is_local:
        return source.path.is_file() and stills.is_still(source.path)
    return source.suffix.lower() in SUFFIXES and "%" not in source.name


def _film(
    source: Place,
    output: Location,
    options: Options,
    several: bool,
    crew: Callable[[], Crew | None],
    progress: Progress | None,
) -> Report:
    if _makes_frames(output, options):
        named = frames_for(source, output, overwrite=options.overwrite, several=several)
    else:
        named = _output(source, output, options, several, still=False)
    workers = crew()
    if workers:  # which have current folders of their own
        source, named = source.absolute(), named.absolute()
    film = film_for(source, named, workers.options if workers else options)
    return restore_film(film, execute=workers, fresh=options.fresh, progress=progress)


def _output(source: Place, output: Location, options: Options, several: bool, *, still: bool) -> Place:
    return output_for(
        source, output, profile=options.profile, overwrite=options.overwrite, several=several, still=still
    )


def _still(source: Place, output: Location, options: Options, several: bool) -> Report:
    named = _output(source, output, options, several, still=True)
    return restore_photo(source, named, stages_for("still", options), scratch=options.scratch_folder)


def _folder(folder: Place, output: Place, options: Options) -> Iterator[Work]:
    """Mirror a folder of stills; what an interrupted run has finished is not done again.

    Raises:
        MediaError: The folder holds no stills, or the output lies inside it or is a file.
    """
    found = _stills(folder)
    if not found:
        raise MediaError(
            "holds no stills; give films by name, and a numbered sequence together with --rate", str(folder)
        )
    if _inside(output, folder) or output.stat():
        raise MediaError("the output of a folder must be another folder, outside of it", str(output))
    stages = stages_for("still", options)
    if output.is_local:
        output.path.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(output, settings_hash(stages, versions(stages)))

    def work(name: str) -> Report:
        source, target = folder / name, output / name
        if not options.fresh and (report := ledger.find(source, name)):
            return report
        check_output(source, target, overwrite=options.overwrite)
        done = restore_photo(source, target, stages, scratch=options.scratch_folder)
        ledger.add(source, name, done)
        return done

    yield from (partial(work, name) for name in found)


def _stills(folder: Place) -> list[str]:
    """Return the names of the stills in a folder and those below it."""
    if folder.is_local:
        return [path.relative_to(folder.path).as_posix() for path in stills.find_stills(folder.path)]
    names = [str(file).removeprefix(f"{folder}/") for file in folder.glob("**/*") if _is_still(file)]
    return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


def _inside(one: Place, other: Place) -> bool:
    if one.is_local and other.is_local:
        return one.path.resolve().is_relative_to(other.path.resolve())
    return f"{one}/".startswith(f"{other}/")


def describe(reports: Sequence[Report], seconds: float) -> Iterator[str]:
    """Say in a few lines what became of the sources."""
    films = [report for report in reports if isinstance(report, FilmReport)]
    photos = [report for report in reports if isinstance(report, PhotoReport)]
    for film in films:
        earlier = f", {film.resumed_parts} of {film.parts} parts from an earlier run" if film.resumed_parts else ""
        rate = film.frames / max(film.seconds, 1e-3)
        frames = counted(film.frames, "frame")
        yield f"{film.output}: {frames} in {film.seconds:.1f} s ({rate:.1f} frames a second{earlier})"
    for photo in photos[:1] if len(photos) == 1 else ():
        yield f"{photo.output}: done in {seconds:.1f} s{_TONES[photo.toned]}"
    if len(photos) > 1:
        resumed = sum(photo.resumed for photo in photos)
        colour = sum(photo.toned == "color" for photo in photos)
        yield f"{len(photos)} stills in {seconds:.1f} s, {resumed} from an earlier run, {colour} had colour (luma used)"


_TONES = {
    "gray": "",
    "toned": " (a toned print: treated as black and white)",
    "color": " (it has colour; only its luma was used)",
}
