"""Places: the same behaviour in a folder, in memory and on S3."""

from __future__ import annotations

import errno
import logging
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import small_disk
from s3server import ENVIRONMENT, SECRET

from restore.errors import ConfigError, MediaError
from restore.storage import Place, disconnect, place


@pytest.fixture
def own_connection() -> Iterator[None]:
    """For tests that change the environment, or count what it costs to read it."""
    disconnect()
    yield
    disconnect()


def test_what_is_written_is_read_and_removed(root: Place) -> None:
    file = root / "deep/er/reel.mkv"
    assert (file.exists(), file.stat(), file.read_if_there()) == (False, None, None)
    file.write_bytes(b"one")
    file.write_bytes(b"three")
    assert (file.read_bytes(), file.size(), file.exists(), file.is_folder()) == (b"three", 5, True, False)
    assert (root / "deep").is_folder()
    assert (root / "deep").exists()
    assert (root / "deep").stat() is None
    file.remove()
    file.remove()
    assert not file.exists()


def test_a_missing_file_is_named(root: Place) -> None:
    for ask in (Place.read_bytes, Place.size, Place.version):
        with pytest.raises(MediaError, match="there is no such file") as caught:
            ask(root / "none")
        assert str(root / "none") in str(caught.value)


def test_a_file_is_created_once(root: Place) -> None:
    file = root / "deep" / "once"
    assert file.create(b"first")
    assert not file.create(b"second")
    assert file.read_bytes() == b"first"
    file.remove()
    assert file.create(b"third")


def test_of_many_that_create_a_file_one_succeeds(root: Place) -> None:
    if root.location.startswith("memory"):
        pytest.skip("fsspec's memory looks, then writes")
    barrier, won = threading.Barrier(8), []

    def contend(number: int) -> None:
        barrier.wait()
        if (root / "prize").create(b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (root / "prize").read_bytes() == b"%d" % won[0]


def test_the_version_changes_with_the_content(root: Place) -> None:
    file = root / "a"
    file.write_bytes(b"one")
    before = file.version()
    assert file.version() == before
    file.write_bytes(b"two")
    assert file.version() != before


def test_a_folder_is_listed_with_sizes(root: Place) -> None:
    assert root.listing() == {}
    for name in ("b.txt", "a.txt", "inner/c.txt"):
        (root / name).write_bytes(name.encode())
    found = root.listing()
    assert list(found) == ["a.txt", "b.txt", "inner"]
    assert [None if stat is None else stat.size for stat in found.values()] == [5, 5, None]
    assert found["a.txt"] == (root / "a.txt").stat()
    assert root.children() == [root / "a.txt", root / "b.txt", root / "inner"]
    assert (root / "a.txt").listing() == {}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.mkv", ["a.mkv"]),
        ("**/*.mkv", ["a.mkv", "x/b.mkv", "x/y/c.mkv", "x/y/d[1].mkv"]),
        ("x/*.mkv", ["x/b.mkv"]),
        ("x/**/[bc].mkv", ["x/b.mkv", "x/y/c.mkv"]),
        ("*/y/?.mkv", ["x/y/c.mkv"]),
        ("x/y/c.mkv", ["x/y/c.mkv"]),
        ("none/*", []),
    ],
)
def test_a_pattern_finds_the_same_files_everywhere(root: Place, pattern: str, expected: list[str]) -> None:
    for name in ("a.mkv", "a.txt", "x/b.mkv", "x/y/c.mkv", "x/y/d[1].mkv"):
        (root / name).write_bytes(b"")
    assert root.glob(pattern) == [root / name for name in expected]


def test_a_tree_is_removed_and_its_neighbours_stay(root: Place) -> None:
    for name in ("film/parts/1", "film/plan", "film2/plan", "other"):
        (root / name).write_bytes(b"x")
    (root / "film").remove_tree()
    (root / "other").remove_tree()
    (root / "film").remove_tree()
    assert root.glob("**/*") == [root / "film2/plan"]


def test_a_file_travels_there_and_back(root: Place, tmp_path: Path) -> None:
    data = bytes(range(256)) * 300
    (tmp_path / "here").write_bytes(data)
    (root / "there").put(tmp_path / "here")
    (root / "there").fetch(tmp_path / "in" / "back")
    assert (tmp_path / "in" / "back").read_bytes() == data
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["back"]
    with pytest.raises(MediaError, match="there is no such file"):
        (root / "none").fetch(tmp_path / "in" / "none")


def test_a_large_file_travels_in_blocks(bucket: str, tmp_path: Path, s3_server: tuple[str, Any]) -> None:
    data = bytes(1 << 20) * 40
    (tmp_path / "here").write_bytes(data)
    large = place(bucket) / "large"
    begun = len(s3_server[1].requests)
    large.put(tmp_path / "here")
    sent = [method for method, _ in s3_server[1].requests[begun:]]
    assert sent.count("PUT") == 3
    large.fetch(tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_a_download_that_ends_early_leaves_nothing(bucket: str, tmp_path: Path, monkeypatch: Any) -> None:
    file = place(bucket) / "a"
    file.write_bytes(b"12345")
    monkeypatch.setattr("restore.storage.store.Store.get", lambda self, location, local: local.write_bytes(b"12"))
    with pytest.raises(MediaError, match="2 of 5 bytes arrived"):
        file.fetch(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_and_during_a_download(bucket: str, tmp_path: Path, monkeypatch: Any) -> None:
    file = place(bucket) / "a"
    file.write_bytes(bytes(1 << 16))
    with small_disk(1 << 12), pytest.raises(MediaError, match="no space left"):
        file.fetch(tmp_path / "a")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(MediaError, match="no space left"):
        file.fetch(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = place(tmp_path / "plan.json")
    file.write_bytes(b"old")

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MediaError, match="no space left"):
        file.write_bytes(b"new")
    monkeypatch.undo()
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_a_file_is_created_whole_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    assert place(tmp_path / "a").create(b"first")
    assert not place(tmp_path / "a").create(b"second")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"first")]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match="Is a directory"):
        place(tmp_path).read_bytes()


def test_names_and_parents() -> None:
    file = place("s3://bucket/films/reel.one.mkv")
    assert (file.name, file.stem, file.suffix) == ("reel.one.mkv", "reel.one", ".mkv")
    assert str(file.parent) == "s3://bucket/films"
    assert file.parent.parent == place("s3://bucket") == place("s3://bucket/").parent
    assert place("films/reel.mkv").parent == place(Path("films"))
    assert place("file:///films/reel.mkv") == place("/films/reel.mkv")
    assert place(file) is file
    assert file.absolute() is file
    assert place("a").absolute() == place(Path("a").absolute())
    assert pickle.loads(pickle.dumps(file)) == file
    assert Path(place("a") / "b") == Path("a/b")
    with pytest.raises(MediaError, match="a file in the file system is needed"):
        Path(file)


@pytest.mark.parametrize("name", ["../b", "/b", "a/../../b", ""])
@pytest.mark.parametrize("folder", ["a", "s3://bucket/a"])
def test_a_name_does_not_lead_out_of_its_folder(folder: str, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a name inside"):
        place(folder) / name
    with pytest.raises(ConfigError, match="is not a name inside"):
        place(folder).glob(name)


@pytest.mark.parametrize("url", ["s3://", "s3:///key", "s3://bucket/../other", "s3://bucket//key"])
def test_a_url_names_a_bucket_and_a_path(url: str) -> None:
    with pytest.raises(ConfigError, match="name a bucket and a path"):
        place(url)


@pytest.mark.parametrize("root", ["/", "s3://bucket", "memory://bucket"])
def test_a_whole_bucket_is_not_removed(root: str) -> None:
    with pytest.raises(ValueError, match="is not to be removed as a whole"):
        place(root).remove_tree()


@pytest.mark.parametrize(
    "url",
    [
        f"s3://key:{SECRET}@bucket/reel.mkv",
        f"s3://key:{SECRET[:9]}/{SECRET}@bucket/reel.mkv",
        f"https://host/reel.mkv?X-Amz-Signature={SECRET}",
    ],
)
def test_a_url_with_credentials_is_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ConfigError, match="must not hold credentials") as caught:
        place(url)
    assert SECRET[:9] not in str(caught.value)


def test_a_missing_bucket_is_named(bucket: str) -> None:
    gone = place(f"{bucket}-gone") / "reel.mkv"
    for ask in (Place.read_bytes, Place.version, lambda file: file.write_bytes(b"x"), lambda file: file.create(b"x")):
        with pytest.raises(MediaError, match=r"there is no bucket 'films-.*-gone'; create it or correct the name"):
            ask(gone)
    assert not gone.exists()


@pytest.mark.usefixtures("own_connection")
def test_missing_credentials_are_told_with_what_to_set(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ENVIRONMENT:
        if "KEY" in name or "TOKEN" in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for ask in (Place.exists, Place.read_bytes, Place.listing, lambda file: file.create(b"x")):
        with pytest.raises(MediaError, match="no credentials were found for it; set them in the environment"):
            ask(place(bucket) / "reel.mkv")


@pytest.mark.usefixtures("own_connection")
def test_a_store_that_cannot_be_reached_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with pytest.raises(MediaError, match="the store cannot be reached"):
        (place(bucket) / "reel.mkv").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDenied", r"no permission to write it with the credentials that are set \(AccessDenied\)"),
        ("SignatureDoesNotMatch", "does not accept these credentials"),
        ("InternalError", r"the store could not write it \(InternalError\); run again"),
    ],
)
def test_what_a_store_refuses_is_told(bucket: str, code: str, message: str, monkeypatch: Any) -> None:
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    def refuse(*args: Any, **options: Any) -> None:
        raise translate_boto_error(ClientError({"Error": {"Code": code, "Message": SECRET}}, "PutObject"))

    monkeypatch.setattr("s3fs.S3FileSystem.pipe_file", refuse)
    with pytest.raises(MediaError, match=message) as caught:
        (place(bucket) / "reel.mkv").write_bytes(b"x")
    assert SECRET not in str(caught.value)
    assert bucket in str(caught.value)


@pytest.mark.usefixtures("own_connection")
def test_an_unknown_store_and_a_missing_package_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match="no such kind of store is known"):
        place("nonesuch://bucket/a").exists()

    def absent(scheme: str, **options: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.filesystem", absent)
    with pytest.raises(MediaError, match=r"needs a package that is not installed: pip install 'restore\[cloud\]'"):
        place("s3://bucket/a").exists()


@pytest.mark.usefixtures("own_connection")
def test_credentials_reach_no_log(bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    (place(bucket) / "reel.mkv").write_bytes(b"x")
    (place(bucket) / "reel.mkv").version()
    assert "reel.mkv" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET.encode() not in pickle.dumps(place(bucket))
