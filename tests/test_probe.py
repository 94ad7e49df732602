from __future__ import annotations

import os
import pickle
import shutil
from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.stream import Disposition
from av.video.stream import VideoStream
from media import make_film

from restore.clip import Color, Matrix, Primaries
from restore.errors import MediaError
from restore.source import probe as module
from restore.source.probe import fingerprint, open_media, probe


def test_a_film_is_described_and_pickles(tmp_path: Path) -> None:
    path = make_film(
        tmp_path / "film.mkv",
        frames=12,
        audio="flac",
        subtitles=True,
        chapters=[(0, 0.2, "Arrival"), (0.2, 0.4, "Leaving")],
        attachment=b"font",
        metadata={"title": "A Day Out"},
        sample_aspect_ratio=Fraction(64, 45),
        matrix=1,
        primaries=1,
        transfer=1,
    )
    source = probe(path)
    assert pickle.loads(pickle.dumps(source)) == source
    assert (source.path, source.kind, source.codec, source.pix_fmt) == (str(path), "film", "h264", "yuv420p")
    assert (source.width, source.height, source.subsampling) == (96, 64, "420")
    assert (source.time_base, source.average_rate, source.frames) == (Fraction(1, 1000), Fraction(25), 12)
    assert source.sample_aspect_ratio == Fraction(64, 45)
    assert source.color == Color(Matrix.BT709, Primaries.BT709, 1, False, 8, "left", ())
    assert [stream.type for stream in source.streams] == ["video", "audio", "subtitle", "attachment"]
    assert (source.streams[1].codec, source.streams[1].channels, source.streams[1].sample_rate) == ("flac", 2, 48000)
    assert source.streams[2].language == "eng"
    assert [stream.metadata["filename"] for stream in source.attachments] == ["font.ttf"]
    assert [(chapter.start, chapter.metadata["title"]) for chapter in source.chapters] == [
        (Fraction(0), "Arrival"),
        (Fraction(1, 5), "Leaving"),
    ]
    assert source.metadata["title"] == "A Day Out"
    assert source.missing_bytes == 0


def test_a_start_offset_and_a_variable_rate_are_kept(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mp4", frames=4, pts=[0, 3, 4, 9], time_base=Fraction(1, 600), start=77)
    source = probe(path)
    assert (source.time_base, source.start_pts, source.frames) == (Fraction(1, 600), 77, 4)
    assert source.seconds(600) == 1.0


def test_rotation_is_read_and_the_size_stays_as_coded(tmp_path: Path) -> None:
    source = probe(make_film(tmp_path / "film.mp4", frames=3, rotation=90))
    assert (source.rotation, source.width, source.height) == (90, 96, 64)
    assert source.display_matrix is not None
    assert source.display_matrix[:5] == (0, -65536, 0, 65536, 0)
    assert probe(make_film(tmp_path / "level.mp4", frames=3)).display_matrix is None


@pytest.mark.parametrize(
    ("name", "codec", "interlaced", "order"),
    [
        ("a.mpg", "mpeg2video", "tff", "tff"),
        ("b.mp4", "libx264", "bff", "bff"),
        ("c.mp4", "libx264", None, "progressive"),
        ("d.mkv", "ffv1", None, "unknown"),
    ],
)
def test_the_field_order_of_the_stream_is_read(
    tmp_path: Path, name: str, codec: str, interlaced: str | None, order: str
) -> None:
    path = make_film(tmp_path / name, frames=3, codec=codec, interlaced=interlaced)  # type: ignore[arg-type]
    assert probe(path).field_order == order


@pytest.mark.parametrize(("location", "siting"), [(1, "left"), (2, "center"), (3, "topleft"), (4, "top")])
def test_a_tagged_chroma_location_is_read(tmp_path: Path, location: int, siting: str) -> None:
    options = {"x264-params": f"chromaloc={location - 1}"}
    color = probe(make_film(tmp_path / "film.mp4", frames=2, options=options)).color
    assert color.siting == siting
    assert "siting" not in color.assumed


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "monochrome", "rgb"),
    [
        ("a.mkv", "ffv1", "gray16le", True, False),
        ("b.avi", "mjpeg", "yuvj422p", False, False),
        ("c.mov", "qtrle", "rgb24", False, True),
    ],
)
def test_grey_and_rgb_films_are_recognised(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, monochrome: bool, rgb: bool
) -> None:
    source = probe(make_film(tmp_path / name, frames=2, codec=codec, pix_fmt=pix_fmt))
    assert (source.monochrome, source.rgb, source.color.full_range) == (monochrome, rgb, True)


def test_one_pixel_is_a_film(tmp_path: Path) -> None:
    source = probe(make_film(tmp_path / "dot.mkv", frames=2, codec="ffv1", pix_fmt="gray", width=1, height=1))
    assert (source.width, source.height) == (1, 1)


def test_names_that_look_like_addresses_are_files(tmp_path: Path) -> None:
    assert probe(make_film(tmp_path / "reel 1: 50%d.mkv", frames=2, container_format="matroska")).frames == 2


def test_metadata_that_is_not_utf_8_does_not_stop_a_film(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.avi", frames=2, codec="mjpeg", pix_fmt="yuvj420p", metadata={"title": "Cafe"})
    path.write_bytes(path.read_bytes().replace(b"Cafe", b"Caf\xe9"))
    assert probe(path).metadata["title"].startswith("Caf")


def with_cover(path: Path, film: Path | None) -> Path:
    """Write an MP4 file with cover art in front of the film's packets, or of none."""
    png = Path(path.parent / "cover.png")
    make_film(png, frames=1, codec="png", pix_fmt="rgb24", width=32, height=32, container_format="image2")
    with av.open(str(path), "w", format="mp4") as out, av.open(str(png)) as art:
        streams = [out.add_stream_from_template(art.streams.video[0])]
        streams[0].disposition = Disposition.attached_pic
        inputs = [art]
        if film is not None:
            inputs.append(av.open(str(film)))
            streams.append(out.add_stream_from_template(inputs[1].streams.video[0]))
        for container, stream in zip(inputs, streams, strict=True):
            for packet in container.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    packet.pts, packet.dts = packet.pts or 0, packet.dts or 0
                    out.mux(packet)
        for container in inputs[1:]:
            container.close()
    return path


def test_cover_art_is_not_the_film(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=3, codec="mpeg4", bframes=0)
    source = probe(with_cover(tmp_path / "covered.mp4", film))
    assert (source.codec, source.width) == ("mpeg4", 96)
    with open_media(source) as container:
        assert len(container.streams) == 2


def test_cover_art_alone_is_no_film(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="holds only cover art; a film"):
        probe(with_cover(tmp_path / "cover.mp4", None))


def test_sound_alone_is_no_film(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame(format="s16", layout="stereo", samples=800)
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(MediaError, match=r"sound\.wav: holds only sound; a film with a video stream was expected"):
        probe(path)


def test_subtitles_alone_are_no_film(tmp_path: Path) -> None:
    (tmp_path / "film.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    with pytest.raises(MediaError, match="holds no picture"):
        probe(tmp_path / "film.srt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"gone\.mp4: there is no such file"):
        probe(tmp_path / "gone.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mp4", frames=2)
    path.chmod(0)
    with pytest.raises(MediaError, match=r"film\.mp4: cannot be opened: Permission denied"):
        probe(path)


def test_a_refusal_of_the_system_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_film(tmp_path / "film.mp4", frames=2)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(MediaError, match=r"film\.mp4: cannot be opened: Permission denied"):
            probe(path)
        with pytest.raises(MediaError, match=r"film\.mp4: cannot be read: Permission denied"):
            fingerprint(path)
    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(MediaError, match=r"film\.mp4: cannot be opened: Permission denied"):
        probe(path)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").touch()
    with pytest.raises(MediaError, match=r"film\.mp4: the file is empty"):
        probe(tmp_path / "film.mp4")


@pytest.mark.parametrize("content", [b"no film at all" * 100, bytes(range(7, 256, 5)), b"%PDF-1.4\n" * 40])
def test_what_is_no_film_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "film.mp4").write_bytes(content)
    with pytest.raises(MediaError, match=r"film\.mp4: is not a film, or is damaged"):
        probe(tmp_path / "film.mp4")


@pytest.mark.parametrize(("seconds", "reason"), [(0.0, "the file ends before"), (0.5, "its video stream is empty")])
def test_a_film_of_no_frames_is_named(tmp_path: Path, seconds: float, reason: str) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        container.add_stream("mjpeg", rate=25, width=32, height=32).pix_fmt = "yuvj420p"
        sound = container.add_stream("pcm_s16le", rate=8000)
        container.start_encoding()
        if seconds:
            frame = av.AudioFrame(format="s16", layout="stereo", samples=int(8000 * seconds))
            frame.sample_rate = 8000
            container.mux(sound.encode(frame))
    with pytest.raises(MediaError, match=rf"film\.mkv: has no frames: {reason}"):
        probe(path)


def test_a_film_of_no_size_is_named(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mkv", frames=2, codec="rawvideo", pix_fmt="gray", width=40, height=30)
    width, height = bytes([0xB0, 0x81, 40]), bytes([0xBA, 0x81, 30])
    content = path.read_bytes()
    assert width in content
    assert height in content
    path.write_bytes(content.replace(width, width[:2] + b"\0").replace(height, height[:2] + b"\0"))
    with pytest.raises(MediaError, match="its picture size is 0x0"):
        probe(path)


def test_a_codec_that_nobody_knows_is_named(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mkv", frames=2, codec="ffv1")
    path.write_bytes(path.read_bytes().replace(b"V_FFV1", b"V_QQQ1"))
    with pytest.raises(MediaError, match="no decoder is known"):
        probe(path)


def test_frames_that_cannot_be_decoded_are_reported(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mov", frames=3, codec="png", pix_fmt="gray")
    path.write_bytes(path.read_bytes().replace(b"IHDR", b"none"))
    with pytest.raises(MediaError, match=r"its first frame cannot be decoded \(png\)"):
        probe(path)


def test_a_pixel_format_without_a_luma_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_film(tmp_path / "film.mp4", frames=2)
    monkeypatch.setattr(module, "is_supported", lambda _: False)
    with pytest.raises(MediaError, match="pixel format yuv420p is not supported"):
        probe(path)


def test_a_film_without_a_clock_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_film(tmp_path / "film.mp4", frames=2)
    choose, decode = module._film_stream, module._first_frame

    class Timeless:
        time_base = average_rate = guessed_rate = base_rate = None

        def __init__(self, stream: VideoStream) -> None:
            self.stream, self.codec_context = stream, stream.codec_context

    monkeypatch.setattr(module, "_film_stream", lambda *args: Timeless(choose(*args)))
    monkeypatch.setattr(module, "_first_frame", lambda media, fake, name: decode(media, fake.stream, name))
    with pytest.raises(MediaError, match="has no time base or frame rate; remux it first"):
        probe(path)


def test_a_frame_rate_for_a_film_with_times_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="this film has its own times"):
        probe(make_film(tmp_path / "film.mp4", frames=2), rate=Fraction(24))


def test_a_raw_stream_takes_a_frame_rate(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.h264", frames=5)
    assert probe(path, rate=Fraction(18)).average_rate == 18


@pytest.mark.parametrize("name", ["film.mp4", "film.mov", "film.mkv", "film.avi"])
def test_a_truncated_film_opens_and_says_how_much_is_missing(tmp_path: Path, name: str) -> None:
    muxer = {} if name.endswith(("mkv", "avi")) else {"movflags": "faststart"}
    path = make_film(tmp_path / name, frames=20, codec="mpeg4", muxer=muxer)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4])
    assert abs(probe(path).missing_bytes - len(whole) // 4) <= 8


def test_a_sequence_is_opened_by_folder_or_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "100% reel"
    folder.mkdir()
    make_film(tmp_path / "s_%04d.png", frames=4, codec="png", pix_fmt="gray16be")
    for number in range(1, 5):
        shutil.move(tmp_path / f"s_{number:04d}.png", folder / f"s_{number + 500:04d}.png")
    source = probe(folder, rate=Fraction(18))
    assert source == probe(folder / "s_%04d.png", rate=Fraction(18))
    assert (source.kind, source.frames, source.color.depth, source.monochrome) == ("sequence", 4, 16, True)
    assert (source.average_rate, source.time_base) == (Fraction(18), Fraction(1, 18))
    with open_media(source) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4


def test_a_sequence_needs_a_frame_rate(tmp_path: Path) -> None:
    make_film(tmp_path / "s_%04d.png", frames=2, codec="png", pix_fmt="gray")
    with pytest.raises(MediaError, match="give it, as in --rate 24"):
        probe(tmp_path / "s_%04d.png")


def test_a_fingerprint_is_of_the_content_alone(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mp4", frames=3)
    before = fingerprint(path)
    os.utime(path, (0, 0))
    copy = Path(shutil.copy(path, tmp_path / "copy.mp4"))
    assert fingerprint(path) == fingerprint(copy) == probe(copy).fingerprint == before
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert fingerprint(path) != before


def test_a_fingerprint_of_a_sequence_sees_every_frame(tmp_path: Path) -> None:
    pattern = make_film(tmp_path / "s_%04d.png", frames=5, codec="png", pix_fmt="gray")
    before = fingerprint(pattern)
    third = tmp_path / "s_0003.png"
    third.write_bytes(third.read_bytes()[:-1] + b"x")
    assert fingerprint(pattern) != before


@pytest.mark.needs_shared
def test_real_films_are_described(shared: Path) -> None:
    clips = shared / "data" / "clips"
    tape = probe(clips / "c06_color_pal_interlaced.mpg")
    assert (tape.field_order, tape.sample_aspect_ratio, tape.start_pts) == ("tff", Fraction(64, 45), 48600)
    assert (tape.color.matrix, tape.color.assumed) == (Matrix.BT470BG, ())
    grey = probe(clips / "b03_bw_fullrange_gray_pcm_audio.mkv")
    assert (grey.color.full_range, grey.color.assumed) == (True, ("matrix",))
    deep = probe(clips / "c07_color_10bit_2audio_subs.mkv")
    assert (deep.color.depth, len(deep.streams)) == (10, 5)
