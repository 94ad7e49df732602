"""Write trained weights for use: fp16 safetensors with the record of how they were made."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import restore
from restore.generators.compact import Compact
from restore.train.config import TrainConfig

_PATHS = ("data", "validation", "output")
"""Settings that say where things lay on the machine of the training: no part of the record."""


def export(network: Compact, config: TrainConfig, data_hash: str, state: dict[str, Any], path: Path) -> Path:
    """Write the weights and their record, under another name first, then rename.

    Args:
        network: The averaged weights.
        config: Settings of the run.
        data_hash: Fingerprint of the pictures.
        state: Steps, samples, seconds and history of the run, whose last row judges these weights.
        path: The file to write.

    Returns:
        `path`.
    """
    tensors = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in network.state_dict().items()
    }
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata=_record(network, config, data_hash, state))
    part.replace(path)
    return path


def _record(network: Compact, config: TrainConfig, data_hash: str, state: dict[str, Any]) -> dict[str, str]:
    settings = {"pixels": network.pixels, "bins": len(network.bins), "temperature": network.temperature}
    versions = {
        "restore": restore.__version__, "torch": torch.__version__,
        "numpy": np.__version__, "python": platform.python_version(),
    }  # fmt: skip
    history = state["history"]
    settings_of_run = {key: value for key, value in config.to_dict().items() if key not in _PATHS}
    return {
        "generator": "compact",
        "phase": "1",
        "settings": json.dumps(settings),
        "config": json.dumps(settings_of_run),
        "data_sha256": data_hash,
        "seed": str(config.seed),
        "steps": str(state["step"]),
        "samples": str(state["samples"]),
        "seconds": str(round(state["seconds"])),
        "metrics": json.dumps({key: value for key, value in history[-1].items() if key not in ("loss", "rate")}),
        "versions": json.dumps(versions),
    }
