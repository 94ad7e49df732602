"""Encoding parts: code values, tags, bytes, errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tifffile
from av.video.stream import VideoStream
from conftest import make_clip, small_disk
from numpy.typing import NDArray
from parts import SD, like

from restore.clip import Clip, Subsampling, chroma_shape
from restore.errors import MediaError, StageError
from restore.output.disk import writing_error
from restore.output.encode import Encoder, check_profile, encode_part
from restore.output.encode import _rescaled as rescaled
from restore.output.profiles import load_profile, output_color, subsampling_for
from restore.part import sha256_of
from restore.source.probe import Source
from restore.source.tags import FieldOrder, told_by_showinfo


def painted(source: Source, subsampling: Subsampling, frames: int = 4, flags: tuple[int, ...] = ()) -> Clip:
    """Make a clip of a source's size with chroma near neutral."""
    clip = make_clip(frames, source.height, source.width, depth=source.color.depth, ab=False)
    middle, shape = 2 ** (source.color.depth - 1), chroma_shape(source.height, source.width, subsampling)
    noise = np.random.default_rng(1).integers(-9, 9, (frames, 2, *shape))
    return replace(clip, chroma=(middle + noise).astype(clip.luma.dtype), color=source.color, flags=flags)


def decoded(path: Path) -> tuple[list[av.VideoFrame], NDArray[Any], NDArray[Any]]:
    """Return the frames of a planar film, its luma (T, H, W) and its chroma (T, 2, h, w)."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    dtype = np.uint16 if frames[0].format.components[0].bits > 8 else np.uint8
    planes = [
        [
            np.frombuffer(memoryview(plane), dtype)[: plane.height * plane.line_size // dtype().itemsize]
            .reshape(plane.height, -1)[:, : plane.width]
            .copy()
            for plane in frame.planes
        ]
        for frame in frames
    ]
    return frames, np.stack([p[0] for p in planes]), np.stack([np.stack(p[1:3]) for p in planes])


@pytest.mark.parametrize(("width", "height"), [(64, 48), (51, 37), (1, 1), (13, 20)])
@pytest.mark.parametrize("depth", [8, 9, 10, 12, 14, 16])
@pytest.mark.parametrize("full_range", [False, True])
def test_archive_keeps_every_code_value(
    small_source: Source, tmp_path: Path, width: int, height: int, depth: int, full_range: bool
) -> None:
    source = like(small_source, width, height, color=replace(SD, depth=depth, full_range=full_range))
    profile = load_profile("archive")
    clip = painted(source, subsampling_for(profile, source))
    encode_part(tmp_path / "part.mkv", [clip[:3], clip[3:]], profile, source)
    frames, luma, chroma = decoded(tmp_path / "part.mkv")
    assert np.array_equal(luma, clip.luma)
    assert clip.chroma is not None
    assert np.array_equal(chroma, clip.chroma)
    assert frames[0].color_range == (2 if full_range else 1)


@pytest.mark.parametrize("name", ["access", "archive", "edit"])
def test_the_same_clips_give_the_same_bytes(small_source: Source, tmp_path: Path, name: str) -> None:
    profile = load_profile(name)
    clip = painted(like(small_source), subsampling_for(profile, like(small_source)), 12)
    one = encode_part(tmp_path / "a.mkv", [clip], profile, like(small_source))
    two = encode_part(tmp_path / "b.mkv", [clip[:5], clip[5:]], profile, like(small_source))
    assert one == two
    assert one.frames == 12
    assert one.bytes == (tmp_path / "a.mkv").stat().st_size


@pytest.mark.parametrize("name", ["access", "archive", "edit"])
def test_colour_tags_are_written_even_if_they_were_assumed(small_source: Source, tmp_path: Path, name: str) -> None:
    profile = load_profile(name)
    source = like(small_source, color=replace(SD, siting="topleft"), sample_aspect_ratio=Fraction(64, 45))
    encode_part(tmp_path / "part.mkv", [painted(source, subsampling_for(profile, source))], profile, source)
    frames, _, _ = decoded(tmp_path / "part.mkv")
    frame = frames[-1]
    curve = 1 if name == "edit" else 6  # one curve with two codes, of which ProRes has the first
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (6, 5, curve, 1)
    assert told_by_showinfo(frame)[0] == "topleft"
    with av.open(str(tmp_path / "part.mkv")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (6, 5, curve, 1)
        assert container.streams.video[0].average_rate == small_source.average_rate


@pytest.mark.parametrize("name", ["access", "archive", "edit"])
@pytest.mark.parametrize("order", ["tff", "bff"])
def test_fields_keep_their_order(small_source: Source, tmp_path: Path, name: str, order: FieldOrder) -> None:
    profile, source = load_profile(name), like(small_source, field_order=order)
    flag = 1 if order == "tff" else 2
    clip = painted(source, subsampling_for(profile, source), flags=(flag, flag, 0, flag))
    encode_part(tmp_path / "part.mkv", [clip], profile, source)
    frames, _, _ = decoded(tmp_path / "part.mkv")
    told = [told_by_showinfo(frame)[1] for frame in frames]
    assert [told[n] for n in (0, 1, 3)] == [order] * 3
    assert told[2] == ("unknown" if name == "archive" else order)  # only FFV1 flags single frames
    with av.open(str(tmp_path / "part.mkv")) as container:
        assert container.streams.video[0].codec_context.field_order == (2 if order == "tff" else 3)


def test_a_part_counts_frames_whatever_their_order(small_source: Source, tmp_path: Path) -> None:
    source = like(small_source, average_rate=Fraction(30000, 1001))
    profile = replace(load_profile("access"), options={"x264-params": "bframes=3:b-adapt=0"})
    encode_part(tmp_path / "part.mkv", [painted(source, "420", 30)], profile, source)
    with av.open(str(tmp_path / "part.mkv")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    ranks = [round((packet.pts or 0) * packet.time_base * Fraction(30000, 1001)) for packet in packets]
    assert sorted(ranks) == list(range(30))
    assert ranks != sorted(ranks)
    assert packets[0].is_keyframe


@pytest.mark.parametrize(("depth", "expected"), [(8, 8), (9, 10), (10, 10), (12, 10), (16, 10)])
def test_access_keeps_the_depth_up_to_ten_bits(small_source: Source, tmp_path: Path, depth: int, expected: int) -> None:
    source, profile = like(small_source, depth=depth), load_profile("access")
    clip = painted(source, "420")
    encode_part(tmp_path / "part.mkv", [clip], profile, source)
    frames, luma, _ = decoded(tmp_path / "part.mkv")
    assert output_color(profile, source).depth == expected
    assert frames[0].format.components[0].bits == expected
    error = luma / 2.0 ** (expected - 8) - clip.luma / 2.0 ** (depth - 8)
    assert np.abs(error).mean() < 2


def test_odd_sizes_are_encoded_with_full_chroma_and_it_is_said(
    small_source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, profile = like(small_source, 51, 37), load_profile("access")
    assert subsampling_for(profile, source) == "444"
    check_profile(profile, source)
    assert "51x37 does not fit 4:2:0" in caplog.text
    encode_part(tmp_path / "part.mkv", [painted(source, "444")], profile, source)
    frames, luma, _ = decoded(tmp_path / "part.mkv")
    assert frames[0].format.name == "yuv444p"
    assert luma.shape == (4, 37, 51)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (51, 37)])
def test_edit_shifts_eight_bits_to_ten(small_source: Source, tmp_path: Path, width: int, height: int) -> None:
    source = like(small_source, width, height)
    clip = painted(source, "422")
    encode_part(tmp_path / "part.mkv", [clip], load_profile("edit"), source)
    frames, luma, _ = decoded(tmp_path / "part.mkv")
    assert frames[0].format.name == "yuv422p10le"
    assert np.abs(luma.astype(int) - 4 * clip.luma.astype(int)).mean() < 8


def test_edit_scales_full_range_because_prores_cannot_say_it(
    small_source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = like(small_source, color=replace(SD, full_range=True))
    check_profile(load_profile("edit"), source)
    assert "luma is scaled" in caplog.text
    clip = painted(source, "422")
    encode_part(tmp_path / "part.mkv", [clip], load_profile("edit"), source)
    _, luma, _ = decoded(tmp_path / "part.mkv")
    assert abs(luma.mean() - (64 + clip.luma.mean() * 876 / 255)) < 2


def test_scaling_code_values_can_be_undone() -> None:
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(rescaled(codes, (16, 219), (64, 876), 10), codes.astype(np.uint16) << 2)
    assert rescaled(codes, (0, 255), (0, 255), 8) is codes
    limited = rescaled(codes, (0, 255), (64, 876), 10)
    assert (limited[0], limited[-1]) == (64, 940)
    assert np.array_equal(np.rint((limited.astype(float) - 64) * 255 / 876), codes)


@pytest.mark.parametrize(
    ("suffix", "depth", "bits"), [(".dpx", 8, 10), (".dpx", 12, 16), (".tif", 8, 16), (".png", 10, 16)]
)
def test_the_luma_of_numbered_frames_is_the_source_luma(
    small_source: Source, tmp_path: Path, suffix: str, depth: int, bits: int
) -> None:
    source = like(small_source, 51, 37, depth=depth)
    profile = load_profile("sequence", Path(f"out/frame_%06d{suffix}"))
    clip = replace(painted(source, "444"), first=7)
    result = encode_part(tmp_path / f"part{profile.part_suffix}", [clip[:1], clip[1:]], profile, source)
    files = sorted((tmp_path / f"part{suffix}").iterdir())
    assert [file.name for file in files] == [f"{number:08d}{suffix}" for number in range(7, 11)]
    assert result.bytes == sum(file.stat().st_size for file in files)
    for file, luma in zip(files, clip.luma, strict=True):
        with av.open(str(file)) as container:
            frame = next(container.decode(video=0))
        assert max(part.bits for part in frame.format.components) == bits
        rgb = frame.reformat(format="gbrp16le" if bits == 16 else "gbrp10le").to_ndarray().astype(float)  # R, G, B last
        unit = rgb @ np.array([0.299, 0.587, 0.114]) / (2**bits - 1)
        assert np.array_equal(np.rint((16 + 219 * unit) * 2 ** (depth - 8)), luma)


def test_dpx_says_which_colours_it_holds(small_source: Source, tmp_path: Path) -> None:
    source, profile = (
        like(small_source, sample_aspect_ratio=Fraction(64, 45)),
        load_profile("sequence", Path("out/%d.dpx")),
    )
    encode_part(tmp_path / "part.dpx", [painted(source, "444", 1)], profile, source)
    data = (tmp_path / "part.dpx" / "00000000.dpx").read_bytes()
    assert data[:4] in (b"SDPX", b"XPDS")
    assert data[801:803] == bytes([8, 8])
    assert (64, 45) in [tuple(np.frombuffer(data[1628:1636], order)) for order in (">u4", "<u4")]


def test_tiff_frames_are_read_by_others(small_source: Source, tmp_path: Path) -> None:
    profile = load_profile("sequence", Path("out/%d.tif"))
    encode_part(tmp_path / "part.tif", [painted(like(small_source), "444", 1)], profile, like(small_source))
    assert tifffile.imread(tmp_path / "part.tif" / "00000000.tif").shape == (48, 64, 3)


@pytest.mark.parametrize("name", ["access", "sequence"])
def test_a_part_appears_whole_or_not_at_all(small_source: Source, tmp_path: Path, name: str) -> None:
    profile, source = load_profile(name), like(small_source)
    path = tmp_path / f"part{profile.part_suffix}"

    def failing() -> Iterator[Clip]:
        yield painted(source, subsampling_for(profile, source))
        raise StageError("broke", "smooth", (0, 3))

    with pytest.raises(StageError, match="broke"):
        encode_part(path, failing(), profile, source)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="at least one frame"):
        encode_part(path, [], profile, source)
    for _ in range(2):
        encode_part(path, [painted(source, subsampling_for(profile, source))], profile, source)
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["access", "sequence"])
def test_a_part_may_be_written_by_two_at_a_time(small_source: Source, tmp_path: Path, name: str) -> None:
    profile, source = load_profile(name), like(small_source)
    path, clip = tmp_path / f"part{profile.part_suffix}", painted(source, subsampling_for(profile, source))
    following = replace(clip, first=len(clip))

    def late() -> Iterator[Clip]:
        yield clip
        encode_part(path, [clip, following], profile, source)  # the other one begins later and is done first
        yield following

    result = encode_part(path, late(), profile, source)
    assert result.frames == 2 * len(clip)
    assert sha256_of(path) == result.sha256
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["archive", "sequence"])
def test_a_full_disk_is_said_and_leaves_nothing(small_source: Source, tmp_path: Path, name: str) -> None:
    profile, source = load_profile(name), like(small_source)
    path = tmp_path / f"part{profile.part_suffix}"
    with small_disk(3000), pytest.raises(MediaError, match=r"no space left \(\d+ MB free"):
        encode_part(path, [painted(source, subsampling_for(profile, source))] * 9, profile, source)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_device_is_said(small_source: Source) -> None:
    with (
        pytest.raises(MediaError, match="no space left"),
        Encoder(Path("/dev/full"), load_profile("archive"), like(small_source)) as one,
    ):
        one.write(painted(like(small_source), "422"))


def test_a_missing_folder_is_said(small_source: Source, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"none/\.part\.\w+\.tmp: cannot be written: No such file"):
        encode_part(
            tmp_path / "none" / "part.mkv",
            [painted(like(small_source), "422")],
            load_profile("archive"),
            like(small_source),
        )


def test_a_missing_permission_is_said(tmp_path: Path) -> None:
    error = writing_error(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), tmp_path / "out.mkv")
    assert "no permission to write in" in str(error)


def test_only_painted_clips_of_the_right_size_are_encoded(small_source: Source, tmp_path: Path) -> None:
    source, profile = like(small_source), load_profile("archive")
    bare = replace(painted(source, "422"), chroma=None)
    with pytest.raises(ValueError, match="painted at 4:2:2"):
        encode_part(tmp_path / "part.mkv", [bare], profile, source)
    with pytest.raises(ValueError, match="painted at 4:2:2"):
        encode_part(tmp_path / "part.mkv", [painted(source, "444")], profile, source)
    with pytest.raises(ValueError, match="must be 64x48, got 64x46"):
        encode_part(tmp_path / "part.mkv", [painted(like(small_source, 64, 46), "422")], profile, source)


def test_groups_of_a_part_can_be_sought(small_source: Source, tmp_path: Path) -> None:
    source = like(small_source)
    encode_part(tmp_path / "part.mkv", [painted(source, "422")], load_profile("archive"), source)
    with av.open(str(tmp_path / "part.mkv")) as container:
        stream = container.streams.video[0]
        assert isinstance(stream, VideoStream)
        assert all(packet.is_keyframe for packet in container.demux(stream) if packet.size)
