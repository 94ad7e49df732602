"""Measures of pictures: how near they are to the truth, how strong their colour is, and how steady it is in time."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from restore.clip import Plane

Field = NDArray[np.float32]
Picture = NDArray[np.uint8]
Shares = NDArray[np.float64]

FLOW_WIDTH = 256
"""Width, in pixels, at which flow is found and the warp error measured."""


_SSIM_SIGMA, _SSIM_REACH = 1.5, 5
"""Of the Gaussian window of SSIM, in pixels: 11 across, as published."""


def psnr(truth: Picture, found: Picture) -> float:
    """Return the peak signal-to-noise ratio in decibels of two pictures of code values; 100 where they are alike."""
    error = np.square(np.asarray(truth, np.float64) - np.asarray(found, np.float64)).mean() / 255**2
    return float(-10 * np.log10(max(error, 1e-10)))


def ssim(truth: Picture, found: Picture) -> float:
    """Return the structural similarity of two pictures, the mean over places and over R', G' and B'.

    Args:
        truth: Shape (H, W, 3), code values; H and W at least 11.
        found: The same shape.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, equation 13
    with K1 = 0.01, K2 = 0.03 and the Gaussian window of 11 x 11, sigma 1.5.
    """
    if truth.shape != found.shape or min(truth.shape[:2]) < 2 * _SSIM_REACH + 1:
        raise ValueError(f"SSIM needs two pictures of one size, at least 11x11, got {truth.shape} and {found.shape}")
    one, two = np.asarray(truth, np.float32), np.asarray(found, np.float32)
    mean_one, mean_two = _window(one), _window(two)
    square, product = mean_one**2 + mean_two**2, mean_one * mean_two
    spread, shared = _window(one**2 + two**2) - square, _window(one * two) - product
    steady, small = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    alike = (2 * product + steady) * (2 * shared + small) / ((square + steady) * (spread + small))
    inner = slice(_SSIM_REACH, -_SSIM_REACH)
    return float(alike[inner, inner].mean(dtype=np.float64))


def _window(picture: Field) -> Field:
    width = 2 * _SSIM_REACH + 1
    return np.asarray(cv2.GaussianBlur(picture, (width, width), _SSIM_SIGMA), np.float32)


def jensen_shannon(one: Shares, two: Shares) -> float:
    """Return the Jensen-Shannon divergence of two distributions in nats: 0 alike, log 2 without overlap.

    Source: Lin, "Divergence Measures Based on the Shannon Entropy", 1991, equation 4.1 with equal weights.
    """
    middle = (one + two) / 2
    return _divergence(one, middle) / 2 + _divergence(two, middle) / 2


def _divergence(one: Shares, two: Shares) -> float:
    """Return the Kullback-Leibler divergence of one distribution from another, in nats."""
    held = one > 0
    return float((one[held] * np.log(one[held] / two[held])).sum())


def warp_error(ab: Field, luma: Plane, depth: int = 8) -> float:
    """Return how much colour changes from frame to frame where the picture only moves; see `WarpError`.

    Args:
        ab: Shape (T, 2, s, t), CIE a* and b*, covering the whole frame.
        luma: Shape (T, H, W), code values; T at least 2.
        depth: Bits of a code value.

    Returns:
        Mean Euclidean distance, in units of Lab (about 1 is just visible).

    Raises:
        ValueError: Fewer than two frames, or as many of one as not of the other.
    """
    if len(ab) != len(luma) or len(ab) < 2:
        raise ValueError(f"ab and luma must have the same number of frames, at least 2, got {len(ab)} and {len(luma)}")
    error = WarpError(depth)
    for frame, plane in zip(ab, luma, strict=True):
        error.add(plane, [frame])
    return error.values[0]


class WarpError:
    """How much the colours of a film change from frame to frame where the picture only moves.

    Every frame is warped onto the one before it, along optical flow of the luma, and the distance of the two in a* and
    b* is averaged over the pixels that are seen in both frames. 0 is colour that moves with the picture. Several
    colourings of one film are measured along the same flow.

    Source: the warping error of Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, there with the
    squared distance in R'G'B'; with the occlusion mask of `occluded`, and flow by Farnebäck's algorithm, which no stage
    of `restore` uses.
    """

    def __init__(self, depth: int = 8) -> None:
        self._depth = depth
        self._gray: NDArray[np.uint8] | None = None
        self._colors: list[Field] = []
        self._totals: list[float] = []
        self._seen = 0.0

    def add(self, luma: Plane, abs_: Sequence[Field]) -> None:
        """Take the next frame: its luma (H, W), and a* and b* (2, s, t) of each colouring."""
        size = FLOW_WIDTH, max(1, round(luma.shape[0] * FLOW_WIDTH / luma.shape[1]))
        gray = _eight_bits(luma, size, self._depth)
        colors = [np.asarray(cv2.resize(ab.transpose(1, 2, 0), size), np.float32) for ab in abs_]
        if self._gray is not None:
            flow = farneback(self._gray, gray)
            mask = ~occluded(flow, farneback(gray, self._gray))
            self._seen += float(mask.sum())
            for place, (now, then) in enumerate(zip(self._colors, colors, strict=True)):
                distance = np.linalg.norm(now - warp(then, flow), axis=2)
                self._totals[place] += float(distance[mask].sum(dtype=np.float64))
        self._totals = self._totals or [0.0] * len(colors)
        self._gray, self._colors = gray, colors

    def cut(self) -> None:
        """Forget the last frame: the next one starts a new shot."""
        self._gray = None

    @property
    def values(self) -> list[float]:
        """The mean distance of each colouring, in units of Lab; 0 where no two frames could be compared."""
        return [total / max(self._seen, 1.0) for total in self._totals]


def mean_chroma(ab: Field) -> float:
    """Return the mean of C*ab over all pixels of ab, shape (T, 2, s, t).

    Source: CIE 015:2018, 8.2.1, the chroma of Lab.
    """
    return float(np.hypot(ab[:, 0], ab[:, 1]).mean(dtype=np.float64))


def colorfulness(rgb: NDArray[np.uint8]) -> float:
    """Return the colourfulness of a picture: 0 grey, 15 slightly, 33 moderately, 59 quite, 109 extremely colourful.

    Args:
        rgb: Shape (..., 3), sRGB.

    Source: Hasler and Süsstrunk, "Measuring colourfulness in natural images", SPIE 2003, the metric M(3).
    """
    red, green, blue = np.moveaxis(np.asarray(rgb, np.float64), -1, 0)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def farneback(here: NDArray[np.uint8], there: NDArray[np.uint8]) -> Field:
    """Return where the pixels of a frame are in another: offsets x and y in pixels, shape (H, W, 2).

    Source: Farnebäck, "Two-Frame Motion Estimation Based on Polynomial Expansion", SCIA 2003.
    """
    # of the usual settings, those that predict the luma of fast motion best
    flow = np.zeros((*here.shape, 2), np.float32)
    gaussian = cv2.OPTFLOW_FARNEBACK_GAUSSIAN
    return np.asarray(cv2.calcOpticalFlowFarneback(here, there, flow, 0.5, 5, 21, 5, 5, 1.1, gaussian), np.float32)


def warp(picture: Field, flow: Field) -> Field:
    """Fetch for every pixel what a picture, shape (H, W, channels), has where the flow points."""
    y, x = np.indices(flow.shape[:2], np.float32)
    fetched = cv2.remap(picture, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(fetched, np.float32)


def occluded(forward: Field, backward: Field) -> NDArray[np.bool_]:
    """Mark pixels that the other frame does not show, and those on edges of motion; shape (H, W).

    Source: the conditions of Ruder, Dosovitskiy, Brox, "Artistic Style Transfer for Videos", GCPR 2016, after Sundaram,
    Brox, Keutzer, ECCV 2010; and what leaves the frame.
    """
    height, width = forward.shape[:2]
    y, x = np.indices((height, width), np.float32)
    to_x, to_y = x + forward[..., 0], y + forward[..., 1]
    outside = (to_x < 0) | (to_x > width - 1) | (to_y < 0) | (to_y > height - 1)
    back = warp(backward, forward)
    lengths = (forward**2).sum(2) + (back**2).sum(2)
    hidden = ((forward + back) ** 2).sum(2) > 0.01 * lengths + 0.5
    steepness = sum((slope**2).sum(2) for slope in np.gradient(forward, axis=(0, 1)))
    edge = steepness > 0.01 * (forward**2).sum(2) + 0.002
    return np.asarray(outside | hidden | edge, np.bool_)


def _eight_bits(plane: Plane, size: tuple[int, int], depth: int) -> NDArray[np.uint8]:
    small = np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.uint16)
    return (small >> (depth - 8)).astype(np.uint8)
