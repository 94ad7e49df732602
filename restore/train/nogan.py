"""NoGAN in three phases: the generator alone, its critic alone, and a short GAN whose best snapshot is kept.

A GAN from the first step wanders; here the generator learns all that a plain loss can teach before it meets a critic,
the critic learns to tell its renders from photographs before the generator may answer, and the GAN of both ends at the
inflection point, after which pictures get worse. The other recipes of the field are this one with phases left out.

Source: Antic, DeOldify, "What is NoGAN?" (2019); Heusel et al. 2017 for the two time scales.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from restore.color import lab_from_rgb
from restore.generators.compact import Compact
from restore.output.disk import whole
from restore.train import snapshots
from restore.train.adapters import Painting, Rendered, freeze, groups
from restore.train.config import Row, TrainConfig
from restore.train.content import ContentLoss
from restore.train.critics import NoGanCritic, PatchCritic, critic_loss, generator_loss
from restore.train.data import Batch
from restore.train.export import export
from restore.train.losses import rarity
from restore.train.run import CHECKPOINT, Progress, Run
from restore.train.team import Team, joined

_RENDERS = "renders.npy"

_LIVELIEST = 2.0
"""Factor on the palette, at most."""


def train(config: TrainConfig, *, resume: bool = True, progress: Callable[[Progress], None] | None = None) -> Path:
    """Train a generator and export its weights.

    Args:
        config: Everything that decides the run.
        resume: Go on from the checkpoint in the output folder, if there is one; False starts over.
        progress: Called after every step.

    Returns:
        The exported weights file.

    Raises:
        MediaError: No pictures, or none can be read; or the output cannot be written: the disk is full, for example.
        ConfigError: The checkpoint was made with other settings, or a setting does not fit the generator.
        RestoreError: A loss is not a number.
    """
    config.output.mkdir(parents=True, exist_ok=True)
    with joined(config.device) as team, _threads(config.threads):
        run = Run(config, team, progress)
        if resume and (config.output / CHECKPOINT).exists():
            run.load(lambda: _critic(config, team))
        elif team.leads:  # what is there is of an earlier run
            (config.output / CHECKPOINT).unlink(missing_ok=True)
            shutil.rmtree(_snapshots(run), ignore_errors=True)
        pretrain(run)
        settle(run)
        for cycle in range(config.cycles if config.gan.steps else 0):
            render(run, cycle)
            train_critic(run, cycle)
            play(run, cycle)
            choose(run, cycle)
        path = config.output / f"{config.name}.safetensors"
        if team.leads:
            export(run.average, config, run.record(), path)
        team.wait()
        return path


# Phase 1: the generator alone


def pretrain(run: Run) -> None:
    """Teach the generator what a content loss can, size after size."""
    config, generator = run.config, run.generator
    for number, row in enumerate(config.pretrain):
        freeze(generator, config.generator, row.frozen)
        optimizer = AdamW(groups(generator, config.generator, row.encoder_rate, config.weight_decay), betas=(0.9, 0.99))
        content = ContentLoss(row.content or config.content, config, generator, run.prior)
        painting = run.team.wrap(Painting(generator))
        generator.train()
        for batch, _ in run.steps(f"pretrain-{number}", row, {"generator": optimizer}):
            loss = content(_painted(run, painting, batch), batch)
            _step(optimizer, loss, config.clip)
            run.note(content=loss)
            run.follow(config.average)


def settle(run: Run) -> None:
    """End phase 1: the averaged weights are the generator, and a part of the rebalancing is taken back.

    Training with weights w teaches shares in proportion to w times the truth's: log w too much in the bins' biases.
    """
    if not run.enter_once("settle"):
        return
    config, network = run.config, run.average
    if isinstance(network, Compact) and config.pretrain and config.content.distribution:
        weight = rarity(run.prior.to(network.bins.device), config.content.rebalance)
        head = network.head.state_dict()  # shares its tensors with the network
        head["bias"] -= config.calm * weight.log()
    run.generator.load_state_dict(network.state_dict())
    if run.team.leads:
        run.judge(network)
    run.leave()


# Phase 2: the critic alone


def render(run: Run, cycle: int) -> None:
    """Render pictures with the generator as it is, for the critic to learn from."""
    config = run.config.critic
    if not config.pictures or not run.enter_once(f"render-{cycle}"):
        return
    pixels = (*config.first, *config.rows)[-1].pixels
    if run.team.leads:
        with whole(run.config.output / _RENDERS) as file:
            form = {"descr": "|u1", "fortran_order": False, "shape": (config.pictures, 3, pixels, pixels)}
            np.lib.format.write_array_header_1_0(file, form)
            painting = Painting(run.average)
            for first in range(0, config.pictures, 16):
                count = min(16, config.pictures - first)
                batch = run.photos.batch(run.samples + first, count, pixels)
                with torch.inference_mode():
                    rgb = _painted(run, painting, batch.to(run.team.device)).rgb
                file.write((rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy().tobytes())
    run.samples += config.pictures
    run.leave()


def train_critic(run: Run, cycle: int) -> None:
    """Teach the critic to tell renders from photographs."""
    config = run.config
    if run.critic is None:
        run.critic = _critic(config, run.team)
    if not config.critic.pictures:
        return
    rows = (*config.critic.first, *config.critic.rows) if cycle == 0 else config.critic.rows
    critic = run.team.wrap(run.critic)
    for number, row in enumerate(rows):
        optimizer = AdamW(_critic_groups(run.critic, config), betas=(0.9, 0.99))
        renders = np.load(config.output / _RENDERS, mmap_mode="r")
        for batch, _ in run.steps(f"critic-{cycle}-{number}", row, {"critic": optimizer}):
            fake = _renders(renders, run, len(batch.rgb), row.pixels).to(run.team.device)
            loss = critic_loss(*_verdicts(run, critic, batch.rgb, fake, batch.grey))
            _step(optimizer, loss, 0.0)
            run.note(critic=loss)


# Phase 3: the short GAN


def play(run: Run, cycle: int) -> None:
    """Let generator and critic answer one another, and take snapshots of the generator."""
    config, gan, generator = run.config, run.config.gan, run.generator
    assert run.critic is not None
    freeze(generator, config.generator, gan.frozen)
    optimizers: dict[str, Optimizer] = {
        "generator": AdamW(groups(generator, config.generator, 1.0, config.weight_decay), betas=gan.betas),
        "critic": AdamW(_critic_groups(run.critic, config, gan.critic_rate), betas=gan.betas),
    }
    content = ContentLoss(gan.content, config, generator, run.prior)
    painting, critic = run.team.wrap(Painting(generator)), run.team.wrap(run.critic)
    if run.team.leads and not _before(run, cycle).exists():
        snapshots.take(_before(run, cycle), run.average)
    generator.train()
    row = Row(gan.pixels, gan.batch, gan.steps, 0.0, gan.minutes, gan.rate, warmup=0.0, floor=1.0)
    for batch, _ in run.steps(f"gan-{cycle}", row, optimizers):
        if run.notes.get("turn", "critic") == "critic":
            loss = _critic_step(run, painting, critic, optimizers["critic"], batch)
            run.notes["turn"] = "generator" if not gan.threshold or loss < gan.threshold else "critic"
        else:
            _generator_step(run, painting, run.critic, optimizers["generator"], batch, content)
            run.notes["turn"] = "critic"
        if (run.step + 1) % gan.snapshot_every == 0 and run.team.leads:
            network = run.average if gan.average else generator
            snapshots.take(_snapshots(run) / f"gan-{cycle}-{run.step + 1:06d}.safetensors", network)


def _critic_step(run: Run, painting: nn.Module, critic: nn.Module, optimizer: Optimizer, batch: Batch) -> float:
    with torch.no_grad():
        fake = _painted(run, painting, batch).rgb.clamp(0, 1)
    loss = critic_loss(*_verdicts(run, critic, batch.rgb, fake, batch.grey))
    _step(optimizer, loss, 0.0)
    return run.note(critic=loss)["critic"]


def _generator_step(
    run: Run, painting: nn.Module, critic: nn.Module, optimizer: Optimizer, batch: Batch, content: ContentLoss
) -> None:
    gan = run.config.gan
    found = _painted(run, painting, batch)
    with _deaf(critic), _autocast(run):
        verdict = critic(*_seen(critic, found.rgb.clamp(0, 1), batch.grey))
    deceit, distance = generator_loss(verdict), content(found, batch)
    _step(optimizer, gan.critic_weight * deceit + distance, 0.0)
    run.note(generator=deceit, content=distance)
    run.follow(gan.average)


def choose(run: Run, cycle: int) -> None:
    """Keep the snapshot at the inflection point: the generator of the next cycle, or of the end."""
    if not run.enter_once(f"choose-{cycle}"):
        return
    folder, config = _snapshots(run), run.config
    best = folder / f"best-{cycle}.safetensors"
    if run.team.leads:
        files = [_before(run, cycle), *sorted(folder.glob(f"gan-{cycle}-0*.safetensors"))]
        table = config.output / f"gan-{cycle}.csv"
        chosen = snapshots.best_of(files, lambda path: _become(run, cycle, path), config.choice, table)
        _become(run, cycle, chosen)
        snapshots.take(best, run.average)
    run.team.wait()
    run.average.load_state_dict(load_file(best, device=str(run.team.device)))
    run.generator.load_state_dict(run.average.state_dict())
    run.leave()


def _become(run: Run, cycle: int, snapshot: Path) -> dict[str, Any]:
    """Let the averaged weights be those that a snapshot stands for, and score them.

    They are blended with those before the GAN, and the palette is made livelier if colours are paler than asked for (a
    mean of colours is paler than each). So all snapshots are compared at the same colourfulness.
    """
    network, choice = run.average, run.config.choice
    network.load_state_dict(snapshots.blended(_before(run, cycle), snapshot, choice.blend))
    row = run.judge(network, snapshot=snapshot.stem)
    if choice.colorfulness and isinstance(network, Compact):
        palette, factor = network.bins.clone(), 1.0
        for _ in range(2):  # colourfulness is not quite linear in the palette
            wanted = choice.colorfulness * (row["colorfulness"] - row["colorfulness_delta"])
            factor = min(max(factor * wanted / max(row["colorfulness"], 1e-6), 1.0), _LIVELIEST)
            network.bins.copy_(factor * palette)
            row = run.judge(network, snapshot=snapshot.stem, factor=round(factor, 3))
    return row


def _snapshots(run: Run) -> Path:
    return run.config.output / "snapshots"


def _before(run: Run, cycle: int) -> Path:
    return _snapshots(run) / f"gan-{cycle}-before.safetensors"


# What the phases share


def _painted(run: Run, painting: nn.Module, batch: Batch) -> Rendered:
    clean = lab_from_rgb(batch.rgb)[:, :1]
    with _autocast(run):
        return Rendered(*painting(batch.grey.contiguous(memory_format=torch.channels_last), clean))


def _verdicts(run: Run, critic: nn.Module, real: Tensor, fake: Tensor, grey: Tensor) -> tuple[Tensor, Tensor]:
    """Return the critic's logits of photographs and of renders."""
    with _autocast(run):
        if isinstance(run.critic, PatchCritic):  # its batch norms must not tell one from the other
            return critic(*_seen(run.critic, real, grey)).float(), critic(*_seen(run.critic, fake, grey)).float()
        logits = critic(*_seen(run.critic, torch.cat((real, fake)), torch.cat((grey, grey))))
    real_logits, fake_logits = logits.float().chunk(2)
    return real_logits, fake_logits


def _seen(critic: nn.Module | None, rgb: Tensor, grey: Tensor) -> tuple[Tensor, ...]:
    """Return what a critic looks at: that of pix2pix compares the picture with the generator's input."""
    rgb = rgb.contiguous(memory_format=torch.channels_last)
    return (grey, rgb) if isinstance(critic, PatchCritic) else (rgb,)


def _critic(config: TrainConfig, team: Team) -> nn.Module:
    kinds: dict[str, type[NoGanCritic | PatchCritic]] = {"nogan": NoGanCritic, "patch": PatchCritic}
    torch.manual_seed(config.seed)
    critic = kinds[config.critic.kind](filters=config.critic.filters)
    critic.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return critic


def _critic_groups(critic: nn.Module, config: TrainConfig, scale: float = 1.0) -> list[dict[str, object]]:
    return [{"params": list(critic.parameters()), "scale": scale, "weight_decay": config.weight_decay}]


def _renders(renders: np.ndarray, run: Run, count: int, pixels: int) -> Tensor:
    """Draw renders, mirrored or not, as a function of the run's place alone; shape (B, 3, pixels, pixels)."""
    rng = np.random.default_rng((run.config.seed, 1 << 41, run.samples, run.team.rank))
    chosen = renders[np.sort(rng.integers(len(renders), size=count))]
    if chosen.shape[-1] != pixels:
        frames = chosen.transpose(0, 2, 3, 1)
        chosen = np.stack([cv2.resize(one, (pixels, pixels), interpolation=cv2.INTER_AREA) for one in frames])
        chosen = chosen.transpose(0, 3, 1, 2)
    mirrored = rng.random(count) < 0.5
    chosen[mirrored] = chosen[mirrored, :, :, ::-1]
    return torch.from_numpy(np.ascontiguousarray(chosen)).float() / 255


def _step(optimizer: Optimizer, loss: Tensor, clip: float) -> None:
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward([loss])
    if clip:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
    optimizer.step()


def _autocast(run: Run) -> torch.autocast:
    return torch.autocast(run.team.device.type, torch.bfloat16, enabled=run.config.precision == "bf16")


@contextmanager
def _deaf(critic: nn.Module) -> Iterator[None]:
    """Let gradients pass through a critic that does not learn from them."""
    critic.requires_grad_(False)
    try:
        yield
    finally:
        critic.requires_grad_(True)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Give the network `count` threads, and OpenCV none of its own: the readers are threads already."""
    before, before_cv = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(count)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        cv2.setNumThreads(before_cv)
