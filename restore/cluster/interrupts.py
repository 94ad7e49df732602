"""Ctrl-C while workers are started and ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.resource_tracker import ensure_running


@contextmanager
def held_back() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the context, for what must not be cut short.

    A terminal sends it to all processes: those that are started in the context never hear it, nor do those that Dask
    starts in their place; the client says what becomes of them.
    """
    ensure_running()  # else the first process would start it, and unblock the signal for itself
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # threads and processes inherit it
    handler = signal.getsignal(signal.SIGINT)
    heard: list[int] = []
    ours = threading.current_thread() is threading.main_thread() and handler is not None
    if ours:  # some other thread may take the signal, and it is still this one that would be interrupted
        signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        if heard:
            signal.raise_signal(signal.SIGINT)
