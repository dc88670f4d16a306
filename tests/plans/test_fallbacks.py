"""Fallbacks that do not exist, or lead back."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from controllers.plans.fallbacks import circle, missing_fallback, named_fallbacks
from controllers.plans.service import ServicePlan
from tests.gen import service_spec, snapshot
from tests.plans.test_service import condition, deployment, plan

services = st.sampled_from("abcdef")
graphs = st.dictionaries(services, st.lists(services, max_size=3).map(tuple))


def with_fallbacks(graph: dict[str, tuple[str, ...]]) -> ServicePlan:
    spec = service_spec(fallbacks=[{"service": name} for name in graph["chat"]])
    return plan(snapshot(spec=spec, fallbacks=graph))


def test_a_missing_fallback_is_said_and_workers_serve_without_it() -> None:
    made = with_fallbacks({"chat": ("chat-smal",), "chat-small": ()})
    assert condition(made, "Stalled") == (
        "True",
        "FallbackNotFound",
        "Fallback 'chat-smal' is no InferenceService of namespace 'demo'; did you mean 'chat-small'?",
    )
    assert deployment(made)


def test_a_circle_is_refused_with_the_way_it_takes() -> None:
    made = with_fallbacks({"chat": ("small",), "small": ("tiny",), "tiny": ("chat",)})
    assert condition(made, "Stalled") == (
        "True",
        "FallbackCircle",
        "The fallbacks lead back: chat → small → tiny → chat. Take one of them out.",
    )


def test_a_shorter_limit_names_no_other_service() -> None:
    assert named_fallbacks({"fallbacks": [{"maxTokens": 64}, {"service": "small"}]}) == ("small",)
    made = plan(snapshot(spec=service_spec(fallbacks=[{"maxTokens": 64}]), fallbacks={"chat": ()}))
    assert condition(made, "Stalled") is None


def test_a_service_that_names_itself_goes_in_a_circle() -> None:
    assert circle("a", {"a": ("a",)}) == ("a", "a")


@given(graphs, services)
def test_a_circle_is_a_way_along_fallbacks_and_is_found_whenever_there_is_one(
    graph: dict[str, tuple[str, ...]], name: str
) -> None:
    way = circle(name, graph)
    for one, after in pairwise(way):
        assert after in graph[one]
    reached, front = set[str](), {name}
    while front:
        front = {after for one in front for after in graph.get(one, ())} - reached
        reached |= front
    assert bool(way) == (name in reached)
    if way:
        assert way[0] == way[-1] == name


@given(graphs, services)
def test_a_missing_fallback_is_one_that_is_named_and_not_there(graph: dict[str, tuple[str, ...]], name: str) -> None:
    missing = missing_fallback(name, graph)
    assert (missing is None) == all(one in graph for one in graph.get(name, ()))
