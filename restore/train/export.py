"""Write trained weights for use: fp16 safetensors with the record of how they were made."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

import restore
from restore.generators import Generator
from restore.generators.compact import Compact
from restore.output.disk import whole
from restore.train.config import TrainConfig


def export(network: Generator, config: TrainConfig, state: dict[str, Any], path: Path) -> Path:
    """Write the weights and their record.

    Args:
        network: The generator to be used.
        config: Settings of the run.
        state: Fingerprints of the pictures, phases, samples, seconds and history of the run, whose last row judges
            these weights.
        path: The file to write.

    Returns:
        `path`.

    Raises:
        MediaError: It cannot be written.
    """
    tensors = {
        key: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for key, value in network.state_dict().items()
    }
    with whole(path) as file:
        file.write(save(tensors, metadata=_record(network, config, state)))
    return path


def _record(network: Generator, config: TrainConfig, state: dict[str, Any]) -> dict[str, str]:
    settings = dict(config.settings)
    if isinstance(network, Compact):
        settings |= {"bins": len(network.bins), "temperature": network.temperature}
    versions = {
        "restore": restore.__version__, "torch": torch.__version__,
        "numpy": np.__version__, "python": platform.python_version(),
    }  # fmt: skip
    return {
        "generator": config.generator,
        "recipe": config.recipe,
        "settings": json.dumps(settings),
        "config": json.dumps(config.record),
        "data_sha256": state["data_sha256"],
        "validation_sha256": state["validation_sha256"],
        "seed": str(config.seed),
        "phases": " ".join(state["phases"]),
        "samples": str(state["samples"]),
        "seconds": str(round(state["seconds"])),
        "metrics": json.dumps(state["history"][-1] if state["history"] else {}),
        "versions": json.dumps(versions),
    }
