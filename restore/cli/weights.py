"""The commands of `restore weights`."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from tqdm import tqdm

from restore.errors import RestoreError


@click.group()
def weights() -> None:
    """The registry of generators' weights."""


@weights.command("list")
def weights_list() -> None:
    """List the known weights, and which are here."""
    from restore import weights

    for name, entry in weights.entries().items():
        here = "here" if weights.installed(name) else "not fetched"
        default = ", default" if name == weights.default_name() else ""
        click.echo(f"{name:18} {entry.generator:14} {entry.bytes / 1e6:7.1f} MB  {here}{default}  [{entry.licence}]")


@weights.command("fetch")
@click.argument("name")
def weights_fetch(name: str) -> None:
    """Download published weights, and check them."""
    from restore import weights

    with tqdm(unit="B", unit_scale=True, unit_divisor=1024, desc=name, disable=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        path = weights.fetch(name, progress=progress)
    click.echo(f"{name} is in {path}")


@weights.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...")
def weights_verify(names: tuple[str, ...]) -> None:
    """Hash weights, and compare them with the registry.

    All that are here, if none is named.
    """
    from restore import weights

    results = [weights.verify(name) for name in names or [n for n in weights.entries() if weights.installed(n)]]
    for result in results:
        verdict = "ok" if result.ok else "WRONG" if result.entry else "unknown"
        click.echo(f"{verdict:8}{result.sha256}  {result.path}")
    if any(result.entry and not result.ok for result in results):
        raise RestoreError("some weights are not what the registry says; fetch or import them again")


@weights.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Name for weights that the registry does not know.")
@click.option(
    "--generator", type=click.Choice(["compact", "deoldify_wide", "deoldify_deep", "eccv16", "cnn", "pix2pix"])
)
@click.option("--settings", metavar="YAML", default="{}", help="What the generator was built with, as {field: value}.")
def weights_import(file: Path, name: str | None, generator: str | None, settings: str) -> None:
    """Take in weights that you have, published or your own."""
    from restore import weights
    from restore.settings_file import parsed

    path = weights.import_file(file, name=name, generator=generator, settings=parsed(settings, "--settings"))
    entry = weights.verify(path).entry
    click.echo(f"imported as {entry.name if entry else path.stem}: {path}")
