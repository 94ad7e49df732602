"""What a machine brings along that decides pixels: versions of libraries, devices, and their precision."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import av
import cv2
import numpy as np
import torch

from restore import __version__, generators


@dataclass(frozen=True)
class Machine:
    """A machine that works on parts. Two that are equal give equal pixels."""

    versions: dict[str, str]
    """Of Python, of restore and of the libraries that touch pixels."""
    precisions: dict[str, str]
    """Types of devices that it computes on, the one that ``auto`` means first: what precision ``auto`` means there."""

    @property
    def device(self) -> str:
        """The type of device that ``auto`` means."""
        return next(iter(self.precisions))


def this_machine() -> Machine:
    """Look at the machine, or at the process, that calls this."""
    versions = {
        "restore": __version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "av": av.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "torch": torch.__version__,
    }
    devices = ["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]
    return Machine(versions, {device: generators.automatic_precision(torch.device(device)) for device in devices})
