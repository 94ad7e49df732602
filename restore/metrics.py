"""Measures of colour: how steady it is in time, how strong, how varied."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from restore.clip import Plane

Field = NDArray[np.float32]

FLOW_WIDTH = 256
"""Width, in pixels, at which flow is found and the warp error measured."""


def warp_error(ab: Field, luma: Plane, depth: int = 8) -> float:
    """Return how much colour changes from frame to frame where the picture only moves.

    Every frame is warped onto the one before it, along optical flow of the luma, and the distance of the two in a* and
    b* is averaged over the pixels that are seen in both frames. 0 is colour that moves with the picture.

    Args:
        ab: Shape (T, 2, s, t), CIE a* and b*, covering the whole frame.
        luma: Shape (T, H, W), code values; T at least 2.
        depth: Bits of a code value.

    Returns:
        Mean Euclidean distance, in units of Lab (about 1 is just visible).

    Raises:
        ValueError: Fewer than two frames, or as many of one as not of the other.

    Source: the warping error of Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, there with the
    squared distance in R'G'B'; with the occlusion mask of `occluded`, and flow by Farnebäck's algorithm, which no stage
    of `restore` uses.
    """
    if len(ab) != len(luma) or len(ab) < 2:
        raise ValueError(f"ab and luma must have the same number of frames, at least 2, got {len(ab)} and {len(luma)}")
    height = max(1, round(luma.shape[1] * FLOW_WIDTH / luma.shape[2]))
    gray = [_eight_bits(frame, (FLOW_WIDTH, height), depth) for frame in luma]
    color = [cv2.resize(frame.transpose(1, 2, 0), (FLOW_WIDTH, height), interpolation=cv2.INTER_LINEAR) for frame in ab]
    total = seen = 0.0
    for (here, there), (now, then) in zip(pairwise(gray), pairwise(color), strict=True):
        flow = farneback(here, there)
        mask = ~occluded(flow, farneback(there, here))
        distance = np.linalg.norm(now - warp(then, flow), axis=2)
        total += float(distance[mask].sum(dtype=np.float64))
        seen += float(mask.sum())
    return total / max(seen, 1.0)


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
