"""What starts scheduled jobs: as valid as can be said without the systems, and with commands that exist."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from kubernetes import client as kubernetes
from kubernetes_api import cluster_schema

import restore
from restore.cli import cli
from restore.job.config import load
from restore.shipped import data_folder

ROOT = Path(restore.__file__).parent.parent
FOLDER = data_folder("configs") / "cluster"
PROGRAM = "/opt/restore/bin/restore"


def text(name: str) -> str:
    return (FOLDER / name).read_text()


def check_command(words: list[str]) -> None:
    """Fail unless `restore` has such a command with such options and enough arguments."""
    command: click.Command = cli
    arguments = []
    while words:
        word = words.pop(0)
        if word.startswith("-"):
            options = {name: one for one in command.params for name in one.opts if isinstance(one, click.Option)}
            assert word in options, f"{command.name} has no {word}"
            if not options[word].is_flag:
                words.pop(0)
        elif isinstance(command, click.Group):
            assert word in command.commands, f"no command {word}"
            command = command.commands[word]
        else:
            arguments.append(word)
    wanted = [one for one in command.params if isinstance(one, click.Argument) and one.required]
    assert len(arguments) >= len(wanted), f"{command.name} wants {[one.name for one in wanted]}"


def commands_in(page: str) -> list[str]:
    """Return the `restore` commands of a page: in code lines, up to their explanation, and between backticks."""
    blocks = re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    found = [re.split(r"\s{2,}", line)[0] for line in lines if line.startswith("restore ")]
    return found + [" ".join(one.split()) for one in re.findall(r"`(restore [a-z][^`]*\s[^`]+)`", prose)]


def test_the_commands_of_the_readme_exist() -> None:
    found = commands_in((ROOT / "README.md").read_text())
    assert len(found) >= 10
    for line in found:
        check_command([word for word in shlex.split(line)[1:] if word != "..."])


def test_a_command_that_does_not_exist_is_noticed() -> None:
    for wrong in (["jobs", "x"], ["job"], ["job", "--watsch", "x"], ["weights", "get", "x"]):
        with pytest.raises(AssertionError):
            check_command(wrong)


# SLURM


def test_the_batch_script_is_one_that_bash_and_sbatch_can_read() -> None:
    script = text("restore.sbatch")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    assert all(line.startswith("#") or not line for line in lines[:first])
    assert sum(line.startswith("#SBATCH") for line in lines[:first]) == len(directives), "one comes after a command"
    assert all(re.fullmatch(r"--[a-z-]+(=\S+)?", line) for line in directives)
    said = dict(line.removeprefix("--").partition("=")[::2] for line in directives)
    assert {"requeue", "open-mode", "signal", "time", "mem"} <= said.keys()
    assert re.fullmatch(r"B:USR1@\d+", said["signal"])
    assert "array" not in said


@pytest.fixture
def batch(tmp_path: Path) -> Any:
    """Run the batch script with stand-ins for `restore` and `scontrol`."""

    def start(program: str) -> subprocess.Popen[str]:
        for name, body in (("restore", program), ("scontrol", f"echo $@ > {tmp_path}/scontrol")):
            file = tmp_path / name
            file.write_text(f"#!/bin/bash\necho $@ > {tmp_path}/{name}.called\n{body}\n")
            file.chmod(0o755)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
        script = FOLDER / "restore.sbatch"
        return subprocess.Popen(["bash", str(script), "n.yaml"], env=environment, text=True, stdout=subprocess.PIPE)

    return start


@pytest.mark.parametrize(("code", "wanted"), [(0, 0), (3, 3), (75, 0), (2, 2)])
def test_the_batch_script_passes_on_how_the_job_ended(batch: Any, tmp_path: Path, code: int, wanted: int) -> None:
    process = batch(f"exit {code}")
    process.communicate(timeout=60)
    assert process.returncode == wanted
    check_command(shlex.split((tmp_path / "restore.called").read_text()))
    assert not (tmp_path / "scontrol").with_suffix(".called").exists()


@pytest.mark.parametrize(("signal", "requeued"), [("USR1", True), ("TERM", False)])
def test_the_batch_script_stops_the_job_and_queues_itself_again(
    batch: Any, tmp_path: Path, signal: str, requeued: bool
) -> None:
    process = batch(f"trap 'sleep 0.3; touch {tmp_path}/clean; exit 130' TERM; touch {tmp_path}/up; sleep 60 & wait")
    while not (tmp_path / "up").exists():
        assert process.poll() is None
    subprocess.run(["kill", f"-{signal}", str(process.pid)], check=True)
    process.wait(timeout=60)
    assert process.returncode == 130
    assert (tmp_path / "clean").exists(), "it did not wait for the job to end"
    assert (tmp_path / "scontrol").with_suffix(".called").exists() == requeued
    process.stdout.close()


# Kubernetes


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text(name)))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("restore-cronjob.yaml", ["V1CronJob"]),
        ("restore-rbac.yaml", ["V1ServiceAccount", "V1Role", "V1RoleBinding"]),
    ],
)
def test_kubernetes_knows_all_that_a_template_says(name: str, kinds: list[str]) -> None:
    api = kubernetes.ApiClient()
    found = documents(name)
    assert [f"V1{one['kind']}" for one in found] == kinds
    for one, kind in zip(found, kinds, strict=True):
        read = api.deserialize(json.dumps(one), kind, "application/json")
        known = api.sanitize_for_serialization(read)  # type: ignore[no-untyped-call]
        assert known == one, "a field was not understood"


def test_the_pod_of_the_cron_job_is_a_valid_pod() -> None:
    (cron,) = documents("restore-cronjob.yaml")
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    schema = cluster_schema()["properties"]["worker"]["properties"]["spec"]
    jsonschema.Draft202012Validator(schema).validate(pod)
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["envFrom"][0]["secretRef"]["name"] == "restore-s3"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    program, *words = container["command"]
    assert program == "restore"
    check_command(words)


def test_the_cron_job_does_what_exit_codes_mean() -> None:
    (cron,) = documents("restore-cronjob.yaml")
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    assert_cron_times(cron["spec"]["schedule"].split())
    job = cron["spec"]["jobTemplate"]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never", "a failure policy needs it"
    rules = [rule for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    actions = {code: rule["action"] for rule in rules for code in rule["onExitCodes"]["values"]}
    assert actions == {75: "Ignore", 2: "FailJob", 3: "FailJob"}
    names = {container["name"] for container in job["template"]["spec"]["containers"]}
    assert {rule["onExitCodes"]["containerName"] for rule in rules} == names
    minutes = load(data_folder("configs") / "nightly.yaml").minutes
    assert minutes is not None
    assert job["activeDeadlineSeconds"] > minutes * 60, "the job stops cleanly before it is killed"


def test_the_image_installs_extras_that_exist() -> None:
    (line,) = [line for line in text("Dockerfile").splitlines() if "pip install" in line]
    (extras,) = re.findall(r"/src\[([\w,]+)\]", line)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"cloud", "cluster"} <= set(extras.split(",")) <= known.keys()


# systemd and cron


def units() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read([FOLDER / "restore.service", FOLDER / "restore.timer"])
    return parser


def test_the_service_starts_a_command_that_exists_and_takes_75_for_success() -> None:
    service = units()["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert program == PROGRAM
    check_command(words)
    assert "75" in service["SuccessExitStatus"].split()
    assert service["Type"] == "oneshot"
    assert service["KillMode"] == "mixed", "the job ends its own processes"
    assert "PrivateDevices" not in service, "it would hide the GPUs"
    assert units()["Install"]["WantedBy"] == "timers.target"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_service_and_the_timer(tmp_path: Path) -> None:
    program = tmp_path / "restore"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in ("restore.service", "restore.timer"):
        (tmp_path / name).write_text(text(name).replace(PROGRAM, str(program)))
    command = [
        "systemd-analyze",
        "verify",
        "--man=no",
        str(tmp_path / "restore.service"),
        str(tmp_path / "restore.timer"),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in found.stderr.splitlines() if "restore." in line]
    assert (found.returncode, ours) == (0, [])


def assert_cron_times(fields: list[str]) -> None:
    for field, (low, high) in zip(fields, ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7)), strict=True):
        for one in field.split(","):
            found = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/([1-9]\d*))?", one)
            assert found, f"{one} is no time of cron"
            assert all(low <= int(number) <= high for number in found.groups()[:2] if number)


def test_the_line_for_cron_has_five_times_and_a_command_that_exists() -> None:
    lines = [line for line in text("restore.crontab").splitlines() if line and not line.startswith("#")]
    (line,) = [line for line in lines if not re.match(r"[A-Z]+=", line)]
    *times, command = line.split(maxsplit=5)
    assert_cron_times(times)
    assert "%" not in command, "cron ends a line there"
    before, after = command.split("||")
    program, *words = shlex.split(before)
    assert program == PROGRAM
    check_command(words)
    for code, wanted in ((0, 0), (75, 0), (3, 1)):
        done = subprocess.run(["sh", "-c", f"(exit {code}) ||{after}"], check=False)
        assert done.returncode == wanted
