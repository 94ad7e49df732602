"""Memory does not grow with the film: the peak of a process, for a short and a long one."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from media import make_film
from test_film import film_of

from restore.film import restore_film


def _peak_megabytes(path: Path, output: Path) -> int:
    """Restore a film in a process of its own, and return its greatest resident size."""
    done = subprocess.run(
        [sys.executable, __file__, str(path), str(output)], cwd=Path(__file__).parent, capture_output=True, check=True
    )
    return int(done.stdout)


def test_the_peak_of_a_long_film_is_that_of_a_short_one(tmp_path: Path) -> None:
    short = make_film(tmp_path / "short.mp4", frames=100, width=160, height=120, gop=25)
    long = make_film(tmp_path / "long.mp4", frames=1200, width=160, height=120, gop=25)
    peaks = [_peak_megabytes(path, tmp_path / f"{path.stem}.mkv") for path in (short, long)]
    # 1100 frames more are 21 MB of luma alone; what may grow is the index, 50 bytes a frame.
    assert peaks[1] - peaks[0] < 12, peaks


@pytest.mark.parametrize("part_frames", [50])
def test_all_frames_of_a_long_film_arrive(part_frames: int, tmp_path: Path) -> None:
    path = make_film(tmp_path / "in.mp4", frames=600, width=32, height=32, gop=50)
    assert restore_film(film_of(path, tmp_path / "out.mp4", "access", part_frames=part_frames)).frames == 600


def main() -> None:
    restore_film(film_of(Path(sys.argv[1]), Path(sys.argv[2]), part_frames=50))
    sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))


if __name__ == "__main__":
    main()
