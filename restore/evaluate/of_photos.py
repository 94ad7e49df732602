"""Judge generators by photographs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from restore import generators
from restore.errors import MediaError
from restore.evaluate import photos, sets
from restore.evaluate.contest import Contest
from restore.evaluate.frechet import NAME
from restore.evaluate.gallery import Gallery
from restore.evaluate.judge import TRUTH, Judge, Scores, Verdict
from restore.evaluate.report import GREY, MEAN, Part
from restore.generators import Loaded
from restore.photographs import Photo, Picture, find
from restore.stills.still import tone_of

_LOOKS = 48
"""Photographs that decide whether a set is in colour."""


def judge_photos(sources: Sequence[Path], contest: Contest) -> Part:
    """Judge generators by the photographs in folders, tar files and files, all as one set.

    Raises:
        MediaError: There are none, or none that can be judged.
    """
    found = sets.pick(find(*sources), contest.limit)
    truth, labels = _in_colour(found), sets.labels(found, contest.labels)
    ways = {name: _loaded(contest, name) for name in contest.ways}
    judge = Judge(contest.methods, truth=truth, features=contest.features)
    gallery, left_out = Gallery(contest.sheets), _LeftOut()
    done = 0
    for batch in _batches(found, truth, left_out):
        rgb = photos.tensor([picture for _, picture in batch]).to(contest.device)
        if not truth:
            rgb = photos.grey_of(rgb).mul(255).round().to(torch.uint8).expand_as(rgb)
        names = [photo.name for photo, _ in batch]
        abs_ = contest.baselines(len(rgb)) | {name: photos.colorize(way, rgb) for name, way in ways.items()}
        verdicts = judge.add(rgb, abs_, names, [labels.get(name) for name in names])
        for place in range(len(batch)):
            offer(gallery, contest, verdicts, place, group=(done, place))
        done += len(batch)
        if contest.progress:
            contest.progress("photographs", done + left_out.count, len(found))
    name = ", ".join(map(str, sources))
    if not done:
        raise MediaError(f"holds nothing to judge by: {'; '.join(left_out.notes())}", name)
    scores = judge.scores()
    notes = (*left_out.notes(), *notes_on(scores, contest, truth))
    return Part(name, "photographs", truth, contest.methods, scores, {}, notes, gallery.sheets())


class _LeftOut:
    """The photographs that are not judged, and why."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, photo: Photo, why: str) -> None:
        self._names.setdefault(why, []).append(photo.name)

    @property
    def count(self) -> int:
        return sum(map(len, self._names.values()))

    def notes(self) -> list[str]:
        """Say how many there are."""
        return [f"left out, {why}: {len(names)} (first: {names[0]})" for why, names in self._names.items()]


def _in_colour(found: Sequence[Photo]) -> bool:
    """Say whether most of the photographs are; sepia prints are not."""
    some = map(sets.read, sets.pick(found, _LOOKS))
    tones = Counter(tone_of(picture, 8) for picture in some if picture is not None)
    return tones["color"] * 2 >= tones.total()


def _batches(found: Sequence[Photo], truth: bool, left_out: _LeftOut) -> Iterator[list[tuple[Photo, Picture]]]:
    batch: list[tuple[Photo, Picture]] = []
    for photo in found:
        picture = sets.read(photo)
        if picture is None:
            left_out.add(photo, "because they cannot be decoded")
        elif truth and tone_of(picture, 8) == "gray":
            left_out.add(photo, "because they are grey and have no colours to judge by")
        else:
            batch.append((photo, picture))
        if len(batch) == photos.BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _loaded(contest: Contest, name: str) -> Loaded:
    way = contest.ways[name]
    assert way.weights is not None
    return generators.load(way.weights, contest.device, way.precision or "auto")


def offer(
    gallery: Gallery,
    contest: Contest,
    verdicts: Mapping[str, Verdict],
    place: int,
    *,
    group: object,
    name: str = "",
    change: float | None = None,
) -> None:
    """Offer one picture of a batch to the gallery, as bad as the first generator's colours of it are.

    Without a truth it is as bad as its mean chroma has changed since the frame before, or as it is colourful.
    """
    first = next(iter(contest.ways))
    row, grey = verdicts[first].rows[place], verdicts[GREY].rows[place]
    if row.ab_error is not None and grey.ab_error is not None:
        badness, caption = row.ab_error, f"ab error {row.ab_error:.1f} (grey {grey.ab_error:.1f}), PSNR {row.psnr:.1f}"
    else:
        badness = row.colorfulness if change is None else change
        caption = f"CF {row.colorfulness:.1f}" + ("" if change is None else f", change of mean chroma {change:.2f}")
    shown = (GREY, *contest.ways, TRUTH)
    panels = {method: verdicts[method].pictures[place] for method in shown if method in verdicts}
    gallery.offer(group, name or row.name, caption, badness, panels)


def notes_on(scores: Mapping[str, Scores], contest: Contest, truth: bool) -> list[str]:
    """Say what a reader must know about the numbers."""
    a, b = contest.mean
    notes = [f"{MEAN} is a* {a:.2f}, b* {b:.2f}: the mean of {contest.mean_of}"]
    if not truth:
        return ["black and white: without a truth, nearness to it cannot be measured", *notes]
    pictures, labelled = scores[TRUTH].pictures, scores[TRUTH].labelled
    if contest.features and pictures < 2:
        notes.append("FD is not given: it needs at least 2 pictures, better thousands, and there is 1")
    elif contest.features:
        notes.append(f"FD is by features of {NAME} of {pictures} pictures; compare it only with FD of as many")
    if labelled:
        notes.append(f"top-1 is of {labelled} labelled pictures")
    return notes
