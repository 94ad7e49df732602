"""Jobs for tests: their configuration, their processes, and what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from media import make_film


def write_config(folder: Path, weights: Path | str, **settings: Any) -> Path:
    """Write the configuration of a job that restores `folder/in` into `folder/out`."""
    values = {"inputs": "in", "output": "out", "weights": str(weights), "device": "cpu", "precision": "fp32"}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(values | {"backoff_seconds": 0.1} | settings))
    return path


def write_photo(path: Path, seed: int = 0) -> Path:
    """Write a smooth grey photograph."""
    y, x = np.mgrid[:48, :64] / 9.0
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.rint(127 + 100 * np.sin(x + seed) * np.cos(y)).astype(np.uint8))
    return path


def make_slow_film(path: Path, parts: int = 6) -> Path:
    """Make a film of many parts: they last 15 seconds, and it shows one frame a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_film(path, frames=15 * parts, rate=Fraction(1))


def start(config: Path, *options: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a job as a process of its own."""
    command = [sys.executable, "-m", "restore", "job", str(config), *options]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, env={**os.environ, **(env or {})})


def wait_until(true: Callable[[], object], seconds: float = 120) -> None:
    """Wait for something that another process does."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def figures_of(port: int) -> set[str]:
    """Read what a job serves for Prometheus, line by line."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return set(answer.read().decode().splitlines())


def report_of(root: Path) -> dict[str, Any]:
    """Read the last report of a job."""
    found: dict[str, Any] = json.loads((root / ".restore-job" / "report.json").read_text())
    return found


def states(root: Path) -> dict[str, str]:
    """Return what became of each source, by its file name."""
    return {Path(film["source"]).name: film["state"] for film in report_of(root)["films"]}


def log_of(root: Path) -> list[dict[str, Any]]:
    """Read the JSON lines of the last run."""
    last = max((root / ".restore-job" / "runs").glob("*.jsonl"))
    return [json.loads(line) for line in last.read_text().splitlines()]
