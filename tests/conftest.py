"""Fixtures shared by all tests."""

from __future__ import annotations

import json
import random
import resource
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from media import frame_hashes, make_film
from photographs import picture, write_tar
from safetensors.torch import save_file

from restore import generators
from restore.cli import main
from restore.clip import Clip, Color, Matrix, Primaries
from restore.film import restore_film
from restore.generators.compact import Compact
from restore.setup import Options
from restore.source.probe import Source, probe
from restore.storage import Place, place
from restore.train import TrainConfig
from restore.train.config import Row

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""The development data, beside a developer's checkout; a user does not have it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("needs_shared") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason="needs the development data beside the checkout (../shared)"))


@pytest.fixture(autouse=True)
def _restore_rng_state() -> Iterator[None]:
    python, numpy, state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(state)


@pytest.fixture
def shared() -> Path:
    return SHARED


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command in this process, given its words, and returns its exit status."""

    def called(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["restore", *map(str, words)])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return called


def color(depth: int = 8, full_range: bool = False) -> Color:
    return Color(Matrix.BT709, Primaries.BT709, 1, full_range, depth)


def make_clip(
    frames: int = 5, height: int = 37, width: int = 51, seed: int = 0, depth: int = 8, ab: bool = True
) -> Clip:
    """Make a clip of smooth moving waves with a little grain, odd sizes on purpose."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16.0
    waves = [np.sin(x + 0.4 * t + seed) * np.cos(y - 0.3 * t) for t in range(frames)]
    unit = np.clip(0.5 + 0.35 * np.stack(waves) + rng.normal(0, 0.01, (frames, height, width)), 0, 1)
    scale = 2 ** (depth - 8)
    luma = np.rint((16 + 219 * unit) * scale).astype(np.uint8 if depth == 8 else np.uint16)
    planes = rng.normal(0, 20, (frames, 2, 16, 24)).astype(np.float32) if ab else None
    return Clip(luma, None, planes, np.arange(frames, dtype=np.int64), Fraction(1, 25), color(depth))


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes: the kernel's own error in the middle of a file.

    Not a fixture, because the log of a test run is a file too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of six small photographs, five of them in a tar file."""
    path = tmp_path / "photographs"
    path.mkdir()
    write_tar(path / "a.tar", {f"p{i}.jpg": picture(i) for i in range(5)} | {"notes.txt": b"not a picture"})
    (path / "q.jpg").write_bytes(picture(9))
    return path


@pytest.fixture
def pretraining(photographs: Path, tmp_path: Path) -> TrainConfig:
    """Training of a small generator: phase 1 alone, of two rows."""
    return TrainConfig(
        data=photographs,
        validation=photographs,
        output=tmp_path / "out",
        name="tiny",
        recipe="test",
        settings={"bins": 8, "pixels": 64},
        pretrain=(Row(64, 2, steps=2, frozen=True), Row(96, 3, steps=2)),
        encoder_weights="random",
        precision="fp32",
        validation_pictures=2,
        checkpoint_every=0.0,
        board=False,
        threads=1,  # two would wait for one another on a busy machine
    )


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained generator in a file, with a palette, so that it gives some colour."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = generators.build("compact", pixels=64)
        assert isinstance(generator, Compact)
        generator.bins.copy_(torch.randn(generator.bins.shape) * 40)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    record = {"generator": "compact", "settings": json.dumps({"pixels": 64})}
    save_file(generator.state_dict(), path, record)
    return path


@pytest.fixture(scope="session")
def small_source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A film of two frames, 64x48."""
    return probe(make_film(tmp_path_factory.mktemp("film") / "film.mkv", frames=2, width=64, height=48))


@pytest.fixture(scope="session")
def archiving(tiny_weights: Path) -> Options:
    """Settings that give the same planes wherever a film is restored."""
    return Options(weights=str(tiny_weights), device="cpu", precision="fp32", profile="archive", part_frames=12)


@pytest.fixture(scope="session")
def restored(tmp_path_factory: pytest.TempPathFactory, archiving: Options) -> tuple[Path, list[str]]:
    """A film of three shots, and the planes of its undisturbed result."""
    from mishaps import film_of, reel

    folder = tmp_path_factory.mktemp("reel")
    path = reel(folder / "in.mp4")
    restore_film(film_of(path, folder / "out.mkv", archiving))
    return path, frame_hashes(folder / "out.mkv", "all")


@pytest.fixture(params=["folder", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty place of each kind."""
    if request.param == "folder":
        yield place(tmp_path / "store")
    elif request.param == "memory":
        memory = place(f"memory://tests/{uuid.uuid4().hex}")
        yield memory
        memory.remove_tree()
    else:
        yield place(request.getfixturevalue("bucket")) / "films"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, Any]]:
    """The URL of an S3 server on loopback, and its application, which counts requests."""
    from s3server import serving

    with serving() as (url, app):
        yield url, app


@pytest.fixture
def bucket(s3_server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket; the environment has what is needed to use it, for child processes too."""
    from s3server import ENVIRONMENT

    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3_server[0]}.items():
        monkeypatch.setenv(name, value)
    name = f"films-{uuid.uuid4().hex[:8]}"
    with urlopen(Request(f"{s3_server[0]}/{name}", method="PUT")):
        return f"s3://{name}"
