"""What befalls parts and workers: a stage and work functions that die, hang or dawdle, and Dask's own processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from media import make_film

from restore.clip import Clip
from restore.cluster import connect
from restore.film import Film, Map, restore_film
from restore.part import PartRecord
from restore.plan import Part
from restore.setup import Options, film_for
from restore.stage import Writes

TESTS = Path(__file__).parent
FRAMES, CUTS, PART_FRAMES = 60, (17, 40), 12


@dataclass(frozen=True)
class Mishap:
    """Lets something happen in the part that begins with frame 0, the first few times; and dawdles everywhere."""

    name: ClassVar[str] = "mishap"
    writes: ClassVar[Writes] = "ab"
    radius: ClassVar[int] = 0

    what: Literal["die", "hang"]
    notes: str
    """Folder in which the times are counted, across processes."""
    times: int = 1
    lasts: float = 600
    """Seconds for which it hangs."""
    seconds: float = 0.0
    """For each few frames."""

    def __call__(self, clip: Clip) -> Clip:
        time.sleep(self.seconds)
        if clip.first == 0 and self._counted() <= self.times:
            if self.what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(self.lasts)
        return clip

    def _counted(self) -> int:
        folder = Path(self.notes)
        folder.mkdir(exist_ok=True)
        (folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        return len(list(folder.iterdir()))


def trivial(part: Part) -> PartRecord:
    return PartRecord(part.number, part.first, part.stop, "", 0, "", 0.0, 0.001)


def hanging(part: Part) -> PartRecord:
    time.sleep(600)
    return trivial(part)


def failing(part: Part) -> PartRecord:
    raise FileNotFoundError(2, "gone", str(part))


def numbered_parts(count: int) -> Iterator[Part]:
    return (Part(n, 10 * n, 10 * n + 10, ((0, 10 * count),)) for n in range(count))


def reel(path: Path, seed: int = 0) -> Path:
    return make_film(path, frames=FRAMES, shots=CUTS, gop=25, audio="aac", seed=seed)


def film_of(path: Path, output: Path, options: Options, mishap: Mishap | None = None) -> Film:
    film = film_for(path, output, replace(options, part_frames=PART_FRAMES, chunk=4))
    return replace(film, stages=(mishap, *film.stages)) if mishap else film


def generous_limit(path: Path, folder: Path, options: Options, execute: Map) -> float:
    """Restore a film twice, and return a time that no part of it takes on this machine, busy as it is."""
    for name in ("first.mkv", "second.mkv"):  # in the first, workers import what they need
        began = time.monotonic()
        restore_film(film_of(path, folder / name, options), execute=execute)
    return max(4.0, 4 * (time.monotonic() - began))


def records(output: Path) -> dict[str, int]:
    """Return when the parts of an unfinished film were finished."""
    folder = output.with_name(f"{output.name}.restore") / "parts"
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.json")}


def wait_for(what: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


@contextlib.contextmanager
def started(*words: object, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program in a session of its own, and end all its processes with the context."""
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb")) if log else subprocess.DEVNULL
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=output,
            stderr=output,
        )
        try:
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it started: all of its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def scheduler(folder: Path, port: int = 0, *more: object) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start `dask scheduler`, and give its process and its address."""
    file = folder / f"scheduler-{time.monotonic_ns()}.json"
    words = ["-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    words += ["--dashboard-address", "127.0.0.1:0", "--scheduler-file", file, *more]
    with started(*words, log=folder / "scheduler.log") as process:
        wait_for(lambda: file.exists() and file.read_text().endswith("}"))
        yield process, json.loads(file.read_text())["address"]


@contextlib.contextmanager
def workers(address: str, count: int, folder: Path, *more: object) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start `dask worker` so often, each with one thread."""
    words = ["-m", "dask", "worker", address, "--nthreads", 1, "--memory-limit", 0, "--no-dashboard"]
    words += ["--host", "127.0.0.1", "--local-directory", folder, *more]
    with contextlib.ExitStack() as stack:
        logs = [folder / f"worker-{n}-{time.monotonic_ns()}.log" for n in range(count)]
        processes = [stack.enter_context(started(*words, log=log)) for log in logs]
        wait_for(lambda: all("Registered to:" in log.read_text() for log in logs))
        yield processes


def main() -> None:
    """Restore a film slowly with the workers of a scheduler: a client that others kill."""
    address, weights, source, output, notes = sys.argv[1:]
    options = Options(dask=address, weights=weights, device="cpu", precision="fp32", profile="archive")
    with connect(options) as crew:
        assert crew is not None
        film = film_of(Path(source), Path(output), crew.options, Mishap("hang", notes, times=0, seconds=0.3))
        restore_film(film, execute=crew)


if __name__ == "__main__":
    main()
