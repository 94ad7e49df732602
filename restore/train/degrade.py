"""Make a clean colour photograph's grey look like old film.

Only the network's input is aged; the colours to learn stay those of the photograph. All functions take and
return float32 arrays; grey is (H, W), sRGB-coded, [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

_PANCHROMATIC = ((0.299, 0.587, 0.114), (0.2126, 0.7152, 0.0722))
"""Luma of BT.601 and BT.709, between which the response of a panchromatic film is drawn."""

_ORTHOCHROMATIC = (0.06, 0.50, 0.44)
"""A film blind to red, as most were until about 1926: skies white, lips and reds dark."""


@dataclass(frozen=True, slots=True)
class Degradation:
    """How often each fault is applied, and how strong it is at most."""

    share: float = 0.6
    """Share of the pictures that are aged at all; the rest keep the clean grey."""
    orthochromatic: float = 0.15
    """Share with the response of a film blind to red."""
    grain: float = 0.05
    """Largest standard deviation of grain."""
    blur: float = 1.6
    """Largest sigma of blur, in pixels of the crop."""
    gamma: float = 1.5
    """Largest exponent of the tone curve, or its inverse."""
    fading: float = 0.2
    """Largest share of the range by which blacks are lifted or whites fall."""
    scratches: int = 3
    """Largest number of vertical scratches."""
    dust: int = 8
    """Largest number of specks and hairs."""
    vignette: float = 0.5
    """Largest loss of light in the corners."""


def age(rgb: Plane, settings: Degradation, rng: np.random.Generator) -> Plane:
    """Return the grey that an old film might show of a photograph.

    Args:
        rgb: Shape (H, W, 3), sRGB-coded, [0, 1].
        settings: Strengths.
        rng: All chance comes from here.

    Returns:
        Shape (H, W), [0, 1].
    """
    grey = expose(rgb, rng.random() < settings.orthochromatic, rng)
    if rng.random() >= settings.share:
        return grey
    if rng.random() < 0.5:
        grey = blur(grey, settings.blur * rng.random())
    if rng.random() < 0.7:
        grey = tone(grey, settings.gamma ** rng.uniform(-1, 1))
    if rng.random() < 0.3:
        grey = vignette(grey, settings.vignette * rng.random())
    if rng.random() < 0.7:
        grey = grain(grey, settings.grain * rng.random(), rng.uniform(0, 1.2), rng)
    if rng.random() < 0.25:
        scratches, specks = rng.integers((settings.scratches + 1, settings.dust + 1))
        grey = damage(grey, int(scratches), int(specks), rng)
    if rng.random() < 0.6:
        grey = fade(grey, settings.fading * rng.random(), settings.fading * rng.random())
    return np.clip(grey, 0, 1)


def expose(rgb: Plane, orthochromatic: bool, rng: np.random.Generator) -> Plane:
    """Weigh red, green and blue as a film does, between two luma standards or nearly blind to red."""
    low, high = np.array(_PANCHROMATIC)
    weights = np.array(_ORTHOCHROMATIC) if orthochromatic else low + rng.random() * (high - low)
    return _plane(cv2.transform(rgb, weights.astype(np.float32)[None]))


def blur(grey: Plane, sigma: float) -> Plane:
    """Soften by a Gaussian; under a fifth of a pixel it is left sharp."""
    return _plane(cv2.GaussianBlur(grey, (0, 0), sigma)) if sigma > 0.2 else grey


def tone(grey: Plane, gamma: float) -> Plane:
    """Raise to a power: over 1 darker, under 1 lighter."""
    return _plane(cv2.pow(np.clip(grey, 0, 1), gamma))


def vignette(grey: Plane, loss: float) -> Plane:
    """Darken towards the corners, where the share `loss` of the light is lost."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) ** 2 for n in grey.shape)
    return grey * (1 - np.float32(loss / 2) * (y[:, None] + x[None]))


def grain(grey: Plane, sigma: float, size: float, rng: np.random.Generator) -> Plane:
    """Add grain of standard deviation `sigma`, strongest in the mid-tones, `size` pixels coarse."""
    noise = rng.standard_normal(grey.shape, dtype=np.float32)
    if size > 0.4:
        noise = blur(noise, size)
        noise /= max(float(noise.std()), 1e-6)
    return grey + np.float32(sigma) * noise * (0.5 + 2 * grey * (1 - grey))


def damage(grey: Plane, scratches: int, specks: int, rng: np.random.Generator) -> Plane:
    """Draw bright or dark vertical scratches and specks of dust."""
    height, width = grey.shape
    out = np.ascontiguousarray(grey).copy()
    for _ in range(scratches):
        x, slant = rng.integers(width), rng.integers(-2, 3)
        top, bottom = sorted(rng.integers(-height // 2, height + height // 2, 2))
        cv2.line(out, (int(x), int(top)), (int(x + slant), int(bottom)), _ink(rng), 1, cv2.LINE_AA)
    for _ in range(specks):
        center = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(1, 4)), int(rng.integers(1, 3)))
        cv2.ellipse(out, center, axes, float(rng.integers(180)), 0, 360, _ink(rng), -1)
    return out


def fade(grey: Plane, lift: float, fall: float) -> Plane:
    """Lift the blacks and lower the whites, as a print that has lost its density."""
    return np.float32(lift) + grey * np.float32(1 - lift - fall)


def _plane(array: object) -> Plane:
    """Say that an array of OpenCV is float32, which its types do not."""
    return np.asarray(array, np.float32)


def _ink(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.8, 1.0) if rng.random() < 0.6 else rng.uniform(0.0, 0.2))
