"""The commands run, inspect, compare and bench."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from restore.cli.bars import Bars
from restore.cli.options import options_of_metrics, options_of_run, options_of_workers


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-o", "--output", required=True, help="A file, a folder, or a URL as in s3://bucket/reel.mkv.")
@options_of_run
@options_of_workers
@click.option("--scratch", type=click.Path(file_okay=False), help="Folder for copies of what lies in object stores.")
@click.option("--part-frames", type=click.IntRange(1), help="Frames of a unit of work; about 15 seconds if not given.")
@click.option("--chunk", type=click.IntRange(1), default=16, show_default=True, help="Frames held in memory together.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--fresh", is_flag=True, help="Do not continue an interrupted run, start over.")
@options_of_metrics
def run(sources: tuple[str, ...], output: str, metrics_port: int | None, metrics_address: str, **options: Any) -> None:
    """Restore films and stills.

    SOURCE is a film, a still, a folder of stills, or a numbered sequence (scan_%06d.dpx); several are done in turn.

    Exits with 0 if all is done, 1 if something is not, 75 if another run is working on the output.
    """
    from restore.batch import describe, run
    from restore.job import Figures, published

    bars, figures, began = Bars(), Figures(), time.monotonic()
    try:
        with published(figures, metrics_port, metrics_address):
            reports = run(list(sources), output, progress=figures.following(bars), **options)
    finally:
        bars.close()
    for line in describe(reports, time.monotonic() - began):
        click.echo(line)


@click.command()
@click.argument("source", type=click.Path())
@options_of_run
@click.option("--estimate/--no-estimate", default=True, help="Try a few frames to say how long a run would take.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def inspect(source: str, estimate: bool, as_json: bool, **options: Any) -> None:
    """Say what SOURCE is, and what `run` would do with it."""
    from restore.inspection import inspect

    bars = Bars()
    try:
        report = inspect(source, estimate=estimate, progress=bars, **options)
    finally:
        bars.close()
    click.echo(report.json() if as_json else report.text())


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("result", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A film, H.264.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
def compare(source: Path, result: Path, output: Path, overwrite: bool) -> None:
    """Put SOURCE and RESULT side by side in one film.

    It needs the ffmpeg program.
    """
    from restore.compare import compare

    click.echo(f"{compare(source, result, output, overwrite=overwrite)}: before on the left, after on the right")


@click.command()
@click.option("--film", type=click.Path(), help="Measure with this film instead of a generated one.")
@click.option("--weights", help="Generator to measure.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:0,cuda:1 or auto.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def bench(film: str | None, as_json: bool, **options: Any) -> None:
    """Measure frames a second on this machine.

    By stage, of the generator alone, and end to end.
    """
    from restore.bench import bench

    report = bench(film, **options)
    click.echo(report.json() if as_json else report.text())
