"""How memory is taken from the system and given back; runs once, before anything large is allocated."""

from __future__ import annotations

import ctypes
import os

_M_MMAP_THRESHOLD = -3
"""Of `mallopt(3)`."""


def settle() -> None:
    """Take large blocks on huge pages, and give them back when they are freed.

    Fresh tensors of many megabytes cost a large generator a sixth of its time in page faults without huge pages; torch
    reads this variable at its first allocation, and a user's own value wins. The threshold over which glibc maps blocks
    one by one grows by default with the blocks that are freed, until the planes of frames lie in the heaps of its
    threads, whose fragments make the peak creep up over a long film.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
