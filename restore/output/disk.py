"""What goes wrong while files are written, said so that a person can act on it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import av

from restore.errors import MediaError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says if there is no more space."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is written into a `MediaError` that names it.

    Raises:
        MediaError: No space, no permission, or whatever else the system or libav says.
    """
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise writing_error(error, path) from error


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Write a file under another name, then rename it: it appears whole or not at all.

    Raises:
        MediaError: It cannot be written; an older file of its name is as it was.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with writing(path):
            with part.open("wb") as file:
                yield file
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def writing_error(error: OSError | av.FFmpegError, path: Path) -> MediaError:
    """Return what a person can do about a failed write."""
    if error.errno in FULL:
        free = shutil.disk_usage(path.parent).free // 2**20 if path.parent.is_dir() else 0
        return MediaError(
            f"cannot be written: no space left ({free} MB free in {path.parent}); free some, then run again: "
            "finished work is kept",
            str(path),
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MediaError(f"cannot be written: no permission to write in {path.parent}", str(path))
    return MediaError(f"cannot be written: {error.strerror or error}", str(path))


def sync(folder: Path) -> None:
    """Write the names in a folder to the disk, so that a renamed file survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
