"""Reading weights from files that strangers made: safetensors and PyTorch checkpoints, never code."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from restore.errors import WeightsError

CONTAINERS = ("model", "state_dict")
"""Keys under which training programs keep the state dict; `model` beside `opt` is the published DeOldify form."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU, as stored.

    Nothing in the file is executed: a pickle may hold tensors, plain containers and `slice` (the optimizer part of the
    published checkpoints has one), and is refused if it names anything else.

    Args:
        path: Safetensors, or a PyTorch checkpoint (zip or the older bare pickle) of a state dict, by itself or
            as `model` or `state_dict` of a container.

    Returns:
        Tensors by key, in the order of the file, in its precision.

    Raises:
        WeightsError: No such file, not weights, damaged, or it tries to run code.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightsError(f"cannot read weights {path}: {error.strerror or error}") from error
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _state_of(_read_pickle(path), path)
    raise WeightsError(f"{path} is not weights: {_found(head)}, expected safetensors or a PyTorch checkpoint")


def _found(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return "found a web page (the address it was downloaded from may be dead)"
    return f"found a file that begins with {head[:8]!r}"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path} is not whole or not safetensors ({error}); fetch or copy it again") from error
    return state


def _read_pickle(path: Path) -> object:
    try:
        with torch.serialization.safe_globals([slice]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on an odd pickle torch warns, and then refuses it anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own text goes on to advise weights_only=False, which would run the code
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None:
            raise WeightsError(f"{path} is damaged, or holds other things than tensors; it was not loaded") from error
        raise WeightsError(
            f"{path} was refused: it asks for {named[1]}, which weights do not need and which may be an attack"
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise WeightsError(
            f"{path} is not a whole PyTorch checkpoint ({type(error).__name__}); fetch or copy it again"
        ) from error


def _state_of(content: object, path: Path) -> dict[str, Tensor]:
    """Find the state dict in what a checkpoint holds."""
    if isinstance(content, Mapping):
        for inner in (content, *(content.get(key) for key in CONTAINERS)):
            if isinstance(inner, Mapping) and inner and all(_is_weight(*item) for item in inner.items()):
                return {key: value.detach() for key, value in inner.items()}
        found = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise WeightsError(f"{path} holds no state dict: expected tensors by name, found {found}")
    raise WeightsError(f"{path} holds no state dict: expected tensors by name, found a {type(content).__name__}")


def _is_weight(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)
