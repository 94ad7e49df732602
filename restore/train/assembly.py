"""A training set that grows picture by picture, and can be left and taken up again.

Its work folder holds the shards, `pictures.csv` with a line for every picture looked at, and `progress.json` with how
much of each is known to be on the disk. Whatever lies beyond is cut off when the set is taken up again.
"""

from __future__ import annotations

import csv
import io
import json
import os
from array import array
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from restore.errors import ConfigError
from restore.output.disk import sync, writing
from restore.photographs import Photo
from restore.train.nearby import Nearby
from restore.train.screen import Examined
from restore.train.shards import Place, Shards

PICTURES = "pictures.csv"
PROGRESS = "progress.json"
SPLITS = ("train", "validation")

_COLUMNS = ("source", "picture", "verdict", "measured", "width", "height", "hash", "member", "shard")
_KEPT = "kept"


class Assembly:
    """The pictures of a set, kept and dropped."""

    def __init__(self, work: Path, key: str, *, shard_bytes: int, share: float, duplicate: int, margin: int) -> None:
        """Take up the set in a work folder, or begin it.

        Args:
            work: The folder, which exists.
            key: Of everything that decides the set; a set with another key is not touched.
            shard_bytes: Size from which on a shard is ended.
            share: Of the pictures that go to the validation split, by the hash of their bytes.
            duplicate: Most bits between perceptual hashes of pictures that count as one.
            margin: Pictures on different sides of the split differ in more bits than this.

        Raises:
            ConfigError: The folder holds a set with another key.
            MediaError: It cannot be written.
        """
        self.work, self._key, self._share, self._duplicate = work, key, share, duplicate
        self.done, self.verdicts, self.splits = 0, Counter[str](), Counter[str]()
        self._near = Nearby(max(duplicate, margin if share else 0))
        self._names, self._sides = array("Q"), bytearray()
        found = self._found()
        places = [Place(*found.get(split, (0, 0))) for split in SPLITS]
        self._shards = {s: Shards(work, s, shard_bytes, place) for s, place in zip(SPLITS, places, strict=True)}
        with writing(work / PICTURES):
            self._file = (work / PICTURES).open("r+b" if found else "w+b")
        self._take_up(found.get("length", 0))

    def _found(self) -> dict[str, Any]:
        path = self.work / PROGRESS
        if not path.is_file():
            return {}
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["key"] != self._key:
            raise ConfigError(
                f"{self.work} holds a set that was begun with other pictures or settings; "
                "delete it to start over, or choose another output"
            )
        return found

    def _take_up(self, length: int) -> None:
        """Read what is known of the pictures looked at, or write the head of the list."""
        if not length:
            self._write(_COLUMNS)
            return
        rows = csv.DictReader(io.TextIOWrapper(io.BufferedReader(_Part(self._file, length)), "utf-8", newline=""))
        for row in rows:
            self._count(row["verdict"], row["shard"].partition("/")[0])
            if row["verdict"] == _KEPT:
                self._remember(int(row["hash"], 16), row["member"].partition(".")[0], row["shard"].partition("/")[0])
        self._file.truncate(length)
        self._file.seek(length)

    def add(self, photo: Photo, examined: Examined) -> None:
        """Keep or drop the next picture.

        Raises:
            MediaError: It cannot be written; the disk is full, for example.
        """
        reason, measured, split = examined.reason, examined.measured, ""
        name = "" if reason else examined.digest
        if not reason:
            reason, measured, split = self._placed(examined.hash, int(name, 16))
        member = f"{name}.jpg" if split else ""
        shard = self._shards[split].add(member, examined.jpeg) if split else ""
        if split:
            self._remember(examined.hash, name, split)
        size = (examined.width, examined.height, f"{examined.hash:016x}") if name else ("", "", "")
        self._write((photo.path, photo.name, reason or _KEPT, measured, *size, member, shard))
        self._count(reason or _KEPT, split)

    def checkpoint(self) -> None:
        """Bring everything to the disk and note how much that is.

        Raises:
            MediaError: The disk is full, for example.
        """
        for shards in self._shards.values():
            shards.sync()
        places = {split: (shards.place.shard, shards.place.length) for split, shards in self._shards.items()}
        with writing(self.work / PICTURES):
            self._file.flush()
            os.fsync(self._file.fileno())
            state = {"key": self._key, "length": self._file.tell(), **places}
        self.write(PROGRESS, state)

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file in the work folder, whole or not at all."""
        path = self.work / name
        with writing(path):
            part = path.with_suffix(".part")
            with part.open("w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            sync(self.work)

    def end(self) -> None:
        """End the shards; nothing can be added any more."""
        for shards in self._shards.values():
            shards.close()
        self.checkpoint()

    def close(self) -> None:
        """Let go of the files as they are."""
        for shards in self._shards.values():
            shards.abandon()
        with suppress(OSError):  # what is still in the buffer may not fit on the disk: it is beyond the checkpoint
            self._file.close()

    def _placed(self, value: int, name: int) -> tuple[str, str, str]:
        """Return why a good picture is dropped, what was measured, and its split if it is kept."""
        numbers, bits = self._near.find(value)
        if len(bits) and bits.min() <= self._duplicate:
            twin = self._names[numbers[bits.argmin()]]
            return "duplicate", f"{bits.min()} bits from {twin:016x}.jpg", ""
        sides = {self._sides[number] for number in numbers}
        if len(sides) > 1:
            return "both sides", f"{bits.min()} bits from either", ""
        side = sides.pop() if sides else int(name < self._share * 2**64)
        return "", "", SPLITS[side]

    def _remember(self, value: int, name: str, split: str) -> None:
        self._near.add(value)
        self._names.append(int(name, 16))
        self._sides.append(SPLITS.index(split))

    def _count(self, verdict: str, split: str) -> None:
        self.done += 1
        self.verdicts[verdict] += 1
        if split:
            self.splits[split] += 1

    def _write(self, row: tuple[object, ...]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(row)
        with writing(self.work / PICTURES):
            self._file.write(line.getvalue().encode("utf-8", "backslashreplace"))


class _Part(io.RawIOBase):
    """The first bytes of a file."""

    def __init__(self, file: Any, length: int) -> None:
        self._file, self._left = file, length
        file.seek(0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(min(len(buffer), self._left))
        buffer[: len(content)] = content
        self._left -= len(content)
        return len(content)
