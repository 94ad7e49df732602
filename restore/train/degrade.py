"""Make a clean colour photograph's grey look like old film.

Only the network's input is aged; the colours to learn stay those of the photograph. All functions take and
return float32 arrays; grey is (H, W), sRGB-coded, [0, 1]. Sizes are in pixels of the crop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Chance = np.random.Generator

_BT601 = np.array((0.299, 0.587, 0.114))
_BT709 = np.array((0.2126, 0.7152, 0.0722))
"""Luma weights, between which the response of a panchromatic film is drawn."""

_ORTHOCHROMATIC = np.array(((0.10, 0.58, 0.32), (0.03, 0.37, 0.60)))
"""Responses of films nearly blind to red, as most were until about 1926: skies white, lips and reds dark."""

_NOISE = 30
"""Largest change of a pixel by DeOldify's noise, code values of 255."""


@dataclass(frozen=True, slots=True)
class Degradation:
    """How strong each fault is at most; 0 (for gamma and contrast 1) switches it off."""

    share: float = 0.6
    """Share of the pictures that are aged at all; the rest keep their BT.601 luma."""
    orthochromatic: float = 0.25
    """Share of the aged with the response of a film nearly blind to red."""
    blur: float = 1.3
    """Largest sigma of blur of the lens."""
    vignette: float = 0.5
    """Largest loss of light in the corners."""
    flicker: float = 0.2
    """Largest gain or loss of light, over the frame and from one of its regions to another."""
    gamma: float = 1.5
    """Largest exponent of the tone curve, or its inverse."""
    contrast: float = 1.8
    """Largest slope of the tone curve in its middle; half as far, its inverse."""
    grain: float = 0.04
    """Largest standard deviation of grain."""
    fading: float = 0.2
    """Largest share of the range by which blacks are lifted or whites fall."""
    scratches: int = 3
    """Largest number of vertical scratches."""
    dust: int = 8
    """Largest number of specks and hairs."""
    softness: float = 0.6
    """Largest sigma of blur by copying or scanning, which softens grain and damage too."""
    compression: float = 0.8
    """Largest loss of quality by a block codec, as of JPEG and MPEG: 1 leaves the coarsest blocks."""
    noise: float = 0.4
    """Largest share of pixels changed at random, as in DeOldify's video training."""


def age(rgb: Plane, settings: Degradation, rng: Chance) -> Plane:
    """Return the grey that an old film might show of a photograph, its faults in the order in which they happen.

    Args:
        rgb: Shape (H, W, 3), sRGB-coded, [0, 1].
        settings: Strengths.
        rng: All chance comes from here.

    Returns:
        Shape (H, W), [0, 1].
    """
    if rng.random() >= settings.share:
        return _weighed(rgb, _BT601)
    grey = expose(rgb, rng.random() < settings.orthochromatic, rng)
    for chance, fault in _FAULTS:
        if rng.random() < chance:
            grey = fault(grey, settings, rng)
    return np.clip(grey, 0, 1)


def expose(rgb: Plane, orthochromatic: bool, rng: Chance) -> Plane:
    """Weigh red, green and blue as a film does, between two luma standards or nearly blind to red."""
    low, high = _ORTHOCHROMATIC if orthochromatic else (_BT601, _BT709)
    return _weighed(rgb, low + rng.random() * (high - low))


def blur(grey: Plane, sigma: float) -> Plane:
    """Soften by a Gaussian; under a fifth of a pixel it is left sharp."""
    return _plane(cv2.GaussianBlur(grey, (0, 0), sigma)) if sigma > 0.2 else grey


def vignette(grey: Plane, loss: float) -> Plane:
    """Darken towards the corners, where the share `loss` of the light is lost."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) ** 2 for n in grey.shape)
    return grey * (1 - np.float32(loss / 2) * (y[:, None] + x[None]))


def flicker(grey: Plane, strength: float, rng: Chance) -> Plane:
    """Expose unevenly: a gain for the frame, more often a loss, and one that changes slowly across it.

    Each is at most 1 + `strength` or its inverse.
    """
    height, width = grey.shape
    coarse = rng.uniform(-1, 0.5) + rng.uniform(-1, 1, (3, 3))
    field = _plane(cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR))
    return grey * _plane(np.exp(np.float32(np.log1p(strength)) * field))


def tone(grey: Plane, gamma: float) -> Plane:
    """Raise to a power: over 1 darker, under 1 lighter."""
    return _plane(cv2.pow(np.clip(grey, 0, 1), gamma))


def contrast(grey: Plane, slope: float, middle: float) -> Plane:
    """Bend the tone curve into an S about a tone that stays: over 1 harder, under 1 softer; black and white stay.

    Source: the characteristic curve of film, with toe and shoulder, here a straight line between logits.
    """
    odds = np.clip(grey, 1e-3, 1 - 1e-3)
    odds /= 1 - odds
    pivot = middle / (1 - middle)
    bent = np.float32(pivot) * _plane(cv2.pow(odds / np.float32(pivot), slope))
    return _plane(bent / (1 + bent))


def grain(grey: Plane, sigma: float, size: float, rng: Chance) -> Plane:
    """Add grain of standard deviation `sigma` in the mid-tones, half of it in black and white, `size` pixels coarse."""
    noise = rng.standard_normal(grey.shape, dtype=np.float32)
    if size > 0.4:
        noise = blur(noise, size)
        noise /= max(float(noise.std()), 1e-6)
    return grey + np.float32(sigma) * noise * (0.5 + 2 * grey * (1 - grey))


def fade(grey: Plane, lift: float, fall: float) -> Plane:
    """Lift the blacks and lower the whites, as a print that has lost its density."""
    return np.float32(lift) + grey * np.float32(1 - lift - fall)


def damage(grey: Plane, scratches: int, specks: int, rng: Chance) -> Plane:
    """Draw bright or dark scratches down the frame, specks of dust and hairs, each 25 to 100 % opaque."""
    marks: list[Mark] = [_scratch] * scratches
    marks += [_hair if hairy else _speck for hairy in rng.random(specks) < 0.2]
    bright = rng.random(len(marks)) < 0.6
    for ink, chosen in ((rng.uniform(0.8, 1), bright), (rng.uniform(0, 0.2), ~bright)):
        mask = np.zeros_like(grey)
        for mark in itertools.compress(marks, chosen):
            mark(mask, rng.uniform(0.25, 1), rng)
        grey = grey + mask * (np.float32(ink) - grey)
    return grey


def compress(grey: Plane, loss: float, rng: Chance) -> Plane:
    """Pass through JPEG, 1 the worst quality and 0 the best, its blocks beginning anywhere."""
    top, left = rng.integers(8, size=2)
    padded = cv2.copyMakeBorder(grey, int(top), 0, int(left), 0, cv2.BORDER_REFLECT_101)
    codes = np.rint(np.clip(_plane(padded), 0, 1) * 255).astype(np.uint8)
    quality = round(95 - 85 * loss)
    _, data = cv2.imencode(".jpg", codes, [cv2.IMWRITE_JPEG_QUALITY, quality])
    back = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.float32)
    return back[top:, left:] / np.float32(255)


def noisify(grey: Plane, share: float, rng: Chance) -> Plane:
    """Change random pixels by up to 30 code values of 255; drawn with replacement, so fewer than `share` of them.

    Source: `noisify` of DeOldify's training for video (share 0.001 to 0.4).
    """
    out = grey.copy()
    places = rng.integers(grey.size, size=round(share * grey.size))
    out.flat[places] += rng.integers(-_NOISE, _NOISE, len(places)).astype(np.float32) / np.float32(255)
    return out


Fault = Callable[[Plane, Degradation, Chance], Plane]
Mark = Callable[[Plane, float, Chance], None]

_FAULTS: tuple[tuple[float, Fault], ...] = (
    (0.5, lambda grey, most, rng: blur(grey, most.blur * rng.random())),
    (0.3, lambda grey, most, rng: vignette(grey, most.vignette * rng.random())),
    (0.5, lambda grey, most, rng: flicker(grey, most.flicker * rng.random(), rng)),
    (0.6, lambda grey, most, rng: tone(grey, most.gamma ** rng.uniform(-1, 1))),
    (0.5, lambda grey, most, rng: contrast(grey, most.contrast ** rng.uniform(-0.5, 1), rng.uniform(0.3, 0.7))),
    (0.7, lambda grey, most, rng: grain(grey, most.grain * rng.random(), rng.uniform(0, 1.2), rng)),
    (0.5, lambda grey, most, rng: fade(grey, most.fading * rng.random(), most.fading * rng.random())),
    (0.3, lambda grey, most, rng: damage(grey, *_counts(most, rng), rng)),
    (0.3, lambda grey, most, rng: blur(grey, most.softness * rng.random())),
    (0.3, lambda grey, most, rng: compress(grey, most.compression * rng.random(), rng) if most.compression else grey),
    (0.15, lambda grey, most, rng: noisify(grey, most.noise * rng.random(), rng)),
)
"""How often an aged picture has each fault; strengths are even between none and the most."""


def _counts(most: Degradation, rng: Chance) -> tuple[int, int]:
    return int(rng.integers(most.scratches + 1)), int(rng.integers(most.dust + 1))


def _scratch(mask: Plane, opacity: float, rng: Chance) -> None:
    """Draw a line down the frame that wavers a little and may break off."""
    height, width = mask.shape
    top, bottom = sorted(rng.integers(-height // 2, height + height // 2, 2))
    steps = np.linspace(top, bottom, 9)
    x = rng.uniform(0, width) + np.cumsum(rng.uniform(-0.6, 0.6, 9))
    _curve(mask, opacity, np.stack((x, steps), 1))


def _hair(mask: Plane, opacity: float, rng: Chance) -> None:
    """Draw a bent thin line, up to a third of the frame long."""
    start = rng.uniform(0, mask.shape[::-1])
    reach = rng.uniform(-1, 1, (2, 2)) * min(mask.shape) / 4
    t = np.linspace(0, 1, 12)[:, None]
    _curve(mask, opacity, start + t * reach[0] + t**2 * reach[1])


def _speck(mask: Plane, opacity: float, rng: Chance) -> None:
    """Draw a crumb of 3 to 7 corners, up to 4 pixels in radius, most much smaller."""
    corners = int(rng.integers(3, 8))
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = (0.6 + 3.4 * rng.random() ** 3) * rng.uniform(0.5, 1, corners)
    points = rng.uniform(0, mask.shape[::-1]) + radius[:, None] * np.stack((np.cos(angle), np.sin(angle)), 1)
    cv2.fillPoly(mask, [_fixed(points)], opacity, cv2.LINE_AA, _SHIFT)


def _curve(mask: Plane, opacity: float, points: NDArray[np.float64]) -> None:
    cv2.polylines(mask, [_fixed(points)], False, opacity, 1, cv2.LINE_AA, _SHIFT)


_SHIFT = 4
"""Binary digits below a pixel in the coordinates that OpenCV draws."""


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


def _weighed(rgb: Plane, weights: NDArray[np.float64]) -> Plane:
    return _plane(cv2.transform(rgb, weights.astype(np.float32)[None]))


def _plane(array: object) -> Plane:
    """Say that an array of OpenCV is float32, which its types do not."""
    return np.asarray(array, np.float32)
