"""Tar shards of pictures that grow by appending, and go on after a kill where they were known to be whole."""

from __future__ import annotations

import os
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from restore.output.disk import writing

_BLOCK = 512
_END = bytes(2 * _BLOCK)


@dataclass(frozen=True, slots=True)
class Place:
    """How far a series of shards has been written."""

    shard: int = 0
    """Number of the shard that is being written."""
    length: int = 0
    """Its bytes."""


class Shards:
    """A series of uncompressed tar files ``<split>-00000.tar``, each at most a little larger than a limit.

    The same pictures in the same order give the same bytes: no times, no owners.
    """

    def __init__(self, folder: Path, split: str, limit: int, place: Place) -> None:
        """Go on at `place`; what was written after it is cut off.

        Args:
            folder: Holds a folder named `split`.
            split: Name of the series.
            limit: Bytes after which a shard is ended.
            place: Where to go on, all zero at the start.
        """
        self._folder, self._split, self._limit, self.place = folder / split, split, limit, place
        self._file: BinaryIO | None = None
        for path in self._folder.glob("*.tar"):
            if path.name > self.name or (path.name == self.name and not place.length):
                path.unlink()

    @property
    def name(self) -> str:
        """File name of the shard that is being written."""
        return f"{self._split}-{self.place.shard:05d}.tar"

    def add(self, name: str, content: bytes) -> str:
        """Append a file and return the shard it is in.

        Raises:
            MediaError: It cannot be written; the disk is full, for example.
        """
        info = tarfile.TarInfo(name)
        info.size = len(content)
        record = info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % _BLOCK)
        shard = self.name
        self._write(record)
        if self.place.length >= self._limit:
            self._end()
        return f"{self._split}/{shard}"

    def sync(self) -> None:
        """Bring all that was added to the disk."""
        if self._file is not None:
            with writing(self._folder / self.name):
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """End the last shard."""
        if self.place.length:
            self._end()
        self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it is."""
        if self._file is not None:
            with suppress(OSError):  # what is still in the buffer may not fit on the disk: it is beyond the last sync
                self._file.close()
            self._file = None

    def _write(self, record: bytes) -> None:
        with writing(self._folder / self.name):
            self._opened().write(record)
        self.place = Place(self.place.shard, self.place.length + len(record))

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / self.name
            self._file = path.open("r+b" if self.place.length else "wb")
            self._file.truncate(self.place.length)
            self._file.seek(self.place.length)
        return self._file

    def _end(self) -> None:
        self._write(_END)
        self.sync()
        with writing(self._folder / self.name):
            self._opened().close()
        self._file, self.place = None, Place(self.place.shard + 1, 0)
