"""Join thousands of parts, and print what it costs and whether times and sound are kept, as JSON.

    python tests/benchmarks/join_many.py 250 500 1000 2000 --frames 8 --width 160 --height 120

Parts hold noise, so their bytes are many; all have the same content, as only their number matters here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from media import make_film
from parts import film_times, packets, same_to_the_millisecond

from restore.clip import Clip, chroma_shape
from restore.output.encode import encode_part
from restore.output.join import PartFile, join
from restore.output.profiles import load_profile, subsampling_for
from restore.source.probe import Source, probe


def make_part(source: Source, path: Path, frames: int) -> None:
    """Encode noise."""
    noise = np.random.default_rng(0).integers(16, 236, (frames, source.height, source.width), np.uint8)
    profile = load_profile("archive")
    shape = chroma_shape(source.height, source.width, subsampling_for(profile, source))
    chroma = np.full((frames, 2, *shape), 128, np.uint8)
    pts = np.arange(frames, dtype=np.int64)
    encode_part(path, [Clip(noise, chroma, None, pts, source.time_base, source.color)], profile, source)


def resident(which: str) -> int:
    """Return the resident memory of this process, or its peak, in MB. Source: proc_pid_status(5)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[which].split()[0]) // 1024


def measure(folder: Path, count: int, frames: int, size: tuple[int, int]) -> dict[str, object]:
    """Join `count` parts of `frames` frames, each a file of its own."""
    times = np.cumsum(np.random.default_rng(0).integers(300, 900, count * frames)).tolist()
    film = make_film(
        folder / f"{count}.mkv",
        frames=len(times),
        width=size[0],
        height=size[1],
        codec="mpeg4",
        pts=times,
        time_base=Fraction(1, 15000),
        audio="aac",
        grain=0,
    )
    source = probe(film)
    make_part(source, folder / "part.mkv", frames)
    pts = np.array(film_times(film)) / source.time_base
    pts = pts.astype(np.int64)
    durations = np.append(np.diff(pts), 1)
    parts = []
    for number in range(count):
        span, path = slice(number * frames, (number + 1) * frames), folder / f"part-{number:06d}.mkv"
        shutil.copyfile(folder / "part.mkv", path)
        parts.append(PartFile(path, pts[span], durations[span]))
    megabytes = count * (folder / "part.mkv").stat().st_size / 1e6
    os.sync()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before_mb = resident("VmRSS")
    began, used = time.perf_counter(), time.process_time()
    join(source, parts, folder / "out.mkv", load_profile("archive"))
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    peak_mb = resident("VmHWM")
    before, after = packets(film), packets(folder / "out.mkv")
    result: dict[str, object] = {
        "parts": count,
        "MB": round(megabytes, 1),
        "seconds": round(seconds, 2),
        "CPU seconds": round(cpu, 2),
        "CPU ms a part": round(1e3 * cpu / count, 2),
        "MB a second": round(megabytes / seconds, 1),
        "MB before": before_mb,
        "peak MB": peak_mb,
        "times kept": same_to_the_millisecond(sorted(after[0].times), sorted(before[0].times)),
        "sound kept": after[1].hashes == before[1].hashes,
    }
    for path in folder.iterdir():
        path.unlink()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", type=int, nargs="+")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--height", type=int, default=120)
    chosen = parser.parse_args()
    for count in chosen.parts:
        with tempfile.TemporaryDirectory() as folder:
            size = (chosen.width, chosen.height)
            sys.stdout.write(json.dumps(measure(Path(folder), count, chosen.frames, size)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
