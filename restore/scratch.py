"""Room on this machine for what lies in object stores: one copy a machine of each source, and folders to work in.

Everything is an entry, a folder with a file that is locked while the entry is in use; the lock of a process that dies
goes with it. An entry that nobody uses is removed, at the latest by the next process that needs room here.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from restore.errors import MediaError
from restore.output.disk import writing
from restore.source.probe import Source
from restore.storage import Place, place

log = logging.getLogger(__name__)

IDLE_SECONDS = 120
"""How long a copy is kept for the next part that needs it."""
_AHEAD = 2
"""Files that are fetched before they are needed."""
_LOCK = "lock"
_timer: threading.Timer | None = None


@contextmanager
def local_source(source: Source, folder: Path | None, *, keep: bool) -> Iterator[Source]:
    """Give a source that can be opened here: itself, or a copy of what lies in an object store.

    Args:
        source: Its path may be a URL.
        folder: Where copies go; the system's folder for temporary files if None.
        keep: Leave the copy for the next part.

    Raises:
        MediaError: It cannot be fetched; what is wrong with the copy is told of the source.
    """
    with local_copy(place(source.path), folder, keep=keep) as path:
        yield source if str(path) == source.path else replace(source, path=str(path))


@contextmanager
def local_copy(where: Place, folder: Path | None, *, keep: bool) -> Iterator[Path]:
    """Give the path of a local file, or of a copy of what lies in an object store, fetched once a machine.

    Args:
        where: A file.
        folder: As for `local_source`.
        keep: Leave the copy for others, for a while.

    Raises:
        MediaError: It cannot be fetched. An error that names the copy is made to name what it is a copy of.
    """
    if where.is_local:
        yield where.path
        return
    root = _root(folder)
    entry = root / hashlib.sha256(f"{where}\n{where.version()}".encode()).hexdigest()[:32]
    path = entry / where.name
    try:
        with _using(entry, path, where):
            yield path
    except MediaError as error:
        if error.path != str(path):
            raise
        raise MediaError(error.message, str(where)) from error
    finally:
        if keep:
            _sweep_later(root)
        else:
            _remove_unused(entry)


@contextmanager
def arriving(file: Place, folder: Path | None) -> Iterator[Path]:
    """Give the path to write a file to: its own, or one on this machine that is put into the store at the end.

    Args:
        file: Where it belongs.
        folder: As for `local_source`.
    """
    if file.is_local:
        yield file.path
        return
    with work_folder(folder) as room:
        yield room / file.name
        file.put(room / file.name)


@contextmanager
def work_folder(folder: Path | None) -> Iterator[Path]:
    """Give an empty folder, which is removed at the end, whatever happens."""
    root = _root(folder)
    _sweep(root)
    entry = root / uuid.uuid4().hex
    with _locked(entry, fcntl.LOCK_SH):
        (entry / "work").mkdir()
        try:
            yield entry / "work"
        finally:
            shutil.rmtree(entry)


@contextmanager
def fetched_ahead(files: Sequence[Place], folder: Path) -> Iterator[Callable[[Path], AbstractContextManager[Path]]]:
    """Give what brings files of an object store into a folder, one after another, each there only while it is read.

    Args:
        files: In the order in which they will be read.
        folder: Where they go, under their own names; it holds at most `_AHEAD` files more than are being read.
    """
    number_of = {folder / file.name: number for number, file in enumerate(files)}
    coming: dict[int, Future[None]] = {}

    @contextmanager
    def local(path: Path) -> Iterator[Path]:
        first = number_of[path]
        for number in range(first, min(first + 1 + _AHEAD, len(files))):
            if number not in coming:
                coming[number] = pool.submit(files[number].fetch, folder / files[number].name)
        coming.pop(first).result()
        yield path
        path.unlink()

    with ThreadPoolExecutor(_AHEAD, "fetch") as pool:
        yield local


def _root(folder: Path | None) -> Path:
    """Return the folder of all entries, which is this user's own.

    Raises:
        MediaError: It cannot be made, or is somebody else's.
    """
    root = (folder or Path(tempfile.gettempdir())) / f"restore-{os.getuid()}"
    with writing(root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise MediaError("belongs to another user; choose another folder with --scratch", str(root))
    return root


@contextmanager
def _using(entry: Path, path: Path, where: Place) -> Iterator[None]:
    """Keep an entry in use, with a copy in it; of several processes that want it, one fetches."""
    while True:
        with _locked(entry, fcntl.LOCK_SH):
            if path.is_file():
                yield
                return
        with _locked(entry, fcntl.LOCK_EX):
            if not path.is_file():
                _sweep(entry.parent)
                log.info("%s: fetching %.1f MB", where, where.size() / 1e6)
                where.fetch(path)


@contextmanager
def _locked(entry: Path, how: int) -> Iterator[None]:
    """Hold the lock of an entry, which is made if it is not there.

    Raises:
        BlockingIOError: With LOCK_NB, somebody else has it.
    """
    while (lock := _lock(entry, how)) is None:
        continue
    with lock:
        yield


def _lock(entry: Path, how: int) -> IO[str] | None:
    """Lock an entry; None if it was removed while its lock was waited for."""
    with writing(entry):
        entry.mkdir(exist_ok=True)
    with ExitStack() as stack, suppress(FileNotFoundError):
        lock = stack.enter_context((entry / _LOCK).open("a"))
        fcntl.flock(lock, how)
        if os.path.samestat(os.fstat(lock.fileno()), (entry / _LOCK).stat()):
            os.utime(lock.fileno())
            stack.pop_all()
            return lock
    return None


def _remove_unused(entry: Path) -> None:
    with suppress(BlockingIOError), _locked(entry, fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(entry, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Remove what has not been used for a while, and what processes that died have left."""
    for entry in root.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - (entry / _LOCK).stat().st_mtime >= IDLE_SECONDS:
                _remove_unused(entry)


def _sweep_later(root: Path) -> None:
    """Look again when this process has needed no copy for a while."""
    global _timer
    if _timer is not None:
        _timer.cancel()
    _timer = threading.Timer(IDLE_SECONDS + 1, _sweep, (root,))
    _timer.daemon = True
    _timer.start()
