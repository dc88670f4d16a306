"""Every target with bytes to begin from. A target takes any bytes and returns; whatever it raises is a finding.

Refusals of ours are caught inside the targets, by their own class, so anything else that escapes has no sentence.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from safetensors.numpy import save
from tokenizers import Tokenizer, models

from gateway.admission.account import Told
from gateway.admission.ledger import Book, Message, Name
from gateway.admission.slots import Claim
from gateway.admission.wire import MAC_BYTES, encode
from tests.fuzz import files, messages
from tests.worker_image.tiny_gguf import TEMPLATE, Shape, tiny_llama, write_gguf


@dataclass(frozen=True)
class Target:
    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]


def _gguf() -> list[bytes]:
    contents = tiny_llama(Shape(layers=1, hidden=32, ffn=32, q_heads=2, kv_heads=1))
    return [write_gguf(files.folder() / "seed.gguf", contents, kind).read_bytes() for kind in ("F32", "Q8_0")]


def _safetensors() -> list[bytes]:
    tensors: dict[str, Any] = {
        "a": np.zeros((2, 3), np.float32),
        "b": np.zeros(4, np.float16),
        "c": np.zeros(0, np.int8),
    }
    return [save(tensors), save({})]


def _tokenizer() -> list[bytes]:
    made = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "<s>": 3}, [("a", "b")]))
    made.add_special_tokens(["<s>"])
    return [made.to_str().encode() + b'\n---\n{"bos_token": "<s>", "eos_token": {"content": "<s>"}}']


def _archive() -> bytes:
    buffer, line = io.BytesIO(), b"0,1.5,1,Gamma,0.5,1\n600,2,1,Weibull,0.5,1\n"
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("m/a-trace.csv")
        entry.size = len(line)
        archive.addfile(entry, io.BytesIO(line))
    return buffer.getvalue()


def _datagrams() -> list[bytes]:
    entries = ((Name(Book.SERVICE, "demo/chat"), Claim(3, 4)), (Name(Book.TOKENS, "acme"), Told(1.0, 2.0, 3.0)))
    whole = encode(Message(b"12345678", 7, True, True, False, b"87654321", 6, entries), messages.SECRET)
    return [data[:-MAC_BYTES] for data in whole]


def _jsons(*values: Any) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


SAID: Final = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
]
TOOLS: Final = [
    {"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"a": {"type": "integer"}}}}}
]  # fmt: skip
CHATS: Final = _jsons(
    {"model": "chat", "messages": SAID, "stream": True, "stream_options": {"include_usage": True}, "n": 2, "seed": 7},
    {"model": "chat", "messages": SAID, "tools": TOOLS, "tool_choice": "required", "max_tokens": 5, "cache_salt": "a"},
    {"model": "chat", "messages": [{"role": "assistant", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}]},
    {"model": "chat", "messages": SAID, "response_format": {"type": "json_schema", "json_schema": {
        "name": "x",
        "schema": {"type": "object", "$defs": {"d": {"enum": [1, None]}}, "anyOf": [{"$ref": "#/$defs/d"}]}}}},
)  # fmt: skip
COMPLETIONS: Final = _jsons(
    {"model": "chat", "prompt": "once", "stop": ["a", "b"], "logprobs": 3, "logit_bias": {"3": -1.5}, "top_p": 0.5},
    {"model": "chat", "prompt": [[1, 2], [3]], "n": 2, "echo": True, "stop_token_ids": [4], "min_tokens": 1},
)
HTTP: Final = (
    b'\x00POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 16\r\n\r\n{"model":"chat"}',
    b"\x07GET /v1/models/demo%2Fchat HTTP/1.1\r\nHost: a\r\nX-Request-Timeout: 2.5\r\n\r\n"
    b"GET /v1/models HTTP/1.0\r\n\r\n",
    b"\x05POST /v1/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"
    b'5\r\n{"mod\r\nb\r\nel":"chat"}\r\n0\r\nx: y\r\n\r\n',
    b"\x10GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\r\n",
)
ANSWERS: Final = (
    b"\x00HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    b'1d\r\ndata: {"usage": {"a": 1}}\n\n:3\n\n\r\n0\r\n\r\n',
    b"\x03HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nx-foretide-prompt-tokens: 3\r\n\r\n"
    b"data: x\n\n:1=@5 12 13;2=4s\n\ndata: [DONE]\n\n:.queue;dur=1\n\n",
    b"\x09HTTP/1.1 503 No\r\nx-foretide-draining: 1\r\ncontent-length: 2\r\n\r\nno",
)
WEBHOOKS: Final = _jsons(
    {"version": "4", "alerts": [{"status": "firing", "labels": {"alertname": "a", "severity": "critical"},
                                 "annotations": {"summary": "s"}, "startsAt": "2026-01-01T00:00:00Z"}]},
    {"version": "4", "alerts": [{"status": "resolved", "labels": {"a": "b"}}]},
)  # fmt: skip
TRACES: Final = (
    b"arrival_s,input_tokens,output_tokens\n0.25,512,64\n1,2,3\n",
    b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n",
    b'{"timestamp": 1000, "input_length": 5, "output_length": 6}\n',
    b'{"timestamp": 1000, "requests": [{"Prompt Length": 5, "Output Length": 6}]}\n',
)
CATALOG: Final = (
    b"tenants: [{name: acme, namespaces: [demo], keys: [sk-1], limits: {requestsPerMinute: 6, burst: 10s}, weight: 2,"
    b' prices: {input: "0.1"}, maxPriority: P1, cacheDomain: lab}]\n'
    b"services: [{namespace: demo, name: chat, priority: P1, ttft: 1s, routing: {policy: prefix}, workerSlots: 3,"
    b' fallbacks: [{service: small, maxTokens: 3}], endpoints: ["127.0.0.1:80", "[::1]:81"]}]\n'
)
HEADERS: Final = (
    b"x-foretide-class: P1\nx-foretide-tenant: acme\nx-foretide-weight: 2.5\nx-foretide-deadline-ms: 3\n"
    b"x-foretide-cache-salt: ab\nx-foretide-stream: 12 ab 34\nx-foretide-continue: 0 5\n\n{...}3 4 5\n"
)
CALLS: Final = (
    b'\x03Sure. <tool_call>{"name": "f", "arguments": {"a": "</tool_call>"}}</tool_call> then',
    b'\x09{"name": "f", "parameters": {"a": 1}}; {"name": "f", "parameters": {}}',
)
TEMPLATES: Final = (
    TEMPLATE.encode(),
    b"{%- for m in messages if m.role != 'tool' %}{{ loop.index0 }}{{ m.content | trim | tojson(indent=2) }}"
    b"{% generation %}{{ bos_token * 2 }}{% endgeneration %}{% endfor %}{{ strftime_now('%Y') }}"
    b"{% macro f(x) %}{{ '%s' % x }}{% endmacro %}{{ f(messages[0]['content'][::-1]) }}",
)

TARGETS: Final[Mapping[str, Target]] = {
    "gguf": Target(files.gguf, _gguf),
    "safetensors": Target(files.safetensors, _safetensors),
    "hf_config": Target(files.hf_config, lambda: [files.seeds_of_hf_config()]),
    "hf_tokenizer": Target(files.hf_tokenizer, _tokenizer),
    "chat_template": Target(files.chat_template, lambda: TEMPLATES),
    "trace": Target(files.trace, lambda: [*TRACES, _archive(), *map(gzip.compress, (TRACES[0], _archive()))]),
    "servegen": Target(files.servegen, lambda: [b"0,1.5,1,Gamma,0.5,1\n600,2,1,Weibull,0.5,1\n1200,0,1,,0,0\n"]),
    "static_catalog": Target(files.static_catalog, lambda: [CATALOG]),
    "http_of_clients": Target(messages.http_of_clients, lambda: HTTP),
    "http_of_workers": Target(messages.http_of_workers, lambda: ANSWERS),
    "gateway_body": Target(messages.gateway_body, lambda: [*CHATS, *COMPLETIONS]),
    "datagram": Target(messages.datagram, _datagrams),
    "alertmanager": Target(messages.alertmanager, lambda: WEBHOOKS),
    "chat_body": Target(messages.chat_body, lambda: CHATS),
    "completion_body": Target(messages.completion_body, lambda: COMPLETIONS),
    "tokens": Target(messages.tokens, lambda: _jsons({"prompt": "hi"}, {"messages": SAID}, {"tokens": [3, 4]})),
    "worker_headers": Target(messages.worker_headers, lambda: [HEADERS]),
    "journal": Target(messages.journal, lambda: [b"\n1=@5 12 13;2=4s\n0=3\n7 8l\n"]),
    "tool_calls": Target(messages.tool_calls, lambda: CALLS),
}
