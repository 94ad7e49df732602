"""Judge coloured pictures against the true ones, batch by batch, in memory that does not grow with their number.

The judge sees pictures as a user would, 8-bit sRGB of 256 x 256: every measure, a* and b* included, is of the code
values, after colours that lie outside of sRGB have been clipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from restore.color import lab_from_rgb, rgb_from_lab
from restore.evaluate import frechet
from restore.evaluate.frechet import Moments
from restore.evaluate.tally import ChromaTally, ColorTally, nearness
from restore.metrics import colorfulness, psnr, ssim

TRUTH = "truth"
"""Names the true pictures themselves among the methods."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one picture scores; the measures are those of `Scores`."""

    name: str
    psnr: float | None
    ssim: float | None
    ab_error: float | None
    auc: float | None
    colorfulness: float
    colorfulness_delta: float | None
    label: int | None
    """The true ImageNet class, if it is known."""
    predicted: int | None
    """The class that the classifier sees in the coloured picture."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a set of pictures scores: means over pictures, where nothing else is said. None: it cannot be measured."""

    pictures: int
    psnr: float | None
    """Decibels of R'G'B'; higher is nearer to the truth."""
    ssim: float | None
    """Structural similarity of R'G'B', at most 1; higher is nearer."""
    ab_error: float | None
    """Distance in the ab plane; lower is nearer."""
    auc: float | None
    """Percent: area under the share of pixels nearer than a threshold, thresholds 0 to 150 (Zhang et al. 2016)."""
    auc_rebalanced: float | None
    """The same over all pixels, each weighted by the inverse of its true colour's prior in this set."""
    colorfulness: float
    """CF of Hasler and Süsstrunk 2003; near that of the truth is good, above is neon, below is washed out."""
    colorfulness_delta: float | None
    """CF less that of the truth; negative is paler."""
    outliers: float | None
    """Percent of pixels whose chroma exceeds the 99.9th percentile of the truths' chroma; 0.1 is natural."""
    fd: float | None
    """Fréchet distance to the truths by features of EfficientNet-Lite0, not the FID; from at least two pictures."""
    top1: float | None
    """Percent of the labelled pictures whose class the classifier sees (semantic interpretability)."""
    labelled: int
    """Pictures with a label."""
    rows: tuple[Row, ...]
    """Each picture, in the order in which it came."""

    def measures(self) -> dict[str, float | None]:
        """Return the numbers by name, without the rows."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "rows"}


def fitted(planes: Tensor, size: Sequence[int]) -> Tensor:
    """Resize planes that cover the whole picture, shape (B, C, h, w)."""
    height, width = size
    if tuple(planes.shape[-2:]) == (height, width):
        return planes
    return F.interpolate(planes, (height, width), mode="bilinear", align_corners=False, antialias=True)


def paint(rgb: Tensor, ab: Tensor) -> Tensor:
    """Give pictures other colours.

    Args:
        rgb: R'G'B', shape (B, 3, H, W), uint8; its L* is kept, but where the colour is outside of sRGB.
        ab: a* and b*, shape (B, 2, s, t), covering the pictures.

    Returns:
        Shape (B, 3, H, W), uint8.
    """
    lightness = lab_from_rgb(rgb.float() / 255)[:, :1]
    return _painted(lightness, ab)


def _painted(lightness: Tensor, ab: Tensor) -> Tensor:
    unit = rgb_from_lab(torch.cat((lightness, fitted(ab.to(lightness), lightness.shape[-2:])), 1)).clamp_(0, 1)
    return unit.mul_(255).round_().to(torch.uint8)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Pictures as the judge looks at them."""

    rgb: Tensor
    lab: Tensor
    codes: NDArray[np.uint8]
    """Shape (B, H, W, 3)."""
    ab: NDArray[np.float32]
    """Shape (B, 2, H, W)."""
    strength: list[float]
    """The colourfulness of each."""

    @classmethod
    def of(cls, rgb: Tensor) -> _Batch:
        lab = lab_from_rgb(rgb.float() / 255)
        codes = rgb.permute(0, 2, 3, 1).cpu().numpy()
        return cls(rgb, lab, codes, lab[:, 1:].cpu().numpy(), [colorfulness(picture) for picture in codes])


class _Tally:
    """What the pictures of one method have scored so far."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.colors, self.chroma, self.moments = ColorTally(), ChromaTally(), Moments()

    def mean(self, measure: str) -> float | None:
        """Return the mean over pictures of a field of `Row`, None where it was not measured."""
        values = [value for row in self.rows if (value := getattr(row, measure)) is not None]
        return float(np.mean(values)) if values else None

    def scores(self, truth: _Tally | None) -> Scores:
        """Sum up; without a truth, or for the truth itself, what is measured against one stays None."""
        other = truth if truth is not self else None
        guessed = [
            row.label == row.predicted for row in self.rows if row.label is not None and row.predicted is not None
        ]
        return Scores(
            pictures=len(self.rows),
            psnr=self.mean("psnr"),
            ssim=self.mean("ssim"),
            ab_error=self.mean("ab_error"),
            auc=self.colors.auc if other else None,
            auc_rebalanced=self.colors.rebalanced if other else None,
            colorfulness=float(np.mean([row.colorfulness for row in self.rows])),
            colorfulness_delta=self.mean("colorfulness_delta"),
            outliers=self.chroma.beyond(truth.chroma.bound) if truth else None,
            fd=frechet.distance(other.moments, self.moments) if other else None,
            top1=100 * float(np.mean(guessed)) if guessed else None,
            labelled=len(guessed),
            rows=tuple(self.rows),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """A batch of coloured pictures, and what they score."""

    pictures: NDArray[np.uint8]
    """R'G'B', shape (B, 256, 256, 3)."""
    rows: tuple[Row, ...]


class Judge:
    """Scores of several colourings of the same pictures, and of the true pictures themselves."""

    def __init__(self, methods: Sequence[str], *, truth: bool = True, features: bool = True) -> None:
        """Prepare.

        Args:
            methods: Names of the colourings.
            truth: The pictures are in colour; if not, only what needs no truth is measured.
            features: Measure what needs the classifier, too: FD and top-1.

        Raises:
            ConfigError: The package with the classifier's weights is not installed.
        """
        self._truth = _Tally() if truth else None
        self._tallies = {method: _Tally() for method in methods}
        self._features = features and truth
        if self._features:
            frechet.network(torch.device("cpu"))  # missing weights are told before the work, not after it

    def add(
        self,
        rgb: Tensor,
        abs_: Mapping[str, Tensor],
        names: Sequence[str],
        labels: Sequence[int | None] | None = None,
    ) -> dict[str, Verdict]:
        """Judge a batch.

        Args:
            rgb: The pictures, shape (B, 3, 256, 256), uint8.
            abs_: a* and b* of each method, shape (B, 2, s, t), covering the pictures, on any device.
            names: Of the pictures.
            labels: Their ImageNet classes, where they are known.

        Returns:
            By method, what each picture looks like and scores; the truth's among them, if there is one.
        """
        labels = labels or [None] * len(names)
        pictures = _Batch.of(rgb)
        truth = pictures if self._truth else None
        verdicts = {}
        for method, ab in abs_.items():
            found = _Batch.of(_painted(pictures.lab[:, :1], ab))
            verdicts[method] = self._take(self._tallies[method], found, truth, names, labels)
        if self._truth:
            verdicts[TRUTH] = self._take(self._truth, pictures, None, names, labels)
        return verdicts

    def scores(self) -> dict[str, Scores]:
        """Return the scores of each method and, where there is a truth, of the truth."""
        found = {method: tally.scores(self._truth) for method, tally in self._tallies.items()}
        return found | ({TRUTH: self._truth.scores(self._truth)} if self._truth else {})

    def _take(
        self, tally: _Tally, found: _Batch, truth: _Batch | None, names: Sequence[str], labels: Sequence[int | None]
    ) -> Verdict:
        seen = self._classified(tally, found.rgb, labels)
        rows = [_row(tally, found, truth, *each) for each in zip(count(), names, labels, seen, strict=False)]
        tally.rows += rows
        return Verdict(found.codes, tuple(rows))

    @torch.inference_mode()
    def _classified(self, tally: _Tally, rgb: Tensor, labels: Sequence[int | None]) -> Sequence[int | None]:
        """Note the features of pictures, and return the classes of those that have a label."""
        if not self._features:
            return [None] * len(labels)
        network = frechet.network(rgb.device)
        features = network.pooled((rgb.float() / 255).contiguous(memory_format=torch.channels_last))
        tally.moments.add(features)
        if all(label is None for label in labels):
            return [None] * len(labels)
        classes: list[int] = network._fc(features).argmax(1).tolist()
        return classes


def _row(
    tally: _Tally,
    found: _Batch,
    truth: _Batch | None,
    place: int,
    name: str,
    label: int | None,
    predicted: int | None,
) -> Row:
    """Measure one picture of a batch."""
    tally.chroma.add(found.ab[place])
    strength = found.strength[place]
    if truth is None:
        return Row(name, None, None, None, None, strength, None, label, predicted)
    distance = np.asarray(np.hypot(*(found.ab[place] - truth.ab[place])), np.float32)
    tally.colors.add(truth.ab[place], distance)
    return Row(
        name=name,
        psnr=psnr(truth.codes[place], found.codes[place]),
        ssim=ssim(truth.codes[place], found.codes[place]),
        ab_error=float(distance.mean(dtype=np.float64)),
        auc=100 * float(nearness(distance).mean(dtype=np.float64)),
        colorfulness=strength,
        colorfulness_delta=strength - truth.strength[place],
        label=label,
        predicted=predicted,
    )
