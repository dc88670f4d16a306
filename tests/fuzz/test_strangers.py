"""Whatever strangers send, nothing worse comes of it than a sentence. Few examples, always the same: `make fuzz` looks
further, and what it finds is written down here.
"""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, TRACES

DEEP = b"[" * 3000


def _said(arguments: str) -> bytes:
    """An assistant's call, echoed by a client."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return json.dumps({"model": "chat", "messages": [{"role": "assistant", "tool_calls": [call]}]}).encode()


FOUND = [
    ("tool_calls", b"\x00<tool_call>" + DEEP + b"</tool_call>"),
    ("tool_calls", b'\x00{"name": "f", "arguments": ' + b'{"a":' * 3000),
    ("chat_body", _said(DEEP.decode())),
    ("chat_body", _said('{"a": "\\ud800"}')),
    ("completion_body", b'{"model": "chat", "prompt": "x", "logit_bias": {"' + b"9" * 5000 + b'": 1}}'),
    ("chat_template", b"{{ 'a' * 10000000000000 }}"),
    ("chat_template", b"{{ 10 ** 10000000000000 }}"),
    ("chat_template", b"{{" + b"(" * 3000),
    ("chat_template", b"{{ " + b"-" * 5000 + b"1 }}"),
    ("chat_template", b"{% if a %}" * 2000),
    ("alertmanager", b'{"version": "4", "alerts": [{"status": "firing", "labels": {"a": "\\ud800"}}]}'),
    ("static_catalog", DEEP[:1200]),
    ("static_catalog", b"tenants: 2001-99-99"),
    ("trace", b'{"timestamp": 1, "input_length": 1e999, "output_length": 1}'),
    ("trace", b'{"timestamp": 1' + b"0" * 400 + b', "input_length": 1, "output_length": 1}'),
    ("trace", b'{"timestamp": 1, "input_length":' + DEEP),
    ("trace", b"arrival_s,input_tokens,output_tokens\n1," + b"9" * 25 + b",3\n"),
    ("trace", b"arrival_s,input_tokens,output_tokens\n0,1,1\n1e308,1,3\n"),
    ("trace", gzip.compress(TRACES[0])[:-12] + b"a" * 12),
    ("servegen", b"inf,1,1,Gamma,1,1"),
    ("servegen", b"600000000000,1,1,Gamma,1,1"),
    ("servegen", b"0,1e300,1,Gamma,1,1"),
]
"""What the campaigns and readers of the code found, each mended since."""

BOUNDED = settings(
    max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_whole_is_taken_and_so_is_nothing_at_all(name: str) -> None:
    for data in (*TARGETS[name].seeds(), b"", b"\x00", b"\xff" * 64):
        TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_no_damage_does_worse_than_a_sentence(name: str) -> None:
    target = TARGETS[name]

    @BOUNDED
    @given(mutated(target.seeds()))
    def damaged(data: bytes) -> None:
        target.run(data)

    damaged()


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found_once_is_not_found_again(name: str, data: bytes) -> None:
    TARGETS[name].run(data)
