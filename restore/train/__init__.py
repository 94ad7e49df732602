"""Training generators: NoGAN, and the recipes it is compared with."""

from restore.train.config import TrainConfig, load
from restore.train.nogan import train
from restore.train.run import Progress

__all__ = ["Progress", "TrainConfig", "load", "train"]
