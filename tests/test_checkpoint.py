from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from restore.errors import WeightsError
from restore.weights.checkpoint import read_state


class Attack:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.mark}'",)


@pytest.mark.parametrize("form", ["zip", "legacy", "protocol 2", "protocol 4"])
def test_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, form: str) -> None:
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    content = {"model": {"w": torch.ones(2)}, "opt": Attack(mark)}
    if form.startswith("protocol"):
        path.write_bytes(pickle.dumps(Attack(mark), protocol=int(form[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(
        WeightsError, match=r"evil.pth (was refused: it asks for (posix|nt).system|is damaged, or holds)"
    ):
        read_state(path)
    assert not mark.exists()
    if form == "protocol 2":
        pickle.loads(path.read_bytes())
        assert mark.exists()  # the attack is real


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("form", ["bare", "model", "state_dict"])
def test_every_container_gives_the_same_state(tmp_path: Path, legacy: bool, form: str) -> None:
    state = {"b": torch.ones(2, 2, requires_grad=True), "a": torch.zeros(3, dtype=torch.int64)}
    whole = {"bare": state, "model": {"model": state, "opt": {"x": slice(1, 2)}}, "state_dict": {"state_dict": state}}
    torch.save(whole[form], tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    read = read_state(tmp_path / "w.pth")
    assert list(read) == ["b", "a"]
    assert torch.equal(read["b"], state["b"])
    assert not read["b"].requires_grad


def test_half_precision_is_read_as_stored(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2).half()}, tmp_path / "w.safetensors")
    assert read_state(tmp_path / "w.safetensors")["w"].dtype == torch.float16


@pytest.mark.needs_shared
def test_published_container_from_a_gpu_is_read_on_the_cpu(shared: Path) -> None:
    state = read_state(shared / "reference" / "TinyWide_gen.pth")
    assert next(iter(state)).startswith("layers.0.")
    assert {value.device.type for value in state.values()} == {"cpu"}
    assert len(state) == 268


def checkpoint(legacy: bool, path: Path) -> bytes:
    torch.save({"w": torch.ones(3000)}, path, _use_new_zipfile_serialization=not legacy)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: b"", "the file is empty"),
        (lambda path: b"\n<!DOCTYPE html><title>404</title>", "found a web page"),
        (lambda path: b"\xef\xbb\xbf<?xml version='1.0'?>", "found a web page"),
        (lambda path: b"RIFF and so on", "begins with b'RIFF and'"),
        (lambda path: checkpoint(False, path)[:5000], "is not a whole PyTorch checkpoint"),
        (lambda path: checkpoint(True, path)[:5000], "is not a whole PyTorch checkpoint"),
        (lambda path: checkpoint(True, path)[:40], "is (not a whole PyTorch checkpoint|damaged)"),
        (lambda path: b"PK\x03\x04 and nothing of a zip file", "is not a whole PyTorch checkpoint"),
        (lambda path: b"\x80\x02 and nothing of a pickle", "is damaged, or holds other things than tensors"),
    ],
)
def test_file_that_is_not_weights_is_described(tmp_path: Path, make: Callable[[Path], bytes], message: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(make(path))
    with pytest.raises(WeightsError, match=f"w.pth .*{message}|w.pth {message}"):
        read_state(path)


def test_truncated_safetensors_are_described(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.ones(3000)}, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(WeightsError, match=r"w.safetensors is not whole or not safetensors \(.*fetch or copy it again"):
        read_state(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [({"epoch": 3, "loss": 0.1}, "found epoch, loss"), ({}, "found nothing"), ([torch.ones(1)], "found a list")],
)
def test_checkpoint_without_a_state_dict_says_what_it_holds(tmp_path: Path, content: object, found: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=f"holds no state dict: expected tensors by name, {found}"):
        read_state(tmp_path / "w.pth")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read weights .*gone.pth: No such file"):
        read_state(tmp_path / "gone.pth")
