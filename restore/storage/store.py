"""Files of an object store, through fsspec."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from restore.errors import MediaError
from restore.output.disk import FULL
from restore.storage.folder import Stat

_S3 = ("s3", "s3a")
_BLOCK = 16 << 20
"""Bytes of a block of a large transfer."""
_BLOCKS = 4
"""Blocks of a transfer at a time, which are held in memory."""
_MOST_BLOCKS = 10_000
"""Of one object. Source: Amazon S3 user guide, multipart upload limits."""
_CONFLICTS = frozenset({"FileExistsError", "PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
"""What is answered if an object that must not be there is there, or is being written by somebody else."""
_SECRETIVE = ("botocore", "aiobotocore")
"""Loggers that at DEBUG write the headers of requests, session tokens included."""
_ADVICE = {
    "NoCredentialsError": "no credentials were found for it; set them in the environment or in the usual "
    "configuration file (for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)",
    "PartialCredentialsError": "only a part of the credentials was found; set both the key and its secret",
    "ProfileNotFound": "the profile that AWS_PROFILE names is not in the configuration file",
    "InvalidAccessKeyId": "the store does not know these credentials; check them",
    "SignatureDoesNotMatch": "the store does not accept these credentials; check the secret",
    "ExpiredToken": "the credentials have expired; renew them",
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
    "EndpointConnectionError": "the store cannot be reached; check the network and, if it is set, AWS_ENDPOINT_URL",
}
"""What a person can do, by the code of the store or the name of the exception."""


@lru_cache(maxsize=8)
def store(scheme: str, process: int) -> Store:
    """Open a store once per process.

    Args:
        scheme: As in its URLs.
        process: Its id, for a connection does not survive a fork.

    Raises:
        MediaError: The package for it is not installed, or nothing is known of such a store.
    """
    options: dict[str, Any] = {}
    if scheme in _S3:
        options = {"default_block_size": _BLOCK, "max_concurrency": _BLOCKS}
        for name in _SECRETIVE:
            logging.getLogger(name).setLevel(logging.INFO)
    try:
        import fsspec

        files = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **options)
    except ImportError as error:
        missing = "needs a package that is not installed: pip install 'restore[cloud]', or fsspec's for this store"
        raise MediaError(missing, f"{scheme}://") from error
    except ValueError as error:
        raise MediaError("no such kind of store is known; use s3://, or a folder", f"{scheme}://") from error
    return Store(files, scheme)


def disconnect() -> None:
    """Forget all connections, so that the next use looks at the environment again."""
    store.cache_clear()


class Store:
    """The objects of a store as files; all locations are URLs of its scheme."""

    def __init__(self, files: Any, scheme: str) -> None:
        self._files, self._scheme, self._on_s3 = files, scheme, scheme in _S3

    def stat(self, location: str) -> Stat | None:
        found = self._info(location)
        return None if found is None or found["type"] == "directory" else _stat(found)

    def is_folder(self, location: str) -> bool:
        found = self._info(location)
        return found is not None and found["type"] == "directory"

    def _info(self, location: str) -> dict[str, Any] | None:
        with self._doing("read", location), suppress(FileNotFoundError):
            found: dict[str, Any] = self._files.info(location)
            return found
        return None

    def read(self, location: str) -> bytes | None:
        with self._doing("read", location), suppress(FileNotFoundError):
            once = {"max_concurrency": 1} if self._on_s3 else {}  # else it first asks how large the file is
            data: bytes = self._files.cat_file(location, **once)
            return data
        return None

    def write(self, location: str, data: bytes) -> None:
        with self._doing("write", location):
            self._files.pipe_file(location, data)

    def create(self, location: str, data: bytes) -> bool:
        """Write an object if there is none, by a request that the store refuses otherwise (If-None-Match on S3)."""
        try:
            with self._doing("write", location):
                self._files.pipe_file(location, data, mode="create")
        except FileExistsError:
            return False
        return True

    def remove(self, location: str) -> None:
        with self._doing("remove", location), suppress(FileNotFoundError):
            self._files.rm_file(location)

    def remove_tree(self, location: str) -> None:
        with self._doing("remove", location), suppress(FileNotFoundError):
            self._files.rm(location, recursive=True)

    def listing(self, location: str) -> dict[str, Stat | None]:
        found: dict[str, Stat | None] = {}
        with self._doing("read", location), suppress(FileNotFoundError):
            inside = _inside(location)
            for entry in self._files.ls(location, detail=True):
                folder, _, name = entry["name"].strip("/").rpartition("/")
                if folder == inside and name:  # else the marker of a folder, or a file that was listed itself
                    found[name] = None if entry["type"] == "directory" else _stat(entry)
        return found

    def matching(self, location: str, pattern: str) -> list[str]:
        from fsspec.utils import glob_translate

        matches, start = re.compile(glob_translate(pattern)).match, len(_inside(location)) + 1
        with self._doing("read", location):
            names = [name.strip("/")[start:] for name in self._files.find(location)]
        return [name for name in names if matches(name)]

    def get(self, location: str, local: Path) -> None:
        try:
            with self._doing("fetch", location):
                self._files.get_file(location, str(local))
        except FileNotFoundError as error:
            raise self.missing(location) from error

    def put(self, local: Path, location: str) -> None:
        options = {}
        if self._on_s3:
            options["chunksize"] = max(_BLOCK, -(-local.stat().st_size // _MOST_BLOCKS))
        with self._doing("write", location):
            self._files.put_file(str(local), location, **options)

    def missing(self, location: str) -> MediaError:
        """Return the error for a file that is not there, which may be for want of its bucket."""
        bucket = _inside(location).partition("/")[0]
        with suppress(Exception):  # the error to be told is that of the file
            if self._scheme != "memory" and not self._files.exists(bucket):
                return MediaError(f"there is no bucket {bucket!r}; create it or correct the name", location)
        return MediaError("there is no such file", location)

    @contextmanager
    def _doing(self, what: str, location: str) -> Iterator[None]:
        """Turn what goes wrong into a `MediaError` that says what a person can do, and nothing that may be secret.

        A file that must be there or must not be there is the caller's.
        """
        try:
            yield
        except Exception as error:  # clients of stores raise whatever their transport raises
            code = _code(error)
            if code in _CONFLICTS:
                raise FileExistsError(location) from error
            if isinstance(error, FileNotFoundError):
                if what == "write":
                    raise self.missing(location) from error
                raise
            if what == "fetch" and isinstance(error, OSError) and error.errno in FULL:
                raise  # this machine's disk, not the store
            raise MediaError(_told(what, code, error), location) from error


def _told(what: str, code: str, error: Exception) -> str:
    if code in _ADVICE:
        return _ADVICE[code]
    if isinstance(error, PermissionError):
        return f"no permission to {what} it with the credentials that are set ({code}); have it granted"
    return f"the store could not {what} it ({code}); run again, finished work is kept"


def _code(error: BaseException) -> str:
    """Return the store's code for an error, else the name of the exception."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict) and (code := response.get("Error", {}).get("Code")):
            return str(code)
    return type(error).__name__


def _inside(location: str) -> str:
    """Return bucket and key."""
    return location.partition("://")[2].strip("/")


def _stat(found: dict[str, Any]) -> Stat:
    size = int(found["size"] or 0)
    changed = found.get("mtime") or found.get("created")
    stamp = changed.timestamp() if isinstance(changed, datetime) else changed
    return Stat(size, str(found.get("ETag") or found.get("etag") or f"{size}-{stamp}").strip('"'))
