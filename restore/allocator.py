"""How memory is taken from the system, and given back to it."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_LARGE = 1 << 20
"""Bytes from which on planes have pages of their own."""


def settle() -> None:
    """Take large tensors on huge pages; to be called before anything large is allocated.

    Fresh tensors of many megabytes cost a large generator a sixth of its time in page faults without huge pages; torch
    reads this variable at its first allocation, and a user's own value wins.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def paged(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """Return uninitialised planes for many frames, on pages that go back to the system when the array is freed.

    Planes live long and are freed in another thread than the one that made them, where they would leave holes in the
    heaps of malloc. To have malloc map everything large would cost the tensors of the networks, which come and go, a
    page fault for each 4 KiB: half the time of training.

    Args:
        shape: Of the array.
        dtype: Of its values.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < _LARGE:
        return np.empty(shape, kind)
    pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, kind).reshape(shape)
