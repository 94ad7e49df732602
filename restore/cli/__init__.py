"""The command line: each command parses, calls one public function, and prints."""

from __future__ import annotations

import io
import os
import sys
import warnings

import click

from restore import __version__
from restore.cli.data import data
from restore.cli.evaluate import evaluate
from restore.cli.films import bench, compare, inspect, run
from restore.cli.job import job, status
from restore.cli.logs import set_up
from restore.cli.training import train
from restore.cli.weights import weights
from restore.errors import RestoreError

_DEBUG = "RESTORE_DEBUG"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="restore")
@click.option("-v", "--verbose", is_flag=True, help="Say more about what is done.")
@click.option("--json-log", is_flag=True, help="Log as JSON lines, for machines.")
def cli(verbose: bool, json_log: bool) -> None:
    """Give old films and photographs colour, without harming the original."""
    set_up(verbose=verbose, as_json=json_log)


for _command in (run, job, status, inspect, compare, weights, data, train, evaluate, bench):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; a user's error is one line on stderr and its exit status, which is 1 for most."""
    warnings.filterwarnings("ignore", module="torch")
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr is: names of files may be of any bytes
        sys.stdout.reconfigure(errors="backslashreplace")
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
        sys.exit(error.exit_code)
    except OSError as error:
        if os.environ.get(_DEBUG) == "1":
            raise
        click.echo(f"restore: {error.filename or ''}: {error.strerror}", err=True)
        sys.exit(1)
