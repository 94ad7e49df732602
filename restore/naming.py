"""What outputs are called, and that they harm nothing that is there."""

from __future__ import annotations

import os

from restore.errors import ConfigError, MediaError
from restore.output.profiles import load_profile
from restore.storage import Place, place

Location = str | os.PathLike[str] | Place
"""A path or a URL."""

_JOINING = "joining"
"""A note in a work folder: the output that is there, if any, is being replaced by this run, which was allowed to."""


def output_for(
    path: Location, output: Location, *, profile: str | None, overwrite: bool, several: bool, still: bool
) -> Place:
    """Name the output of a source, and refuse to harm what is there.

    Args:
        path: The source.
        output: As the user gave it: a file, or a folder that exists or, being the URL of one, ends with a slash.
        profile: Whose suffix an output in a folder gets; ``access`` if None.
        overwrite: An output that exists may be replaced.
        several: The output must be a folder.
        still: The source is a still, and keeps its own format.

    Raises:
        MediaError: The output is the source, or exists and may not be replaced.
        ConfigError: The output of several sources is a file.
    """
    target = name_for(path, output, profile=profile, several=several, still=still)
    check_output(path, target, overwrite=overwrite)
    return target


def name_for(path: Location, output: Location, *, profile: str | None, several: bool, still: bool) -> Place:
    """Name the output of a source, as `output_for` does, whether or not something is there.

    Raises:
        ConfigError: The output of several sources is a file, or that of one has no suffix.
    """
    source, target = place(path), place(output)
    several = several or (not target.is_local and str(output).endswith("/"))
    if several and target.stat():
        raise ConfigError(f"the output of several sources must be a folder, and {target} is a file")
    if several or target.is_folder():
        suffixes = load_profile(profile or "access").suffixes
        keeps = still or source.suffix.lower() in suffixes
        target = target / f"{source.stem}{source.suffix if keeps else suffixes[0]}"
    elif not target.suffix:
        raise ConfigError(
            f"{target} has no suffix; name a file such as {target}.mp4, a folder that exists, "
            f"or numbered frames as in {target}/frame_%06d.dpx"
        )
    return target


def frames_for(path: Location, output: Location, *, overwrite: bool, several: bool) -> Place:
    """Name the folder or the pattern of a numbered sequence, and refuse to mix it with frames that are there.

    Raises:
        MediaError: Frames are there and may not be replaced, or they are the source.
        ConfigError: It would lie in an object store.
    """
    source, target = place(path), place(output)
    if not target.is_local:
        raise ConfigError(f"{target}: numbered frames are written to a folder; name a film, or a folder")
    where = target.path / source.stem if several else target.path
    folder, frames = (where.parent, where.suffix) if "%" in where.name else (where, "")
    if folder.is_dir():
        home = source if source.is_folder() else source.parent
        if _same(home, place(folder)) and (home == source or source.name == where.name):
            raise MediaError("the output would overwrite the source; give it another name", str(where))
        suffixes = (frames,) if frames else load_profile("sequence").suffixes
        overwrite = overwrite or joining(place(where)).exists()
        if not overwrite and any(file.suffix.lower() in suffixes for file in folder.iterdir()):
            raise MediaError("holds frames already; use --overwrite to replace them", str(folder))
    return place(where)


def check_output(path: Location, output: Location, *, overwrite: bool) -> None:
    """Refuse an output that is the source, or that exists and may not be replaced.

    What a run that was killed has put there itself may be replaced by the run that continues it.
    """
    source, target = place(path), place(output)
    if target.exists():
        if source.exists() and _same(source, target):
            raise MediaError("the output would overwrite the source; give it another name", str(target))
        if not overwrite and not joining(target).exists():
            raise MediaError("exists already; use --overwrite to replace it", str(target))


def folder_of(output: Place) -> Place:
    """Return the folder in which the work on a film is kept until it is done, beside its output."""
    return output.parent / f"{output.name}.restore"


def joining(output: Place) -> Place:
    """Return the note that is there while an output is put in its place; a run that was killed then may continue."""
    return folder_of(output) / _JOINING


def _same(one: Place, other: Place) -> bool:
    return one.path.samefile(other.path) if one.is_local and other.is_local else one == other
