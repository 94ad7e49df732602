"""A process that restores one source after another, and its handle in the job's process.

What a damaged file does to a decoder, or a want of memory to a process, ends that process and not the job.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from types import FrameType

from restore.film import Map
from restore.job.attempt import Outcome, Task, attempt
from restore.job.config import JobConfig
from restore.job.figures import gpu_bytes
from restore.job.jsonlog import is_told
from restore.setup import Options

_EVERY_SECONDS = 0.5
"""Between two messages about one phase."""
_WORKERS_SECONDS = 30
"""For a process to let its workers go: those of a cluster would stay if it were killed in it."""
_GRACE_SECONDS = 3
"""For a process without workers to put things down after it was told to stop."""


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a source is."""

    phase: str
    done: int
    total: int | None
    gpu_bytes: dict[str, tuple[int, int]]
    """Used and total memory of the GPUs in use, by device."""


Message = Advance | Outcome | logging.LogRecord


class Slot:
    """A place for one source at a time; its process starts with the first and starts again if it dies."""

    def __init__(self, config: JobConfig) -> None:
        self._config = config
        self._grace_seconds = _GRACE_SECONDS if config.executor == 1 else _WORKERS_SECONDS
        self._process: multiprocessing.process.BaseProcess | None = None
        self.pipe: Connection | None = None
        """Readable when there is a message, or when the process has died."""

    def begin(self, task: Task) -> None:
        """Have a source restored."""
        if self.pipe is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(theirs, self._config), name="restore")
            self._process.start()
            theirs.close()
        self.pipe.send(task)

    def receive(self) -> Message:
        """Return the next message; of a process that died, a failure that may pass."""
        assert self.pipe is not None
        try:
            message: Message = self.pipe.recv()
        except (EOFError, OSError):
            message = Outcome("failed", error=f"its process died ({self._death()})", may_pass=True)
        return message

    def _death(self) -> str:
        assert self._process is not None
        self._process.join(_GRACE_SECONDS)
        code = self._process.exitcode
        self.end()
        if code is None or code >= 0:
            return f"exit code {code}"
        reason = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"{signal.Signals(-code).name}{reason}"

    def close(self) -> None:
        """Let the process end by itself; it has no work."""
        if self._process is not None and self.pipe is not None:
            self.pipe.close()
            self._process.join(_WORKERS_SECONDS)
            self.end()

    def ask_to_end(self) -> None:
        """Tell the process to stop, and do not wait for it."""
        if self._process is not None:
            self._process.terminate()

    def end(self) -> None:
        """End the process, whatever it does: softly, then at once. Finished parts stay."""
        if self._process is None or self.pipe is None:
            return
        self._process.terminate()
        self._process.join(self._grace_seconds)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self.pipe.close()
        self._process = self.pipe = None


def serve(pipe: Connection, config: JobConfig) -> None:
    """Restore what comes through a pipe, until it is closed: the main function of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the job says what becomes of them
    signal.signal(signal.SIGTERM, _exit)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    send = _Sender(pipe)
    log = logging.getLogger()
    handler = QueueHandler(send)  # type: ignore[arg-type]
    handler.addFilter(is_told)
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    crew = _Crew(config.options())
    try:
        while True:
            task: Task = pipe.recv()
            outcome = attempt(task, config, crew, _Progress(send))
            if outcome.state == "failed":
                crew.close()  # the next attempt gets workers that are not in doubt
            send.put_nowait(outcome)
    except EOFError:
        return
    finally:
        crew.close()


def _exit(number: int, frame: FrameType | None) -> None:
    """Stop, and do not let a further signal cut short what is done at the end."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


class _Sender:
    """Sends from several threads; to `logging` it looks like a queue."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def put_nowait(self, message: Message) -> None:
        # when the job has closed its end, workers that end may still have something to say
        with self._lock, suppress(BrokenPipeError):
            self._pipe.send(message)


class _Progress:
    """Tells about each phase now and then."""

    def __init__(self, send: _Sender) -> None:
        self._send, self._phase, self._told = send, "", 0.0

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if phase != self._phase or done == total or now - self._told > _EVERY_SECONDS:
            self._phase, self._told = phase, now
            self._send.put_nowait(Advance(phase, done, total, gpu_bytes()))


class _Crew:
    """Finds or starts workers when the first film needs them, and keeps them for the next."""

    def __init__(self, options: Options) -> None:
        self._given, self._stack = options, ExitStack()
        self._found: tuple[Map | None, Options] | None = None

    def __call__(self) -> tuple[Map | None, Options]:
        if self._found is None and self._given.elsewhere:
            from restore.cluster import connect  # imported late: `distributed` takes a second to import

            crew = self._stack.enter_context(connect(self._given))
            self._found = (crew, crew.options) if crew else None
        return self._found or (None, self._given)

    def close(self) -> None:
        """Let the workers go."""
        self._found = None
        self._stack.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
