"""Run the command line with `python -m restore`."""

from restore.cli import main

main()
