"""How memory is taken from the system, and given back to it."""

from __future__ import annotations

import ctypes
import os


def settle() -> None:
    """Take large blocks on huge pages; to be called before anything large is allocated.

    Fresh tensors of many megabytes cost a large generator a sixth of its time in page faults without huge pages; torch
    reads this variable at its first allocation, and a user's own value wins.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def release() -> None:
    """Give all free pages back to the system, also those between blocks in use.

    The planes of frames are allocated and freed in several threads, whose heaps fragment: without this, the peak of a
    long film creeps up by a quarter. To have every large block mapped on its own instead would cost a page fault for
    each 4 KiB of each plane and tensor: a tenth of the time of a film, and half that of training.

    Source: malloc_trim(3), of glibc; elsewhere nothing is done.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
