"""The literal table of stages: every name that a pipeline file may use."""

from __future__ import annotations

from restore.colorize.neural import Neural
from restore.colorize.paint import Paint
from restore.colorize.smooth import Smooth
from restore.stage import Stage

STAGES: dict[str, type[Stage]] = {cls.name: cls for cls in (Neural, Smooth, Paint)}
