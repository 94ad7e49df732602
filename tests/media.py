"""Films for tests, made with PyAV: small, deterministic, every frame different from every other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.filter
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

Unit = NDArray[np.float64]
Field = Literal["tff", "bff"]


@dataclass(frozen=True)
class Picture:
    """The world that is filmed: waves, a moving box, grain; another world after every cut."""

    width: int
    height: int
    shots: tuple[int, ...]
    seed: int
    grain: float

    def luma(self, time: float) -> Unit:
        """Y' in [0.05, 0.95], shape (H, W), at a time in frames (half frames are the second field)."""
        shot = sum(time >= cut for cut in self.shots)
        rng = np.random.default_rng([self.seed, round(2 * time)])
        y, x = np.mgrid[: self.height, : self.width] / 11.0
        waves = np.sin(x * (1 + 0.4 * shot) + 0.35 * time + 2.1 * shot) * np.cos(
            y * (1 - 0.2 * (shot % 3)) - 0.2 * time
        )
        unit = (0.35 if shot % 2 else 0.55) + 0.25 * waves
        side = max(1, min(self.width, self.height) // 4)
        left, top = (
            int(time * 2.7 + 13 * shot) % max(1, self.width - side),
            int(time * 1.3) % max(1, self.height - side),
        )
        unit[top : top + side, left : left + side] = 0.15 if shot % 2 else 0.9
        noisy: Unit = unit + rng.normal(0, self.grain, unit.shape)
        return noisy.clip(0.05, 0.95)

    def chroma(self, time: float) -> tuple[Unit, Unit]:
        """Cb and Cr in [-0.2, 0.2], shape (H, W)."""
        y, x = np.mgrid[: self.height, : self.width] / 17.0
        return 0.2 * np.sin(x + 0.2 * time), 0.2 * np.cos(y - 0.1 * time)


def _woven(picture: Picture, number: int, interlaced: Field | None) -> Unit:
    luma = picture.luma(float(number))
    if interlaced:
        late = 1 if interlaced == "tff" else 0
        luma[late::2] = picture.luma(number + 0.5)[late::2]
    return luma


def _codes(unit: Unit, depth: int, full_range: bool, chroma: bool) -> NDArray[np.uint16]:
    low, span = (0.0, 2.0**depth - 1) if full_range else (16.0 * 2 ** (depth - 8), 219.0 * 2 ** (depth - 8))
    if chroma:
        low, span = 2.0 ** (depth - 1), (2.0**depth - 1 if full_range else 224.0 * 2 ** (depth - 8))
    return np.clip(np.rint(low + span * unit), 0, 2**depth - 1).astype(np.uint16)


def _fill(frame: VideoFrame, index: int, codes: NDArray[np.uint16], big_endian: bool, depth: int) -> None:
    plane = frame.planes[index]
    dtype = np.dtype(np.uint8) if depth == 8 else np.dtype(np.uint16).newbyteorder(">" if big_endian else "<")
    rows = np.zeros((plane.height, plane.line_size), np.uint8)
    line = np.ascontiguousarray(codes.astype(dtype)).view(np.uint8).reshape(plane.height, -1)
    rows[:, : line.shape[1]] = line
    plane.update(rows.tobytes())


def make_frame(luma: Unit, chroma: tuple[Unit, Unit] | None, pix_fmt: str, full_range: bool = False) -> VideoFrame:
    """Make a frame of any pixel format; planar Y'CbCr and grey get the codes of `luma` as they are."""
    height, width = luma.shape
    layout = VideoFormat(pix_fmt, width, height)
    planar = layout.is_planar and not layout.is_rgb and len({part.plane for part in layout.components}) >= 3
    if not (planar or pix_fmt.startswith("gray")):
        depth = max(part.bits for part in layout.components)
        frame = make_frame(luma, chroma, "yuv444p16le" if depth > 8 else "yuv444p", full_range)
        source, target = (2 if full_range else 1), (2 if full_range or layout.is_rgb else 1)
        return frame.reformat(format=pix_fmt, src_color_range=source, dst_color_range=target)
    full_range = full_range or pix_fmt.startswith("yuvj")
    frame = VideoFrame(width, height, pix_fmt)
    cb, cr = chroma or (np.zeros_like(luma), np.zeros_like(luma))
    for part, unit, is_chroma in zip(layout.components, (luma, cb, cr, luma), (False, True, True, False), strict=False):
        step_y, step_x = -(-height // part.height), -(-width // part.width)
        codes = _codes(unit[::step_y, ::step_x], part.bits, full_range or part.is_alpha, is_chroma)
        _fill(frame, part.plane, codes, layout.is_big_endian, part.bits)
    return frame


class _Fields:
    """Sets the field flags of frames, which PyAV cannot."""

    def __init__(self, stream: VideoStream, interlaced: Field) -> None:
        self.graph = av.filter.Graph()
        size = {"width": stream.width, "height": stream.height, "format": VideoFormat(stream.pix_fmt or "")}
        source = self.graph.add_buffer(**size, time_base=Fraction(1, 1000))  # type: ignore[arg-type]
        mark = self.graph.add("setfield", f"mode={interlaced}")
        sink = self.graph.add("buffersink")
        source.link_to(mark)
        mark.link_to(sink)
        self.graph.configure()

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        self.graph.vpush(frame)
        marked = self.graph.vpull()
        assert isinstance(marked, VideoFrame)
        return marked


def _codec_options(codec: str, gop: int, bframes: int, open_gop: bool, interlaced: Field | None) -> dict[str, str]:
    if codec == "libx264":
        params = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={bframes}:b-adapt=0:open-gop={int(open_gop)}"
        return {"preset": "ultrafast", "crf": "12", "x264-params": params + (f":{interlaced}=1" if interlaced else "")}
    if codec == "libx265":
        params = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={bframes}:b-adapt=0:open-gop={int(open_gop)}"
        return {
            "preset": "ultrafast",
            "crf": "12",
            "x265-params": params + ":log-level=none:pools=none:frame-threads=1",
        }
    if codec in ("mpeg1video", "mpeg2video", "mpeg4"):
        flags = ("+ildct+ilme" if interlaced else "") + ("" if open_gop else "+cgop")
        fixed = {"g": str(gop), "bf": str(bframes), "sc_threshold": "1000000000", "qmin": "1", "q:v": "2"}
        return {**fixed, "b:v": "4000000", **({"flags": flags} if flags else {})}
    if codec == "dnxhd":
        return {"profile": "dnxhr_hq"}
    return {"threads": "1"}


def _tag(stream: VideoStream, tags: dict[str, int | None], full_range: bool) -> None:
    names = {"matrix": "colorspace", "primaries": "color_primaries", "transfer": "color_trc"}
    for name, value in tags.items():
        if value is not None:
            setattr(stream.codec_context, names[name], value)
    if full_range:
        stream.codec_context.color_range = 2


def _sound(
    container: OutputContainer, codec: str, seconds: float, start_seconds: float, seed: int
) -> Iterator[Packet[Any]]:
    stream: Any = container.add_stream(codec, rate=48000)
    stream.codec_context.layout = "stereo"
    yield Packet(0)  # the stream must be known before the header is written
    kind = stream.codec_context.format.name
    times = np.arange(int(seconds * 48000)) / 48000
    wave = 0.3 * np.sin(2 * np.pi * (330 + 10 * seed) * times)
    size = stream.codec_context.frame_size or 1024
    for first in range(0, len(wave), size):
        part = np.stack([wave[first : first + size]] * 2)
        integer = kind.startswith(("s16", "s32"))
        scaled = (part * (2**15 - 1 if "16" in kind else 2**31 - 1)).astype(np.int16 if "16" in kind else np.int32)
        data: NDArray[Any] = scaled if integer else part.astype(np.float32)
        if not kind.endswith("p"):
            data = np.ascontiguousarray(data.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(data, format=kind, layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, first + round(start_seconds * 48000), Fraction(1, 48000)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _titles(stream: Stream, boxed: bool, seconds: float, start_seconds: float) -> Iterator[Packet[Any]]:
    """Two lines of text, in the packets of the stream's codec."""
    for number in range(2):
        text = f"line {number + 1}".encode()
        packet: Packet[Any] = Packet(len(text).to_bytes(2, "big") + text if boxed else text)
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = round(1000 * (start_seconds + seconds * number / 2))
        packet.duration = max(1, round(400 * seconds))
        yield packet


def make_film(
    path: Path,
    *,
    frames: int = 30,
    width: int = 96,
    height: int = 64,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: Fraction = Fraction(25),
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    start: int = 0,
    gop: int = 12,
    bframes: int = 2,
    open_gop: bool = False,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    audio: str | None = None,
    subtitles: bool = False,
    chapters: Sequence[tuple[float, float, str]] = (),
    attachment: bytes | None = None,
    metadata: dict[str, str] | None = None,
    sample_aspect_ratio: Fraction | None = None,
    matrix: int | None = None,
    primaries: int | None = None,
    transfer: int | None = None,
    full_range: bool = False,
    rotation: float = 0,
    interlaced: Field | None = None,
    shots: Sequence[int] = (),
    colored: bool = False,
    grain: float = 0.01,
    seed: int = 0,
    container_format: str | None = None,
) -> Path:
    """Make a film; the name's suffix chooses the container.

    Args:
        path: Where; with `%06d` in its name a numbered sequence.
        pts: Presentation times in units of `time_base` for a variable frame rate; `start` is added to them.
        time_base: Unit of `pts` and `start`; one frame if not given.
        start: Presentation time of the first frame.
        options: Added to the encoder's options, or replacing them.
        muxer: Options of the container, as in `{"movflags": "faststart"}`.
        audio: Name of an audio encoder; a tone as long as the film.
        subtitles: Two lines of text, mov_text in MP4 and MOV, else SubRip.
        chapters: Start and end in seconds, and title.
        attachment: Bytes of a font to attach (Matroska).
        shots: Frames at which the picture changes abruptly.
        colored: Chroma that is not neutral.

    Returns:
        `path`.
    """
    mp4 = path.suffix in (".mp4", ".mov", ".m4v")
    unit = time_base or 1 / rate
    times = [start + (pts[n] if pts is not None else round(n / (rate * unit))) for n in range(frames)]
    seconds, start_seconds = float((times[-1] - start) * unit + 1 / rate), float(start * unit)
    scale = str(max(unit.denominator, 1000))
    exact = {"video_track_timescale": str(unit.denominator), "movie_timescale": scale} if mp4 else {}
    picture = Picture(width, height, tuple(shots), seed, grain)
    made = av.open(str(path), "w", format=container_format, options={**exact, **(muxer or {})})
    with made as container:
        stream = container.add_stream(codec, rate=rate, width=width, height=height)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.pix_fmt, context.time_base, context.thread_count = pix_fmt, unit, 1
        stream.options = {**_codec_options(codec, gop, bframes, open_gop, interlaced), **(options or {})}
        context.options = {key: str(value) for key, value in stream.options.items()}
        _tag(stream, {"matrix": matrix, "primaries": primaries, "transfer": transfer}, full_range)
        if sample_aspect_ratio:
            context.sample_aspect_ratio = sample_aspect_ratio
        if rotation:
            stream.set_display_rotation(rotation)
        container.metadata.update(metadata or {})
        if chapters:
            container.set_chapters(
                [
                    {
                        "id": n,
                        "start": round(a * 1000),
                        "end": round(b * 1000),
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": title},
                    }
                    for n, (a, b, title) in enumerate(chapters)
                ]
            )
        others: list[Iterator[Packet[Any]]] = []
        if audio:
            others.append(_sound(container, audio, seconds, start_seconds, seed))
            next(others[0])
        if subtitles:
            text = container.add_mux_stream("mov_text" if mp4 else "subrip")
            text.metadata["language"] = "eng"
            others.append(_titles(text, mp4, seconds, start_seconds))
        if attachment is not None:
            container.add_attachment("font.ttf", "application/x-truetype-font", attachment)
        mark = _Fields(stream, interlaced) if interlaced else None
        for number, time in enumerate(times):
            color = picture.chroma(float(number)) if colored else None
            frame = make_frame(_woven(picture, number, interlaced), color, pix_fmt, full_range)
            frame.pts, frame.time_base = time, unit
            frame = mark(frame) if mark else frame
            frame.time_base = unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for packets in others:
            for packet in packets:
                container.mux(packet)
    return path


def frame_hashes(path: Path, plane: Literal["luma", "chroma", "all"] = "luma") -> list[str]:
    """SHA-256 of the planes of every frame, decoded straight from the start with one thread; planar formats only."""
    sequence = "%" in path.name
    with av.open(str(path), options={"framerate": "25"} if sequence else {}) as container:
        stream = next(s for s in container.streams.video if s.codec_context and not s.disposition & 1024)
        stream.thread_count = 1
        return [_hash(frame, plane) for frame in container.decode(stream)]


def _hash(frame: VideoFrame, which: Literal["luma", "chroma", "all"]) -> str:
    total = hashlib.sha256()
    width = 2 if max(part.bits for part in frame.format.components) > 8 else 1
    numbers = {"luma": slice(0, 1), "chroma": slice(1, 3), "all": slice(0, 3)}[which]
    for plane in frame.planes[numbers]:
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        total.update(rows[: plane.height, : plane.width * width].tobytes())
    return total.hexdigest()
