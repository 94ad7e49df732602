"""Files and folders by path or URL."""

from __future__ import annotations

import errno
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from restore.errors import ConfigError, MediaError
from restore.output.disk import writing_error
from restore.storage.folder import Folders, Stat, replacing
from restore.storage.store import Store, store

_SIGNED = re.compile(r"[?&](x-amz-|signature=|sig=|token=|awsaccesskeyid=)", re.IGNORECASE)
"""Queries of URLs that are secrets themselves."""
_FOLDERS = Folders()


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A file or a folder, in the file system or in an object store. Made by `place`; pickles.

    All methods raise a `MediaError` that names the place and says what a person can do.
    """

    location: str
    """A path, or a URL without credentials."""

    def __str__(self) -> str:
        return self.location

    def __fspath__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> Place:
        """Return what lies in this folder under a name, which may have several parts.

        Raises:
            ConfigError: The name would lead out of the folder.
        """
        inside = "/".join(_parts(name, self))
        return Place(str(self.path / inside)) if self.is_local else Place(f"{self.location}/{inside}")

    @property
    def is_local(self) -> bool:
        """Whether it is in the file system, shared folders included."""
        return "://" not in self.location

    @property
    def path(self) -> Path:
        """The path of a local place.

        Raises:
            MediaError: It is in an object store.
        """
        if not self.is_local:
            raise MediaError("a file in the file system is needed here, not one in an object store", self.location)
        return Path(self.location)

    @property
    def name(self) -> str:
        return Path(self.location).name if self.is_local else self.location.partition("://")[2].rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> Place:
        """The folder it lies in; of a bucket and of the root, itself."""
        if self.is_local:
            return Place(str(self.path.parent))
        return self if self._is_bucket else Place(self.location.rpartition("/")[0])

    @property
    def _is_bucket(self) -> bool:
        return "/" not in self.location.partition("://")[2]

    def absolute(self) -> Place:
        """Return the same place for a process that runs in another folder."""
        return Place(str(self.path.absolute())) if self.is_local else self

    def stat(self) -> Stat | None:
        """Return size and version of a file, None if there is no such file."""
        return self._files.stat(self.location)

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.stat() is not None

    def is_folder(self) -> bool:
        """Whether it is a folder, which in an object store is a prefix of at least one name."""
        return self._files.is_folder(self.location)

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        return self.is_file() or self.is_folder()

    def size(self) -> int:
        """Return the bytes of a file."""
        return self._existing().size

    def version(self) -> str:
        """Return what changes whenever the file is written; cheap, unlike a hash of a large file."""
        return self._existing().version

    def read_bytes(self) -> bytes:
        """Return what is in a file."""
        if (data := self.read_if_there()) is None:
            raise self._missing()
        return data

    def read_if_there(self) -> bytes | None:
        """Return what is in a file, None if there is no such file."""
        return self._files.read(self.location)

    def write_bytes(self, data: bytes) -> None:
        """Write a small file, and the folders it needs, whole or not at all."""
        self._files.write(self.location, data)

    def create(self, data: bytes) -> bool:
        """Write a small file if there is none by this name: of several processes that try, one succeeds.

        A store that was asked again because its first answer was lost says no, though the file is the caller's.

        Returns:
            Whether it was written.
        """
        return self._files.create(self.location, data)

    def remove(self) -> None:
        """Remove a file, if there is one."""
        self._files.remove(self.location)

    def remove_tree(self) -> None:
        """Remove a folder and everything in it, or a file, if there is one.

        Raises:
            ValueError: It is a whole bucket, or the root of the file system.
        """
        if self.parent == self:
            raise ValueError(f"{self} is not to be removed as a whole")
        self._files.remove_tree(self.location)

    def remove_empty(self) -> None:
        """Remove a folder if nothing is in it; a store has no empty folders."""
        if self.is_local:
            with suppress(OSError):
                self.path.rmdir()

    def listing(self) -> dict[str, Stat | None]:
        """Return the names in a folder, sorted, with what is known of the files; None for folders.

        One request a thousand names. A folder that is not there is empty.
        """
        return dict(sorted(self._files.listing(self.location).items()))

    def children(self) -> list[Place]:
        """Return what lies in a folder, sorted by name."""
        return [self / name for name in self.listing()]

    def glob(self, pattern: str) -> list[Place]:
        """Return the files under this folder that match a pattern, sorted.

        Args:
            pattern: As in ``*.mkv`` or ``reels/**/[ab]*.mov``; ``**`` stands for any number of folders, also none.

        Raises:
            ConfigError: The pattern leads out of the folder.
        """
        parts = _parts(pattern, self)
        fixed = next((place for place, part in enumerate(parts) if set(part) & set("*?[")), len(parts) - 1)
        folder = self / "/".join(parts[:fixed]) if fixed else self
        return [folder / name for name in sorted(folder._files.matching(folder.location, "/".join(parts[fixed:])))]

    def fetch(self, local: Path) -> None:
        """Copy it to a file on this machine, which appears whole or not at all."""
        size = self.size()
        local.parent.mkdir(parents=True, exist_ok=True)
        if size > shutil.disk_usage(local.parent).free:
            raise writing_error(OSError(errno.ENOSPC, ""), local)
        with replacing(local) as temporary:
            self._files.get(self.location, temporary)
            if (arrived := temporary.stat().st_size) != size:
                raise MediaError(f"{arrived} of {size} bytes arrived; has it changed meanwhile?", self.location)

    def put(self, local: Path) -> None:
        """Copy a file from this machine here, where it appears whole or not at all."""
        self._files.put(local, self.location)

    @property
    def _files(self) -> Folders | Store:
        return _FOLDERS if self.is_local else store(self.location.partition("://")[0], os.getpid())

    def _existing(self) -> Stat:
        if (stat := self.stat()) is None:
            raise self._missing()
        return stat

    def _missing(self) -> MediaError:
        files = self._files
        if isinstance(files, Store):
            return files.missing(self.location)
        return MediaError("there is no such file", self.location)


def _parts(name: str, folder: Place) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise ConfigError(f"{name!r} is not a name inside {folder}")
    return parts


def place(location: str | os.PathLike[str] | Place) -> Place:
    """Return the place that a path or a URL names.

    Raises:
        ConfigError: The URL holds credentials, leads out of its bucket, or names no bucket.
    """
    if isinstance(location, Place):
        return location
    text = os.fspath(location)
    if not (scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)):
        return Place(str(Path(text)))
    url = urlsplit(text)
    if url.scheme == "file":
        return Place(str(Path(url.path)))
    if re.search(r"@|:(?!\d+$)", url.netloc) or _SIGNED.search(
        text
    ):  # a secret may hold a slash, so none of it is shown
        raise ConfigError(f"{url.scheme}://...: a URL must not hold credentials; set them in the environment instead")
    inside = text[scheme.end() :].rstrip("/")
    if any(part in ("", "..") for part in inside.split("/")):
        raise ConfigError(f"{text}: name a bucket and a path, as in s3://bucket/films/reel.mkv")
    return Place(f"{url.scheme}://{inside}")
