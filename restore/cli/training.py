"""The command train."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from tqdm import tqdm

from restore.cli.bars import SHARES


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--resume/--fresh", default=True, help="Continue from the last checkpoint.")
def train(config: Path, resume: bool) -> None:
    """Train a generator.

    CONFIG says how: NoGAN, or one of the recipes it is compared with; see configs/train.
    """
    from restore.train import Progress, load, train

    phase = ""
    with tqdm(total=100, unit="%", desc="train", disable=not sys.stderr.isatty(), bar_format=SHARES) as bar:

        def progress(now: Progress) -> None:
            nonlocal phase
            if phase != now.phase:
                phase = now.phase
                bar.reset()
                bar.set_description(phase)
            bar.set_postfix(step=now.step, loss=f"{now.loss:.3f}", refresh=False)
            bar.update(100 * now.share - bar.n)

        path = train(load(config), resume=resume, progress=progress)
    click.echo(f"weights are in {path}")
