"""Judge generators by a film: frame by frame, and how steady the colours are as it runs."""

from __future__ import annotations

from pathlib import Path

from restore.clip import Clip
from restore.color import lab_from_rgb
from restore.evaluate import films, photos
from restore.evaluate.contest import Contest
from restore.evaluate.films import Passage
from restore.evaluate.gallery import Gallery
from restore.evaluate.judge import TRUTH, Judge
from restore.evaluate.motion import Meter
from restore.evaluate.of_photos import notes_on, offer
from restore.evaluate.report import Part


def judge_film(path: Path, contest: Contest) -> Part:
    """Colour the luma of a film with the stages of the pipeline, and judge it against its own colours if it has any.

    Raises:
        MediaError: It is not a film, or cannot be decoded.
    """
    passage = films.open_film(path, contest.limit, contest.progress)
    work = _Work(passage, contest)
    for clips in films.colored(passage, list(contest.ways.values())):
        work.add(clips)
        if contest.progress:
            contest.progress("judge", clips[0].first + len(clips[0]), passage.frames)
    return work.part(str(path))


class _Work:
    """A film under judgement."""

    def __init__(self, passage: Passage, contest: Contest) -> None:
        self.passage, self.contest = passage, contest
        self.truth = passage.tone == "color"
        self.judge = Judge(contest.methods, truth=self.truth, features=contest.features)
        self.meter = Meter(passage.source.color.depth)
        self.gallery = Gallery(contest.sheets)

    def add(self, clips: list[Clip]) -> None:
        """Take the same frames in the colours of each generator."""
        head = clips[0]
        pictures = films.pictures_of(head) if self.truth else films.gray_of(head)
        rgb = photos.tensor(list(pictures))
        abs_ = self.contest.baselines(len(head))
        abs_ |= {name: films.ab_of(clip) for name, clip in zip(self.contest.ways, clips, strict=True)}
        names = [str(head.first + place) for place in range(len(head))]
        verdicts = self.judge.add(rgb.to(self.contest.device), abs_, names)
        if self.truth:
            abs_[TRUTH] = lab_from_rgb(rgb.float() / 255)[:, 1:]
        for place, luma in enumerate(head.luma):
            if head.first + place == head.shot[0]:
                self.meter.cut()
            found = {name: (verdicts[name].pictures[place], ab[place].numpy()) for name, ab in abs_.items()}
            changes = self.meter.add(luma, found)
            seconds = self.passage.seconds(head.first + place)
            offer(
                self.gallery,
                self.contest,
                verdicts,
                place,
                group=int(seconds),
                name=f"frame {head.first + place}, {films.timecode(seconds)}",
                change=changes[next(iter(self.contest.ways))] or 0.0,
            )

    def part(self, name: str) -> Part:
        """Sum up."""
        scores, methods = self.judge.scores(), self.contest.methods
        shots = 1 + sum(cut < self.passage.frames for cut in self.passage.reel.cuts)
        notes = [f"coloured as `restore run` does up to the painting, in {shots} shot{'s' if shots > 1 else ''}"]
        notes += notes_on(scores, self.contest, self.truth)
        sheets = self.gallery.sheets()
        return Part(name, "film", self.truth, methods, scores, self.meter.motions(), tuple(notes), sheets)
