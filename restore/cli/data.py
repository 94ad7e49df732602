"""The commands of data."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from tqdm import tqdm


@click.group()
def data() -> None:
    """Pictures to train with."""


@data.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the finished set.")
@click.option("--short-side", default=256, show_default=True, help="Pixels of the shorter side; none are enlarged.")
@click.option("--quality", default=90, show_default=True, help="Of JPEG.")
@click.option("--shard-mb", default=32, show_default=True, help="Megabytes of a tar shard.")
@click.option("--validation-share", default=0.0, show_default=True, help="Share of the pictures to hold out.")
@click.option("--workers", type=click.IntRange(1), help="Processes [all cores]; the result is the same.")
def prepare(
    sources: tuple[Path, ...],
    output: Path,
    short_side: int,
    quality: int,
    shard_mb: int,
    validation_share: float,
    workers: int | None,
) -> None:
    """Make a training set of colour photographs.

    SOURCES are folders or tar files; each photograph is taken once, into tar shards.
    """
    from restore.train.prepare import Preparation, prepare
    from restore.train.screen import Form

    settings = Preparation(form=Form(short_side, quality), shard_mb=shard_mb, validation_share=validation_share)
    with tqdm(unit="picture", desc="prepare", disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:

        def progress(done: int, total: int, kept: int) -> None:
            bar.total = total
            bar.set_postfix(kept=kept, refresh=False)
            bar.update(done - bar.n)

        report = prepare(sources, output, settings, workers=workers or os.cpu_count() or 1, progress=progress)
    for name, count in {**report.kept, **report.dropped}.items():
        click.echo(f"{count:9,}  {name if name in report.kept else f'dropped: {name}'}")
    click.echo(f"the set is in {report.output}; every picture is listed in {report.output / 'pictures.csv'}")
