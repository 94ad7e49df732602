"""The files of a report: JSON and CSV for programs, a page for people."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from restore.errors import MediaError
from restore.evaluate.judge import Row
from restore.evaluate.page import page
from restore.evaluate.report import COLUMNS, Report


def save(report: Report, folder: Path) -> list[Path]:
    """Write ``scores.json``, ``scores.csv``, ``pictures.csv`` and ``index.html`` into a folder, each whole.

    Raises:
        MediaError: They cannot be written.
    """
    writers: dict[str, Callable[[TextIO], Any]] = {
        "scores.json": lambda file: file.write(to_json(report)),
        "scores.csv": partial(_write_scores, report),
        "pictures.csv": partial(_write_pictures, report),
        "index.html": lambda file: file.write(page(report)),
    }
    return [_written(folder / name, writer) for name, writer in writers.items()]


def to_json(report: Report) -> str:
    """Return everything but the sheets."""
    parts = [
        {
            "source": part.source,
            "kind": part.kind,
            "truth": part.truth,
            "notes": part.notes,
            "scores": {method: part.measures(method) for method in part.scores},
            "pictures": {method: [asdict(row) for row in scores.rows] for method, scores in part.scores.items()},
        }
        for part in report.parts
    ]
    return json.dumps({"about": report.about, "parts": parts}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write_scores(report: Report, file: TextIO) -> None:
    """Write one CSV line a method."""
    names = ["pictures", "labelled", *(column.field for column in COLUMNS), "cdc_1", "cdc_2", "cdc_4"]
    writer = csv.writer(file)
    writer.writerow(["source", "method", *names])
    for part in report.parts:
        for method in part.scores:
            row = part.measures(method)
            writer.writerow([part.source, method, *(row.get(name) for name in names)])


def _write_pictures(report: Report, file: TextIO) -> None:
    """Write one CSV line a picture or frame and method."""
    names = [field.name for field in fields(Row)]
    writer = csv.writer(file)
    writer.writerow(["source", "method", *names])
    for part in report.parts:
        for method, scores in part.scores.items():
            writer.writerows([part.source, method, *(getattr(row, name) for name in names)] for row in scores.rows)


def _written(path: Path, write: Callable[[TextIO], Any]) -> Path:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            write(file)
        temporary.replace(path)
    except OSError as error:
        raise MediaError(f"cannot be written: {error.strerror or error}", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
