"""The threads of a part: they stay from part to part, and leave nothing running behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import cv2
import pytest
import torch
from conftest import make_clip

from restore.clip import Clip
from restore.threads import ahead, workers


def _name(clip: Clip) -> Clip:
    names.append((threading.current_thread().name, torch.get_num_threads(), cv2.getNumThreads()))
    return clip


names: list[tuple[str, int, int]] = []


def test_threads_stay_for_the_next_part_and_compute_on_one_core_each() -> None:
    names.clear()
    before = cv2.getNumThreads()
    for _ in range(3):
        with workers(1) as threads:
            threads.submit(_name, make_clip(1)).result()
    assert len(set(names)) == 1
    assert names[0][1:] == (1, 1)
    assert cv2.getNumThreads() == before


def test_leaving_waits_for_what_runs_and_cancels_what_has_not_begun() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    def slow(clip: Clip) -> Clip:
        begun.set()
        go_on.wait(10)
        done.append(clip)
        return clip

    clip = make_clip(1)
    with workers(1) as threads:
        threads.submit(slow, clip)
        waiting = threads.submit(slow, clip)
        begun.wait(10)
        threading.Timer(0.2, go_on.set).start()
    assert len(done) == 1
    assert waiting.cancelled()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_gets_threads_of_its_own() -> None:
    clip = make_clip(1)
    with workers(1) as threads:
        threads.submit(_name, clip).result()
    child = os.fork()
    if child == 0:  # pragma: no cover, of the child nothing is recorded
        with workers(1) as threads:
            os._exit(0 if threads.submit(_name, clip).result(20) is clip else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_fails_while_decoding_ahead_fails_in_the_consumer() -> None:
    def decoded() -> Iterator[Clip]:
        yield make_clip(1)
        raise OSError("the disk is gone")

    with ahead(decoded(), 2) as clips:
        next(clips)
        with pytest.raises(OSError, match="the disk is gone"):
            next(clips)


def test_decoding_is_never_more_than_its_depth_ahead() -> None:
    made = []

    def decoded() -> Iterator[Clip]:
        for number in range(50):
            made.append(number)
            yield make_clip(1)

    with ahead(decoded(), 2) as clips:
        next(clips)
        assert len(made) <= 4  # one taken, two waiting, one in hand
    assert not [thread for thread in threading.enumerate() if thread.name == "decode"]
