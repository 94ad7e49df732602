"""Files and folders of the file system, on a disk or on a shared folder."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from restore.errors import MediaError
from restore.output.disk import writing


@dataclass(frozen=True, slots=True)
class Stat:
    """What is known of a file without opening it."""

    size: int
    """Bytes."""
    version: str
    """Changes whenever the file is written: a store's etag, or size and time of the last change."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside a file, and its name when it is written; makes the folders it needs.

    The name is one that no other process uses: a process that was thought dead must not write into this one's file.

    Raises:
        MediaError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


class Folders:
    """The file system, with the methods of `restore.storage.store.Store`."""

    def stat(self, location: str) -> Stat | None:
        with _reading(location), suppress(FileNotFoundError, NotADirectoryError):
            found = Path(location).stat()
            return None if Path(location).is_dir() else _stat(found)
        return None

    def is_folder(self, location: str) -> bool:
        return Path(location).is_dir()

    def read(self, location: str) -> bytes | None:
        with _reading(location), suppress(FileNotFoundError, NotADirectoryError):
            return Path(location).read_bytes()
        return None

    def write(self, location: str, data: bytes) -> None:
        with replacing(Path(location)) as temporary:
            temporary.write_bytes(data)

    def create(self, location: str, data: bytes) -> bool:
        """Write a file if there is none, whole: a hard link is refused where the name is taken, by NFS too."""
        path = Path(location)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with writing(path):
                while not temporary.exists():  # its folder may be removed, being empty, just before
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with suppress(FileNotFoundError):
                        temporary.write_bytes(data)
                return _linked(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink()

    def remove(self, location: str) -> None:
        with writing(Path(location)):
            Path(location).unlink(missing_ok=True)

    def remove_tree(self, location: str) -> None:
        path = Path(location)
        if path.is_dir() and not path.is_symlink():
            with writing(path):
                shutil.rmtree(path)
        else:
            self.remove(location)

    def listing(self, location: str) -> dict[str, Stat | None]:
        found: dict[str, Stat | None] = {}
        with _reading(location), suppress(FileNotFoundError, NotADirectoryError), os.scandir(location) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # removed meanwhile
                    found[entry.name] = None if entry.is_dir() else _stat(entry.stat())
        return found

    def matching(self, location: str, pattern: str) -> list[str]:
        folder = Path(location)
        with _reading(location):
            return [path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file()]

    def get(self, location: str, local: Path) -> None:
        shutil.copyfile(location, local)

    def put(self, local: Path, location: str) -> None:
        with replacing(Path(location)) as temporary:
            shutil.copyfile(local, temporary)


def _linked(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            with path.open("xb") as file:
                file.write(temporary.read_bytes())
        except FileExistsError:
            return False
    return True


def _stat(found: os.stat_result) -> Stat:
    return Stat(found.st_size, f"{found.st_size}-{found.st_mtime_ns}")


@contextmanager
def _reading(location: str) -> Iterator[None]:
    """Turn what goes wrong while something is read into a `MediaError`; a missing file is the caller's."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror}", location) from error
