"""The promises on real clips: luma, time, sound and everything else that a film carries."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from media import frame_hashes
from test_film import film_of

from restore.color import LUMA_COEFFICIENTS
from restore.film import restore_film
from restore.source.decode import read
from restore.source.probe import probe

pytestmark = pytest.mark.needs_shared


@dataclass(frozen=True)
class Case:
    """A clip, what becomes of it, and whether its container counts milliseconds."""

    clip: str
    output: str
    profile: str
    rounded: bool


CASES = [
    Case("c05_color_vfr.mp4", "out.mp4", "access", False),
    Case("c05_color_vfr.mp4", "out.mov", "edit", False),
    Case("c06_color_pal_interlaced.mpg", "out.mkv", "archive", True),
    Case("c07_color_10bit_2audio_subs.mkv", "out.mkv", "archive", True),
    Case("b03_bw_fullrange_gray_pcm_audio.mkv", "out.mkv", "archive", True),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.clip[:3]} {case.profile}")
def test_a_real_film_keeps_what_it_has(case: Case, shared: Path, tmp_path: Path) -> None:
    path, output = shared / "data" / "clips" / case.clip, tmp_path / case.output
    report = restore_film(film_of(path, output, case.profile, part_frames=50))
    frames = list(read(probe(path)))
    assert report.frames == len(frames)
    if case.profile == "archive":
        assert frame_hashes(output) == frame_hashes(path)
    source, result = probe(path), probe(output)
    times = [frame.pts * source.time_base for frame in frames]
    found = [frame.pts * result.time_base for frame in read(result)]
    tolerance = Fraction(1, 2000) if case.rounded else Fraction(0)
    assert all(abs(a - b) <= tolerance for a, b in zip(found, times, strict=True))
    # MOV knows one of the two codes of BT.601's coefficients.
    assert LUMA_COEFFICIENTS[result.color.matrix] == LUMA_COEFFICIENTS[source.color.matrix]
    assert result.color.depth == (10 if case.profile == "edit" else source.color.depth)
    assert not {"matrix", "full_range", "primaries"} & set(result.color.assumed)
    assert result.rotation == source.rotation
    assert (result.sample_aspect_ratio or 1) == (source.sample_aspect_ratio or 1)
    assert (result.field_order == "tff") == (source.field_order == "tff")
    assert carried(output) == carried(path)


def carried(path: Path) -> list[Any]:
    """Return type, codec, language and the hashed payloads of every stream but the film."""
    with av.open(str(path)) as container:
        others = [stream for stream in container.streams if stream.type != "video"]
        payloads: dict[int, list[str]] = {stream.index: [] for stream in others}
        for packet in container.demux(others) if others else ():
            if packet.size:
                payloads[packet.stream.index].append(hashlib.sha256(bytes(packet)).hexdigest())
        return [
            (
                stream.type,
                stream.codec_context.name if stream.codec_context else "",
                stream.language,
                payloads[stream.index],
            )
            for stream in others
        ]
