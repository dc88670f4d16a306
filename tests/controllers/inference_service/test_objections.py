"""What gateways hold against workers, as the operator hears it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controllers.history.interface import ServiceId
from controllers.inference_service.objections import ObjectionBoard, objections_in
from controllers.plans.healing.values import Objection
from controllers.runtime.interface import Key
from controllers.runtime.queue import ReconcileQueue
from tests.controllers.inference_service.harness import FakePorts

CHAT = ServiceId("demo", "chat")
KEY = Key("InferenceService", "demo", "chat")
LOST: dict[str, Any] = {"state": "lost", "reason": "hung", "since_s": 2.5, "message": "no step", "times": 0}


def body(**pods: Any) -> bytes:
    return json.dumps({"demo/chat": pods}).encode()


def test_an_answer_is_read_by_service_and_pod() -> None:
    assert objections_in(body(a=LOST)) == {CHAT: {"a": Objection("lost", "hung", 2.5, "no step", 0)}}
    assert objections_in(b"{}") == {}


@pytest.mark.parametrize("nonsense", [b"", b"[]", b"null", b"<html>", b"3"])
def test_what_is_no_answer_says_nothing(nonsense: bytes) -> None:
    assert objections_in(nonsense) is None


@pytest.mark.parametrize(
    "entry",
    [
        3,
        {},
        LOST | {"state": "angry"},
        LOST | {"since_s": -1},
        LOST | {"since_s": "long"},
        LOST | {"times": "twice"},
        LOST | {"reason": None},
    ],
)
def test_entries_that_make_no_sense_are_left_out(entry: Any) -> None:
    assert objections_in(body(a=LOST, b=entry)) == {CHAT: {"a": Objection("lost", "hung", 2.5, "no step", 0)}}
    assert objections_in(json.dumps({"no-namespace": {"a": LOST}, "demo/chat": entry}).encode()) == {}


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def test_each_gateway_is_heard_for_itself_and_a_silent_one_says_nothing() -> None:
    ports, queue, clock = FakePorts(), ReconcileQueue(), Clock()
    board = ObjectionBoard(ports, queue, lambda: frozenset({"one", "two"}), clock)
    assert board.last(KEY) is None
    ports.objections = {"one": body(a=LOST), "two": b"nonsense"}
    await board.round()
    heard = board.last(KEY)
    assert heard is not None
    assert (set(heard.by_gateway), heard.age_s) == ({"one"}, 0.0)
    assert queue.depth == 1
    clock.now_s += 3
    ports.objections = {"one": b"", "two": b""}
    await board.round()
    heard = board.last(KEY)
    assert heard is not None
    assert (heard.by_gateway, heard.age_s) == ({}, 3.0), "nobody said that it is well"
