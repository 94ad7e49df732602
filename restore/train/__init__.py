"""Training: phase 1, generator pre-training."""

from restore.train.config import TrainConfig, load
from restore.train.pretrain import Progress, train

__all__ = ["Progress", "TrainConfig", "load", "train"]
