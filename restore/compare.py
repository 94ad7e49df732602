"""Put a source and its result side by side in one film, with the ffmpeg program."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from restore.errors import ConfigError, MediaError


def compare(source: str | Path, result: str | Path, output: str | Path, *, overwrite: bool = False) -> Path:
    """Write a film that shows the luma of `source` on the left, `result` on the right, with the sound of `result`.

    Args:
        source: A film.
        result: What became of it, of the same size.
        output: A film that ffmpeg can write, H.264.
        overwrite: Replace an output that exists.

    Returns:
        `output`.

    Raises:
        ConfigError: The ffmpeg program or the package ffmpeg-python is not installed.
        MediaError: A film is missing, ffmpeg refuses, or the output exists.
    """
    for path in (source, result):
        if not Path(path).is_file():
            raise MediaError("is not a file; name a film and its result", str(path))
    if Path(output).exists() and not overwrite:
        raise MediaError("exists already; use --overwrite to replace it", str(output))
    if shutil.which("ffmpeg") is None:
        raise ConfigError("comparing needs the ffmpeg program; install it with your system's packages")
    ffmpeg = _library()
    temporary = Path(output).with_name(f".{Path(output).stem}.tmp{Path(output).suffix}")
    try:
        graph(ffmpeg, source, result, temporary).run(capture_stdout=True, capture_stderr=True, overwrite_output=True)
        temporary.replace(output)
    except ffmpeg.Error as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise MediaError(f"ffmpeg cannot write it: {lines[-1]}", str(output)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return Path(output)


def graph(ffmpeg: Any, source: str | Path, result: str | Path, output: str | Path) -> Any:
    """Return the filter graph: both films as they are shown, side by side, for as long as both last."""
    before, after = ffmpeg.input(str(source)), ffmpeg.input(str(result))
    left = before.video.filter("format", "gray").filter("format", "yuv420p")
    both = ffmpeg.filter([left, after.video.filter("format", "yuv420p")], "hstack", shortest=1)
    even = both.filter("pad", "ceil(iw/2)*2", "ceil(ih/2)*2")
    sound = [after["a?"]]
    return ffmpeg.output(even, *sound, str(output), vcodec="libx264", crf=18, preset="veryfast", acodec="copy")


def _library() -> Any:
    try:
        import ffmpeg
    except ImportError as error:
        raise ConfigError("comparing needs the package ffmpeg-python: pip install 'restore[compare]'") from error
    return ffmpeg
