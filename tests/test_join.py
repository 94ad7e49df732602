"""Joining parts: exact times, untouched streams, nothing half-written."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from restore.clip import Clip, chroma_shape
from restore.decode import read
from restore.encode import encode_part, load_profile, subsampling_for
from restore.errors import ConfigError, MediaError
from restore.join import PartFile, check_container, join
from restore.probe import Source, probe
from tests.media import frame_hashes, make_film

VFR = [0, 1000, 2000, 4000, 7000, 8000, 9000, 12000, 13000, 14001, 15000, 16000, 18000, 19000, 20000, 21000, 30000, 31000]


def parts_of(source: Source, folder: Path, name: str, lengths: Sequence[int], start: int = 0) -> list[PartFile]:
    """Encode the source's own luma with made-up chroma, cut into parts of some lengths."""
    profile = load_profile(name)
    frames = list(read(source, luma_only=True))[start:]
    parts = []
    first = 0
    for number, length in enumerate(lengths):
        chosen = frames[first : first + length]
        luma = np.stack([np.array(frame.luma) for frame in chosen])
        h, w = chroma_shape(source.height, source.width, subsampling_for(profile, source))
        middle = 2 ** (source.color.depth - 1)
        ramp = middle + np.arange(h * w, dtype=luma.dtype).reshape(h, w) % 9
        chroma = np.broadcast_to(ramp, (length, 2, h, w)).astype(luma.dtype)
        pts, durations = (np.array(column, np.int64) for column in zip(*((f.pts, f.duration) for f in chosen), strict=True))
        flags = tuple(frame.field for frame in chosen)
        clip = Clip(luma, chroma, None, pts, source.time_base, source.color, start + first, flags=flags)
        path = folder / f"{name}-{number:04d}.mkv"
        encode_part(path, [clip], profile, source)
        parts.append(PartFile(path, pts, durations))
        first += length
    assert first == len(frames)
    return parts


def cut(frames: int, length: int) -> list[int]:
    return [min(length, frames - first) for first in range(0, frames, length)]


@dataclass
class Read:
    """What is in a file, in seconds and hashes."""

    times: dict[int, list[Fraction]]
    durations: dict[int, list[Fraction]]
    hashes: dict[int, list[str]]


def packets(path: Path | str) -> Read:
    found = Read({}, {}, {})
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is not None and packet.size:
                key, unit = packet.stream_index, packet.time_base
                found.times.setdefault(key, []).append(packet.pts * unit)
                found.durations.setdefault(key, []).append((packet.duration or 0) * unit)
                found.hashes.setdefault(key, []).append(hashlib.sha256(bytes(packet)).hexdigest())
    return found


def film_times(path: Path | str, stream: int = 0) -> tuple[list[Fraction], list[Fraction]]:
    found = packets(path)
    order = np.argsort([float(time) for time in found.times[stream]], kind="stable")
    return [found.times[stream][i] for i in order], [found.durations[stream][i] for i in order]


def milliseconds(times: Sequence[Fraction]) -> list[int]:
    return [round(time * 1000) for time in times]


@pytest.mark.parametrize(
    ("profile", "suffix", "pix_fmt"),
    [
        ("access", ".mp4", "yuv420p"),
        ("access", ".mov", "yuv420p10le"),
        ("access", ".mkv", "yuv420p"),
        ("edit", ".mov", "yuv420p"),
        ("archive", ".mkv", "yuv420p10le"),
    ],
)
def test_a_vfr_film_with_an_offset_start_keeps_every_time(tmp_path: Path, profile: str, suffix: str, pix_fmt: str) -> None:
    film = make_film(
        tmp_path / "film.mp4", frames=18, pix_fmt=pix_fmt, pts=VFR, time_base=Fraction(1, 30000), start=4321, audio="aac"
    )
    source, output = probe(film), tmp_path / f"out{suffix}"
    join(source, parts_of(source, tmp_path, profile, [5, 1, 7, 5]), output, load_profile(profile))
    expected, durations = film_times(film)
    times, found = film_times(output)
    if suffix == ".mkv":
        assert milliseconds(times) == milliseconds(expected)
        assert all(abs(a - b) <= Fraction(1, 1000) for a, b in zip(found, durations, strict=True))
    else:
        assert times == expected
        assert found[:-1] == [b - a for a, b in zip(times, times[1:], strict=False)] or sorted(found) == sorted(durations)
    assert len(frame_hashes(output)) == 18
