"""Measure frames a second: of every stage on one core, of the generator alone by batch size, and end to end."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from restore import generators, reel
from restore.colorize.neural import Neural
from restore.film import Film, restore_film
from restore.output.encode import encode_part
from restore.setup import Options, film_for, versions
from restore.source.decode import clips

BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass
class Bench:
    """What was measured, in the order in which it is shown."""

    machine: dict[str, Any]
    film: str
    stages: dict[str, float] = field(default_factory=dict)
    """CPU milliseconds a frame of each stage of the path, on one core."""
    generator: dict[int, float] = field(default_factory=dict)
    """Frames a second of the generator alone, by batch size, with all cores or on one device."""
    gflop: float = 0.0
    """Floating-point operations of the generator a frame, a multiply and an add counted as two."""
    end_to_end: dict[str, float] = field(default_factory=dict)

    def json(self) -> str:
        """Return everything for programs."""
        return json.dumps(asdict(self), indent=1)

    def text(self) -> str:
        """Return a table for people."""
        lines = [", ".join(f"{name} {value}" for name, value in self.machine.items()), f"film: {self.film}", ""]
        lines += ["stage            CPU ms a frame, one core (median)"]
        lines += [f"{name:16} {value:8.2f}" for name, value in self.stages.items()]
        lines += ["", f"generator alone: {self.gflop:.1f} GFLOP a frame", "batch            frames/s   TFLOP/s"]
        lines += [f"{size:<16} {rate:8.1f} {rate * self.gflop / 1e3:9.2f}" for size, rate in self.generator.items()]
        lines += ["", "end to end (median)"]
        lines += [f"{name:32} {value:8.2f}" for name, value in self.end_to_end.items()]
        return "\n".join(lines)


def bench(
    film: str | Path | None = None, *, weights: str | None = None, device: str = "auto", repeats: int = 5
) -> Bench:
    """Measure on this machine; quote medians, and ratios rather than times where machines are shared.

    Args:
        film: The film to measure with; 10 s of 720p H.264 are generated if None.
        weights: Of the generator; the default if None.
        device: As in `run`.
        repeats: Measurements of which the median is taken.

    Raises:
        RestoreError: The film or the weights cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="restore-bench-") as folder:
        path = Path(film) if film else make_film(Path(folder) / "bench.mp4")
        chosen = Options(weights=weights, device=device)
        work = film_for(path, Path(folder) / "out.mp4", chosen)
        source = work.source
        rate = 8e-6 * path.stat().st_size / float(source.duration_seconds or 1)
        shape = f"{source.width}x{source.height}, {source.codec}, {rate:.1f} Mbit/s"
        report = Bench(_machine(work), f"{path.name}, {shape}")
        report.stages = _stages(work, repeats)
        neural = next(stage for stage in work.stages if isinstance(stage, Neural))
        report.gflop, report.generator = _generator(neural, source.height, source.width, repeats)
        report.end_to_end = _end_to_end(work, repeats)
    return report


def make_film(path: Path, frames: int = 250, width: int = 1280, height: int = 720) -> Path:
    """Make a grey H.264 film with moving shapes and grain, as an old film has them."""
    rng = np.random.default_rng(0)
    grain = [cv2.GaussianBlur(rng.normal(0, 12, (height, width)).astype(np.float32), (0, 0), 1.2) for _ in range(8)]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, width=width, height=height, pix_fmt="yuv420p")
        stream.options = {"preset": "veryfast", "crf": "20"}
        for number in range(frames):
            waves = np.sin(x / 90 + number / 20) * np.cos(y / 70 - number / 31) + np.sin((x + y) / 23 + number / 9) / 3
            luma = np.clip(126 + 70 * waves + grain[number % 8], 16, 235).astype(np.uint8)
            chroma = np.full((height // 2, width), 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _machine(work: Film) -> dict[str, Any]:
    found: dict[str, Any] = {"cores": os.cpu_count(), "machine": platform.machine()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found | versions(work.stages)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run torch and OpenCV on one thread, as the workers of a part do."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _median(measure: Callable[[], float], repeats: int) -> float:
    measure()  # warm-up
    return statistics.median(measure() for _ in range(repeats))


def _stages(work: Film, repeats: int) -> dict[str, float]:
    """Return CPU milliseconds a frame of decoding, each stage and encoding, each alone on one thread."""
    found = reel.scan(work.source, end_seconds=Fraction(2), threads=1)
    count = min(len(found), 32)
    times: dict[str, float] = {}

    def timed(action: Callable[[], object]) -> float:
        def measure() -> float:
            began = time.process_time()
            action()
            return 1e3 * (time.process_time() - began) / count

        return _median(measure, repeats)

    with single_threaded():
        times["scan"] = timed(lambda: reel.scan(work.source, end_seconds=Fraction(2), threads=1)) * count / len(found)
        source_clips = list(clips(work.source, found.index, 0, count, shot=(0, count), chunk=count, threads=1))
        times["decode"] = timed(
            lambda: list(clips(work.source, found.index, 0, count, shot=(0, count), chunk=count, threads=1))
        )
        clip = source_clips[0]
        for stage in work.stages:
            times[stage.name] = timed(lambda stage=stage, clip=clip: stage(clip))  # type: ignore[misc]
            clip = stage(clip)
    with tempfile.TemporaryDirectory(prefix="restore-bench-") as folder:
        times["encode"] = timed(lambda: encode_part(Path(folder) / "part.mkv", [clip], work.profile, work.source))
    times["sum"] = sum(times.values())
    return times


def _generator(neural: Neural, height: int, width: int, repeats: int) -> tuple[float, dict[int, float]]:
    device = neural.device.split(",")[0]
    generator = generators.load(neural.weights, device, neural.precision, render_factor=neural.render_factor)
    size = generator.size(height, width)
    with FlopCounterMode(display=False) as counter:
        generator(torch.rand(1, 1, *size))
    rates: dict[int, float] = {}
    for batch in BATCHES:
        gray = torch.rand(batch, 1, *size)

        def measure(gray: torch.Tensor = gray) -> float:
            began = time.perf_counter()
            generator(gray).cpu()  # waits for the device
            return len(gray) / (time.perf_counter() - began)

        try:
            rates[batch] = _median(measure, repeats)
        except torch.OutOfMemoryError:
            break
        if device == "cpu" and batch >= 8 and rates[batch] < 1.02 * rates[batch // 2]:
            break
    return counter.get_total_flops() / 1e9, rates


def _end_to_end(work: Film, repeats: int) -> dict[str, float]:
    """Run the film as a user would; CPU time counts all threads of this process."""
    walls, cpus, frames = [], [], 0
    for _ in range(max(2, repeats // 2) + 1):
        began, used = time.perf_counter(), _cpu_seconds()
        report = restore_film(work, fresh=True)
        walls.append(time.perf_counter() - began)
        cpus.append(_cpu_seconds() - used)
        frames = report.frames
    wall, cpu, cores = statistics.median(walls[1:]), statistics.median(cpus[1:]), os.cpu_count() or 1
    return {
        "frames": frames,
        "frames a second": frames / wall,
        "CPU ms a frame": 1e3 * cpu / frames,
        "wall / (CPU time / cores)": wall / (cpu / cores),
        "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
