"""Phase 1 training: settings, pictures, loss, the run and its resumption."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open

from restore.color import lab_from_rgb
from restore.errors import ConfigError, MediaError, RestoreError
from restore.generators.compact import Compact
from restore.train import Progress, TrainConfig, data, load, train, validate
from restore.train.augment import Augmentation
from restore.train.config import Sizes
from restore.train.degrade import Degradation
from restore.train.losses import ColorLoss, histogram, palette
from restore.train.pretrain import Run


def picture(seed: int, height: int = 70, width: int = 90) -> bytes:
    """Smooth patches of colour, as JPEG."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    done, code = cv2.imencode(".jpg", cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    assert done
    return code.tobytes()


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    write_tar(path / "a.tar", {f"p{i}.jpg": picture(i) for i in range(5)} | {"notes.txt": b"not a picture"})
    (path / "q.jpg").write_bytes(picture(9))
    return path


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        data=folder,
        validation=folder,
        output=tmp_path / "out",
        name="tiny",
        steps=4,
        sizes=(Sizes(0.0, 64, 2), Sizes(0.5, 96, 3)),
        frozen_steps=1,
        bins=8,
        encoder_weights="random",
        precision="fp32",
        validation_pictures=2,
        checkpoint_every=0.0,
    )


def photos(folder: Path, seed: int = 0) -> data.Photos:
    return data.Photos(data.find(folder), Degradation(), Augmentation(), seed)


# Settings


def test_the_shipped_configuration_is_valid_and_names_every_setting() -> None:
    path = Path(__file__).resolve().parents[1] / "configs" / "train" / "compact.yaml"
    assert load(path).name == "compact-v1"
    assert set(yaml.safe_load(path.read_text())) == {field.name for field in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: a\nvalidation: b\noutput: c\nlerning_rate: 1", "unknown setting lerning_rate; known are average"),
        ("data: a\nvalidation: b\noutput: c\nloss: {gamma: 1}", "loss: unknown setting gamma; known are rebalance"),
        ("data: a\nvalidation: b\noutput: c\nsteps: many", "steps: Input should be a valid integer"),
        ("data: a\nvalidation: b", "output: .*required"),
        ("- a", "expected settings as 'name: value' lines, found list"),
        ("a: [", "cannot be read as YAML"),
        ("data: a\nvalidation: b\noutput: c\nsteps: 0", "steps must be at least 1"),
        ("data: a\nvalidation: b\noutput: c\nprecision: fp8", "precision: expected one of bf16, fp32, found 'fp8'"),
        ("data: a\nvalidation: b\noutput: c\nsizes: [{start: 0.5, pixels: 64, batch: 2}]", "first must start at 0"),
        ("data: a\nvalidation: b\noutput: c\nsizes: [{start: 0, pixels: 65, batch: 2}]", "multiple of 32"),
    ],
)
def test_a_wrong_configuration_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(path)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load(tmp_path / "none.yaml")


# Pictures


def test_a_tar_and_a_folder_give_the_same_pictures(folder: Path, tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    for i in range(5):
        (loose / f"p{i}.jpg").write_bytes(picture(i))
    from_tar = [photo.read() for photo in data.find(folder) if photo.name.startswith("p")]
    assert from_tar == [photo.read() for photo in data.find(loose)]
    assert len(data.find(folder)) == 6


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"nowhere: expected a folder"):
        data.find(tmp_path / "nowhere")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="found no pictures"):
        data.find(tmp_path)


def test_a_damaged_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"nonsense" * 200)
    with pytest.raises(MediaError, match=r"bad\.tar: cannot be read as an uncompressed tar"):
        data.find(tmp_path)


def test_broken_pictures_are_skipped_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not a jpeg")
    (folder / "empty.png").write_bytes(b"")
    stream = photos(folder)
    with caplog.at_level(logging.WARNING):
        stream.batch(0, 16, 32)
    assert stream.broken == {"broken.jpg", "empty.png"}
    assert caplog.text.count("is skipped") == 2


def test_only_broken_pictures_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not a jpeg")
    with pytest.raises(MediaError, match="cannot be decoded"):
        photos(tmp_path).batch(0, 1, 32)
    with pytest.raises(MediaError, match="none of the validation pictures"):
        validate.load(data.find(tmp_path), 4)


def test_a_sample_depends_on_seed_and_number_alone(folder: Path) -> None:
    one, two = photos(folder), photos(folder)
    two.batch(3, 4, 32)
    a, b = one.batch(10, 2, 64), two.batch(10, 2, 64)
    assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("grey", "rgb", "ab"))
    assert not torch.equal(a.grey, photos(folder, seed=1).batch(10, 2, 64).grey)


def test_every_picture_is_seen_once_an_epoch(folder: Path) -> None:
    stream = photos(folder)
    orders = [[stream._index(epoch * 6 + i) for i in range(6)] for epoch in range(4)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_the_target_is_the_ab_of_the_crop_at_half_size(tmp_path: Path) -> None:
    rgb = np.full((80, 80, 3), (40, 160, 90), np.uint8)
    cv2.imwrite(str(tmp_path / "flat.png"), rgb[..., ::-1])
    batch = photos(tmp_path).batch(0, 2, 64)
    assert batch.grey.shape == (2, 1, 64, 64)
    assert batch.ab.shape == (2, 2, 32, 32)
    assert batch.rgb.shape == (2, 3, 64, 64)
    expected = data.lab(rgb[:1, :1].astype(np.float32) / np.float32(255))[0, 0, 1:]
    assert torch.allclose(batch.ab, torch.from_numpy(expected)[None, :, None, None].expand_as(batch.ab), atol=1e-2)


def test_colours_of_the_reader_are_those_of_the_pipeline() -> None:
    rgb = np.random.default_rng(0).random((32, 32, 3), dtype=np.float32)
    expected = lab_from_rgb(torch.from_numpy(rgb).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    assert np.abs(data.lab(rgb) - expected).max() < 0.7  # OpenCV approximates the curves by tables


# Loss


@pytest.fixture
def bins() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0], [-40.0, 0.0], [0.0, -40.0]]), torch.full((5,), 0.2)


def test_the_loss_is_least_at_the_true_colour(bins: tuple[torch.Tensor, torch.Tensor]) -> None:
    loss = ColorLoss(*bins, sigma=5.0, rebalance=0.5, regression=0.1)
    ab = torch.tensor([0.0, 40.0])[None, :, None, None].expand(1, 2, 4, 4)
    values = [float(loss(10 * torch.eye(5)[k][None, :, None, None].expand(1, 5, 4, 4), ab)) for k in range(5)]
    assert values.index(min(values)) == 2
    assert min(values) < 0.05


def test_rare_colours_weigh_more_unless_rebalancing_is_one() -> None:
    prior = torch.tensor([0.9, 0.1, 0.0, 0.0, 0.0])
    centers = torch.tensor([[0.0, 0.0], [60.0, 0.0], [0.0, 99.0], [0.0, -99.0], [-99.0, 0.0]])
    grey, red = (torch.tensor([a, 0.0])[None, :, None, None] for a in (0.0, 60.0))
    flat = torch.zeros(1, 5, 1, 1)
    fair = ColorLoss(centers, prior, 5.0, rebalance=1.0, regression=0.0)
    rare = ColorLoss(centers, prior, 5.0, rebalance=0.3, regression=0.0)
    assert float(fair(flat, grey)) == pytest.approx(float(fair(flat, red)))
    assert float(rare(flat, red)) > 2 * float(rare(flat, grey))


def test_the_loss_learns_the_colours_own_frequencies(bins: tuple[torch.Tensor, torch.Tensor]) -> None:
    loss = ColorLoss(*bins, sigma=2.0, rebalance=1.0, regression=0.0)
    truth = bins[0][torch.tensor([1, 1, 1, 2])].T.reshape(1, 2, 2, 2)
    logits = torch.zeros(1, 5, 1, 1, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        torch.autograd.backward([loss(logits.expand(1, 5, 2, 2), truth)])
        optimizer.step()
    assert torch.softmax(logits, 1).flatten()[1:3].tolist() == pytest.approx([0.75, 0.25], abs=0.02)


def test_the_palette_covers_the_colours_and_counts_them(folder: Path) -> None:
    counts = histogram(data.find(folder), seed=0)
    centers, prior = palette(counts, 12, seed=0)
    assert centers.shape == (12, 2)
    assert float(prior.sum()) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(centers.norm(dim=1).argsort(), torch.arange(12))
    a, b = np.nonzero(counts)
    cells = torch.tensor(np.stack((a, b), 1) * 2.0 - 127, dtype=torch.float32)
    near = torch.cdist(cells, centers).min(1).values
    assert float((near * torch.tensor(counts[a, b], dtype=torch.float32)).sum() / counts.sum()) < 15
    assert torch.equal(palette(counts, 12, seed=0)[0], centers)


# Validation


def test_grey_scores_as_grey_and_the_truth_as_perfect(folder: Path) -> None:
    rgb = validate.load(data.find(folder), 2)
    truth = torch.stack([torch.from_numpy(data.lab(p.permute(1, 2, 0).numpy() / np.float32(255))) for p in rgb])
    ab = truth.permute(0, 3, 1, 2)[:, 1:]
    best, grey = validate.score(rgb, ab), validate.score(rgb, torch.zeros_like(ab))
    assert best.ab_error < 0.2  # OpenCV's Lab, used in training, approximates the cube root and the sRGB curve
    assert best.auc > 99.8
    assert best.psnr > 45
    assert grey.ab_error == pytest.approx(float(ab.norm(dim=1).mean()), rel=0.01)
    assert grey.colorfulness < 1 < best.colorfulness


def test_a_sheet_that_cannot_be_written_is_an_error(folder: Path, tmp_path: Path) -> None:
    rgb = validate.load(data.find(folder), 1)
    with pytest.raises(MediaError, match="sheet cannot be written"):
        validate.sheet(tmp_path / "none" / "sheet.png", rgb, torch.zeros(1, 2, 256, 256))


# The run


def test_a_run_writes_weights_with_their_record_metrics_and_a_sheet(config: TrainConfig) -> None:
    steps: list[Progress] = []
    path = train(config, progress=steps.append)
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert steps[-1].samples == 2 + 2 + 3 + 3  # the second row of sizes begins half-way
    with safe_open(path, "pt") as file:
        record, keys = file.metadata(), set(file.keys())
        assert file.get_tensor("head.weight").dtype == torch.float16
    assert keys == set(Compact(bins=8).state_dict())
    assert record["steps"] == "4"
    assert record["samples"] == "10"
    assert json.loads(record["settings"]) == {"pixels": 256, "bins": 8, "temperature": 0.7}
    assert json.loads(record["config"])["learning_rate"] == config.learning_rate
    with (config.output / "metrics.csv").open() as file_:
        rows = list(csv.DictReader(file_))
    assert float(rows[-1]["ab_error"]) > 0
    sheet = cv2.imread(str(config.output / "sheet_000004.png"))
    assert sheet is not None
    assert sheet.shape == (192, 3 * 3 * 192, 3)


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(config: TrainConfig, tmp_path: Path) -> None:
    whole = train(config)

    def kill(progress: Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    cut = dataclasses.replace(config, output=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train(cut, progress=kill)
    assert torch.load(cut.output / "checkpoint.pt", weights_only=True)["step"] == 2
    seen: list[Progress] = []
    again = train(cut, progress=seen.append)
    assert [step.step for step in seen] == [3, 4]
    with safe_open(whole, "pt") as one, safe_open(again, "pt") as two:
        assert all(torch.equal(one.get_tensor(key), two.get_tensor(key)) for key in one.keys())  # noqa: SIM118


def test_a_run_starts_over_when_told_to(config: TrainConfig) -> None:
    train(config)
    seen: list[Progress] = []
    train(config, resume=False, progress=seen.append)
    assert len(seen) == 4


def test_a_checkpoint_of_other_settings_or_pictures_is_refused(config: TrainConfig) -> None:
    train(dataclasses.replace(config, steps=1))
    with pytest.raises(ConfigError, match="made with other bins, seed"):
        train(dataclasses.replace(config, seed=3, bins=9))
    (config.data / "new.jpg").write_bytes(picture(20))
    with pytest.raises(ConfigError, match="made with other data"):
        train(config)


def test_a_loss_that_is_no_number_stops_the_run(config: TrainConfig) -> None:
    with pytest.raises(RestoreError, match=r"the loss is (nan|inf) at step \d.*lower learning_rate"):
        train(dataclasses.replace(config, learning_rate=1e30, steps=30))


def test_the_encoder_is_frozen_at_first_and_its_norms_too(config: TrainConfig) -> None:
    run = Run(dataclasses.replace(config, frozen_steps=2))
    run.start()
    loss = ColorLoss(run.network.bins, run.prior, 5.0, 0.5, 0.1)
    before = {key: value.clone() for key, value in run.network.state_dict().items()}

    def moved(prefix: str) -> bool:
        state = run.network.state_dict()
        return any(not torch.equal(before[key], state[key]) for key in state if key.startswith(prefix))

    batch = run.photos.batch(0, 2, 64)
    run.learn(loss, batch.grey, batch.ab)
    assert not moved("encoder.")
    assert moved("up16.")
    for _ in range(2):
        batch = run.photos.batch(0, 2, 64)
        run.learn(loss, batch.grey, batch.ab)
    assert moved("encoder.")


def test_calm_takes_the_weights_of_the_loss_back(config: TrainConfig) -> None:
    run = Run(dataclasses.replace(config, calm=1.0))
    run.start()
    rare, common = int(run.prior.argmin()), int(run.prior.argmax())
    change = run.finished().state_dict()["head.bias"] - run.average.state_dict()["head.bias"]
    assert change[rare] < 0 < change[common]
    vivid = Run(dataclasses.replace(config, calm=0.0))
    vivid.start()
    average = vivid.average.state_dict()
    assert all(torch.equal(value, average[key]) for key, value in vivid.finished().state_dict().items())


def test_the_learning_rate_rises_then_falls_to_almost_nothing(config: TrainConfig) -> None:
    run, rates = Run(dataclasses.replace(config, steps=100, warmup=0.1)), []
    for run.step in range(101):
        rates.append(run.rate())
    assert max(rates) == rates[10] == pytest.approx(config.learning_rate)
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rates[-1] < config.learning_rate / 500


def test_time_ends_a_run_before_its_steps_do(config: TrainConfig) -> None:
    run = Run(dataclasses.replace(config, steps=1000, minutes=1.0))
    run.step, run.seconds = 10, 45.0
    assert run.share() == pytest.approx(0.75)
