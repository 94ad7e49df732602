"""Leases: one holder at a time, wherever the notes are kept."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from restore import lease as leases
from restore.errors import MediaError
from restore.lease import LeaseHeld, LeaseLost, holder_of, lease
from restore.storage import Place, place


@pytest.fixture
def folder(root: Place) -> Place:
    return root / "film.lease"


def elsewhere(folder: Place, renewed: float, seconds: float = 0.4) -> Place:
    """Leave the note of a holder on another machine; returns the note."""
    holder = replace(leases._me(seconds, "restore"), machine="another", host="another", renewed=renewed)
    note = folder / "00000007.json"
    note.write_bytes(leases._bytes(holder))
    return note


def test_a_lease_has_one_holder_and_leaves_nothing_behind(folder: Place) -> None:
    with lease(folder, owner="job nightly") as held:
        held.check()
        found = holder_of(folder)
        assert found is not None
        assert (found.owner, found.pid) == ("job nightly", os.getpid())
        with pytest.raises(LeaseHeld, match=r"job nightly on .*, process \d+, since .* UTC") as caught, lease(folder):
            pass
        assert str(folder) in str(caught.value)
        assert caught.value.holder == found
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert holder_of(folder) is None
    assert not folder.exists()
    with lease(folder):
        pass


def test_a_lease_is_free_after_an_error(folder: Place) -> None:
    with pytest.raises(MediaError, match="full"), lease(folder):
        raise MediaError("full", "disk")
    assert not folder.exists()


def test_a_lease_is_renewed(folder: Place) -> None:
    with lease(folder, seconds=0.8) as held:
        time.sleep(1.3)
        held.check()
        with pytest.raises(LeaseHeld), lease(folder):
            pass


def _contend(folder: Place, count: int) -> list[int]:
    """Let several want a lease at the same moment, and keep it until all have tried."""
    barrier, end, won, failed = threading.Barrier(count), threading.Barrier(count), [], []

    def want(number: int) -> None:
        with ExitStack() as stack:
            barrier.wait()
            try:
                stack.enter_context(lease(folder, seconds=20))
                won.append(number)
            except LeaseHeld as error:
                failed.append(error)
            end.wait()

    threads = [threading.Thread(target=want, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) + len(failed) == count
    return won


@pytest.mark.parametrize("dead", [False, True])
def test_of_several_exactly_one_wins(folder: Place, dead: bool) -> None:
    if folder.location.startswith("memory"):
        pytest.skip("fsspec's memory looks, then writes")
    if dead:
        elsewhere(folder, time.time() - 60)
    assert len(_contend(folder, 5)) == 1
    assert folder.listing() == {}


def test_a_lease_of_another_machine_is_taken_when_it_is_dead(folder: Place) -> None:
    note = elsewhere(folder, time.time() - 60)
    assert holder_of(folder) is None
    with lease(folder) as held:
        held.check()
        assert not note.exists()
    assert not folder.exists()


def test_a_lease_of_another_machine_is_held_while_it_is_renewed(folder: Place) -> None:
    elsewhere(folder, time.time(), seconds=60)
    found = holder_of(folder)
    assert found is not None
    assert found.host == "another"
    with pytest.raises(LeaseHeld, match="restore on another"), lease(folder):
        pass


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_wrong_clock_neither_loses_a_lease_nor_keeps_it(hours: int, tmp_path: Path) -> None:
    """The other machine's clock is hours off: its lease counts as held only while it is renewed."""
    folder, wrong = place(tmp_path / "lease"), time.time() + 3600 * hours
    note = elsewhere(folder, wrong, seconds=2)
    renew = threading.Timer(0.3, elsewhere, (folder, wrong + 1, 2))
    renew.start()
    with pytest.raises(LeaseHeld), lease(folder):
        pass
    renew.join()
    assert note.exists()
    with lease(folder):
        assert not note.exists()


def test_a_note_that_cannot_be_read_is_taken_for_dead_after_a_while(tmp_path: Path) -> None:
    folder = place(tmp_path / "lease")
    (folder / "00000001.json").write_bytes(b"{")
    (folder / "notes.txt").write_bytes(b"not a note")
    with lease(folder):
        assert list(folder.listing()) == ["00000002.json", "notes.txt"]


def test_a_holder_learns_that_its_lease_was_taken_over(folder: Place) -> None:
    with lease(folder, seconds=0.4) as held:
        elsewhere(folder, time.time(), seconds=60)
        held._thread.join(timeout=20)
        with pytest.raises(LeaseLost, match="the lease was not renewed in time") as error:
            held.check()
        assert error.value.exit_code == 75  # another works on the output now, as if it had been so from the start
    assert list(folder.listing()) == ["00000007.json"]


def test_a_holder_learns_that_its_note_is_gone(tmp_path: Path) -> None:
    folder = place(tmp_path / "lease")
    with lease(folder, seconds=0.4) as held:
        for note in folder.children():
            note.remove()
        held._thread.join(timeout=20)
        with pytest.raises(LeaseLost):
            held.check()


def test_a_holder_that_was_stopped_for_long_looks_before_it_goes_on(folder: Place, monkeypatch: Any) -> None:
    with lease(folder, seconds=60) as held:
        held.check()
        elsewhere(folder, time.time())
        monkeypatch.setattr("time.monotonic", lambda now=time.monotonic: now() + 61)
        with pytest.raises(LeaseLost):
            held.check()
        monkeypatch.undo()


def test_a_store_that_is_away_for_a_while_costs_nothing(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    with lease(place(tmp_path / "lease"), seconds=0.4) as held:
        before = held._renewed
        with monkeypatch.context() as away:

            def refuse(folder: Place) -> Any:
                raise MediaError("the store cannot be reached", str(folder))

            away.setattr(Place, "listing", refuse)
            while "could not be renewed" not in caplog.text:
                time.sleep(0.02)
            if time.monotonic() - held._renewed > 0.4:
                with pytest.raises(MediaError, match="cannot be reached"):
                    held.check()
        while held._renewed == before:
            time.sleep(0.02)
        held.check()


def test_a_newcomer_gives_way_to_a_holder_that_was_only_slow(tmp_path: Path, monkeypatch: Any) -> None:
    """The holder renews just when the newcomer has judged it dead: the newcomer looks again, and gives way."""
    folder = place(tmp_path / "lease")
    elsewhere(folder, time.time() - 60)
    judge = leases._make_sure_it_is_dead

    def judge_too_early(*note: Any) -> None:
        judge(*note)
        elsewhere(folder, time.time(), seconds=60)

    monkeypatch.setattr(leases, "_make_sure_it_is_dead", judge_too_early)
    with pytest.raises(LeaseHeld), lease(folder):
        pass
    assert list(folder.listing()) == ["00000007.json"]


def test_a_lost_answer_does_not_lose_the_lease(tmp_path: Path, monkeypatch: Any) -> None:
    """The store is asked again because its first answer was lost, and says that the note is there."""
    create = Place.create

    def create_twice(note: Place, data: bytes) -> bool:
        create(note, data)
        return create(note, data)

    monkeypatch.setattr(Place, "create", create_twice)
    with lease(place(tmp_path / "lease")) as held:
        held.check()


def test_a_release_that_fails_is_no_error(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    def refuse(note: Place) -> None:
        raise MediaError("the store cannot be reached", str(note))

    with lease(place(tmp_path / "lease"), seconds=60):
        monkeypatch.setattr(Place, "remove", refuse)
    assert "the lease ends by itself in 60 seconds" in caplog.text


def test_the_lease_of_a_killed_process_is_free_at_once(folder: Place) -> None:
    if folder.location.startswith("memory"):
        pytest.skip("memory is not shared with other processes")
    process = subprocess.Popen([sys.executable, __file__, str(folder)], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LeaseHeld, match=f"process {process.pid},"), lease(folder):
            pass
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but its parent has not looked after it
        with lease(folder) as held:
            held.check()


def test_a_number_that_another_process_got_since_does_not_count(tmp_path: Path) -> None:
    folder = place(tmp_path / "lease")
    before = replace(leases._me(60, "restore"), born="1")
    (folder / "00000001.json").write_bytes(leases._bytes(before))
    with lease(folder):
        pass


def test_without_proc_a_living_process_is_told_from_a_dead_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(path: Path, *args: object) -> Any:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert leases._born(os.getpid()) == "alive"
    assert leases._born(2**22 + 1) == ""
    assert leases._machine.__wrapped__() == asdict(leases._me(60, ""))["host"]


def main() -> None:
    with lease(place(sys.argv[1])):
        sys.stdout.write("held\n")
        sys.stdout.flush()
        time.sleep(120)


if __name__ == "__main__":
    main()
