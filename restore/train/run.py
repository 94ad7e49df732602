"""The state of a training run: what is saved every few minutes, and what a resumed run goes on from."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from restore.errors import ConfigError, RestoreError
from restore.evaluate.photos import truths
from restore.generators import Generator
from restore.output.disk import whole
from restore.photographs import find, fingerprint
from restore.train.board import Board
from restore.train.config import Row, TrainConfig
from restore.train.data import Batch, Photos
from restore.train.start import started
from restore.train.team import Team
from restore.train.validate import judge, write_picture, write_rows

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is, after a step."""

    phase: str
    """As in ``pretrain-0``, ``critic-0``, ``gan-0``."""
    step: int
    """Steps done in this phase."""
    share: float
    """Of this phase, 0 to 1."""
    loss: float
    """Of the step."""
    samples: int
    """Pictures seen, in all phases."""
    seconds: float
    """Spent in training, validation left out, all phases and resumed runs together."""


class Run:
    """A training run between two steps."""

    def __init__(self, config: TrainConfig, team: Team, report: Callable[[Progress], None] | None = None) -> None:
        """Open the pictures and build the networks, all as before the first step."""
        self.config, self.team, self.report = config, team, report
        photos = find(config.data)
        self.data_hash = fingerprint(photos)
        self.validation_hash = fingerprint(find(config.validation))
        self.photos = Photos(photos, config.degradation, config.augmentation, config.seed)
        count = max(config.validation_pictures, config.choice.pictures if config.gan.steps else 0)
        self.truths = truths(config.validation, count) if team.leads else torch.empty(0)
        torch.manual_seed(config.seed + team.rank)
        self.generator, self.prior = started(config, photos)
        self.generator.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.critic: nn.Module | None = None
        self.samples, self.seconds, self.step = 0, 0.0, 0
        self.phase, self.finished, self.notes = "", list[str](), dict[str, Any]()
        self.history: list[dict[str, Any]] = []
        self.optimizers: Mapping[str, Optimizer] = {}
        self.board = Board(config.output / "board") if config.board and team.leads else None
        self._pending: dict[str, Any] | None = None
        self._losses: dict[str, float] = {}

    # What happens between steps

    def steps(self, phase: str, row: Row, optimizers: Mapping[str, Optimizer]) -> Iterator[tuple[Batch, float]]:
        """Give a phase its batches, each with the share of the phase that is over; save, judge and report in between.

        A phase that an earlier run has finished gives none; one that it was killed in goes on at its last checkpoint.
        """
        if phase in self.finished:
            return
        self._enter(phase, optimizers)
        began, steps = self.seconds - self.notes["seconds"], self._length(row)
        marks = {"judge": self.seconds, "save": self.seconds}
        with ThreadPoolExecutor(self.config.readers, "photos") as pool:
            reader = _Reader(self, row, pool)
            while (share := self._share(row, steps, self.seconds - began)) < 1:
                started = time.perf_counter()
                for optimizer in optimizers.values():
                    _set_rate(optimizer, row, share)
                batch = reader.next()
                self._draw()
                yield batch, share
                self.seconds += time.perf_counter() - started
                self.notes["seconds"] = self.seconds - began
                self.step, self.samples = self.step + 1, self.samples + row.batch
                self._tell(share)
                self._now_and_then(marks)
        self.leave()

    def enter_once(self, phase: str) -> bool:
        """Begin something that is no loop, unless an earlier run has done it."""
        if phase in self.finished:
            return False
        self._enter(phase, {})
        return True

    def leave(self) -> None:
        """End the phase and save."""
        self.finished.append(self.phase)
        self.phase, self.optimizers = "", {}
        self.save()

    def note(self, **losses: Tensor) -> dict[str, float]:
        """Take the losses of a step, and give their means over the team.

        Raises:
            RestoreError: One is not a finite number.
        """
        found = {name: self.team.mean(value) for name, value in losses.items()}
        for name, value in found.items():
            if not math.isfinite(value):
                raise RestoreError(
                    f"the {name} loss is {value} at step {self.step} of {self.phase}; lower the rate in the "
                    f"configuration and run again, to go on at the last checkpoint in {self.config.output}"
                )
        self._losses |= found
        return found

    def judge(self, network: Generator, **more: Any) -> dict[str, Any]:
        """Score a network on the validation photographs; write the row and a sheet.

        Args:
            network: A generator.
            **more: Further columns; a ``snapshot`` names the sheet, and is scored on as many photographs as the choice
                among snapshots asks for.
        """
        config, phase = self.config, self.phase or self.finished[-1]
        count = config.choice.pictures if "snapshot" in more else config.validation_pictures
        scores, picture = judge(network, self.truths[:count], config.precision == "bf16")
        row = {"phase": phase, "step": self.step, "samples": self.samples, "minutes": round(self.seconds / 60, 2)}
        row |= more | scores
        sheets = config.output / "sheets"
        sheets.mkdir(exist_ok=True)
        write_picture(sheets / f"{more.get('snapshot', f'{phase}-{self.step:06d}')}.png", picture)
        if self.board:
            self.board.scalars("validation", scores, self.samples)
            self.board.picture("sheet", picture, self.samples)
        self.history.append(row)
        write_rows(config.output / "metrics.csv", self.history)
        log.info("%s", "  ".join(f"{key} {value}" for key, value in row.items()))
        return row

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the averaged weights a little towards the generator's; less and less at the start of a phase."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.state_dict().values(), self.generator.state_dict().values(), strict=True)
        for mean, now in pairs:
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)

    def _enter(self, phase: str, optimizers: Mapping[str, Optimizer]) -> None:
        self.phase, self.optimizers, self._losses = phase, optimizers, {}
        if self._pending and self._pending["phase"] == phase:
            for name, optimizer in optimizers.items():
                optimizer.load_state_dict(self._pending["optimizers"][name])
            self.step, self.notes = self._pending["step"], self._pending["notes"]
            log.info("%s: going on from step %d", phase, self.step)
        else:
            self.step, self.notes = 0, {"seconds": 0.0}
        self._pending = None

    def _draw(self) -> None:
        """Let chance, that of dropout for example, depend on the place in the run and on the process alone.

        So no state of it must be kept, on no device and of no process.
        """
        place = (self.config.seed, self.samples, self.team.rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))

    def _length(self, row: Row) -> float:
        by_epochs = math.ceil(row.epochs * len(self.photos.photos) / row.batch) if row.epochs else math.inf
        return min(row.steps or math.inf, by_epochs)

    def _share(self, row: Row, steps: float, seconds: float) -> float:
        if not row.minutes:
            return min(1.0, self.step / steps)
        return self.team.agreed(min(1.0, max(self.step / steps, seconds / (60 * row.minutes))))

    def _tell(self, share: float) -> None:
        if self.report and self.team.leads:
            loss = next(iter(self._losses.values()), float("nan"))
            self.report(Progress(self.phase, self.step, share, loss, self.samples, self.seconds))
        if self.board and self.step % 10 == 0:
            self.board.scalars(self.phase, self._losses, self.samples)

    def _now_and_then(self, marks: dict[str, float]) -> None:
        for name, every in (("judge", self.config.validate_every), ("save", self.config.checkpoint_every)):
            if self.team.agreed(self.seconds) - marks[name] < 60 * every:
                continue
            marks[name] = self.seconds
            if name == "save":
                self.save()
            elif self.team.leads and self.phase.startswith("pretrain"):
                self.judge(self.average)

    # What a resumed run goes on from

    def record(self) -> dict[str, Any]:
        """Return the numbers of the run, without tensors, for the record of the weights."""
        return {
            "data_sha256": self.data_hash, "validation_sha256": self.validation_hash,
            "phases": self.finished, "samples": self.samples, "seconds": self.seconds, "history": self.history,
        }  # fmt: skip

    def save(self) -> None:
        """Write the checkpoint; the leader does.

        Raises:
            MediaError: It cannot be written; the disk is full, for example. The one before is as it was.
        """
        if self.team.leads:
            with whole(self.config.output / CHECKPOINT) as file:
                _save(self._state(), file)
        self.team.wait()

    def _state(self) -> dict[str, Any]:
        return {
            "config": self.config.kept, "data_hash": self.data_hash, "team": self.team.size,
            "phase": self.phase, "finished": self.finished, "notes": self.notes, "history": self.history,
            "step": self.step, "samples": self.samples, "seconds": self.seconds, "prior": self.prior,
            "generator": self.generator.state_dict(), "average": self.average.state_dict(),
            "critic": self.critic.state_dict() if self.critic is not None else None,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }  # fmt: skip

    def load(self, critic: Callable[[], nn.Module]) -> None:
        """Go on from the checkpoint.

        Args:
            critic: Builds a critic, if the checkpoint has one.

        Raises:
            ConfigError: It was made with other settings, learning rates excepted, other pictures or another number of
                processes.
        """
        path = self.config.output / CHECKPOINT
        content = torch.load(path, map_location=self.team.device, weights_only=True)
        now = self.config.kept | {"data": self.data_hash, "processes": self.team.size}
        then = content["config"] | {"data": content["data_hash"], "processes": content["team"]}
        if changed := sorted(key for key in now if _without_rates(now[key]) != _without_rates(then.get(key))):
            raise ConfigError(
                f"{path} was made with other {', '.join(changed)}; start over or use another output folder"
            )
        if self.config.kept != content["config"]:
            log.warning("%s: going on with other learning rates", path)
        self.generator.load_state_dict(content["generator"])
        self.average.load_state_dict(content["average"])
        if content["critic"] is not None:
            self.critic = critic()
            self.critic.load_state_dict(content["critic"])
        self.finished, self.history, self.notes = content["finished"], content["history"], content["notes"]
        self.samples, self.seconds, self.prior = content["samples"], content["seconds"], content["prior"]
        self._pending = content


def _without_rates(settings: Any) -> Any:
    """Return settings without learning rates: where a loss is no number, only a lower one helps a run to go on."""
    if isinstance(settings, dict):
        return {key: _without_rates(value) for key, value in settings.items() if key != "rate"}
    return [_without_rates(value) for value in settings] if isinstance(settings, list) else settings


def _save(state: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # what the system said, which torch hides
            raise error.__context__ from None
        raise


def _set_rate(optimizer: Optimizer, row: Row, share: float) -> None:
    """Set the learning rates: a line up, then a cosine down; and the momentum, the other way round. See `Row`."""
    if share < row.warmup:
        height = share / row.warmup
        level = max(height, 0.01)
    else:
        height = (1 + math.cos(math.pi * (share - row.warmup) / max(1 - row.warmup, 1e-9))) / 2
        level = row.floor + (1 - row.floor) * height
    for group in optimizer.param_groups:
        group["lr"] = row.rate * group["scale"] * level
        if row.momentum:
            ends, peak = row.momentum
            group["betas"] = (ends + (peak - ends) * height, group["betas"][1])


class _Reader:
    """Batches made ahead in threads; their numbers follow those of the run."""

    def __init__(self, run: Run, row: Row, pool: ThreadPoolExecutor) -> None:
        self.run, self.row, self.pool = run, row, pool
        self.number = run.samples
        self.waiting: deque[Future[Batch]] = deque(self._submit() for _ in range(run.config.readers + 1))

    def next(self) -> Batch:
        """Return the next batch, on the device."""
        batch = self.waiting.popleft().result()
        self.waiting.append(self._submit())
        return batch.to(self.run.team.device)

    def _submit(self) -> Future[Batch]:
        first, count = self.run.team.share(self.number, self.row.batch)
        self.number += self.row.batch
        return self.pool.submit(self.run.photos.batch, first, count, self.row.pixels)
