"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import click

from restore.units import parse_rate, parse_time


class Time(click.ParamType[Fraction]):
    """A time: seconds, or ``[HH:]MM:SS[.mmm]``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        try:
            return parse_time(value)
        except ValueError:
            self.fail(f"{value!r} is not a time; write seconds, or HH:MM:SS.mmm", param, ctx)


class Rate(click.ParamType[Fraction]):
    """Frames per second, as a whole number, a decimal or a fraction."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        try:
            return parse_rate(value)
        except ValueError:
            self.fail(f"{value!r} is not a frame rate; write for example 18, 23.976 or 24000/1001", param, ctx)


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
            click.option("--rate", type=Rate(), help="Frames per second of a numbered sequence."),
            click.option("--start", type=Time(), help="Try a passage: its start, seconds or HH:MM:SS.mmm."),
            click.option("--end", type=Time(), help="Try a passage: its end."),
        ]
    ):
        command = option(command)
    return command


def options_of_workers(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that decide who does the work, and where."""
    file = click.Path(exists=True, dir_okay=False)
    for option in reversed(
        [
            click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes here."),
            click.option("--threads", type=click.IntRange(0), default=0, help="Of each process; 0 shares the cores."),
            click.option("--executor", metavar="NAME|FILE.yaml", help="Workers of local, slurm, kubernetes or a file."),
            click.option("--dask", metavar="ADDRESS", help="Workers of a Dask scheduler that runs: tcp://host:8786."),
            click.option("--dask-tls-ca", type=file, help="For tls://, if not in Dask's configuration: authority."),
            click.option("--dask-tls-cert", type=file, help="Certificate."),
            click.option("--dask-tls-key", type=file, help="Key."),
            click.option(
                "--dask-timeout",
                type=float,
                default=60,
                show_default=True,
                help="Seconds to wait for a lost scheduler.",
            ),
            click.option("--part-timeout", type=float, help="Seconds until a part is done again elsewhere [measured]."),
            click.option(
                "--dashboard", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="Of --workers."
            ),
        ]
    ):
        command = option(command)
    return command


def options_of_metrics(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that publish figures."""
    address = click.option(
        "--metrics-address", default="127.0.0.1", show_default=True, help="Interface of --metrics-port."
    )
    port = click.option(
        "--metrics-port", type=click.IntRange(0, 65535), help="Serve figures for Prometheus; 0 is any free port."
    )
    return port(address(command))
