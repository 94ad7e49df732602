"""Make the sample film of the README: camera moves over three photographs, as an old silent film shows them.

The photographs come with scikit-image and are free: `astronaut` (NASA, public domain), `coffee` (Rachel Michetti,
CC0) and `chelsea` (Stéfan van der Walt, CC0). Run: python tests/sample/make_sample.py
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

WIDTH, HEIGHT, RATE, FRAMES = 480, 360, 18, 45
SCENES: tuple[Any, ...] = (
    # photograph, where the camera starts and ends: centre x, centre y, width, in shares of the photograph's width
    (data.astronaut, (0.46, 0.34, 0.88), (0.44, 0.28, 0.62)),
    (data.coffee, (0.42, 0.36, 0.70), (0.58, 0.34, 0.82)),
    (data.chelsea, (0.50, 0.33, 0.86), (0.55, 0.30, 0.68)),
)


def main() -> None:
    """Write `film.mp4` beside this file."""
    rng = np.random.default_rng(1922)
    with av.open(str(Path(__file__).with_name("film.mp4")), "w") as container:
        video: Any = container.add_stream("libx264", rate=RATE, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p")
        video.options = {"preset": "slow", "crf": "25"}
        sound: Any = container.add_stream("aac", rate=22050, layout="mono")
        sound.bit_rate = 32000
        number = 0
        for photograph, start, end in SCENES:
            gray: Any = cv2.cvtColor(photograph(), cv2.COLOR_RGB2GRAY)
            for step in np.linspace(0, 1, FRAMES):
                where = tuple(a + (b - a) * float(step) for a, b in zip(start, end, strict=True))
                planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
                planes[:HEIGHT] = _aged(_shot(gray, where), rng, number)
                container.mux(video.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
                number += 1
        container.mux(video.encode(None))
        _projector(container, sound, number / RATE, rng)


def _shot(gray: NDArray[np.uint8], where: tuple[float, ...]) -> NDArray[np.float32]:
    side = gray.shape[1]
    x, y, width = (share * side for share in where)
    scale = width / WIDTH
    matrix = np.array([[scale, 0, x - width / 2], [0, scale, y - scale * HEIGHT / 2]])
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    shot = cv2.warpAffine(gray, matrix, (WIDTH, HEIGHT), flags=how, borderMode=cv2.BORDER_REFLECT)
    return shot.astype(np.float32)


def _aged(shot: NDArray[np.float32], rng: np.random.Generator, number: int) -> NDArray[np.uint8]:
    """Add grain, flicker, a vignette and a scratch, and code as limited-range luma."""
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    vignette = 1 - 0.35 * (x**2 + y**2) / 2
    grain = cv2.GaussianBlur(rng.normal(0, 9, shot.shape).astype(np.float32), (0, 0), 0.7)
    flicker = 1 + rng.normal(0, 0.012)
    aged = cv2.GaussianBlur(shot, (0, 0), 0.6) * vignette * flicker + grain
    if number % 9 < 4:
        column = int(WIDTH * 0.7 + 3 * np.sin(number))
        aged[:, column] += 45
    codes: NDArray[np.uint8] = np.rint(16 + 219 * np.clip(aged / 255, 0, 1)).astype(np.uint8)
    return codes


def _projector(container: Any, sound: Any, seconds: float, rng: np.random.Generator) -> None:
    """Add the rattle of a projector."""
    times = np.arange(int(seconds * 22050)) / 22050
    noise = rng.normal(0, 0.05, len(times)) * (0.3 + np.exp(-60 * (times * RATE % 1) / RATE * 4))
    for first in range(0, len(noise), 1024):
        frame = av.AudioFrame.from_ndarray(noise[None, first : first + 1024].astype(np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 22050, first, Fraction(1, 22050)
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


if __name__ == "__main__":
    main()
