"""Parts and packets for tests: sources, a film cut into encoded parts, and what is in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from restore.clip import Clip, Color, Matrix, Primaries, chroma_shape
from restore.output.encode import encode_part
from restore.output.join import PartFile
from restore.output.profiles import Profile, load_profile, subsampling_for
from restore.source.decode import read
from restore.source.probe import Source

ACCESS = load_profile("access")

SD = Color(Matrix.SMPTE170M, Primaries.BT470BG, 6, False, 8, "left", ("matrix", "primaries"))


def like(source: Source, width: int = 64, height: int = 48, depth: int = 8, **changes: Any) -> Source:
    """Describe a source of another size and depth."""
    color = changes.pop("color", replace(SD, depth=depth))
    return replace(source, width=width, height=height, color=color, subsampling=None, **changes)


def cut(frames: int, length: int) -> list[int]:
    return [min(length, frames - first) for first in range(0, frames, length)]


def make_parts(
    source: Source, folder: Path, profile: Profile, length: int, first: int = 0, stop: int = 2**31
) -> list[PartFile]:
    """Encode a source's own luma with made-up chroma, in parts of some length."""
    frames = list(read(source, luma_only=True))
    ends = [frame.pts for frame in frames[1:]] + [frames[-1].pts + frames[-1].duration]
    shape = chroma_shape(source.height, source.width, subsampling_for(profile, source))
    stop = min(stop, len(frames))
    parts: list[PartFile] = []
    for start in range(first, stop, length):
        span = range(start, min(start + length, stop))
        luma = np.stack([np.array(frames[n].luma) for n in span])
        middle = 2 ** (source.color.depth - 1)
        ramp = (middle + np.arange(shape[0] * shape[1]) % 9).astype(luma.dtype).reshape(shape)
        chroma = np.broadcast_to(ramp, (len(span), 2, *shape)).copy()
        pts = np.array([frames[n].pts for n in span], np.int64)
        flags = tuple(frames[n].field for n in span)
        clip = Clip(luma, chroma, None, pts, source.time_base, source.color, start, flags=flags)
        path = folder / f"part-{len(parts):04d}{profile.part_suffix}"
        encode_part(path, [clip], profile, source)
        parts.append(PartFile(path, pts, np.array([ends[n] - frames[n].pts for n in span], np.int64)))
    return parts


@dataclass
class Packets:
    """The packets of one stream: when they are shown, for how long, and hashes of what they hold."""

    times: list[Fraction]
    durations: list[Fraction]
    hashes: list[str]


def packets(path: Path | str) -> dict[int, Packets]:
    """Read the packets of all streams of a file, by index."""
    found: dict[int, Packets] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is not None and packet.size:
                one = found.setdefault(packet.stream_index, Packets([], [], []))
                one.times.append(packet.pts * packet.time_base)
                one.durations.append((packet.duration or 0) * packet.time_base)
                one.hashes.append(hashlib.sha256(bytes(packet)).hexdigest())
    return found


def film_times(path: Path | str) -> list[Fraction]:
    return sorted(packets(path)[0].times)


def film_end(path: Path | str) -> Fraction:
    """Return when the last frame of a film ends."""
    film = packets(path)[0]
    last = max(range(len(film.times)), key=film.times.__getitem__)
    return film.times[last] + film.durations[last]


def same_to_the_millisecond(some: Sequence[Fraction], others: Sequence[Fraction]) -> bool:
    near = Fraction(1, 2000)
    return len(some) == len(others) and all(abs(a - b) <= near for a, b in zip(some, others, strict=True))


def decoding_never_falls_behind(path: Path) -> bool:
    """Whether decoding times rise and are never after presentation times; of a container that stores both."""
    with av.open(str(path)) as container:
        film = [(p.dts, p.pts) for p in container.demux(video=0) if p.size and p.dts is not None and p.pts is not None]
    return all(a[0] < b[0] for a, b in pairwise(film)) and all(dts <= pts for dts, pts in film)
