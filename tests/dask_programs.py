"""Dask's own programs for tests: what their command lines mean, and schedulers and workers as separate processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed.cli import dask_worker


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def worker_arguments(command: list[str]) -> dict[str, Any]:
    """Read a worker's command line as the program itself would."""
    context = dask_worker.main.make_context("dask worker", list(command))
    assert context.params["preload_argv"] == (), "options that the program does not know"
    return dict(context.params)


@contextmanager
def processes(*commands: list[str], folder: Path) -> Iterator[None]:
    """Dask programs that run while the context lasts."""
    python = [sys.executable, "-m"]
    running = [
        subprocess.Popen([*python, f"distributed.cli.{name}", *arguments], cwd=folder, stderr=subprocess.DEVNULL)
        for name, *arguments in commands
    ]
    try:
        yield
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()


@contextmanager
def running_scheduler(folder: Path) -> Iterator[str]:
    """Give the host and port of a scheduler that has one worker with a GPU."""
    port = free_port()
    with processes(
        ["dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--dashboard-address", "127.0.0.1:0"],
        ["dask_worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-nanny", "--resources", "GPU=1"],
        folder=folder,
    ):
        yield f"127.0.0.1:{port}"
