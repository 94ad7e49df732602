"""Pictures that look alike: a perceptual hash, and an index that finds the near ones among millions.

Source: the hash by the signs of low DCT frequencies is that of Zauner 2010, "Implementation and Benchmarking of
Perceptual Image Hash Functions", 3.2.1; the index is multi-index hashing, Norouzi, Punjani and Fleet 2012.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from numpy.typing import NDArray

_PARTS = 4
"""Keys that a hash is cut into; of two near hashes at least one pair of keys is very near."""
_BITS = 64 // _PARTS
_PENDING = 4096
"""New hashes that are searched one by one, until the tables are made again."""

_ONES = np.array([value.bit_count() for value in range(1 << 16)], np.uint8)
_LOW = sorted(((y, x) for y in range(12) for x in range(12) if y or x), key=lambda yx: (sum(yx), yx))[:64]
_LOW_ROWS, _LOW_COLUMNS = np.array(_LOW).T


def perceptual_hash(grey: NDArray[np.uint8]) -> int:
    """Return 64 bits of which pictures that look alike have most in common.

    A bit says whether one of the 64 lowest frequencies, the mean left out, is above their median. Scaling, compression
    and slight changes of light turn a few bits; another picture turns about 32.
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    waves = cv2.dct(small)[_LOW_ROWS, _LOW_COLUMNS]
    return int.from_bytes(np.packbits(waves > np.median(waves)).tobytes(), "big")


class Nearby:
    """Hashes, and which of them differ from another in few bits.

    Two hashes within `distance` bits agree, in at least one of their four 16-bit keys, but for `distance // 4` bits or
    fewer. So a table a key lists the hashes by it, and a search reads the lists of the keys that near, then counts
    bits. The newest hashes, few of all, are in no table yet and are searched one by one.
    """

    def __init__(self, distance: int) -> None:
        """Make an empty index.

        Args:
            distance: Most bits in which near hashes may differ; up to 11.
        """
        if not 0 <= distance < 3 * _PARTS:
            raise ValueError(f"distance must be between 0 and {3 * _PARTS - 1}, not {distance}")
        self.distance = distance
        self._hashes = np.empty(_PENDING, np.uint64)
        self._count = self._indexed = 0
        # Pigeonhole: in some part the difference is below its share, and the shares sum to distance + 1.
        shares = [len(part) for part in np.array_split(np.arange(distance + 1), _PARTS)]
        self._flips = [_masks(share - 1) for share in shares]
        self._tables: list[tuple[NDArray[np.int64], NDArray[np.int32]]] = []

    def __len__(self) -> int:
        return self._count

    def add(self, value: int) -> None:
        """Add a hash; its number is how many there were before."""
        if self._count == len(self._hashes):
            self._hashes = np.concatenate((self._hashes, np.empty_like(self._hashes)))
        self._hashes[self._count] = value
        self._count += 1
        if self._count - self._indexed > max(_PENDING, self._count // 50):
            self._index()

    def find(self, value: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the numbers of the near hashes, in order, and their distances in bits."""
        listed = self._candidates(value)
        listed = listed[self._bits(self._hashes[listed], value) <= self.distance]
        pending = np.flatnonzero(self._bits(self._hashes[self._indexed : self._count], value) <= self.distance)
        numbers = np.concatenate((np.unique(listed), pending + self._indexed))
        return numbers, self._bits(self._hashes[numbers], value)

    @staticmethod
    def _bits(hashes: NDArray[np.uint64], value: int) -> NDArray[np.int64]:
        """Count the bits in which hashes differ from another."""
        differing = _ONES[(hashes ^ np.uint64(value)).view(np.uint16)].reshape(-1, 4)
        bits: NDArray[np.int64] = differing.sum(1, dtype=np.int64)
        return bits

    def _candidates(self, value: int) -> NDArray[np.int64]:
        found = [np.empty(0, np.int64)]
        for part, (starts, order) in enumerate(self._tables):
            keys = (value >> part * _BITS & 0xFFFF) ^ self._flips[part]
            first, length = starts[keys], starts[keys + 1] - starts[keys]
            offsets = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
            found.append(order[np.repeat(first, length) + offsets].astype(np.int64))
        return np.concatenate(found)

    def _index(self) -> None:
        """Make the tables again: where the list of each key starts, and the numbers sorted by key."""
        hashes = self._hashes[: self._count]
        self._tables.clear()
        for part in range(_PARTS):
            keys = (hashes >> np.uint64(part * _BITS)).astype(np.uint16)
            order = keys.argsort(kind="stable").astype(np.int32)
            starts = np.concatenate(([0], np.cumsum(np.bincount(keys, minlength=1 << _BITS))))
            self._tables.append((starts, order))
        self._indexed = self._count


def _masks(bits: int) -> NDArray[np.int64]:
    """Return all keys with at most `bits` ones; none at all for -1."""
    chosen = (flipped for count in range(bits + 1) for flipped in itertools.combinations(range(_BITS), count))
    return np.array([sum(1 << bit for bit in flipped) for flipped in chosen], np.int64)
