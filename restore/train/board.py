"""TensorBoard: losses as curves, sheets as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restore.errors import ConfigError
from restore.output.disk import writing


class Board:
    """Writes the files that TensorBoard reads."""

    def __init__(self, folder: Path) -> None:
        """Open the folder; a resumed run adds to what is there.

        Raises:
            ConfigError: TensorBoard is not installed.
            MediaError: The folder cannot be written.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError("board: needs TensorBoard; install restore[train] or set board: false") from error
        self._folder = folder
        with writing(folder):
            self._writer = SummaryWriter(str(folder))

    def scalars(self, phase: str, values: dict[str, float], samples: int) -> None:
        """Add a point to a curve of each value, over the pictures seen."""
        with writing(self._folder):
            for name, value in values.items():
                self._writer.add_scalar(f"{phase.split('-')[0]}/{name}", value, samples)

    def picture(self, name: str, rgb: NDArray[np.uint8], samples: int) -> None:
        """Add a sheet, shape (H, W, 3)."""
        with writing(self._folder):
            self._writer.add_image(name, rgb, samples, dataformats="HWC")
            self._writer.flush()
