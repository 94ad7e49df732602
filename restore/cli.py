"""The command line: each command parses, calls one public function, and prints."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from restore import __version__
from restore.errors import RestoreError
from restore.setup import parse_rate, parse_time

_DEBUG = "RESTORE_DEBUG"


class _Time(click.ParamType[Fraction]):
    """A time: seconds, or ``[HH:]MM:SS[.mmm]``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        try:
            return parse_time(value)
        except ValueError:
            self.fail(f"{value!r} is not a time; write seconds, or HH:MM:SS.mmm", param, ctx)


class _Rate(click.ParamType[Fraction]):
    """Frames per second, as a whole number, a decimal or a fraction."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        try:
            return parse_rate(value)
        except ValueError:
            self.fail(f"{value!r} is not a frame rate; write for example 18, 23.976 or 24000/1001", param, ctx)


_SHARES = "{desc}: {percentage:3.1f}% |{bar}| [{elapsed}<{remaining}{postfix}]"
_UNITS = {"files": "file", "join": "packet"}


class Bars:
    """Progress bars on stderr, one a phase; silent where nobody watches."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm[Any]] = {}

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        if phase not in self._bars:
            if phase != "files":
                self.close(keep="files")
            unit = _UNITS.get(phase, "frame")
            silent = not sys.stderr.isatty()
            self._bars[phase] = tqdm(
                desc=phase, unit=unit, total=total, initial=done, disable=silent, dynamic_ncols=True, smoothing=0.05
            )
        bar = self._bars[phase]
        if total is not None and bar.total != total:
            bar.total = max(total, done)
        bar.update(done - bar.n)

    def close(self, keep: str | None = None) -> None:
        """End the bars, but one."""
        for phase in [phase for phase in self._bars if phase != keep]:
            self._bars.pop(phase).close()


def options_of_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that decide what a result looks like."""
    for option in reversed(
        [
            click.option("-p", "--pipeline", help="Stages: a YAML file, or the name of a shipped pipeline."),
            click.option("--profile", help="access, archive, edit, sequence or a YAML file [by the output's name]."),
            click.option(
                "--set",
                "settings",
                multiple=True,
                metavar="STAGE.FIELD=VALUE",
                help="Override one setting; repeatable.",
            ),
            click.option("--weights", help="Generator: a name from `restore weights list`, or a file."),
            click.option("--device", help="cpu, cuda, cuda:0,cuda:1 or auto."),
            click.option(
                "--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), help="fp32 is the reference."
            ),
            click.option("--batch", type=click.IntRange(1), help="Frames per pass of the generator."),
            click.option("--render-factor", type=click.IntRange(3, 100), help="DeOldify: side of the input / 16."),
            click.option("--rate", type=_Rate(), help="Frames per second of a numbered sequence."),
            click.option("--start", type=_Time(), help="Try a passage: its start, seconds or HH:MM:SS.mmm."),
            click.option("--end", type=_Time(), help="Try a passage: its end."),
        ]
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="restore")
@click.option("-v", "--verbose", is_flag=True, help="Say more about what is done.")
def cli(verbose: bool) -> None:
    """Give old films and photographs colour, without harming the original."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s: %(message)s")


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A file, or a folder.")
@options_of_run
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes on this machine.")
@click.option("--part-frames", type=click.IntRange(1), help="Frames of a unit of work; about 15 seconds if not given.")
@click.option("--chunk", type=click.IntRange(1), default=16, show_default=True, help="Frames held in memory together.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--fresh", is_flag=True, help="Do not continue an interrupted run, start over.")
def run(sources: tuple[str, ...], output: Path, **options: Any) -> None:
    """Restore SOURCE: a film, a still, a folder of stills, or a numbered sequence (scan_%06d.dpx)."""
    from restore.run import describe, run

    bars, began = Bars(), time.monotonic()
    try:
        reports = run(list(sources), output, progress=bars, **options)
    finally:
        bars.close()
    for line in describe(reports, time.monotonic() - began):
        click.echo(line)


@cli.command()
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


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("result", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A film, H.264.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
def compare(source: Path, result: Path, output: Path, overwrite: bool) -> None:
    """Put SOURCE and RESULT side by side in one film (needs the ffmpeg program)."""
    from restore.compare import compare

    click.echo(f"{compare(source, result, output, overwrite=overwrite)}: before on the left, after on the right")


@cli.group()
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
    """Hash weights, and compare them with the registry; all that are here, if none is named."""
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
@click.option("--generator", type=click.Choice(["compact", "deoldify_wide", "deoldify_deep", "eccv16"]))
@click.option("--settings", metavar="YAML", default="{}", help="What the generator was built with, as {field: value}.")
def weights_import(file: Path, name: str | None, generator: str | None, settings: str) -> None:
    """Take weights that you have: a published checkpoint, or your own."""
    import yaml

    from restore import weights

    path = weights.import_file(file, name=name, generator=generator, settings=yaml.safe_load(settings))
    entry = weights.verify(path).entry
    click.echo(f"imported as {entry.name if entry else path.stem}: {path}")


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--resume/--fresh", default=True, help="Continue from the last checkpoint.")
def train(config: Path, resume: bool) -> None:
    """Train a generator as CONFIG says (phase 1: the generator alone)."""
    from restore.train import Progress, load, train

    with tqdm(total=100, unit="%", desc="train", disable=not sys.stderr.isatty(), bar_format=_SHARES) as bar:

        def progress(now: Progress) -> None:
            bar.set_postfix(step=now.step, loss=f"{now.loss:.3f}", refresh=False)
            bar.update(100 * now.share - bar.n)

        path = train(load(config), resume=resume, progress=progress)
    click.echo(f"weights are in {path}")


@cli.command()
@click.option("--film", type=click.Path(), help="Measure with this film instead of a generated one.")
@click.option("--weights", help="Generator to measure.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:0,cuda:1 or auto.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def bench(film: str | None, as_json: bool, **options: Any) -> None:
    """Measure frames a second: by stage, of the generator alone, and end to end."""
    from restore.bench import bench

    report = bench(film, **options)
    click.echo(report.json() if as_json else report.text())


def main() -> None:
    """Run the command line; a user's error is one line on stderr and exit status 1."""
    warnings.filterwarnings("ignore", module="torch")
    try:
        cli.main(standalone_mode=False)
    except click.Abort:
        click.echo("stopped; run the same command again to continue", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except RestoreError as error:
        if os.environ.get(_DEBUG) == "1":
            raise
        click.echo(f"restore: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if os.environ.get(_DEBUG) == "1":
            raise
        click.echo(f"restore: {error.filename or ''}: {error.strerror}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
