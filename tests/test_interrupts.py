"""Ctrl-C with workers: whenever it is pressed, all of them end, and one line says how to continue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from jobs import make_slow_film, wait_until

from restore.cluster.executors import executor
from restore.cluster.settings import Local


@pytest.mark.parametrize("moment", ["the workers start", "they work"])
def test_ctrl_c_ends_the_workers_and_tells_how_to_continue(moment: str, tmp_path: Path, tiny_weights: Path) -> None:
    film = make_slow_film(tmp_path / "in.mp4", parts=40)
    words = ["run", film, "-o", tmp_path / "out.mkv", "--workers", 2, "--weights", tiny_weights, "--device", "cpu"]
    command = [sys.executable, "-m", "restore", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def it_is_time() -> bool:
        if moment == "they work":
            return bool(list(tmp_path.glob("out.mkv.restore/parts/*.json")))
        found = psutil.Process(process.pid).children(recursive=True)
        return any("spawn_main" in word for child in found for word in child.cmdline())

    try:
        wait_until(lambda: it_is_time() or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, said = process.communicate(timeout=120)  # until all processes have let go of it
        assert process.returncode == 130
        told = [line for line in said.splitlines() if line and not line.startswith("INFO: dashboard: ")]
        assert told == ["stopped; run the same command again to continue"]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_is_held_back_until_the_end_and_processes_never_hear_it() -> None:
    program = """if True:
        import os, signal, subprocess, sys
        from restore.cluster.interrupts import held_back
        before = signal.getsignal(signal.SIGINT)
        one = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('a process heard nothing', flush=True)"
        try:
            with held_back():
                subprocess.run([sys.executable, "-c", one], check=True)
                os.kill(os.getpid(), signal.SIGINT)
                print("nor did we", flush=True)
        except KeyboardInterrupt:
            print("until the end")
        assert signal.getsignal(signal.SIGINT) is before
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["a process heard nothing", "nor did we", "until the end"]


def test_workers_do_not_hear_ctrl_c_and_neither_do_those_in_their_place() -> None:
    def masked() -> tuple[int, bool]:
        return os.getpid(), signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])

    with executor(Local(workers=2, devices="cpu")) as client:
        first = dict(client.run(masked).values())
        client.restart(timeout=60)
        second = dict(client.run(masked).values())
    assert not first.keys() & second.keys()
    assert [*first.values(), *second.values()] == [True] * 4
