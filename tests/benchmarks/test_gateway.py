"""The gateway's benchmark: what becomes of its numbers, and that its two ends find what a proxy does wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gateway.__main__ import backend, medians
from benchmarks.gateway.page import GOALS, rows, words
from benchmarks.gateway.peers import Place, foretide
from benchmarks.gateway.subject import Subject
from benchmarks.gateway.tools import load_generator
from benchmarks.gateway.workloads import Client, WrongAnswers, requests, streams
from benchmarks.report import Better
from e2e.cluster.progress import Progress
from e2e.ports import free_ports


def measured(**values: float) -> dict[str, dict[str, object]]:
    return {name.replace("_", " "): {"unit": "ms", "value": value} for name, value in values.items()}


def test_the_median_of_the_rounds_counts_and_latencies_less_the_backends_own() -> None:
    metric = "time to first byte p50, 300 requests/s"
    rounds = [
        {"": {metric: {"unit": "ms", "value": 0.25}}, "Foretide": {metric: {"unit": "ms", "value": value}}}
        for value in (0.5, 9.0, 0.75)
    ]
    (row,) = [row for row in rows(medians(rounds)) if row.goal is not None]
    assert row.metric == f"added {metric}"
    assert row.ours == 0.5
    assert row.peer is None
    assert row.met


def test_a_peer_that_could_not_be_had_is_named_on_the_page() -> None:
    found = medians([{"": {}, "Foretide": {"CPU per request, 1 kB": {"unit": "µs", "value": 50.0}}}])
    assert any("vllm-router" in note for note in words(found, 1.0).notes)
    (row,) = rows(found)
    assert row.goal == GOALS["CPU per request, 1 kB"][0]
    assert row.better is Better.LOWER


def test_our_gateway_answers_and_streams_everything_that_the_generator_checks(tmp_path: Path) -> None:
    program, everywhere = load_generator(Progress()), {0}
    with backend(program, everywhere) as backend_port:
        port, admin_port = free_ports(2)
        place = Place(port, admin_port, backend_port, tmp_path)
        with Subject(foretide(place, Progress()), place.port, everywhere, tmp_path / "log") as subject:
            client = Client(program, place.port, everywhere)
            each, rate = requests(1_000, "1 kB")(subject, client, 0.3)
            assert 0 < each.value < 10_000
            assert rate.value > 0
            # So many that their CPU time is several of the ticks of 10 ms in which it is counted.
            (chunk,) = streams(64, chunks=50)(subject, client, 1.0)
            assert chunk.value > 0
            assert subject.rss_mb() > 10


def test_the_generator_finds_streams_that_are_not_whole(tmp_path: Path) -> None:
    program = load_generator(Progress())
    with backend(program, {0}) as port, pytest.raises(WrongAnswers, match=r"status 40\d|chunks"):
        # The backend's own health page is no stream.
        Client(program, port, {0}).run("streams", "-path", "/health", "-streams", 1, "-chunks", 3, "-rounds", 1)
