from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from restore import shipped, weights
from restore.colorize.neural import Neural
from restore.errors import RestoreError, WeightsError
from restore.weights import registry, store

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()
REGISTRY = """
default = "tiny"
[weights.tiny]
generator = "cnn"
file = "Tiny_gen.pth"
bytes = {size}
sha256 = "{digest}"
urls = ["http://127.0.0.1:1/Tiny_gen.pth"]
licence = "MIT"
training = {{ recipe = "none" }}
[weights.ours]
generator = "compact"
file = "ours.safetensors"
bytes = 5
sha256 = "00"
licence = "MIT"
"""


@pytest.fixture
def write_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that puts a registry of the test's own in the place of the shipped one."""
    place = tmp_path / "shipped"
    place.mkdir()

    def write(text: str) -> Path:
        (place / "registry.toml").write_text(text)
        return place

    for module in (registry, store):
        monkeypatch.setattr(module, "data_folder", lambda kind: place)
    return write


@pytest.fixture
def folder(tmp_path: Path, write_registry: Callable[[str], Path]) -> Path:
    """A user's folder, not made yet, for a registry that knows `tiny` and `ours`."""
    write_registry(REGISTRY.format(size=len(CONTENT), digest=DIGEST))
    return tmp_path / "user"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_shipped_registry_knows_the_published_weights_and_the_default(tmp_path: Path) -> None:
    known = weights.entries(tmp_path)
    assert {"deoldify-video", "deoldify-stable", "deoldify-artistic", "eccv16"} <= set(known)
    assert weights.default_name() == Neural().weights == "compact-v2"
    for name, entry in known.items():
        assert entry.name == name
        assert len(entry.sha256) == 64
        assert set(entry.sha256) <= set("0123456789abcdef")
        assert entry.bytes > 1000
        assert entry.licence
        assert entry.training
        assert len(entry.urls) >= 2 or (shipped.data_folder("weights") / entry.file).is_file()
        assert all(url.startswith("https://") for url in entry.urls)
    assert known["deoldify-artistic"].generator == "deoldify_deep"
    assert known["deoldify-video"].bytes == 874_066_230


def test_shipped_files_are_found_in_a_wheel_before_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "restore" / "shipped.py"))
    with pytest.raises(RestoreError, match=r"pipelines are in neither .*_data.* install restore again"):
        shipped.data_folder("pipelines")
    (tmp_path / "pipelines").mkdir()
    assert shipped.data_folder("pipelines") == tmp_path / "pipelines"
    (tmp_path / "restore" / "_data" / "pipelines").mkdir(parents=True)
    assert shipped.data_folder("pipelines") == tmp_path / "restore" / "_data" / "pipelines"


def test_user_folder_follows_an_absolute_cache_home_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.user_folder() == tmp_path / "restore" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert weights.user_folder() == Path.home() / ".cache" / "restore" / "weights"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("default = ", "registry.toml cannot be read"),
        ("weights = 3", r"expected tables \[weights.NAME\]"),
        ('[weights.a]\ngenerator = "cnn"', "a.file: Field required"),
        (
            REGISTRY.replace('licence = "MIT"', 'license = "MIT"').format(size=1, digest=""),
            "tiny.licence: Field required",
        ),
        (REGISTRY.format(size='"many"', digest=""), "tiny.bytes: Input should be a valid integer"),
        (REGISTRY.format(size=1, digest="") + "colour = 1\n", "ours.colour: .*"),
    ],
)
def test_broken_registry_is_reported_with_its_file(
    write_registry: Callable[[str], Path], tmp_path: Path, text: str, message: str
) -> None:
    write_registry(text)
    with pytest.raises(WeightsError, match=message):
        weights.entries(tmp_path)


def test_unknown_name_is_answered_with_known_ones_and_a_close_match(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"'tinny' \(did you mean tiny\? known: tiny, ours\)"):
        weights.find("tinny", folder=folder)


def test_known_but_absent_weights_are_not_downloaded_but_explained(folder: Path) -> None:
    with pytest.raises(WeightsError, match="not on this machine: run `restore weights fetch tiny`"):
        weights.find("tiny", folder=folder)
    with pytest.raises(WeightsError, match="belongs to restore"):
        weights.find("ours", folder=folder)
    with pytest.raises(WeightsError, match="ours has no address"):
        weights.fetch("ours", folder=folder)
    assert weights.installed("tiny", folder=folder) is None
    assert not folder.exists()


def test_shipped_weights_are_found_by_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shipped" / "ours.safetensors").write_bytes(b"12345")
    found = weights.find("ours", folder=folder)
    assert found.path == tmp_path / "shipped" / "ours.safetensors"
    assert found.entry
    assert found.entry.generator == "compact"


def test_file_is_recognised_by_content_whatever_its_name(folder: Path, tmp_path: Path) -> None:
    renamed, other = tmp_path / "renamed.bin", tmp_path / "other.bin"
    renamed.write_bytes(CONTENT)
    other.write_bytes(CONTENT[::-1])
    assert weights.find(str(renamed), folder=folder).entry == weights.entries(folder)["tiny"]
    assert weights.find(other, folder=folder).entry is None
    assert weights.verify(renamed, folder=folder).ok
    measured = weights.verify(other, folder=folder)
    assert (measured.ok, measured.entry, measured.bytes) == (False, None, len(CONTENT))


def test_damaged_file_is_noticed(folder: Path) -> None:
    folder.mkdir()
    (folder / "Tiny_gen.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=r"is damaged: it has 10,239 bytes, tiny has 10,240"):
        weights.find("tiny", folder=folder)
    with pytest.raises(WeightsError, match="is damaged"):
        weights.find(folder / "Tiny_gen.pth", folder=folder)
    assert not weights.verify("tiny", folder=folder).ok
    (folder / "Tiny_gen.pth").write_bytes(CONTENT[:-1] + b"?")
    assert not weights.verify("tiny", folder=folder).ok
    (folder / "Tiny_gen.pth").write_bytes(CONTENT)
    assert weights.verify("tiny", folder=folder).ok


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that has `Tiny_gen.pth`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "Tiny_gen.pth").write_bytes(CONTENT)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/Tiny_gen.pth"
        server.shutdown()
        thread.join()


def test_fetched_weights_are_found_and_not_fetched_twice(folder: Path, address: str) -> None:
    path = weights.fetch("tiny", folder=folder, urls=[address])
    assert weights.find("tiny", folder=folder).path == path == folder / "Tiny_gen.pth"
    assert weights.verify("tiny", folder=folder).ok
    assert weights.fetch("tiny", folder=folder) == path  # the registry's own address is dead


def test_damaged_weights_are_fetched_again(folder: Path, address: str) -> None:
    folder.mkdir()
    (folder / "Tiny_gen.pth").write_bytes(CONTENT[:-1])
    assert weights.fetch("tiny", folder=folder, urls=[address]).read_bytes() == CONTENT


def test_addresses_of_the_registry_are_the_ones_fetched_from(folder: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"cannot fetch Tiny_gen.pth: http://127.0.0.1:1/Tiny_gen.pth: no connection"
    ):
        weights.fetch("tiny", folder=folder)


def test_published_file_is_imported_byte_for_byte_under_its_name(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "from-a-friend.pth"
    source.write_bytes(CONTENT)
    path = weights.import_file(source, folder=folder)
    assert path.read_bytes() == CONTENT
    assert weights.find("tiny", folder=folder).path == path
    with pytest.raises(WeightsError, match="is tiny for cnn; do not rename it"):
        weights.import_file(source, name="mine", folder=folder)
    with pytest.raises(WeightsError, match="is tiny for cnn"):
        weights.import_file(source, generator="pix2pix", folder=folder)


def test_own_checkpoint_is_converted_and_found_by_name(folder: Path, tmp_path: Path) -> None:
    shared_storage = torch.arange(6.0).reshape(2, 3)
    state = {"a.weight": shared_storage, "b.weight": shared_storage.T, "c": torch.tensor(3), "d": torch.ones(2).half()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "My_Run.pth")
    settings = {"width": 8, "name": 'a "b" \\ c', "deep": True, "scales": [1, 0.5], "inner": {"x y": 1e-7}}
    path = weights.import_file(tmp_path / "My_Run.pth", generator="pix2pix", settings=settings, folder=folder)
    found = weights.find("my_run", folder=folder)
    assert found.path == path == folder / "my_run.safetensors"
    assert found.entry
    assert (found.entry.generator, found.entry.settings) == ("pix2pix", settings)
    assert found.entry.origin == "imported from My_Run.pth"
    assert weights.verify("my_run", folder=folder).ok
    read = weights.read_state(path)
    assert read["d"].dtype == torch.float16
    assert all(torch.equal(read[key], value) for key, value in state.items())
    assert names(folder) == {"my_run.safetensors", "my_run.toml"}
    assert path.stat().st_mode == (folder / "my_run.toml").stat().st_mode


def test_import_refuses_what_it_cannot_name_or_use(folder: Path, tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    (tmp_path / "b.pth").write_bytes(b"<html>")
    with pytest.raises(WeightsError, match="is not a file"):
        weights.import_file(tmp_path / "missing.pth", folder=folder)
    with pytest.raises(WeightsError, match=r"is not a published file .* say which generator"):
        weights.import_file(tmp_path / "a.safetensors", folder=folder)
    with pytest.raises(WeightsError, match=r"'../a' cannot name weights"):
        weights.import_file(tmp_path / "a.safetensors", name="../a", generator="cnn", folder=folder)
    with pytest.raises(WeightsError, match="the name tiny is taken"):
        weights.import_file(tmp_path / "a.safetensors", name="tiny", generator="cnn", folder=folder)
    with pytest.raises(WeightsError, match="found a web page"):
        weights.import_file(tmp_path / "b.pth", generator="cnn", folder=folder)
    with pytest.raises(WeightsError, match="the setting None cannot be kept"):
        weights.import_file(tmp_path / "a.safetensors", generator="cnn", settings={"x": None}, folder=folder)
    assert not folder.exists()
    weights.import_file(tmp_path / "a.safetensors", name="mine", generator="cnn", folder=folder)
    with pytest.raises(WeightsError, match=r"the name mine is taken .imported from a.safetensors"):
        weights.import_file(tmp_path / "a.safetensors", name="mine", generator="cnn", folder=folder)


def test_import_into_a_folder_that_cannot_be_made_is_reported(folder: Path, tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match=r"cannot write .*file/sub/a.safetensors"):
        weights.import_file(tmp_path / "a.safetensors", generator="cnn", folder=tmp_path / "file" / "sub")


def test_import_cannot_take_the_name_of_published_weights_by_hand(folder: Path) -> None:
    folder.mkdir()
    (folder / "tiny.toml").write_text('generator = "cnn"\n')
    with pytest.raises(WeightsError, match=r"tiny.toml: tiny is the name of published weights"):
        weights.entries(folder)
