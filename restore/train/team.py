"""The processes that train together: one, or one a GPU as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from restore.errors import ConfigError

_PATIENCE = timedelta(days=1)
"""How long processes wait for the leader, who renders and chooses alone; torch's ten minutes are too few for that."""


@dataclass(frozen=True, slots=True)
class Team:
    """This process among those that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Let the gradients of a module be averaged over the team."""
        if self.size == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices)

    def mean(self, value: Tensor) -> float:
        """Return the mean of a scalar over the team, the same number everywhere."""
        if self.size == 1:
            return value.item()
        total = value.detach().double().clone()
        dist.all_reduce(total)
        return total.item() / self.size

    def agreed(self, value: float) -> float:
        """Return the leader's number everywhere: clocks differ."""
        if self.size == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(box, 0)
        return box.item()

    def share(self, first: int, batch: int) -> tuple[int, int]:
        """Return the first sample and the number of samples of this process in a batch of the whole team.

        Raises:
            ConfigError: The batch cannot be shared out evenly.
        """
        if batch % self.size:
            raise ConfigError(f"a batch of {batch} cannot be shared out among {self.size} processes")
        own = batch // self.size
        return first + self.rank * own, own

    def wait(self) -> None:
        """Wait until the whole team is here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(device: str) -> Iterator[Team]:
    """Join the team that torchrun started, or be one alone.

    Args:
        device: ``auto`` takes this process's GPU if there is one.

    Raises:
        ConfigError: The device is unknown or not there.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    own = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1:
        yield Team(0, 1, own)
        return
    gpu = own if own.type == "cuda" else None
    dist.init_process_group("nccl" if gpu else "gloo", timeout=_PATIENCE, device_id=gpu)
    try:
        yield Team(rank, size, own)
    finally:
        dist.destroy_process_group()


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{local_rank}" if name == "cuda" else name)
    except RuntimeError as error:
        raise ConfigError(f"device: expected cpu, cuda, cuda:N or auto, found {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device: {device} is not there; this machine has {torch.cuda.device_count()} GPUs")
    return device
