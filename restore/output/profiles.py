"""Profiles: how results are encoded, and what a source becomes in each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

from restore import settings_file
from restore.clip import Color, Matrix, Subsampling
from restore.errors import ConfigError
from restore.shipped import data_folder
from restore.source.probe import Source
from restore.storage import Place

_FRAMES = "frames"
"""The codec of the sequence profile; which image codec it is depends on the suffix."""
_MAX_CLOCK = Fraction(500)
"""Frames per second of a part's clock at most: Matroska counts milliseconds, and frames must stay apart."""

_SAME_AS_BT709 = {6: 1, 14: 1, 15: 1}
"""Transfer codes for the same curve as BT.709's; ProRes frames have only that one. Source: ITU-T H.273, table 3."""


@dataclass(frozen=True)
class Profile:
    """How the result is encoded. Part files are encoded with these settings, and only joined afterwards."""

    name: str
    description: str
    suffixes: tuple[str, ...]
    """Of the outputs it writes; the first is the usual one."""
    codec: str
    """Name of libavcodec's encoder, or `frames`."""
    depths: tuple[int, ...]
    """Bits of a code value that it can hold, ascending."""
    subsampling: Subsampling
    """Of the chroma that is painted."""
    range: Literal["source", "limited", "full"]
    """Of the code values that are written."""
    options: dict[str, str]
    """Of the encoder."""
    threads: int
    """Of the encoder; fixed, because the bytes of some encoders depend on it."""
    keep_subsampling: bool = False
    """Whether a source with finer chroma than `subsampling` keeps its own."""

    def __post_init__(self) -> None:
        if not self.suffixes or not self.depths:
            raise ValueError("suffixes and depths must not be empty")

    @property
    def is_sequence(self) -> bool:
        """Whether it writes numbered frames."""
        return self.codec == _FRAMES

    @property
    def part_suffix(self) -> str:
        """Of part files; a part of a sequence is a folder, whose suffix names the format of its frames."""
        return self.suffixes[0] if self.is_sequence else ".mkv"


def load_profile(name: str | Path, output: Path | Place | None = None) -> Profile:
    """Read a profile that ships with the program, by name, or one of the user's, by path.

    Args:
        name: Of the profile, or the path of a YAML file.
        output: What will be written; its suffix chooses the format of numbered frames.

    Raises:
        ConfigError: There is none of this name, the file is not a profile, or it cannot write such an output.
    """
    file = settings_file.find(name, data_folder("configs") / "profiles", "profile")
    profile = settings_file.build(Profile, {"name": file.stem, **settings_file.read(file)}, file)
    if output is None:
        return profile
    suffix = output.suffix.lower()
    if suffix in profile.suffixes:
        return replace(profile, suffixes=(suffix,)) if profile.is_sequence else profile
    if suffix or not profile.is_sequence:
        raise ConfigError(f"{output}: the {profile.name} profile writes {', '.join(profile.suffixes)}")
    return profile


def choose_profile(output: Path | Place) -> str:
    """Return the name of the profile that an output's name asks for.

    Raises:
        ConfigError: Its suffix is not one that a profile writes.
    """
    suffix = output.suffix.lower()
    if "%" in output.name or not suffix:
        return "sequence"
    films = load_profile("access").suffixes
    if suffix in films:
        return "access"
    if suffix in load_profile("sequence").suffixes:
        raise ConfigError(f"{output}: a film has many frames; name a folder, or a pattern as in frame_%06d{suffix}")
    raise ConfigError(f"{output}: films are written to {', '.join(films)}, or as numbered frames to a folder")


def encoder_for(profile: Profile, source: Source) -> str:
    """Return the name of libavcodec's encoder; of two for ProRes the fast one does not take all sources."""
    slow = source.width % 2 or source.field_order == "bff"
    return "prores_ks" if profile.codec == "prores_aw" and slow else profile.codec


def subsampling_for(profile: Profile, source: Source) -> Subsampling:
    """Return the chroma grid that the painter must fill.

    H.264 holds only even sizes in 4:2:0 (heights in fours where fields are coded); other sizes get full chroma.
    """
    wanted = profile.subsampling
    if profile.keep_subsampling and source.subsampling:
        wanted = max(wanted, source.subsampling)  # as strings they sort from coarse to fine
    step = 4 if source.field_order in ("tff", "bff") else 2
    if profile.codec == "libx264" and wanted != "444" and (source.width % 2 or source.height % step):
        return "444"
    return wanted


def output_color(profile: Profile, source: Source) -> Color:
    """Return what the code values of the output mean: depth and range as the profile holds them."""
    color = source.color
    depth = next((depth for depth in profile.depths if depth >= color.depth), profile.depths[-1])
    full_range = {"source": color.full_range, "limited": False, "full": True}[profile.range]
    color = replace(color, depth=depth, full_range=full_range)
    if profile.codec.startswith("prores"):
        matrix = Matrix.SMPTE170M if color.matrix == Matrix.BT470BG else color.matrix
        color = replace(color, matrix=matrix, transfer=_SAME_AS_BT709.get(color.transfer, color.transfer))
    return color


def index_clock(source: Source) -> Fraction:
    """Return the frames per second of a part file's clock: frame n is at n / clock, whatever its real time."""
    return min(source.average_rate, _MAX_CLOCK)
