"""Downloads of large files that survive broken connections and dead mirrors.

A download is written to `<target>.part`, resumed where it broke off, and gets its name only once its size and
SHA-256 are right. Because the hash decides, a resumed file may even be put together from different mirrors.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from restore import __version__
from restore.errors import WeightsError

Progress = Callable[[int, int], None]
"""Called with the bytes there are and the bytes there will be."""

ATTEMPTS = 5
"""Connections to one mirror, as long as each of them gets somewhere."""

CHUNK_BYTES = 1 << 20

logger = logging.getLogger(__name__)


class _MirrorError(Exception):
    """This address did not deliver the file; another one may."""


@dataclass(frozen=True)
class _Download:
    """One file to fetch: where to, and what it must be."""

    part: Path
    size: int
    sha256: str
    progress: Progress | None
    timeout_seconds: float

    @property
    def have(self) -> int:
        """Bytes that have arrived."""
        return self.part.stat().st_size if self.part.exists() else 0

    @property
    def note(self) -> Path:
        """Where the server's name for this version of the file (ETag or date) is kept."""
        return self.part.with_name(self.part.name + ".json")

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def download(
    urls: Sequence[str],
    target: Path,
    *,
    size: int,
    sha256: str,
    progress: Progress | None = None,
    timeout_seconds: float = 30.0,
) -> Path:
    """Fetch a file from the first of several mirrors that delivers it, continuing an earlier attempt.

    Args:
        urls: Mirrors, http or https, tried in order.
        target: Final name; it appears only when the file is complete and right.
        size: Bytes the file has.
        sha256: Its SHA-256, in lower-case hexadecimal.
        progress: Called as bytes arrive.
        timeout_seconds: Longest wait for a connection or for the next bytes.

    Raises:
        WeightsError: No mirror delivered the file; the disk is full or not writable; another process is fetching.
    """
    for url in urls:
        if urlsplit(url).scheme not in ("http", "https"):
            raise WeightsError(f"cannot fetch {url}: only http and https addresses are fetched")
    wanted = _Download(target.with_name(target.name + ".part"), size, sha256, progress, timeout_seconds)
    with _locked(target.parent):
        _check_space(wanted)
        reasons = []
        for url in urls:
            try:
                _from_mirror(url, wanted)
            except _MirrorError as error:
                logger.warning("%s: %s", url, error)
                reasons.append(f"{url}: {error}")
                continue
            wanted.part.replace(target)
            wanted.discard()
            return target
    kept = f" ({wanted.have:,} of {size:,} bytes are kept; fetch again to continue)" if wanted.have else ""
    raise WeightsError(f"cannot fetch {target.name}: {'; '.join(reasons) or 'no address is known'}{kept}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in lower-case hexadecimal.

    Raises:
        WeightsError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise WeightsError(f"another process is fetching into {folder}; wait until it has finished") from error
    except OSError as error:
        raise WeightsError(f"cannot write into {folder}: {error.strerror or error}") from error


def _check_space(wanted: _Download) -> None:
    missing, free = wanted.size - wanted.have, shutil.disk_usage(wanted.part.parent).free
    if missing > free:
        raise WeightsError(f"{wanted.part.parent} has {free:,} bytes free, but {missing:,} are needed")


def _from_mirror(url: str, wanted: _Download) -> None:
    """Complete the part file from one mirror; connect again as long as that changes what there is."""
    for attempt in range(1, ATTEMPTS + 1):
        before = wanted.have
        try:
            if before != wanted.size:
                _receive(url, wanted)
            _check_content(wanted)
        except _MirrorError:
            if wanted.have == before or attempt == ATTEMPTS:
                raise
        else:
            return


def _check_content(wanted: _Download) -> None:
    found = sha256_of(wanted.part)
    if found != wanted.sha256:
        wanted.discard()
        raise _MirrorError(f"has SHA-256 {found}, expected {wanted.sha256}; what arrived was deleted")
    with wanted.part.open("rb") as file:
        os.fsync(file.fileno())


def _receive(url: str, wanted: _Download) -> None:
    start = wanted.have
    try:
        with _open(url, start, wanted) as response:
            start = _start_of(response, start, wanted)
            _note_version(url, response, wanted)
            with wanted.part.open("ab" if start else "wb") as file:
                _copy(response, file, start, wanted)
    except http.client.HTTPException as error:
        raise _MirrorError(f"broke off ({type(error).__name__})") from error


def _open(url: str, start: int, wanted: _Download) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"restore/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        version = _known_version(url, wanted)
        if version:
            headers["If-Range"] = version
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=wanted.timeout_seconds)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            wanted.discard()  # the part is not a beginning of what this server has
        raise _MirrorError(f"answered {error.code} {error.reason}") from error
    except OSError as error:
        raise _MirrorError(f"no connection ({getattr(error, 'reason', error)})") from error
    assert isinstance(response, http.client.HTTPResponse)
    return response


def _opener() -> urllib.request.OpenerDirector:
    """Build an opener that follows redirects and proxies, but never to a file: or ftp: address."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _start_of(response: http.client.HTTPResponse, asked: int, wanted: _Download) -> int:
    """Return the position of the first byte of an answer, after checking that it is our file's."""
    length = response.headers.get("Content-Length")
    start = 0
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        found = response.headers.get("Content-Range", "none")
        if found != f"bytes {asked}-{wanted.size - 1}/{wanted.size}":
            wanted.discard()
            raise _MirrorError(f"sent the range {found!r} when asked for {asked}- of {wanted.size}")
        start = asked
    if length is not None and length != str(wanted.size - start):
        raise _MirrorError(f"offers {length} bytes, expected {wanted.size - start}: not this file")
    return start


def _copy(response: http.client.HTTPResponse, file: BinaryIO, start: int, wanted: _Download) -> None:
    done = start
    while done < wanted.size:
        if wanted.progress:
            wanted.progress(done, wanted.size)
        try:
            chunk = response.read1(min(CHUNK_BYTES, wanted.size - done))
        except OSError as error:
            raise _MirrorError(f"broke off after {done:,} of {wanted.size:,} bytes ({error})") from error
        if not chunk:
            raise _MirrorError(f"broke off after {done:,} of {wanted.size:,} bytes")
        file.write(chunk)
        done += len(chunk)
    if wanted.progress:
        wanted.progress(done, wanted.size)


def _note_version(url: str, response: http.client.HTTPResponse, wanted: _Download) -> None:
    version = response.headers.get("ETag", "")
    if not version or version.startswith("W/"):  # RFC 9110, 13.1.5: a weak tag does not go into If-Range
        version = response.headers.get("Last-Modified", "")
    wanted.note.write_text(json.dumps({"url": url, "version": version}), encoding="utf-8")


def _known_version(url: str, wanted: _Download) -> str:
    """Return the version that `url` called the part by, or nothing if another mirror sent it."""
    try:
        note = json.loads(wanted.note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(note["version"]) if note.get("url") == url else ""
