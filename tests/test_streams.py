"""What is carried over beside the film, and what a container refuses."""

from __future__ import annotations

import logging
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.packet import Packet
from av.stream import AttachmentStream, Disposition
from media import frame_hashes, make_film
from parts import film_times, make_parts, packets, same_to_the_millisecond

from restore.errors import ConfigError, MediaError
from restore.output.join import join
from restore.output.matroska import _SEEK_HEAD, _SEGMENT, _TRACKS, _elements, set_pixel_shape
from restore.output.profiles import load_profile
from restore.output.streams import check_container
from restore.source.probe import Source, probe

CHAPTERS = [(0.0, 0.5, "one"), (0.5, 1.0, "two")]


def remux(source: Path, target: Path, dispositions: dict[int, int], metadata: dict[int, dict[str, str]]) -> Path:
    """Copy a film, changing what it says of its streams."""
    with av.open(str(source)) as container, av.open(str(target), "w") as copy:
        streams = {}
        copy.metadata.update({k: v for k, v in container.metadata.items() if k.lower() != "encoder"})
        copy.set_chapters(container.chapters())
        for stream in container.streams:
            if stream.type == "attachment":
                assert isinstance(stream, AttachmentStream)
                copy.add_attachment("font.ttf", "application/x-truetype-font", stream.data)
                continue
            made = streams[stream.index] = copy.add_stream_from_template(stream, opaque=True)
            made.disposition = Disposition(dispositions.get(stream.index, 0))
            made.metadata.update(metadata.get(stream.index, {}))
        for packet in container.demux():
            if packet.size and packet.stream_index in streams:
                packet.stream = streams[packet.stream_index]
                copy.mux(packet)
    return target


def restored(source: Source, folder: Path, name: str, suffix: str) -> Path:
    output, profile = folder / f"out{suffix}", load_profile(name)
    check_container(source, output, profile)
    join(source, make_parts(source, folder, profile, 10), output, profile)
    return output


def told(source: Source) -> list[tuple[Any, ...]]:
    """Return what a file says of its streams, without what its muxer adds."""
    own = {"DURATION", "vendor_id", "encoder", "ENCODER"}
    return [
        (s.type, s.language, s.disposition, {k: v for k, v in s.metadata.items() if k not in own})
        for s in source.streams
    ]


@pytest.mark.parametrize("name", ["archive", "access"])
def test_matroska_keeps_everything(tmp_path: Path, name: str) -> None:
    first = make_film(
        tmp_path / "first.mkv",
        frames=25,
        audio="flac",
        subtitles=True,
        chapters=CHAPTERS,
        attachment=b"\0font\xff" * 99,
        metadata={"title": "A reel", "comment": "of 1922", "catalogue": "B 17"},
        sample_aspect_ratio=Fraction(64, 45),
        matrix=5,
        primaries=5,
        transfer=6,
        rotation=90,
    )
    words = {0: {"title": "Picture"}, 1: {"language": "fra", "title": "Piano"}, 2: {"language": "deu"}}
    film = remux(first, tmp_path / "film.mkv", {0: 1, 1: 1, 2: 64}, words)
    source = probe(film)
    made = probe(restored(source, tmp_path, name, ".mkv"))
    assert told(made) == told(source)
    assert {k: v for k, v in made.metadata.items() if k != "ENCODER"} == {
        k: v for k, v in source.metadata.items() if k != "ENCODER"
    }
    assert made.chapters == source.chapters
    assert made.sample_aspect_ratio == Fraction(64, 45)
    assert (made.rotation, made.display_matrix) == (source.rotation, source.display_matrix)
    assert (made.color.matrix, made.color.primaries, made.color.transfer, made.color.assumed) == (5, 5, 6, ())
    before, after = packets(film), packets(made.path)
    for index in (1, 2):
        assert after[index] == before[index]
    with av.open(made.path) as container:
        assert [s.data for s in container.streams if isinstance(s, AttachmentStream)] == [b"\0font\xff" * 99]


@pytest.mark.parametrize(("name", "suffix"), [("access", ".mp4"), ("access", ".mov"), ("edit", ".mov")])
def test_mp4_and_mov_keep_everything(tmp_path: Path, name: str, suffix: str) -> None:
    first = make_film(
        tmp_path / f"first{suffix}",
        frames=25,
        audio="aac",
        subtitles=True,
        chapters=CHAPTERS,
        metadata={"title": "A reel"},
        sample_aspect_ratio=Fraction(64, 45),
        rotation=180,
        start=3,
    )
    source = probe(first)
    made = probe(restored(source, tmp_path, name, suffix))
    assert told(made) == told(source)
    assert made.metadata["title"] == "A reel"
    assert made.chapters == source.chapters
    assert made.sample_aspect_ratio == Fraction(64, 45)
    assert (made.rotation, made.display_matrix) == (source.rotation, source.display_matrix)
    assert made.start_pts == source.start_pts
    before, after = packets(first), packets(made.path)
    assert after[1] == before[1]
    assert after[2].hashes == before[2].hashes
    assert after[2].times == before[2].times


def test_unusual_metadata_survive_in_mp4(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mkv", frames=3, metadata={"title": "A reel", "catalogue": "B 17"})
    made = probe(restored(probe(film), tmp_path, "access", ".mp4"))
    assert {key.lower(): value for key, value in made.metadata.items()}["catalogue"] == "B 17"
    assert made.metadata["title"] == "A reel"


def test_statistics_of_the_old_encoding_are_dropped(tmp_path: Path) -> None:
    first = make_film(tmp_path / "first.mkv", frames=3)
    film = remux(first, tmp_path / "film.mkv", {}, {0: {"BPS": "12", "_STATISTICS_TAGS": "BPS", "title": "Picture"}})
    made = probe(restored(probe(film), tmp_path, "access", ".mkv"))
    assert made.streams[0].metadata.keys() == {"title", "DURATION"}


def test_sound_that_starts_before_zero_keeps_its_time_in_matroska(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=25, audio="aac", start=0)
    assert packets(film)[1].times[0] < 0
    made = restored(probe(film), tmp_path, "archive", ".mkv")
    assert same_to_the_millisecond(packets(made)[1].times, packets(film)[1].times)
    assert film_times(made)[0] == 0


def test_gaps_between_chapters_do_not_move_them_in_mp4(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mkv", frames=100, width=32, height=32, chapters=[(1, 2, "a"), (3, 4, "b")])
    source = probe(film)
    made = probe(restored(source, tmp_path, "access", ".mp4"))
    named = [chapter for chapter in made.chapters if chapter.metadata["title"]]
    assert [(float(c.start), float(c.end), c.metadata["title"]) for c in named] == [(1, 2, "a"), (3, 4, "b")]
    assert probe(restored(source, tmp_path, "access", ".mkv")).chapters == source.chapters


@pytest.mark.parametrize(("rotation", "mirror"), [(0, True), (90, True), (270, False)])
@pytest.mark.parametrize(("name", "suffix"), [("archive", ".mkv"), ("access", ".mp4")])
def test_mirrored_and_turned_films_stay_so(tmp_path: Path, rotation: int, mirror: bool, name: str, suffix: str) -> None:
    with av.open(str(make_film(tmp_path / "a.mp4", frames=3))) as one, av.open(str(tmp_path / "film.mp4"), "w") as two:
        copy = two.add_stream_from_template(one.streams.video[0], opaque=True)
        copy.set_display_rotation(rotation, hflip=mirror)
        for packet in one.demux(video=0):
            if packet.size:
                packet.stream = copy
                two.mux(packet)
    source = probe(tmp_path / "film.mp4")
    assert source.display_matrix is not None
    assert probe(restored(source, tmp_path, name, suffix)).display_matrix == source.display_matrix


def with_cover(tmp_path: Path, suffix: str) -> Path:
    make_film(
        tmp_path / "cover.png", frames=1, codec="png", pix_fmt="rgb24", width=16, height=16, container_format="image2"
    )
    picture, first = (tmp_path / "cover.png").read_bytes(), make_film(tmp_path / "first.mkv", frames=5)
    film = tmp_path / f"film{suffix}"
    with av.open(str(first)) as one, av.open(str(tmp_path / "cover.png")) as image, av.open(str(film), "w") as two:
        copy = two.add_stream_from_template(one.streams.video[0], opaque=True)
        if suffix == ".mkv":
            two.add_attachment("cover.png", "image/png", picture)
        else:
            cover = two.add_stream_from_template(image.streams.video[0], opaque=True)
            cover.disposition = Disposition.attached_pic
            art: Packet[Any]
            for art in image.demux():
                if art.size:
                    art.stream = cover
                    two.mux(art)
        for packet in one.demux(video=0):
            if packet.size:
                packet.stream = copy
                two.mux(packet)
    return film


@pytest.mark.parametrize("before", [".mkv", ".mp4"])
@pytest.mark.parametrize("after", [".mkv", ".mp4"])
def test_cover_art_is_carried(tmp_path: Path, before: str, after: str) -> None:
    film = with_cover(tmp_path, before)
    made = restored(probe(film), tmp_path, "access", after)
    with av.open(str(film)) as one, av.open(str(made)) as two:
        pictures = [
            [bytes(p) for p in container.demux() if p.size and p.stream.disposition & Disposition.attached_pic]
            for container in (one, two)
        ]
    assert pictures[0] == pictures[1] != []
    assert len(frame_hashes(made)) == 5


def test_cover_art_that_mov_cannot_hold_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = restored(probe(with_cover(tmp_path, ".mp4")), tmp_path, "edit", ".mov")
    assert "video stream 1 (png) is left out; .mov cannot hold it" in caplog.text
    assert len(packets(made)) == 1


def test_timecode_is_carried(tmp_path: Path) -> None:
    first = make_film(tmp_path / "first.mkv", frames=25)
    film = remux(first, tmp_path / "film.mov", {}, {0: {"timecode": "01:02:03:04"}})
    source = probe(film)
    assert any(stream.type == "data" for stream in source.streams)
    for suffix in (".mov", ".mkv"):
        made = probe(restored(source, tmp_path, "access", suffix))
        words = {key.lower(): value for key, value in made.streams[0].metadata.items()}
        assert words["timecode"] == "01:02:03:04"


@pytest.mark.parametrize(
    ("audio", "subtitles", "attachment", "suffix", "output", "message"),
    [
        ("pcm_s16le", False, None, ".mkv", "out.mp4", r"audio stream 1 \(pcm_s16le\) of .*; write to \.mkv or \.mov"),
        ("aac", True, None, ".mkv", "out.mp4", r"subtitle stream 2 \(srt\) of .*; write to \.mkv"),
        (
            "aac",
            True,
            None,
            ".mp4",
            "out.mkv",
            r"subtitle stream 2 \(mov_text\) of .*; write to \.mov or \.mp4 or \.m4v",
        ),
        (None, False, b"font", ".mkv", "out.mov", r"attachment stream 1 \(unknown\) of .*; write to \.mkv"),
    ],
)
def test_a_container_that_cannot_hold_a_stream_is_refused_and_another_named(
    tmp_path: Path, audio: str | None, subtitles: bool, attachment: bytes | None, suffix: str, output: str, message: str
) -> None:
    film = make_film(tmp_path / f"film{suffix}", frames=5, audio=audio, subtitles=subtitles, attachment=attachment)
    source = probe(film)
    with pytest.raises(ConfigError, match=rf"out\.\w+: \.\w+ cannot hold {message}"):
        check_container(source, tmp_path / output, load_profile("access"))
    assert not (tmp_path / output).exists()


def test_where_only_another_profile_helps_it_is_said(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=5, subtitles=True)
    with pytest.raises(ConfigError, match="with another profile"):
        check_container(probe(film), tmp_path / "out.mkv", load_profile("archive"))


def test_where_no_container_helps_it_is_said(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.nut", frames=5, audio="pcm_s16le_planar")
    with pytest.raises(ConfigError, match="no container that is written here can; convert these streams first"):
        check_container(probe(film), tmp_path / "out.mkv", load_profile("access"))


def test_a_profile_writes_only_its_own_containers(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mkv", frames=2)
    with pytest.raises(ConfigError, match=r"out\.mp4: the edit profile writes \.mov"):
        check_container(probe(film), tmp_path / "out.mp4", load_profile("edit"))


def test_numbered_frames_leave_the_sound_and_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    film = make_film(tmp_path / "film.mkv", frames=2, audio="flac")
    check_container(probe(film), tmp_path / "out", load_profile("sequence"))
    assert "hold no sound" in caplog.text


def test_nothing_is_logged_where_nothing_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    film = make_film(tmp_path / "film.mp4", frames=5, audio="aac", subtitles=True, chapters=[(0, 0.2, "a")])
    with caplog.at_level(logging.INFO, "restore"):
        restored(probe(film), tmp_path, "access", ".mp4")
    assert caplog.text == ""


@pytest.mark.parametrize("ratio", [Fraction(64, 45), Fraction(1), Fraction(1280, 1281), Fraction(8, 9)])
def test_the_shape_of_pixels_is_written_into_a_matroska_header(tmp_path: Path, ratio: Fraction) -> None:
    film = make_film(tmp_path / "film.mkv", frames=3, codec="ffv1", audio="flac", attachment=b"font" * 9999)
    before, hashes, size = packets(film), frame_hashes(film), film.stat().st_size
    for _ in range(2):  # it can be changed again
        set_pixel_shape(film, 1, (96, 64), ratio)
    assert film.stat().st_size == size
    assert probe(film).sample_aspect_ratio == ratio
    assert packets(film) == before
    assert frame_hashes(film) == hashes
    data = film.read_bytes()
    segment = next(element for element in _elements(data, 0, len(data)) if element.name == _SEGMENT)
    parts = list(_elements(data, segment.body, len(data)))
    for element in parts:
        if data[element.body : element.body + 2] == b"\xbf\x84":  # a checksum of what follows it
            stored = int.from_bytes(data[element.body + 2 : element.body + 6], "little")
            assert stored == zlib.crc32(data[element.body + 6 : element.end])
    starts = {element.name: element.start - segment.body for element in parts}
    assert {_SEEK_HEAD, _TRACKS} <= starts.keys()
    seek = next(element for element in parts if element.name == _SEEK_HEAD)
    for entry in _elements(data, seek.body, seek.end):
        found = (
            [data[part.body : part.end] for part in _elements(data, entry.body, entry.end)]
            if entry.name != b"\xbf"
            else []
        )
        if found:
            assert starts[found[0]] == int.from_bytes(found[1])


def test_a_header_of_another_kind_is_refused(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=3)
    with pytest.raises(MediaError, match="cannot be written into its header"):
        set_pixel_shape(film, 1, (96, 64), Fraction(1))
    noise = tmp_path / "noise.mkv"
    noise.write_bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes())
    with pytest.raises(MediaError, match="cannot be written into its header"):
        set_pixel_shape(noise, 1, (96, 64), Fraction(1))
