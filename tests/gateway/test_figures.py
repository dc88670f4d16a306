"""Our counters and histograms say what prometheus_client's own would have said."""

from __future__ import annotations

import prometheus_client as own
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from gateway.figures import Counter, Histogram

BOUNDS = (0.005, 0.1, 1.0, 10.0, 600.0)


def _told(registry: CollectorRegistry) -> list[str]:
    """The page, less the moments at which series were made, of which we tell nothing."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 10_000))))
def test_a_counter_tells_what_was_added_to_each_series(added: list[tuple[str, int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine, other = Counter("c", "Help.", ("x",), ours), own.Counter("c", "Help.", ("x",), registry=theirs)
    for label, amount in added:
        mine.labels(label).inc(amount)
        other.labels(label).inc(amount)
    assert _told(ours) == _told(theirs)


@given(st.lists(st.one_of(st.sampled_from(BOUNDS), st.floats(0.0, 1000.0))))
def test_a_histogram_tells_how_many_values_were_up_to_each_bound(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram("h", "Help.", ("x",), BOUNDS, ours)
    other = own.Histogram("h", "Help.", ("x",), buckets=BOUNDS, registry=theirs)
    for value in values:
        mine.labels("a").observe(value)
        other.labels("a").observe(value)
    assert _told(ours) == _told(theirs)


def test_a_series_that_was_removed_begins_anew_and_removing_it_twice_is_removing_it_once() -> None:
    registry = CollectorRegistry()
    counter = Counter("c", "Help.", ("x",), registry)
    counter.labels("a").inc()
    counter.remove("a")
    counter.remove("a")
    assert list(counter) == []
    counter.labels("a").inc(2)
    assert registry.get_sample_value("c_total", {"x": "a"}) == 2.0


def test_two_families_of_one_name_are_refused() -> None:
    registry = CollectorRegistry()
    Counter("c", "Help.", ("x",), registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Counter("c", "Help.", ("x",), registry)
