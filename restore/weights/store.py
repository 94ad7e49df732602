"""The registry of weights: what is known by name, where its file is, and whether it is what it says.

Files come from three places: the folder shipped with restore, the user's folder (fetched or imported), or any path.
Nothing is downloaded but by `fetch`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from restore.errors import WeightsError
from restore.shipped import data_folder
from restore.weights.checkpoint import read_state
from restore.weights.download import Progress, download, sha256_of
from restore.weights.registry import Entry, entries, known, published, sidecar, user_folder


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights that is there, and what is known about it."""

    path: Path
    entry: Entry | None
    """None for a file that is neither published, shipped nor imported."""


@dataclass(frozen=True)
class Verification:
    """A file of weights, measured."""

    path: Path
    entry: Entry | None
    """What the file should be; None if nothing is known about it."""
    bytes: int
    sha256: str

    @property
    def ok(self) -> bool:
        """Whether the file is known and is exactly what was published."""
        return self.entry is not None and (self.bytes, self.sha256) == (self.entry.bytes, self.entry.sha256)


def find(name_or_path: str | Path, *, folder: Path | None = None) -> WeightsFile:
    """Find the file of some weights, without ever downloading it.

    Args:
        name_or_path: A name in the registry, the name of an import, or a file.
        folder: The user's weights; by default `user_folder()`.

    Raises:
        WeightsError: Neither a known name nor a file; known but not fetched; a file of the wrong size.
    """
    found = _locate(name_or_path, folder)
    size = found.path.stat().st_size
    if found.entry and size != found.entry.bytes:
        raise WeightsError(
            f"{found.path} is damaged: it has {size:,} bytes, {found.entry.name} has {found.entry.bytes:,}; "
            "delete it and fetch or import it again, or give it another name if it is your own"
        )
    return found


def installed(name: str, *, folder: Path | None = None) -> Path | None:
    """Return the file of weights known by name, or None if it has not been fetched."""
    entry = known(name, folder)
    places = (data_folder("weights") / entry.file, (folder or user_folder()) / entry.file)
    return next((place for place in places if place.is_file()), None)


def fetch(
    name: str,
    *,
    folder: Path | None = None,
    urls: Sequence[str] | None = None,
    progress: Progress | None = None,
    timeout_seconds: float = 30.0,
) -> Path:
    """Download weights into the user's folder, unless they are there already and whole.

    Args:
        name: A name in the registry.
        folder: Where to; by default `user_folder()`.
        urls: Mirrors to use instead of the registry's.
        progress: Called with the bytes that have arrived and the bytes of the file.
        timeout_seconds: Longest wait for a connection or for the next bytes.

    Raises:
        WeightsError: Unknown name, no mirror delivered the file, or it cannot be written.
    """
    entry, present = known(name, folder), installed(name, folder=folder)
    if present and sha256_of(present) == entry.sha256:
        return present
    addresses = entry.urls if urls is None else urls
    if not addresses:
        raise WeightsError(f"{name} has no address to fetch it from: {_remedy(entry)}")
    target = (folder or user_folder()) / entry.file
    return download(
        addresses,
        target,
        size=entry.bytes,
        sha256=entry.sha256,
        progress=progress,
        timeout_seconds=timeout_seconds,
    )


def verify(name_or_path: str | Path, *, folder: Path | None = None) -> Verification:
    """Measure a file of weights against what is known about it.

    Raises:
        WeightsError: Neither a known name nor a file, or not fetched.
    """
    found = _locate(name_or_path, folder)
    return Verification(found.path, found.entry, found.path.stat().st_size, sha256_of(found.path))


def import_file(
    file: Path,
    *,
    name: str | None = None,
    generator: str | None = None,
    settings: Mapping[str, object] | None = None,
    licence: str = "unknown",
    folder: Path | None = None,
) -> Path:
    """Take a file of weights into the user's folder, so that it can be used by name.

    A published file is recognised by its SHA-256 and kept byte for byte. Any other is converted to safetensors, with
    a TOML file beside it that says what it is.

    Args:
        file: A safetensors file or a PyTorch checkpoint.
        name: What to call it; by default the name of the file. A published file keeps its published name.
        generator: The network that it is for; needed for a file that is not a published one.
        settings: What that network is built with.
        licence: Under which the weights may be used.
        folder: Where to; by default `user_folder()`.

    Raises:
        WeightsError: Not a file of weights, name taken or not usable, or unknown and without a generator.
    """
    if not file.is_file():
        raise WeightsError(f"{file} is not a file; name a safetensors file or a PyTorch checkpoint")
    folder, digest = folder or user_folder(), sha256_of(file)
    entry = next((entry for entry in published().values() if entry.sha256 == digest), None)
    if entry:
        if name not in (None, entry.name) or generator not in (None, entry.generator):
            raise WeightsError(f"{file} is {entry.name} for {entry.generator}; do not rename it")
        with _written(folder / entry.file) as part:
            shutil.copyfile(file, part)
        return folder / entry.file
    if generator is None:
        raise WeightsError(f"{file} is not a published file (SHA-256 {digest}); say which generator it is for")
    entry = _own_entry(file, name or file.stem.lower(), generator, settings or {}, licence, folder)
    return _convert(file, entry, folder)


def _own_entry(
    file: Path, name: str, generator: str, settings: Mapping[str, object], licence: str, folder: Path
) -> Entry:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise WeightsError(f"{name!r} cannot name weights; use lower-case letters, digits, '.', '_' and '-'")
    taken = entries(folder).get(name)
    if taken:
        raise WeightsError(f"the name {name} is taken ({taken.origin or 'by restore'}); import under another name")
    origin = f"imported from {file.name}"
    return Entry(name, generator, f"{name}.safetensors", 0, "", licence, settings=dict(settings), origin=origin)


def _convert(file: Path, entry: Entry, folder: Path) -> Path:
    """Write a state dict as safetensors, then the TOML file that makes it known."""
    sidecar(entry)  # refuses settings that it cannot hold before anything is written
    state = {key: value.contiguous().clone() for key, value in read_state(file).items()}  # shared storage is refused
    target = folder / entry.file
    with _written(target) as part:
        part.touch()
        mode = part.stat().st_mode
        save_file(state, part, metadata={"format": "pt"})
        part.chmod(mode)  # safetensors leaves a file that its owner alone may read, useless in a shared folder
    measured = replace(entry, bytes=target.stat().st_size, sha256=sha256_of(target))
    with _written(folder / f"{entry.name}.toml") as part:
        part.write_text(sidecar(measured), encoding="utf-8")
    return target


@contextmanager
def _written(target: Path) -> Iterator[Path]:
    """Give a file its name only when it is whole."""
    part = target.with_name(f"{target.name}.import")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(target)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write {target}: {error}") from error
    finally:
        if part.parent.is_dir():
            part.unlink(missing_ok=True)


def _locate(name_or_path: str | Path, folder: Path | None) -> WeightsFile:
    name, path = str(name_or_path), Path(name_or_path)
    if name not in entries(folder) and path.is_file():
        return WeightsFile(path, _recognised(path, folder))
    entry, present = known(name, folder), installed(name, folder=folder)
    if present is None:
        raise WeightsError(f"the weights {name} are not on this machine: {_remedy(entry)}")
    return WeightsFile(present, entry)


def _recognised(path: Path, folder: Path | None) -> Entry | None:
    """Find what a file is: by its content, or else by its name, so that a damaged one is noticed."""
    table = entries(folder).values()
    if path.stat().st_size in {entry.bytes for entry in table}:
        digest = sha256_of(path)
        same = next((entry for entry in table if entry.sha256 == digest), None)
        if same:
            return same
    return next((entry for entry in table if entry.file == path.name), None)


def _remedy(entry: Entry) -> str:
    if entry.urls:
        return f"run `restore weights fetch {entry.name}`, or `restore weights import FILE` if you have {entry.file}"
    return f"{entry.file} belongs to restore or was imported; install restore or import the file again"
