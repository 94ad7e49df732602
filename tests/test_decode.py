from __future__ import annotations

import hashlib
import logging
import pickle
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.container import InputContainer
from media import frame_hashes, make_film

from restore.clip import Clip, Plane
from restore.errors import MediaError
from restore.source import decode
from restore.source.decode import Index, IndexBuilder, checksum, clips, read
from restore.source.probe import Source, probe

RATE = Fraction(25)


def sha(luma: Plane) -> str:
    return hashlib.sha256(np.ascontiguousarray(luma).tobytes()).hexdigest()


def scan(source: Source, **options: Any) -> tuple[Index, list[str]]:
    builder, hashes = IndexBuilder(), []
    for frame in read(source, luma_only=True, **options):
        builder.add(frame)
        hashes.append(sha(frame.luma))
    return builder.build(), hashes


def spans(source: Source, index: Index, first: int, last: int, **options: Any) -> list[Clip]:
    return list(clips(source, index, first, last, shot=(0, len(index)), **options))


VFR = [3 * (n // 2) + n % 2 for n in range(48)]
FILMS: dict[str, dict[str, Any]] = {
    "long_gop.mp4": {"frames": 270, "gop": 250, "bframes": 3},
    "open_x264.mkv": {"open_gop": True, "gop": 10, "bframes": 3},
    "open_x264.ts": {"open_gop": True, "gop": 10, "bframes": 3},
    "open_x265.mp4": {"codec": "libx265", "open_gop": True, "gop": 10, "bframes": 3},
    "open_x265.ts": {"codec": "libx265", "open_gop": True, "gop": 10, "bframes": 3},
    "open_mpeg2.mpg": {"codec": "mpeg2video", "open_gop": True, "gop": 10, "audio": "mp2"},
    "open_mpeg2.ts": {"codec": "mpeg2video", "open_gop": True, "gop": 10},
    "refresh.ts": {"bframes": 0, "options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}},
    "vfr.mp4": {"pts": VFR, "time_base": Fraction(1, 600), "start": 77},
    "offset.mkv": {"start": 33},
    "ten_bit.mp4": {"pix_fmt": "yuv420p10le"},
    "ffv1.mkv": {"codec": "ffv1", "pix_fmt": "yuv420p12le"},
    "gray16.mkv": {"codec": "ffv1", "pix_fmt": "gray16le", "width": 51, "height": 37},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj422p"},
    "b_frames.avi": {"gop": 10},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "raw.h264": {"gop": 10},
    "raw.m2v": {"codec": "mpeg2video", "gop": 10},
    "tape.mpg": {"codec": "mpeg2video", "interlaced": "tff", "gop": 10},
    "sequence_%04d.png": {"codec": "png", "pix_fmt": "gray"},
}


@pytest.mark.parametrize("name", FILMS)
def test_a_span_is_the_same_frames_as_a_straight_decode(tmp_path: Path, name: str) -> None:
    path = make_film(tmp_path / name, **{"frames": 48, **FILMS[name]})
    source = probe(path, rate=RATE if "%" in name else None)
    index, hashes = scan(source)
    assert hashes == frame_hashes(path)
    assert len(set(hashes)) == len(index) == FILMS[name].get("frames", 48)
    assert np.all(np.diff(index.pts) > 0)
    length = len(index)
    for first, last in ((0, 3), (9, 12), (11, 23), (13, 14), (20, 33), (length - 5, length), (length - 1, length)):
        found = spans(source, index, first, last, chunk=5)
        assert [sha(luma) for clip in found for luma in clip.luma] == hashes[first:last]
        assert [time for clip in found for time in clip.pts] == list(index.pts[first:last])
        assert [clip.first for clip in found] == list(range(first, last, 5))


def test_times_are_those_of_the_film(tmp_path: Path) -> None:
    source = probe(make_film(tmp_path / "film.mp4", frames=48, **FILMS["vfr.mp4"]))
    frames = list(read(source))
    assert [frame.pts for frame in frames] == [77 + time for time in VFR]
    index, _ = scan(source)
    assert index.duration.tolist() == [*np.diff(VFR), frames[-1].duration]
    assert [number for number, frame in enumerate(frames) if frame.key] == [0, 12, 24, 36]


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_clips_are_as_long_as_asked_and_hold_all_frames(tmp_path: Path, chunk: int) -> None:
    source = probe(make_film(tmp_path / "film.mkv", frames=20, colored=True))
    index, _ = scan(source)
    found = spans(source, index, 2, 19, chunk=chunk, luma_only=False)
    assert [len(clip) for clip in found] == [min(chunk, 17 - start) for start in range(0, 17, chunk)]
    assert all(clip.shot == (0, 20) and clip.color == source.color for clip in found)
    straight = list(read(source))[2:19]
    assert np.array_equal(np.concatenate([clip.luma for clip in found]), np.stack([f.luma for f in straight]))
    chroma = [clip.chroma for clip in found if clip.chroma is not None]
    assert np.array_equal(np.concatenate(chroma), np.stack([f.chroma for f in straight if f.chroma is not None]))


def test_chroma_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    source = probe(make_film(tmp_path / "film.mkv", frames=4))
    index, _ = scan(source)
    assert spans(source, index, 0, 4)[0].chroma is None
    assert [frame.chroma is None for frame in read(source, luma_only=True)] == [True] * 4
    assert [frame.chroma is None for frame in read(source)] == [False] * 4


@pytest.mark.parametrize(("interlaced", "flag"), [("tff", 1), ("bff", 2), (None, 0)])
def test_field_flags_come_with_the_frames(tmp_path: Path, interlaced: Any, flag: int) -> None:
    source = probe(make_film(tmp_path / "film.mp4", frames=6, interlaced=interlaced))
    index, _ = scan(source)
    assert index.field.tolist() == [flag] * 6
    assert spans(source, index, 1, 4)[0].flags == (flag,) * 3


def test_the_planes_of_a_rotated_film_stay_as_they_are_coded(tmp_path: Path) -> None:
    source = probe(make_film(tmp_path / "film.mp4", frames=3, rotation=90))
    assert next(read(source)).luma.shape == (64, 96)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_nothing(tmp_path: Path, threads: int) -> None:
    path = make_film(tmp_path / "film.mp4", frames=40, bframes=3)
    assert scan(probe(path), threads=threads)[1] == frame_hashes(path)


def test_a_plane_of_the_decoder_cannot_be_written_to(tmp_path: Path) -> None:
    frame = next(read(probe(make_film(tmp_path / "film.mp4", frames=3))))
    with pytest.raises(ValueError, match="read-only"):
        frame.luma[0, 0] = 1


def test_frames_outlive_their_container(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mp4", frames=30)
    kept = list(read(probe(path)))
    assert [sha(frame.luma) for frame in kept] == frame_hashes(path)


def test_an_index_pickles_and_ignores_the_padding_of_rows(tmp_path: Path) -> None:
    index, _ = scan(probe(make_film(tmp_path / "film.mkv", frames=5, codec="ffv1", pix_fmt="gray", width=51)))
    again = pickle.loads(pickle.dumps(index))
    assert np.array_equal(again.pts, index.pts)
    padded = np.zeros((4, 64), np.uint8)
    assert checksum(padded[:, :51]) == checksum(np.zeros((4, 51), np.uint8))


@pytest.mark.parametrize("span", [(3, 3), (-1, 2), (4, 6), (5, 4)])
def test_a_span_outside_the_film_is_a_mistake(tmp_path: Path, span: tuple[int, int]) -> None:
    source = probe(make_film(tmp_path / "film.mp4", frames=5))
    index, _ = scan(source)
    with pytest.raises(ValueError, match="are no span"):
        spans(source, index, *span)


def test_a_passage_can_be_indexed_and_cut_without_its_beginning(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.ts", frames=60, gop=10)
    source = probe(path)
    whole, hashes = scan(source)
    index, passage = scan(source, start_pts=int(whole.pts[35]))
    first = 60 - len(index)
    assert 20 <= first <= 40
    assert passage == hashes[first:]
    assert [sha(luma) for clip in spans(source, index, 2, 15) for luma in clip.luma] == passage[2:15]


def test_bad_seeking_costs_time_but_never_a_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = probe(make_film(tmp_path / "film.mp4", frames=60, gop=10))
    index, hashes = scan(source)
    asked: list[int] = []

    def late(container: InputContainer, stream: Any, pts: int, source: Source) -> None:
        asked.append(pts)
        container.seek(pts + 15, stream=stream)

    monkeypatch.setattr(decode, "_seek", late)
    with caplog.at_level(logging.INFO, "restore.source.decode"):
        found = spans(source, index, 41, 50)
    assert [sha(luma) for clip in found for luma in clip.luma] == hashes[41:50]
    assert asked == [40, 30]
    assert "seeking for frame 41 failed" in caplog.text


def test_frames_with_the_right_time_but_the_wrong_picture_are_not_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = probe(make_film(tmp_path / "film.mp4", frames=40, gop=10))
    index, hashes = scan(source)
    straight = decode.read

    def broken(source: Source, *, start_pts: int | None = None, **options: Any) -> Any:
        for number, frame in enumerate(straight(source, start_pts=start_pts, **options)):
            spoil = start_pts is not None and number % 4 == 3
            yield replace(frame, luma=255 - frame.luma) if spoil else frame

    monkeypatch.setattr(decode, "read", broken)
    found = spans(source, index, 21, 35)
    assert [sha(luma) for clip in found for luma in clip.luma] == hashes[21:35]


def test_a_container_that_cannot_seek_is_decoded_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = probe(make_film(tmp_path / "film.mp4", frames=30, gop=10))
    index, hashes = scan(source)

    class Refusing:
        def seek(self, *_: object, **__: object) -> None:
            raise av.error.PermissionError(1, "Operation not permitted")

    seek = decode._seek
    monkeypatch.setattr(decode, "_seek", lambda _, *rest: seek(Refusing(), *rest))  # type: ignore[arg-type]
    with pytest.raises(MediaError, match=r"cannot seek to 0\.800 s: Operation not permitted"):
        next(read(source, start_pts=20))
    assert [sha(luma) for clip in spans(source, index, 21, 25) for luma in clip.luma] == hashes[21:25]


def test_a_file_that_changed_since_the_scan_is_noticed(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mp4", frames=30)
    source = probe(path)
    index, _ = scan(source)
    make_film(path, frames=20)
    with pytest.raises(MediaError, match=r"frame 25 \(1\.000 s\) is not where it was .*has the file changed"):
        spans(source, index, 25, 28)


def test_another_decoder_is_trusted_when_it_decodes_from_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = probe(make_film(tmp_path / "film.mp4", frames=30, gop=10))
    index, hashes = scan(source)
    elsewhere = replace(index, checksum=index.checksum + np.uint32(1))
    found = spans(source, elsewhere, 21, 23)
    assert [sha(luma) for clip in found for luma in clip.luma] == hashes[21:23]
    assert "decodes differently here" in caplog.text


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("b.mkv", "libx264"), ("c.avi", "mjpeg"), ("d.mov", "prores_ks")]
)
def test_a_truncated_film_gives_its_frames_and_then_says_where_it_ends(
    tmp_path: Path, name: str, codec: str, caplog: pytest.LogCaptureFixture
) -> None:
    pix_fmt = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le"}.get(codec, "yuv420p")
    muxer = {"movflags": "faststart"} if name.endswith(("4", "v")) else {}
    path = make_film(tmp_path / name, frames=40, codec=codec, pix_fmt=pix_fmt, muxer=muxer)
    whole = frame_hashes(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    frames: list[str] = []
    with pytest.raises(MediaError, match=r"decoding stopped at frame \d+ \(\d\.\d\d s\): .*") as caught:
        frames.extend(sha(frame.luma) for frame in read(probe(path)))
    assert str(path) in str(caught.value)
    assert f"frame {len(frames)} " in str(caught.value)
    assert 5 < len(frames) < 40
    good = len(frames) - 4  # those at the very end may be patched up
    assert frames[:good] == whole[:good]


def test_damage_in_the_middle_stops_decoding_and_names_the_frame(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mov", frames=20, codec="png", pix_fmt="gray")
    content = bytearray(path.read_bytes())
    place = -1
    for _ in range(11):
        place = content.index(b"IHDR", place + 1)
    content[place : place + 4] = b"none"
    path.write_bytes(content)
    frames: list[str] = []
    with pytest.raises(MediaError, match=r"film\.mov: decoding stopped at frame 10 \(0\.36 s\): Invalid data"):
        frames.extend(sha(frame.luma) for frame in read(probe(path), threads=1))
    assert len(frames) == 10


def test_frames_that_the_decoder_patched_up_are_counted_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_film(tmp_path / "film.ts", frames=40, codec="mpeg2video", gop=10, bframes=0, width=320, height=240)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 188 * 188
    content[middle + 188 : middle + 3 * 188] = bytes(2 * 188)
    path.write_bytes(content)
    frames = list(read(probe(path), threads=1))
    assert len(frames) > 30
    assert "frames are damaged and were patched up by the decoder" in caplog.text


def test_times_that_do_not_rise_are_reported(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.ts", frames=12, codec="mpeg2video", bframes=0)
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(MediaError, match=r"frame \d+ is shown at \d\.\d+ s, not after .* at 0\.\d+ s; mend its time"):
        list(read(probe(path)))


def test_a_change_of_size_is_reported(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.m2v", frames=10, codec="mpeg2video")
    more = make_film(tmp_path / "more.m2v", frames=10, codec="mpeg2video", width=128)
    path.write_bytes(path.read_bytes() + more.read_bytes())
    with pytest.raises(MediaError, match=r"frame \d+ is 128x64 yuv420p, but the film began as 96x64 yuv420p; cut it"):
        list(read(probe(path)))


def test_a_recording_that_begins_in_the_middle_is_read_from_its_first_whole_frame(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.ts", frames=40, codec="mpeg2video", gop=10, bframes=0)
    content = path.read_bytes()
    path.write_bytes(content[len(content) // 3 // 188 * 188 :])
    source = probe(path)
    index, hashes = scan(source)
    assert 10 < len(index) < 40
    assert [sha(luma) for clip in spans(source, index, 3, 9) for luma in clip.luma] == hashes[3:9]


def test_alpha_is_left_out_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_film(tmp_path / "film.mkv", frames=2, codec="ffv1", pix_fmt="yuva420p")
    with caplog.at_level(logging.INFO, "restore.source.decode"):
        assert len(list(read(probe(path)))) == 2
    assert "alpha plane (yuva420p), which is left out" in caplog.text


@pytest.mark.needs_shared
@pytest.mark.parametrize(
    ("name", "spans_of"),
    [
        ("c06_color_pal_interlaced.mpg", [(0, 4), (37, 41), (118, 123)]),
        ("c05_color_vfr.mp4", [(60, 63)]),
        ("c07_color_10bit_2audio_subs.mkv", [(20, 22)]),
        ("b03_bw_fullrange_gray_pcm_audio.mkv", [(200, 203)]),
    ],
)
def test_spans_of_real_films_are_frame_exact(shared: Path, name: str, spans_of: list[tuple[int, int]]) -> None:
    source = probe(shared / "data" / "clips" / name)
    index, hashes = scan(source)
    for first, last in spans_of:
        found = spans(source, index, first, last)
        assert [sha(luma) for clip in found for luma in clip.luma] == hashes[first:last]
