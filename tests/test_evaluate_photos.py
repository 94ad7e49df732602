"""The protocol for photographs: what is read, how it is greyed, coloured and painted, and what it scores."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from photographs import write_tar
from skimage.color import rgb2lab
from torch import Tensor, nn

from restore import generators, weights
from restore.errors import ConfigError, MediaError
from restore.evaluate import photos, sets
from restore.evaluate.frechet import network
from restore.evaluate.judge import Judge, paint
from restore.generators.compact import Compact
from restore.metrics import colorfulness, psnr, ssim
from restore.photographs import Photo, find


def photo(seed: int, height: int = 60, width: int = 80, strength: float = 60) -> NDArray[np.uint8]:
    """Make smooth colours (H, W, 3), R'G'B'."""
    noise = np.random.default_rng(seed).normal(size=(6, 8, 3)).astype(np.float32)
    smooth = np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))
    grey = smooth.mean(2, keepdims=True)
    return np.asarray(np.clip(120 + 40 * grey + strength * (smooth - grey), 0, 255), np.uint8)


def save(path: Path, picture: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[..., ::-1])
    return path


def test_photographs_are_stretched_to_256_and_upright(tmp_path: Path) -> None:
    picture = np.zeros((512, 1024, 3), np.uint8)
    picture[:, 512:] = 255
    read = sets.read(find(save(tmp_path / "wide.png", picture))[0])
    assert read is not None
    assert read.shape == (256, 256, 3)
    assert not read[:, :128].any()
    assert (read[:, 128:] == 255).all()


def test_a_sample_is_spread_over_the_whole_set_and_always_the_same(tmp_path: Path) -> None:
    all_ = [Photo(tmp_path, None, 1, str(number)) for number in range(10)]
    assert [one.name for one in sets.pick(all_, 4)] == ["0", "2", "5", "7"]
    assert sets.pick(all_, None) == sets.pick(all_, 99) == all_


def test_classes_come_from_the_folders_or_from_a_table(tmp_path: Path) -> None:
    save(tmp_path / "281" / "cat.png", photo(0))
    save(tmp_path / "5000" / "none.png", photo(1))
    save(tmp_path / "dog.png", photo(2))
    found = find(tmp_path)
    write_tar(tmp_path / "all.tar", {photo.name: photo.read() for photo in found})
    assert sets.labels(found) == {"281/cat.png": 281}
    assert sets.labels(find(tmp_path / "all.tar")) == {"281/cat.png": 281}
    assert sets.labels(find(tmp_path / "281")) == {"cat.png": 281}
    table = tmp_path / "labels.csv"
    table.write_text("name,class\ndog.png, 207\n5000/none.png,3\nother.png,1\n")
    assert sets.labels(found, table) == {"dog.png": 207, "5000/none.png": 3}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("dog.png,1000\n", r"row 1: expected a name and an ImageNet class 0 to 999, found \['dog.png', '1000'\]"),
        ("name,class\na.png,1\nb.png\n", r"row 2: expected a name and an ImageNet class"),
        ("other.png,4\n", r"names none of the photographs; its first is other.png, theirs dog.png"),
        ("", "names none of the photographs; its first is nothing"),
    ],
)
def test_a_wrong_table_of_classes_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        sets.labels([Photo(tmp_path, None, 1, "dog.png")], table)


def test_a_missing_table_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labels.csv: cannot be read as CSV"):
        sets.labels([Photo(tmp_path, None, 1, "dog.png")], tmp_path / "labels.csv")


def test_truths_are_the_readable_pictures(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"{number}.png", photo(number))
    (tmp_path / "1.png").write_bytes(b"broken")
    whole = photos.truths(tmp_path)
    assert (whole.shape, whole.dtype) == ((3, 3, 256, 256), torch.uint8)
    assert torch.equal(photos.truths(tmp_path, 2), whole[[0, 1]])  # of four, the first and the third
    for number in (0, 2, 3):
        (tmp_path / f"{number}.png").write_bytes(b"broken")
    with pytest.raises(MediaError, match="none of its pictures can be decoded"):
        photos.truths(tmp_path)
    with pytest.raises(MediaError, match="none of its pictures can be decoded"):
        photos.mean_ab(tmp_path)


def test_the_mean_colour_is_that_of_all_pictures_alike(tmp_path: Path) -> None:
    red, blue = np.full((40, 40, 3), (200, 60, 60), np.uint8), np.full((90, 40, 3), (40, 60, 200), np.uint8)
    save(tmp_path / "red.png", red)
    save(tmp_path / "blue.png", blue)
    expected = (rgb2lab(red)[0, 0, 1:] + rgb2lab(blue)[0, 0, 1:]) / 2
    assert photos.mean_ab(tmp_path) == pytest.approx(expected, abs=0.02)


class Echo(nn.Module):
    """A generator that says what it was given: a* is 100 times the grey, at half of a size of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.weight = nn.Parameter(torch.zeros(1))

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height // 2, width // 2

    def colorize(self, gray: Tensor) -> Tensor:
        assert gray.shape[1:] == (1, 128, 128)
        ab = self.drop(100 * gray[:, :, ::2, ::2])
        return torch.cat((ab, -ab), 1)


def test_a_generator_is_given_bt601_luma_at_its_own_size_and_its_mode_is_kept() -> None:
    echo, rgb = Echo(), torch.zeros(3, 3, 256, 256, dtype=torch.uint8)
    rgb[0, 0], rgb[1, 1], rgb[2, 2] = 255, 255, 255
    ab = photos.colorize(echo, rgb, batch=2)  # type: ignore[arg-type]
    assert (ab.shape, ab.dtype) == ((3, 2, 256, 256), torch.float32)
    for place, share in enumerate((29.9, 58.7, 11.4)):
        assert torch.allclose(ab[place, 0], torch.tensor(share), atol=1e-3)
        assert torch.allclose(ab[place, 1], torch.tensor(-share), atol=1e-3)
    assert echo.training


def test_a_network_and_the_same_loaded_from_a_file_colour_alike(tiny_weights: Path) -> None:
    loaded = generators.load(tiny_weights, precision="fp32")
    network = generators.build("compact", pixels=64)
    assert isinstance(network, Compact)
    generators.load_state(network, weights.read_state(tiny_weights), "compact", tiny_weights)
    rgb = photos.tensor([sets.square(photo(number)) for number in range(3)])
    one, two = photos.colorize(loaded, rgb), photos.colorize(network, rgb)
    assert one.abs().max() > 1
    assert torch.allclose(one, two, atol=1e-2)
    assert torch.allclose(photos.colorize(network, rgb, autocast=True), two, atol=2)


def test_painting_keeps_the_lightness_and_gives_the_colour() -> None:
    rgb = photos.tensor([sets.square(photo(1, strength=10))])
    ab = torch.zeros(1, 2, 256, 256)
    ab[:, 0], ab[:, 1] = 12, -9
    lab = rgb2lab(paint(rgb, ab)[0].permute(1, 2, 0).numpy())
    before = rgb2lab(rgb[0].permute(1, 2, 0).numpy())
    assert np.abs(lab[..., 0] - before[..., 0]).max() < 0.6  # half a code value
    assert np.abs(lab[..., 1:] - np.array([12, -9])).mean() < 0.4


def test_a_score_is_the_mean_of_independent_measures() -> None:
    rgb = photos.tensor([sets.square(photo(number)) for number in range(5)])
    ab = torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 25
    ab = torch.nn.functional.interpolate(ab, (256, 256), mode="bilinear")
    scores = photos.score(rgb, ab, features=False)
    true, found = (x.permute(0, 2, 3, 1).numpy() for x in (rgb, paint(rgb, ab)))
    errors = np.linalg.norm(rgb2lab(true)[..., 1:] - rgb2lab(found)[..., 1:], axis=-1)
    assert scores.pictures == len(scores.rows) == 5
    assert scores.ab_error == pytest.approx(errors.mean(), rel=1e-3)
    assert scores.auc == pytest.approx(100 * (1 - errors / 150).mean(), rel=1e-4)
    assert scores.psnr == pytest.approx(np.mean([psnr(*pair) for pair in zip(true, found, strict=True)]))
    assert scores.ssim == pytest.approx(np.mean([ssim(*pair) for pair in zip(true, found, strict=True)]))
    strengths = [np.mean([colorfulness(one) for one in many]) for many in (true, found)]
    assert scores.colorfulness == pytest.approx(strengths[1])
    assert scores.colorfulness_delta == pytest.approx(strengths[1] - strengths[0])
    for name in ("psnr", "ssim", "ab_error", "auc", "colorfulness"):
        assert np.mean([getattr(row, name) for row in scores.rows]) == pytest.approx(getattr(scores, name))
    assert (scores.fd, scores.top1, scores.labelled) == (None, None, 0)


def test_the_true_colours_score_best_and_grey_loses_its_distance_to_them() -> None:
    rgb = photos.tensor([sets.square(photo(number)) for number in range(6)])
    ab = torch.from_numpy(rgb2lab(rgb.permute(0, 2, 3, 1).numpy())[..., 1:]).permute(0, 3, 1, 2).float()
    truth, grey = photos.score(rgb, ab), photos.score(rgb, torch.zeros_like(ab))
    assert truth.ab_error is not None
    assert truth.fd is not None
    assert grey.fd is not None
    assert truth.ab_error < 0.2
    assert truth.outliers == pytest.approx(0.1, abs=0.05)
    assert grey.outliers == 0
    assert truth.fd < 0.05 * grey.fd
    assert photos.score(rgb[:1], ab[:1]).fd is None  # one picture has no covariance


def test_colours_of_other_photographs_are_refused() -> None:
    rgb = torch.zeros(2, 3, 256, 256, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"expected ab \(N, 2, H, W\) for photographs \(2, 3, 256, 256\)"):
        photos.score(rgb, torch.zeros(1, 2, 256, 256))
    with pytest.raises(ValueError, match=r"got \(2, 2, 128, 128\)"):
        photos.score(rgb, torch.zeros(2, 2, 128, 128))


def test_top_1_is_the_share_of_the_labelled_pictures_that_are_recognised() -> None:
    rgb = photos.tensor([sets.square(photo(number)) for number in range(4)])
    grey = {"grey": torch.zeros(4, 2, 2, 2)}
    with torch.inference_mode():
        seen = network(torch.device("cpu"))(rgb.float() / 255).argmax(1).tolist()
    judge = Judge(["grey"])
    verdicts = judge.add(rgb, grey, list("abcd"), [seen[0], seen[1], (seen[2] + 1) % 1000, None])
    assert judge.scores()["truth"].top1 == pytest.approx(200 / 3)
    assert judge.scores()["truth"].labelled == 3
    assert [row.predicted for row in verdicts["truth"].rows[:3]] == seen[:3]


def test_without_a_truth_only_what_needs_none_is_measured() -> None:
    judge = Judge(["grey"], truth=False)
    judge.add(photos.tensor([sets.square(photo(0))]), {"grey": torch.zeros(1, 2, 2, 2)}, ["a"])
    (scores,) = judge.scores().values()
    none = ("psnr", "ssim", "ab_error", "auc", "auc_rebalanced", "colorfulness_delta", "outliers", "fd", "top1")
    assert all(getattr(scores, name) is None for name in none)
    assert scores.colorfulness == pytest.approx(0, abs=0.1)
