"""The command evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from restore.cli.bars import Bars

_FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", type=_FOLDER)
@click.option("-o", "--output", required=True, type=_FOLDER, help="A folder for the page, the JSON and the CSV files.")
@click.option("--weights", help="Generator: a name from `restore weights list`, or a file.")
@click.option("--compare", nargs=2, metavar="A B", help="Two generators to judge side by side (beside --weights).")
@click.option("--labels", type=_FOLDER, help="CSV of name,class; folders may be named by ImageNet class instead.")
@click.option("--limit", type=click.IntRange(1), help="Photographs, spread evenly, or first frames of a film.")
@click.option("--mean-of", type=_FOLDER, help="Photographs whose mean colour is a baseline.")
@click.option("--sheets", type=click.IntRange(0), default=48, show_default=True, help="Pictures on the page, a source.")
@click.option("--features/--no-features", default=True, help="Measure FD and top-1, which need restore[train].")
@click.option("--device", help="cpu, cuda, cuda:0 or auto.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), help="fp32 is the reference.")
def evaluate(sources: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Judge a generator by photographs and films that have colour.

    SOURCE is a folder or a tar file of photographs, or a film: it is greyed, coloured and compared with itself.
    """
    from restore.evaluate import evaluate

    bars = Bars()
    try:
        report = evaluate(sources, output=output, progress=bars, **options)
    finally:
        bars.close()
    click.echo(f"{report.text()}\n\nthe pictures are in {output / 'index.html'}")
