"""Peak memory of client and worker for films of several lengths at 480p, as JSON.

    python tests/benchmarks/memory.py 1 20

Minutes are looped from one minute of moving waves; colours come from brightness, so the figures are without a network,
and without smoothing, to be quick.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from media import make_film
from test_film import film_of

from restore.cluster import local_workers
from restore.film import restore_film

RATE = 16


def looped(minute: Path, path: Path, times: int) -> Path:
    """Repeat a film's packets."""
    with av.open(str(minute)) as source, av.open(str(path), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        length = round(60 / (packets[0].time_base or Fraction(1)))
        unit = source.streams.video[0].time_base or Fraction(1)
        stamps = [(packet.pts or 0, packet.dts or 0, packet.duration or 0) for packet in packets]
        for turn in range(times):
            for packet, (pts, dts, duration) in zip(packets, stamps, strict=True):
                packet.pts, packet.dts, packet.duration = pts + turn * length, dts + turn * length, duration
                packet.time_base, packet.stream = unit, copy
                target.mux(packet)  # which leaves the packet in the output's units
    return path


def measure(path: str, output: str) -> None:
    """Restore a film with one worker; print what it took."""
    began = time.monotonic()
    film = film_of(Path(path), Path(output), "access")
    tint, _, paint = film.stages
    with local_workers(1) as execute:
        report = restore_film(replace(film, stages=(tint, paint)), execute=execute)
    result = {
        "frames": report.frames,
        "parts": report.parts,
        "seconds": round(time.monotonic() - began),
        "client MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "worker MB": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }
    sys.stdout.write(json.dumps(result) + "\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        minute = make_film(
            Path(folder) / "minute.mp4", frames=60 * RATE, width=640, height=480, rate=Fraction(RATE), gop=48, bframes=0
        )
        for minutes in map(int, sys.argv[1:]):
            path = looped(minute, Path(folder) / f"{minutes}.mp4", minutes)
            subprocess.run([sys.executable, __file__, "--one", str(path), f"{folder}/out-{minutes}.mp4"], check=True)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        measure(*sys.argv[2:])
    else:
        main()
