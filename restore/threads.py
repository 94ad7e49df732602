"""The threads of a part: those that its stages run in, and one that decodes ahead of them."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache

import cv2
import torch

from restore.clip import Clip


@contextmanager
def workers(threads: int) -> Iterator[Workers]:
    """Give threads that run torch and OpenCV on one thread each: many windows, not many threads a window.

    They stay for the next part. New threads would take over the heaps of other threads, and the memory that each of
    them keeps for its largest network would add up from part to part.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    chosen = Workers(_pool(threads or os.cpu_count() or 1), threads or os.cpu_count() or 1)
    try:
        yield chosen
    finally:
        chosen.leave()
        cv2.setNumThreads(before)


class Workers:
    """The threads, and what one part has them do."""

    def __init__(self, pool: ThreadPoolExecutor, size: int) -> None:
        self.pool, self.size = pool, size
        self.begun: set[Future[Clip]] = set()

    def submit(self, fn: Callable[..., Clip], /, *args: object) -> Future[Clip]:
        """Have a thread call `fn(*args)`."""
        future = self.pool.submit(fn, *args)
        self.begun.add(future)
        future.add_done_callback(self.begun.discard)
        return future

    def leave(self) -> None:
        """Cancel what has not begun, and wait for what has."""
        begun = list(self.begun)
        for future in begun:
            future.cancel()
        wait(begun)


@lru_cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "stage", torch.set_num_threads, (1,))


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not live on in a fork


@contextmanager
def ahead(items: Iterator[Clip], depth: int) -> Iterator[Iterator[Clip]]:
    """Run an iterator in a thread of its own, at most `depth` items ahead of its consumer."""
    waiting: queue.Queue[Clip | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Clip | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, which raises it
            put(error)

    def consume() -> Iterator[Clip]:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=produce, name="decode", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        stopped.set()
        thread.join()
