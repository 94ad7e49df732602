from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock

from restore.errors import WeightsError
from restore.weights.download import Progress, download, sha256_of

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """A file server that can break off, refuse ranges, or serve something else."""

    content: bytes = CONTENT
    ranges: bool = True
    etag: str = '"one"'
    break_after: list[int]
    requests: list[dict[str, str]]
    redirect: str = ""
    stall_seconds: float = 0.0
    nonsense: bool = False
    shift: int = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.break_after, self.requests = [], []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/Tiny_gen.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers.items()))
        if self.path != "/Tiny_gen.pth":
            self.send_error(404)
            return
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        if server.nonsense:
            self.wfile.write(b"nonsense\r\n\r\n")
            return
        start = self._start()
        if start > len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start + server.shift}-{len(server.content) - 1}/{len(server.content)}"
            )
        self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        length = server.break_after.pop(0) if server.break_after else len(server.content)
        self.wfile.write(server.content[start : start + length])
        time.sleep(server.stall_seconds)

    def _start(self) -> int:
        wanted, version = self.headers.get("Range"), self.headers.get("If-Range", self.server.etag)
        if wanted is None or not self.server.ranges or version != self.server.etag:
            return 0
        return int(wanted.removeprefix("bytes=").rstrip("-"))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not made yet."""
    return tmp_path / "user"


def get(folder: Path, urls: Sequence[str], progress: Progress | None = None, timeout_seconds: float = 30) -> Path:
    target = folder / "Tiny_gen.pth"
    return download(urls, target, size=len(CONTENT), sha256=DIGEST, progress=progress, timeout_seconds=timeout_seconds)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_fetch_checks_and_names_the_file_and_shows_progress(folder: Path, server: Server) -> None:
    seen: list[tuple[int, int]] = []
    path = get(folder, [server.url], progress=lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert names(folder) == {"Tiny_gen.pth"}
    assert (seen[0], seen[-1]) == ((0, len(CONTENT)), (len(CONTENT), len(CONTENT)))


def test_fetch_continues_a_broken_download_at_once(folder: Path, server: Server) -> None:
    server.break_after = [3000, 2000]
    get(folder, [server.url])
    assert (folder / "Tiny_gen.pth").read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, "bytes=3000-", "bytes=5000-"]
    assert [request.get("If-Range") for request in server.requests] == [None, '"one"', '"one"']


def test_fetch_continues_where_an_earlier_run_stopped(folder: Path, server: Server) -> None:
    server.break_after = [1000, 0]
    with pytest.raises(
        WeightsError, match=r"broke off after 1,000 of 10,240 .*\(1,000 of 10,240 bytes are kept; fetch"
    ):
        get(folder, [server.url])
    assert "Tiny_gen.pth" not in names(folder)
    get(folder, [server.url])
    assert server.requests[-1]["Range"] == "bytes=1000-"
    assert names(folder) == {"Tiny_gen.pth"}


def test_fetch_starts_over_when_the_server_has_another_version(folder: Path, server: Server) -> None:
    server.break_after = [1000, 0]
    with pytest.raises(WeightsError, match="broke off"):
        get(folder, [server.url])
    server.etag = '"two"'
    part = folder / "Tiny_gen.pth.part"
    part.write_bytes(b"?" * 1000)
    assert get(folder, [server.url]).read_bytes() == CONTENT


def test_fetch_starts_over_when_the_server_has_no_ranges(folder: Path, server: Server) -> None:
    server.ranges, server.break_after = False, [3000]
    assert get(folder, [server.url]).read_bytes() == CONTENT
    assert server.requests[1]["Range"] == "bytes=3000-"


@pytest.mark.parametrize("part", [b"?" * 100, b"?" * len(CONTENT), b"?" * 2 * len(CONTENT)])
def test_fetch_starts_over_when_what_is_there_is_not_a_beginning(folder: Path, server: Server, part: bytes) -> None:
    folder.mkdir()
    (folder / "Tiny_gen.pth.part").write_bytes(part)
    assert get(folder, [server.url]).read_bytes() == CONTENT
    assert names(folder) == {"Tiny_gen.pth"}


def test_fetch_starts_over_after_a_range_of_another_file(folder: Path, server: Server) -> None:
    folder.mkdir()
    (folder / "Tiny_gen.pth.part").write_bytes(CONTENT[:100])
    server.content = CONTENT + b"more"
    with pytest.raises(WeightsError, match="offers 10244 bytes, expected 10240: not this file"):
        get(folder, [server.url])
    assert not names(folder)


def test_fetch_finishes_at_another_mirror_what_one_began(folder: Path, server: Server) -> None:
    server.break_after = [1000, 0]
    urls = [server.url, server.url.replace("127.0.0.1", "localhost")]
    assert get(folder, urls).read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == "bytes=1000-"
    assert "If-Range" not in server.requests[-1]


def test_fetch_goes_on_to_the_next_mirror(folder: Path, server: Server) -> None:
    dead = "http://127.0.0.1:1/Tiny_gen.pth"
    urls = [server.url.replace("Tiny", "Gone"), dead, server.url]
    assert get(folder, urls).read_bytes() == CONTENT
    with pytest.raises(WeightsError, match=r"Gone_gen.pth: answered 404 .*; .*:1/Tiny_gen.pth: no connection"):
        get(folder / "other", urls[:2])
    assert not names(folder / "other")


def test_fetch_without_network_or_address_says_so(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot fetch Tiny_gen.pth: http://127.0.0.1:1/: no connection"):
        get(folder, ["http://127.0.0.1:1/"])
    with pytest.raises(WeightsError, match=r"cannot fetch Tiny_gen.pth: no address is known"):
        get(folder, [])


def test_wrong_hash_leaves_nothing_behind(folder: Path, server: Server) -> None:
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(WeightsError, match=f"has SHA-256 [0-9a-f]{{64}}, expected {DIGEST}; what arrived was deleted"):
        get(folder, [server.url])
    assert not names(folder)


def test_wrong_hash_of_a_continued_download_is_followed_by_a_fresh_one(folder: Path, server: Server) -> None:
    folder.mkdir()
    (folder / "Tiny_gen.pth.part").write_bytes(b"?" * 5000)
    get(folder, [server.url])
    assert [request.get("Range") for request in server.requests] == ["bytes=5000-", None]


def test_web_page_instead_of_the_file_is_refused_before_it_is_stored(folder: Path, server: Server) -> None:
    server.content = b"<html>This item was deleted</html>"
    with pytest.raises(WeightsError, match="offers 34 bytes, expected 10240"):
        get(folder, [server.url])
    assert not names(folder)


@pytest.mark.parametrize("url", ["file:///etc/hosts", "ftp://127.0.0.1/Tiny_gen.pth", "/Tiny_gen.pth"])
def test_only_http_is_fetched(folder: Path, server: Server, url: str) -> None:
    with pytest.raises(WeightsError, match="only http and https addresses are fetched"):
        get(folder, [server.url, url])
    server.redirect = url
    if url.startswith("f"):
        with pytest.raises(WeightsError, match=r"answered 302|no connection"):
            get(folder, [server.url])


def test_silent_server_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    silent = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # listens, and never answers
    url = f"http://127.0.0.1:{silent.server_port}/"
    with silent, pytest.raises(WeightsError, match=r"no connection .*timed out"):
        get(folder, [url], timeout_seconds=0.1)


def test_server_that_falls_silent_is_given_up_and_what_came_is_kept(folder: Path, server: Server) -> None:
    server.break_after, server.stall_seconds = [4000, 0], 1.0
    with pytest.raises(WeightsError, match=r"broke off after 4,000 .*timed out.*4,000 of 10,240 bytes are kept"):
        get(folder, [server.url], timeout_seconds=0.2)


def test_answer_that_is_not_http_is_reported(folder: Path, server: Server) -> None:
    server.nonsense = True
    with pytest.raises(WeightsError, match=r"broke off \(BadStatusLine\)"):
        get(folder, [server.url])


def test_range_that_was_not_asked_for_is_refused(folder: Path, server: Server) -> None:
    folder.mkdir()
    (folder / "Tiny_gen.pth.part").write_bytes(CONTENT[:100])
    server.shift = 7
    assert get(folder, [server.url]).read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == ["bytes=100-", None]


def test_missing_space_is_said_before_the_download(tmp_path: Path, server: Server) -> None:
    with pytest.raises(WeightsError, match=r"bytes free, but 1,152,921,504,606,846,976 are needed"):
        download([server.url], tmp_path / "huge", size=2**60, sha256="")
    assert not server.requests


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_ends_the_download(folder: Path, server: Server) -> None:
    folder.mkdir()
    (folder / "Tiny_gen.pth.part").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=r"cannot write into .*user: No space left on device"):
        get(folder, [server.url, server.url])
    assert len(server.requests) == 1


def test_folder_that_cannot_be_made_is_named(folder: Path, server: Server) -> None:
    folder.write_text("a file")
    with pytest.raises(WeightsError, match=r"cannot write into .*user: File exists"):
        get(folder, [server.url])


def test_two_processes_do_not_fetch_into_one_folder(folder: Path, server: Server) -> None:
    folder.mkdir()
    with FileLock(folder / ".lock"), pytest.raises(WeightsError, match="another process is fetching into"):
        get(folder, [server.url])


def test_file_that_cannot_be_read_cannot_be_hashed(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read .*: Is a directory"):
        sha256_of(tmp_path)
