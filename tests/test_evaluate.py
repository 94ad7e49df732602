"""`restore evaluate` as a whole: its table, its files, and what it says of sources that are hard to judge."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import make_clip
from media import make_film
from test_evaluate_photos import photo, save

from restore import run
from restore.errors import ConfigError, MediaError, WeightsError
from restore.evaluate import Report, evaluate
from restore.evaluate.films import _together
from restore.evaluate.gallery import Gallery
from restore.evaluate.sets import square


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(5):
        save(tmp_path / "set" / f"{number}.png", photo(number))
    return tmp_path / "set"


def judged(source: Path, weights: Path, **options: object) -> Report:
    settings = {"features": False, "device": "cpu", "precision": "fp32", **options}
    return evaluate(source, weights, **settings)  # type: ignore[arg-type]


def test_the_command_prints_a_table_and_writes_a_page_json_and_csv(
    pictures: Path,
    tiny_weights: Path,
    tmp_path: Path,
    call: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "new" / "report"
    words = ["evaluate", pictures, "-o", output, "--weights", tiny_weights, "--device", "cpu", "--sheets", 3]
    assert call(*words) == 0
    said = capsys.readouterr().out
    for title in ("PSNR", "SSIM", "ab error", "AuC rebal.", "FD", "CF", "ΔCF", "outliers %"):
        assert title in said
    for method in ("grey", "mean chroma", "tiny", "truth"):
        assert re.search(rf"^{method} ", said, re.MULTILINE)
    assert "tiny: ab error" in said
    assert "FD is by features of EfficientNet-Lite0 of 5 pictures" in said
    assert sorted(file.name for file in output.iterdir()) == ["index.html", "pictures.csv", "scores.csv", "scores.json"]
    found = json.loads((output / "scores.json").read_text())
    assert found["parts"][0]["scores"]["tiny"]["fd"] > 0
    assert len(found["parts"][0]["pictures"]["tiny"]) == 5
    assert found["about"][f"weights {tiny_weights}"]
    with (output / "scores.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert float(rows["tiny"]["fd"]) == pytest.approx(found["parts"][0]["scores"]["tiny"]["fd"])
    assert rows["truth"]["psnr"] == ""
    with (output / "pictures.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4 * 5
    page = (output / "index.html").read_text()
    assert page.count("<figure>") == 3
    assert page.count("data:image/jpeg;base64,") == 9
    assert "http" not in page


def test_the_sheets_are_the_worst_first(pictures: Path, tiny_weights: Path) -> None:
    (part,) = judged(pictures, tiny_weights, sheets=4).parts
    errors = sorted(((row.ab_error or 0, row.name) for row in part.scores["tiny"].rows), reverse=True)
    assert [sheet.name for sheet in part.sheets] == [name for _, name in errors[:4]]
    assert [method for method, _ in part.sheets[0].panels] == ["grey", "tiny", "truth"]
    assert all(jpeg.startswith(b"\xff\xd8") for _, jpeg in part.sheets[0].panels)


def test_the_baselines_are_grey_and_one_colour_everywhere(pictures: Path, tiny_weights: Path) -> None:
    (part,) = judged(pictures, tiny_weights, mean_of=pictures).parts
    grey, mean = part.scores["grey"], part.scores["mean chroma"]
    assert grey.colorfulness == pytest.approx(0, abs=0.1)
    assert grey.ab_error is not None
    assert mean.ab_error is not None
    assert mean.ab_error != grey.ab_error
    assert f"the mean of {pictures}" in part.notes[0]
    assert judged(pictures, tiny_weights).parts[0].notes[0].startswith("mean chroma is a* ")


def test_two_generators_are_judged_beside_each_other(pictures: Path, tiny_weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny_weights.read_bytes())
    (part,) = judged(pictures, tiny_weights, compare=other, sheets=1).parts
    assert part.methods == ("grey", "mean chroma", "tiny", "other")
    assert part.scores["tiny"].ab_error == part.scores["other"].ab_error
    assert [method for method, _ in part.sheets[0].panels] == ["grey", "tiny", "other", "truth"]
    with pytest.raises(ConfigError, match="two generators cannot both be called tiny"):
        judged(pictures, tiny_weights, compare=[tiny_weights])


def test_the_command_compares_two_generators_by_their_names(
    pictures: Path, tiny_weights: Path, tmp_path: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", pictures, "-o", tmp_path / "out", "--compare", "compact-v1", tiny_weights, "--device", "cpu"]
    assert call(*words, "--limit", 2, "--no-features", "--sheets", 1) == 0
    said = capsys.readouterr().out
    for method in ("grey", "mean chroma", "compact-v1", "tiny", "truth"):
        assert re.search(rf"^{method} ", said, re.MULTILINE)
    assert "compact-v2" not in said


def test_broken_and_grey_pictures_are_left_out_and_said(pictures: Path, tiny_weights: Path) -> None:
    (pictures / "1.png").write_bytes(b"broken")
    save(pictures / "3.png", photo(3, strength=0))
    (part,) = judged(pictures, tiny_weights).parts
    assert [row.name for row in part.scores["tiny"].rows] == ["0.png", "2.png", "4.png"]
    assert "left out, because they cannot be decoded: 1 (first: 1.png)" in part.notes
    assert "left out, because they are grey and have no colours to judge by: 1 (first: 3.png)" in part.notes


def test_of_black_and_white_photographs_what_needs_no_truth_is_measured(tmp_path: Path, tiny_weights: Path) -> None:
    for number in range(2):
        save(tmp_path / f"{number}.png", photo(number, strength=0))
    (part,) = judged(tmp_path, tiny_weights, features=True).parts
    assert not part.truth
    assert part.table()[0] == ["", "CF"]
    assert "black and white: without a truth, nearness to it cannot be measured" in part.notes
    assert [method for method, _ in part.sheets[0].panels] == ["grey", "tiny"]


def test_one_photograph_has_no_fd_and_the_report_says_why(tmp_path: Path, tiny_weights: Path) -> None:
    (part,) = judged(save(tmp_path / "one.png", photo(1)), tiny_weights, features=True).parts
    assert part.scores["tiny"].fd is None
    assert "FD is not given: it needs at least 2 pictures, better thousands, and there is 1" in part.notes


def test_photographs_of_which_none_can_be_judged_are_refused(tmp_path: Path, tiny_weights: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"broken")
    with pytest.raises(MediaError, match=r"holds nothing to judge by: left out, because they cannot be decoded: 1"):
        judged(tmp_path, tiny_weights)


def test_labels_make_top_1(pictures: Path, tiny_weights: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("0.png,1\n1.png,2\n")
    (part,) = judged(pictures, tiny_weights, labels=table, features=True, limit=3).parts
    assert part.scores["tiny"].labelled == 2
    assert part.scores["truth"].top1 is not None
    assert "top-1 %" in part.table()[0]
    assert "top-1 is of 2 labelled pictures" in part.notes


@pytest.mark.parametrize("option", [{"limit": 0}, {"sheets": -1}])
def test_numbers_out_of_range_are_refused(pictures: Path, tiny_weights: Path, option: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="limit must be at least 1 and sheets not negative"):
        judged(pictures, tiny_weights, **option)


def test_what_is_not_there_is_refused_before_the_work(pictures: Path, tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no file and are no weights"):
        evaluate(pictures, "no-such-weights")
    with pytest.raises(ConfigError, match="nothing to judge by"):
        evaluate([], tiny_weights)
    with pytest.raises(MediaError, match="does not exist; name a folder, a tar file, a picture or a film"):
        judged(tmp_path / "no.mp4", tiny_weights)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(MediaError, match="cannot be made a folder for the report"):
        judged(pictures, tiny_weights, output=blocked)
    (tmp_path / "report" / "scores.csv").mkdir(parents=True)
    with pytest.raises(MediaError, match=r"scores.csv: cannot be written"):
        judged(pictures, tiny_weights, output=tmp_path / "report", limit=1)


def test_a_colour_film_is_judged_frame_by_frame_with_what_run_would_give_it(tmp_path: Path, tiny_weights: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=21, shots=(9,), colored=True)
    (part,) = judged(film, tiny_weights).parts
    motion = part.motions["tiny"]
    (done,) = run(film, tmp_path / "out.mp4", weights=str(tiny_weights), device="cpu", precision="fp32")
    assert motion.chroma == pytest.approx(done.mean_chroma, abs=0.02)  # type: ignore[union-attr]
    assert [row.name for row in part.scores["tiny"].rows] == [str(frame) for frame in range(21)]
    assert part.truth
    assert any("in 2 shots" in note for note in part.notes)
    assert motion.cdc is not None
    assert part.motions["grey"].warp_error == 0
    assert part.motions["truth"].warp_error is not None
    assert part.motions["grey"].flicker == 0
    truth = part.scores["truth"]
    assert truth.colorfulness > 20
    limited = judged(film, tiny_weights, limit=5).parts[0]
    assert len(limited.scores["tiny"].rows) == 5


def test_the_truth_of_a_film_is_its_own_picture(tmp_path: Path, tiny_weights: Path) -> None:
    """Decoded by libswscale, and resized as photographs are: within a code or two."""
    import av

    from restore.evaluate.films import colored, open_film, pictures_of
    from restore.setup import Options

    film = make_film(
        tmp_path / "film.mkv", frames=3, colored=True, codec="ffv1", pix_fmt="yuv444p", matrix=1, primaries=1
    )
    clip = next(iter(colored(open_film(film), [Options(weights=str(tiny_weights), device="cpu")])))[0]
    with av.open(str(film)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for mine, theirs in zip(pictures_of(clip), frames, strict=True):
        assert np.abs(mine.astype(int) - square(np.asarray(theirs, np.uint8))).mean() < 1.5


def test_a_black_and_white_film_is_measured_without_a_truth(tmp_path: Path, tiny_weights: Path) -> None:
    film = make_film(tmp_path / "film.mkv", frames=6, codec="ffv1", pix_fmt="gray")
    (part,) = judged(film, tiny_weights).parts
    assert not part.truth
    assert set(part.scores) == {"grey", "mean chroma", "tiny"}
    assert part.table()[0] == ["", "warp error", "flicker", "chroma", "CF", "CDC"]
    assert part.motions["tiny"].warp_error is not None
    assert [method for method, _ in part.sheets[0].panels] == ["grey", "tiny"]


def test_cdc_is_never_shown_without_the_colourfulness_beside_it(tmp_path: Path, tiny_weights: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=6, colored=True)
    report = judged(film, tiny_weights, output=tmp_path / "report")
    titles = report.parts[0].table()[0]
    assert titles[titles.index("CDC") - 1] == "CF"
    header = (tmp_path / "report" / "scores.csv").read_text().splitlines()[0].split(",")
    assert header[header.index("cdc") - 1] == "colorfulness"
    assert re.search(r"<th>CF</th>\s*<th>CDC</th>", (tmp_path / "report" / "index.html").read_text())
    for scores in json.loads((tmp_path / "report" / "scores.json").read_text())["parts"][0]["scores"].values():
        assert scores["colorfulness"] is not None


def test_photographs_are_one_set_and_each_film_its_own(pictures: Path, tmp_path: Path, tiny_weights: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=2, colored=True)
    seen: list[tuple[str, int, int | None]] = []
    report = evaluate(
        [pictures / "0.png", film, pictures / "1.png"],
        tiny_weights,
        features=False,
        device="cpu",
        progress=lambda *now: seen.append(now),
    )
    assert [(part.kind, part.scores["tiny"].pictures) for part in report.parts] == [("photographs", 2), ("film", 2)]
    assert ("photographs", 2, 2) in seen
    assert ("judge", 2, 2) in seen


def test_flows_that_are_cut_differently_come_together() -> None:
    clip = make_clip(10)
    flows = [iter([clip[:3], clip[3:10]]), iter([clip[:5], clip[5:6], clip[6:10]])]
    spans = [[one.span for one in clips] for clips in _together(flows)]
    assert spans == [[(0, 2)] * 2, [(3, 4)] * 2, [(5, 5)] * 2, [(6, 9)] * 2]


def test_a_gallery_keeps_the_worst_and_one_of_each_group() -> None:
    gallery, picture = Gallery(2), {"grey": np.zeros((8, 8, 3), np.uint8)}
    for group, badness in ((0, 5), (0, 9), (0, 7), (1, 3), (2, 6), (3, 1)):
        gallery.offer(group, f"{group}/{badness}", "", badness, picture)
    assert [sheet.name for sheet in gallery.sheets()] == ["0/9", "2/6"]
    none = Gallery(0)
    none.offer(0, "a", "", 1, picture)
    assert none.sheets() == ()
