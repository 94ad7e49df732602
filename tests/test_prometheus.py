from __future__ import annotations

import builtins
import socket
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families as parse

from restore.errors import ConfigError
from restore.job import Figures, published
from restore.job.figures import gpu_bytes


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text: str = answer.read().decode()
    return text


@pytest.fixture
def figures() -> Figures:
    figures = Figures(parts=3, failures=1, retries=2, queue=4, running=2)
    figures.add_frames(250)
    figures.films["done"] = 5
    return figures


@pytest.fixture
def port(figures: Figures) -> Iterator[int]:
    with published(figures, 0) as port:
        assert port
        yield port


def test_all_figures_are_served_and_follow_what_happens(figures: Figures, port: int) -> None:
    def value(name: str, **labels: str) -> float:
        samples = [sample for family in parse(scrape(port)) for sample in family.samples]
        return next(s.value for s in samples if s.name == name and s.labels == labels)

    assert value("restore_frames_total") == 250
    assert value("restore_parts_total") == 3
    assert value("restore_films_total", result="done") == 5
    assert value("restore_films_total", result="skipped") == 0
    assert value("restore_failures_total") == 1
    assert value("restore_retries_total") == 2
    assert value("restore_queue_films") == 4
    assert value("restore_running_films") == 2
    assert value("restore_frames_per_second") == pytest.approx(250, rel=0.9)
    assert value("process_resident_memory_bytes") > 1e6
    figures.add_frames(50)
    assert value("restore_frames_total") == 300


def test_every_figure_has_a_help_text_and_counters_end_with_total(port: int) -> None:
    for family in parse(scrape(port)):
        assert len(family.documentation) > 10, family.name
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples), family.name
        else:
            assert family.name.endswith(("_bytes", "_seconds", "_second", "_films", "_fds")), family.name


def test_gpu_memory_and_the_last_success_are_absent_until_there_are_some(figures: Figures, port: int) -> None:
    assert "gpu" not in scrape(port)
    assert "last_success" not in scrape(port)
    figures.gpu_bytes, figures.succeeded = {"cuda:0": (2 * 2**30, 80 * 2**30)}, 1.5e9
    assert 'restore_gpu_memory_used_bytes{device="cuda:0"} 2.147483648e+09' in scrape(port)
    assert 'restore_gpu_memory_total_bytes{device="cuda:0"} 8.589934592e+010' in scrape(port).replace("e+10", "e+010")
    assert "restore_last_success_timestamp_seconds 1.5e+09" in scrape(port)


def test_without_a_port_nothing_is_served(figures: Figures) -> None:
    with published(figures, None) as port:
        assert port is None


def test_figures_are_on_loopback_and_gone_afterwards(figures: Figures, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with published(figures, 0) as port:
        assert f"metrics are at http://127.0.0.1:{port}/metrics" in caplog.text
        with socket.socket() as other:
            other.bind(("127.0.0.2", port))  # would be in use if all interfaces were listened on
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_that_is_taken_is_named(figures: Figures, port: int) -> None:
    with (
        pytest.raises(ConfigError, match=rf"no metrics on 127.0.0.1:{port} \(Address already in use\)"),
        published(figures, port),
    ):
        pass


def test_without_the_package_the_extra_is_named(figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "prometheus_client":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with (
        pytest.raises(ConfigError, match=r"needs prometheus-client; pip install 'restore\[metrics\]'"),
        published(figures, 0),
    ):
        pass


def test_a_run_is_counted_by_following_its_progress() -> None:
    told: list[tuple[str, int, int | None]] = []
    figures = Figures()
    follow = figures.following(lambda *news: told.append(news))
    news = [("scan", 9, None), ("restore", 40, 100), ("parts", 3, 4), ("restore", 70, 100), ("parts", 4, 4)]
    news += [("restore", 100, 100), ("join", 5, 5), ("files", 1, 3), ("restore", 0, 10), ("restore", 10, 10)]
    for one in news:
        follow(*one)
    assert told == news
    assert (figures.frames, figures.parts, figures.queue) == (70, 2, 2)


def test_memory_is_told_of_devices_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_bytes() == {}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda number: number % 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (30, 100))
    assert gpu_bytes() == {"cuda:1": (70, 100)}
