from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jobs import write_config

from restore.errors import ConfigError, RestoreError
from restore.job import JobConfig, load
from restore.shipped import data_folder

BAD: list[tuple[dict[str, Any], str]] = [
    ({"films": 0}, "films must be at least 1, found 0"),
    ({"reports": 0}, "reports must be at least 1"),
    ({"executor": 0}, "executor must be at least 1, found 0"),
    ({"retries": -1}, "retries must not be negative"),
    ({"backoff_seconds": -0.5}, "backoff_seconds must not be negative"),
    ({"settle_seconds": -1}, "settle_seconds must not be negative"),
    ({"minutes": 0}, "minutes must be positive"),
    ({"film_minutes": -3}, "film_minutes must be positive"),
    ({"inputs": []}, "inputs and output must not be empty"),
    ({"films": "two"}, r"films: .*integer.*found 'two'"),
    ({"overwrite": 1}, "overwrite: .*boolean"),
    ({"settings": ["smooth.radius=2"]}, "settings: .*object"),
    ({"fims": 2}, r"unknown setting 'fims' \(did you mean films\? known: inputs, output, include"),
    ({"zzz": 2}, r"unknown setting 'zzz' \(known: inputs"),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_a_wrong_setting_is_named(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"job.yaml: {message}"):
        load(write_config(tmp_path, "tiny", **values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inputs: [", "job.yaml:1: expected the node content"),
        ("- a\n- b", "expected settings as `name: value`, found "),
        ("output: out", "inputs must be given"),
        ("{}", "inputs and output must be given"),
        ("inputs: a\ninputs: b\noutput: c", "'inputs' is given twice"),
        (
            "inputs: a\noutput: b\nsettings: {a.b: 2020-01-01, c: !!binary aGk=}",
            r"settings.c: expected text, numbers, lists or mappings \(found b'hi'\)",
        ),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(path)
    with pytest.raises(ConfigError, match=r"nowhere.yaml: cannot be read"):
        load(tmp_path / "nowhere.yaml")


def test_relative_paths_are_relative_to_the_file_wherever_the_job_is_started(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text("stages: []")
    config = load(
        write_config(
            tmp_path, "compact-v1", inputs=["in/*.mov", "s3://bucket/in/"], output="s3://bucket/out",
            pipeline="slow.yaml", executor="slurm", scratch="tmp",
        )
    )  # fmt: skip
    assert config.inputs == (f"{tmp_path}/in/*.mov", "s3://bucket/in/")
    assert config.output == "s3://bucket/out"
    assert config.pipeline == f"{tmp_path}/slow.yaml"
    assert (config.weights, config.profile, config.executor) == ("compact-v1", "access", "slurm")
    assert config.scratch == tmp_path / "tmp"


def test_a_file_that_is_not_there_is_missed_where_it_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "slow.yaml").write_text("stages: []")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.safetensors").write_bytes(b"")
    config = load(write_config(tmp_path, "~/own.safetensors", pipeline="slow.yaml", profile="~/mine.yml"))
    assert config.pipeline == f"{tmp_path}/slow.yaml"
    assert config.profile == f"{tmp_path}/mine.yml"
    assert config.weights == f"{tmp_path}/own.safetensors"


def test_the_shipped_configuration_is_right_and_says_the_defaults() -> None:
    config = load(data_folder("configs") / "nightly.yaml")
    assert config.output == "/archive/colour"
    assert config.loaded_profile().name == "access"
    assert len(config.key(still=False)) == 64
    same = JobConfig(inputs=config.inputs, output=config.output)
    changed = {name for name in JobConfig.__slots__ if getattr(config, name) != getattr(same, name)}
    assert changed == {"exclude", "minutes", "film_minutes"}


@pytest.mark.parametrize(
    ("executor", "name", "value"),
    [(3, "workers", 3), ("tcp://host:8786", "dask", "tcp://host:8786"), ("slurm", "executor", "slurm")],
)
def test_the_executor_is_a_number_an_address_or_a_name(executor: int | str, name: str, value: object) -> None:
    options = JobConfig(inputs=("in",), output="out", executor=executor).options()
    assert getattr(options, name) == value


def test_settings_reach_the_stages(tiny_weights: Path) -> None:
    options = JobConfig(inputs=("in",), output="out", settings={"smooth.radius": 2, "paint.saturation": 0.5}).options()
    assert options.settings == ("smooth.radius=2", "paint.saturation=0.5")


def test_numbered_frames_are_refused() -> None:
    with pytest.raises(ConfigError, match="a job writes files, not numbered frames"):
        JobConfig(inputs=("in",), output="out", profile="sequence").loaded_profile()


def test_the_key_changes_with_what_is_chosen_and_not_with_where_it_is_computed(tiny_weights: Path) -> None:
    def key(**changes: Any) -> str:
        values: dict[str, Any] = {"inputs": ("in",), "output": "out", "weights": str(tiny_weights), "device": "cpu"}
        return JobConfig(**(values | changes)).key(still=False)

    assert key() == key(films=4, retries=9, output="elsewhere", executor=2)
    others = [key(profile="archive"), key(settings={"smooth.radius": 2}), key(precision="fp32"), key(weights=None)]
    assert len({key(), *others}) == 5
    with pytest.raises(RestoreError, match="unknown setting 'radios'"):
        key(settings={"smooth.radios": 2})
