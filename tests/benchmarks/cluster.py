"""Measure what spreading parts costs and brings. Not part of the tests; run `python tests/benchmarks/cluster.py -h`.

* `window N`   N parts of no work in one process: seconds a part at each tenth, memory, parts given out at a time
* `overhead`   parts that sleep, on two workers: what is lost beside the sleep
* `scaling`    a clip of 60 s with one worker, then with two, each held to one core and one thread
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from distributed import Client, LocalCluster

sys.path.insert(0, str(Path(__file__).parents[1]))

from media import make_film
from mishaps import numbered_parts, trivial

from restore.cluster import dask_map
from restore.cluster.executors import executor
from restore.cluster.settings import Local
from restore.film import restore_film
from restore.part import PartRecord
from restore.plan import Part
from restore.setup import Options, film_for


def megabytes() -> float:
    return round(float(psutil.Process().memory_info().rss) / 2**20, 1)


def window(count: int) -> dict[str, Any]:
    """Push parts of no work through the map; client, scheduler and worker share this process."""
    taken = most = 0

    def parts() -> Iterator[Part]:
        nonlocal taken
        for part in numbered_parts(count):
            taken += 1
            yield part

    tenths: list[tuple[float, float]] = []
    with (
        LocalCluster(processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        began = time.perf_counter()
        for number, _ in enumerate(dask_map(client)(trivial, parts()), 1):
            most = max(most, taken - number + 1)
            if number % max(1, count // 10) == 0:
                tenths.append((round(time.perf_counter() - began, 1), megabytes()))
    return {"parts": count, "most given out": most, "seconds and MB at each tenth": tenths}


def napping(part: Part) -> PartRecord:
    time.sleep(2)
    return trivial(part)


def overhead() -> dict[str, Any]:
    """Parts of two seconds that need no processor: what is beyond them is ours and Dask's."""
    with executor(Local(workers=2)) as client:
        execute = dask_map(client)
        list(execute(napping, numbered_parts(2)))  # workers import what they need
        began = time.perf_counter()
        list(execute(napping, numbered_parts(40)))
        wall = time.perf_counter() - began
    return {"wall": round(wall, 2), "ideal": 40.0, "overhead": f"{100 * (wall / 40 - 1):.2f} %"}


def pin(core: int) -> None:
    """Hold all threads of this process to one core; those that follow inherit it."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def scaling(seconds: int, repeats: int) -> dict[str, Any]:
    """Restore a 480p clip with workers that have a core each."""
    walls: dict[int, list[float]] = {1: [], 2: []}
    peaks: dict[int, list[float]] = {1: [], 2: []}
    cpu: dict[int, list[list[float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        source = make_film(Path(folder) / "in.mp4", frames=25 * seconds, width=640, height=480, gop=50)
        for _ in range(repeats):
            for count in walls:
                wall, peak, spent = _one(source, Path(folder) / f"out-{count}.mkv", count)
                walls[count].append(wall)
                peaks[count].append(peak)
                cpu[count].append(spent)
    speed_up = statistics.median(walls[1]) / statistics.median(walls[2])
    quiet = statistics.median(map(sum, cpu[1])) / statistics.median(map(max, cpu[2]))
    print(f"by CPU time, as on a machine that does nothing else: {quiet:.2f}", file=sys.stderr)
    return {
        "seconds": walls,
        "CPU seconds of each worker": cpu,
        "worker MB": peaks,
        "client MB": megabytes(),
        "speed-up": round(speed_up, 2),
    }


def _one(source: Path, output: Path, count: int) -> tuple[float, float, list[float]]:
    """Return wall time of the parts alone (scan and join are the client's), a worker's peak, and CPU time of each."""
    options, cores = Options(device="cpu", threads=1, workers=2, part_frames=125), sorted(os.sched_getaffinity(0))
    wall = 0.0
    with executor(Local(workers=count)) as client:
        for number, worker in enumerate(client.nthreads()):
            client.run(pin, cores[number % len(cores)], workers=[worker])
            client.submit(trivial, Part(0, 0, 1, ((0, 1),)), workers=[worker], pure=False).result()
        before = client.run(time.process_time)

        def execute(work: Callable[[Part], PartRecord], parts: Iterable[Part]) -> Iterator[PartRecord]:
            nonlocal wall
            began = time.perf_counter()
            yield from dask_map(client)(work, parts)
            wall = time.perf_counter() - began

        restore_film(film_for(source, output, options), execute=execute)
        peak = max(client.run(peak_megabytes).values())
        spent = [round(now - before[worker], 1) for worker, now in client.run(time.process_time).items()]
    output.unlink()
    return round(wall, 2), round(peak, 1), spent


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["window", "overhead", "scaling"])
    parser.add_argument("--parts", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if given.what == "window":
        print(json.dumps(window(given.parts)))
    elif given.what == "overhead":
        print(json.dumps(overhead()))
    else:
        print(json.dumps(scaling(given.seconds, given.repeats)))


if __name__ == "__main__":
    main()
