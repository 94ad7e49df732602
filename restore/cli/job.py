"""The commands job and status."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from restore.cli.options import options_of_metrics


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--watch", "watch_seconds", type=click.FloatRange(min=0.1), is_flag=False, flag_value=10.0, metavar="[SECONDS]",
    help="Keep looking for sources that arrive, so often [10], until stopped.",
)  # fmt: skip
@options_of_metrics
def job(config: Path, watch_seconds: float | None, metrics_port: int | None, metrics_address: str) -> None:
    """Restore all that CONFIG names and that is not finished.

    Exits with 0 if all is done, 2 if CONFIG is wrong, 3 if some sources failed, 75 if another process holds the lease,
    130 if it was stopped and the next run continues.
    """
    from restore.errors import ConfigError
    from restore.job import run_job

    try:
        report = run_job(
            config, watch_seconds=watch_seconds, metrics_port=metrics_port, metrics_address=metrics_address
        )
    except ConfigError as error:
        click.echo(f"restore: {error}", err=True)
        sys.exit(2)
    for line in report.lines():
        click.echo(line)
    sys.exit(report.exit_code)


@click.command()
@click.argument("target", metavar="OUT|CONFIG")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(target: str, as_json: bool) -> None:
    """Say what is done, running and failed.

    OUT is one result, or the output root of a job; CONFIG is the job's. Nothing is changed.
    """
    from restore.job.status import status

    found = status(target)
    click.echo(found.json() if as_json else found.text())
