"""Judge generators on photographs and films: the public `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from restore import weights as registry
from restore.errors import ConfigError, MediaError
from restore.evaluate import files, sets
from restore.evaluate.contest import contest
from restore.evaluate.of_film import judge_film
from restore.evaluate.of_photos import judge_photos
from restore.evaluate.report import Report


def evaluate(
    sources: str | Path | Sequence[str | Path],
    weights: str | Path | None = None,
    *,
    compare: str | Path | Sequence[str | Path] = (),
    output: str | Path | None = None,
    **options: Any,
) -> Report:
    """Judge a generator by photographs and films in colour; of those in black and white, measure what can be.

    Args:
        sources: Folders and tar files of photographs, and pictures, which together are one set; and films.
        weights: Of the generator: a name in the registry or a file. The default if None, unless two are compared.
        compare: Weights of two or more generators to judge side by side, or of others beside `weights`.
        output: A folder for ``scores.json``, ``scores.csv``, ``pictures.csv`` and ``index.html``.
        **options: The further arguments of `restore.evaluate.contest.contest`: `device`, `precision`, `mean_of` (a
            folder whose mean colour is a baseline), `labels` (CSV), `limit`, `features`, `sheets` and `progress`.

    Raises:
        ConfigError: An option is wrong, or the package with the classifier's weights is not installed.
        WeightsError: Weights are unknown or not on this machine.
        MediaError: A source cannot be read or holds nothing to judge, or the output cannot be written.
        TypeError: An option is unknown.
    """
    others = [compare] if isinstance(compare, str | Path) else list(compare or ())
    first = weights or (registry.default_name() if len(others) < 2 else None)
    rules = contest([first, *others] if first else others, **options)
    paths = [Path(sources)] if isinstance(sources, str | Path) else [Path(source) for source in sources]
    if not paths:
        raise ConfigError("nothing to judge by; name a folder or tar file of photographs, or a film")
    pictures = [path for path in paths if sets.is_photos(path)]
    if output is not None:
        _make(Path(output))
    parts = [judge_photos(pictures, rules)] if pictures else []
    parts += [judge_film(path, rules) for path in paths if path not in pictures]
    report = Report(tuple(parts), rules.about())
    if output is not None:
        files.save(report, Path(output))
    return report


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"cannot be made a folder for the report: {error.strerror or error}", str(folder)) from error
