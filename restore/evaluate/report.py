"""What was judged, and the table that tells it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from restore.evaluate.gallery import Sheet
from restore.evaluate.judge import TRUTH, Scores
from restore.evaluate.motion import Motion

GREY, MEAN = "grey", "mean chroma"
"""The baselines: no colour, and the same colour everywhere."""


@dataclass(frozen=True, slots=True)
class Column:
    """One measure of the table."""

    field: str
    title: str
    digits: int
    meaning: str


COLUMNS = (
    Column("psnr", "PSNR", 2, "decibels of R'G'B'; higher is nearer to the truth"),
    Column("ssim", "SSIM", 4, "structural similarity of R'G'B'; higher is nearer"),
    Column("ab_error", "ab error", 2, "mean distance in the ab plane; lower is nearer"),
    Column("auc", "AuC", 2, "percent: area under the share of pixels within 0 to 150 of the true ab; higher is nearer"),
    Column("auc_rebalanced", "AuC rebal.", 2, "the same, each pixel weighted by the inverse prior of its true colour"),
    Column("outliers", "outliers %", 3, "pixels with more chroma than 99.9 % of the truth's; 0.1 is natural"),
    Column("fd", "FD", 2, "Fréchet distance by EfficientNet-Lite0 features (not the FID); lower is nearer"),
    Column("top1", "top-1 %", 1, "labelled pictures whose ImageNet class a classifier sees"),
    Column("warp_error", "warp error", 3, "change of ab along the motion; lower is steadier"),
    Column("flicker", "flicker", 3, "change of a frame's mean chroma from frame to frame; lower is steadier"),
    Column("chroma", "chroma", 2, "mean chroma"),
    Column("colorfulness_delta", "ΔCF", 2, "colourfulness less that of the truth"),
    Column("colorfulness", "CF", 2, "colourfulness; near that of the truth is good"),
    Column("cdc", "CDC", 5, "color distribution consistency, nats; lower is steadier, and grey is steadiest: see CF"),
)
"""In the order of the table; CDC stands right after CF."""


@dataclass(frozen=True, slots=True)
class Part:
    """One set of photographs, or one film, judged."""

    source: str
    kind: Literal["photographs", "film"]
    truth: bool
    """It has colours of its own to be judged against."""
    methods: tuple[str, ...]
    """The baselines, then the generators."""
    scores: dict[str, Scores]
    """By method, the truth among them if there is one."""
    motions: dict[str, Motion]
    """Of a film, by method."""
    notes: tuple[str, ...]
    """What a reader must know about the numbers."""
    sheets: tuple[Sheet, ...]

    def measures(self, method: str) -> dict[str, float | None]:
        """Return every number of a method by its name."""
        motion = self.motions.get(method)
        return self.scores[method].measures() | (motion.measures() if motion else {})

    def table(self) -> list[list[str]]:
        """Return the table as text: a row of titles, then a row a method; measures that none has are left out."""
        found = {method: self.measures(method) for method in self.scores}
        shown = [column for column in COLUMNS if any(row.get(column.field) is not None for row in found.values())]
        return [
            ["", *(column.title for column in shown)],
            *(
                [method, *(_number(row.get(column.field), column.digits) for column in shown)]
                for method, row in found.items()
            ),
        ]

    def verdicts(self) -> Iterator[str]:
        """Say of each generator how it stands against the baseline and the truth."""
        if not self.truth:
            return
        grey, truth = self.scores[GREY], self.scores[TRUTH]
        for method in self.methods[2:]:
            own = self.scores[method]
            parts = [
                f"ab error {_ratio(own.ab_error, grey.ab_error)} of grey's",
                f"AuC {_gain(own.auc, grey.auc)}",
                f"PSNR {_gain(own.psnr, grey.psnr)} dB",
                f"CF {_ratio(own.colorfulness, truth.colorfulness)} of the truth's",
            ]
            parts += [f"FD {_ratio(own.fd, grey.fd)} of grey's"] if own.fd is not None else []
            yield f"{method}: {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was judged."""

    parts: tuple[Part, ...]
    about: dict[str, str]
    """Versions, hashes of weights, device: what decides the numbers."""

    def text(self) -> str:
        """Return the tables for people."""
        lines: list[str] = []
        for part in self.parts:
            first = next(iter(part.scores.values()))
            lines += [f"{part.source}: {first.pictures} {'frames' if part.kind == 'film' else 'pictures'}"]
            rows = part.table()
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for row in rows:
                cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
                lines.append("  ".join(cells).rstrip())
            lines += [*part.verdicts(), *part.notes, ""]
        return "\n".join(lines).rstrip()


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _ratio(value: float | None, other: float | None) -> str:
    return "-" if value is None or not other else f"{value / other:.3f}"


def _gain(value: float | None, other: float | None) -> str:
    return "-" if value is None or other is None else f"{value - other:+.2f}"
