"""What is counted while films are restored, and its publication for Prometheus."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from restore.errors import ConfigError
from restore.film import Progress

if TYPE_CHECKING:
    from prometheus_client.core import Metric

log = logging.getLogger(__name__)

_WINDOW_SECONDS = 60.0
"""Over which the speed is measured."""


@dataclass
class Figures:
    """What is counted from the start of a process on."""

    frames: int = 0
    parts: int = 0
    films: Counter[str] = field(default_factory=Counter)
    """Films and stills that are ``done`` or were ``skipped``."""
    failures: int = 0
    retries: int = 0
    queue: int = 0
    running: int = 0
    gpu_bytes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Used and total, by device."""
    succeeded: float | None = None
    """When a run last ended with everything done, in seconds since 1970."""
    _recent: deque[tuple[float, int]] = field(default_factory=deque, repr=False)

    def add_frames(self, frames: int) -> None:
        """Count frames that were restored just now."""
        self.frames += frames
        now = time.monotonic()
        self._recent.append((now, frames))
        while now - self._recent[0][0] > _WINDOW_SECONDS:
            self._recent.popleft()

    def following(self, progress: Progress) -> Progress:
        """Return a progress that also counts here."""
        frames: int | None = None
        parts: int | None = None

        def follow(phase: str, done: int, total: int | None) -> None:
            nonlocal frames, parts
            if phase == "files":
                self.queue = max(0, (total or 0) - done)
            elif phase == "parts":
                self.parts, parts = self.parts + (1 if parts is None else done - parts), done
            elif phase == "restore":  # the first word of a film is what earlier runs have done
                self.add_frames(0 if frames is None else done - frames)
                self.gpu_bytes, frames = gpu_bytes(), done
            else:
                frames = parts = None
            progress(phase, done, total)

        return follow

    @property
    def frames_per_second(self) -> float:
        """The speed over the last minute."""
        now = time.monotonic()
        recent = [(when, frames) for when, frames in list(self._recent) if now - when <= _WINDOW_SECONDS]
        return sum(frames for _, frames in recent) / max(1.0, now - recent[0][0]) if recent else 0.0


def gpu_bytes() -> dict[str, tuple[int, int]]:
    """Return used and total memory, by device, of the GPUs that this process computes on."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    own = [number for number in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(number)]
    found = {f"cuda:{number}": torch.cuda.mem_get_info(number) for number in own}
    return {device: (total - free, total) for device, (free, total) in found.items()}


@contextmanager
def published(figures: Figures, port: int | None, address: str = "127.0.0.1") -> Iterator[int | None]:
    """Serve figures at ``/metrics`` while the context lasts; nothing if there is no port.

    Args:
        figures: Read at every request.
        port: 0 for any free one.
        address: The interface to listen on; other machines reach only what is not loopback.

    Yields:
        The port.

    Raises:
        ConfigError: prometheus-client is not installed, or the port cannot be had.
    """
    if port is None:
        yield None
        return
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
    except ImportError as error:
        raise ConfigError("--metrics-port needs prometheus-client; pip install 'restore[metrics]'") from error
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Collector(figures))
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise ConfigError(f"no metrics on {address}:{port} ({error.strerror}); choose another port") from error
    log.info("metrics are at http://%s:%d/metrics", address, server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Collector:
    """Reads the figures when Prometheus asks."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        now = self._figures
        yield CounterMetricFamily("restore_frames", "Frames that were restored.", now.frames)
        yield CounterMetricFamily("restore_parts", "Parts of films that were restored.", now.parts)
        films = CounterMetricFamily("restore_films", "Films and stills that are finished.", labels=["result"])
        for result in ("done", "skipped"):
            films.add_metric([result], now.films[result])
        yield films
        yield CounterMetricFamily("restore_failures", "Films and stills that could not be restored.", now.failures)
        yield CounterMetricFamily("restore_retries", "Further attempts after errors that may pass.", now.retries)
        speed = "Frames restored per second, over the last minute."
        yield GaugeMetricFamily("restore_frames_per_second", speed, now.frames_per_second)
        yield GaugeMetricFamily("restore_queue_films", "Films and stills that wait.", now.queue)
        yield GaugeMetricFamily("restore_running_films", "Films and stills that are being restored.", now.running)
        if now.succeeded is not None:
            told = "When a run last ended with everything done."
            yield GaugeMetricFamily("restore_last_success_timestamp_seconds", told, now.succeeded)
        for index, name in enumerate(("used", "total")) if now.gpu_bytes else ():
            told = f"GPU memory, {name}, of the devices that are computed on."
            memory = GaugeMetricFamily(f"restore_gpu_memory_{name}_bytes", told, labels=["device"])
            for device, sizes in sorted(now.gpu_bytes.items()):
                memory.add_metric([device], sizes[index])
            yield memory
