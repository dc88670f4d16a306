"""What the server process and the engine process say to each other, and how it looks on the socket between them.

One frame is four bytes of length and that much JSON; nothing is pickled. Text never crosses: the engine sees
token ids only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

import orjson

HEADER: Final = struct.Struct("!I")
MAX_FRAME_BYTES: Final = 256 << 20


class Finish(StrEnum):
    """Why a generation ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to end. `seed` None draws a fresh one."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop_ids: tuple[int, ...] = ()
    top_logprobs: int | None = None
    """None: no log probabilities; 0: of the chosen token; n: also of the n most likely."""

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


@dataclass(frozen=True)
class EngineSettings:
    """Everything the engine process needs to know at its start."""

    model_path: str
    n_threads: int
    max_num_seqs: int
    step_tokens: int
    block_tokens: int
    max_model_len: int | None
    kv_cache_bytes: int | None


@dataclass(frozen=True)
class Start:
    """Server → engine, once: load this."""

    settings: EngineSettings


@dataclass(frozen=True)
class Add:
    """Server → engine: a new request."""

    request_id: int
    prompt: list[int]
    sampling: Sampling


@dataclass(frozen=True)
class Cancel:
    """Server → engine: nobody waits for this request any more."""

    request_id: int


@dataclass(frozen=True)
class Progress:
    """Engine → server while loading."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Ready:
    """Engine → server: requests may come."""

    max_model_len: int
    kv_tokens: int
    load_s: float


@dataclass(frozen=True)
class Failed:
    """Engine → server: a sentence, then the process ends."""

    message: str


@dataclass(frozen=True)
class Logprobs:
    """Log probability of the chosen token, and of the most likely ones (id, log probability)."""

    chosen: float
    top: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class TokenOut:
    """One request's result of one step."""

    request_id: int
    token: int
    finish: Finish | None = None
    logprobs: Logprobs | None = None


@dataclass(frozen=True)
class EngineLoad:
    """What the scheduler holds, for metrics and liveness."""

    steps: int
    running: int
    waiting: int
    kv_usage: float
    preemptions: int


@dataclass(frozen=True)
class StepDone:
    """Engine → server after every step, and after a cancel that found nothing to do."""

    load: EngineLoad
    tokens: list[TokenOut]


Message: TypeAlias = Start | Add | Cancel | Progress | Ready | Failed | StepDone


def encode(message: Message) -> bytes:
    body = orjson.dumps([type(message).__name__, message])
    return HEADER.pack(len(body)) + body


def decode(body: bytes) -> Message:
    kind, value = orjson.loads(body)
    match kind:
        case "Start":
            return Start(EngineSettings(**value["settings"]))
        case "Add":
            sampling = value["sampling"] | {"stop_ids": tuple(value["sampling"]["stop_ids"])}
            return Add(value["request_id"], value["prompt"], Sampling(**sampling))
        case "Cancel":
            return Cancel(**value)
        case "Progress":
            return Progress(**value)
        case "Ready":
            return Ready(**value)
        case "Failed":
            return Failed(**value)
        case "StepDone":
            return StepDone(EngineLoad(**value["load"]), [_token_out(item) for item in value["tokens"]])
    raise ValueError(f"unknown engine message {kind!r}")


def _token_out(item: dict[str, object]) -> TokenOut:
    finish, logprobs = item["finish"], item["logprobs"]
    request_id, token = item["request_id"], item["token"]
    assert isinstance(request_id, int)
    assert isinstance(token, int)
    scores = None
    if isinstance(logprobs, dict):
        scores = Logprobs(logprobs["chosen"], [(i, p) for i, p in logprobs["top"]])
    return TokenOut(request_id, token, Finish(str(finish)) if finish is not None else None, scores)


class FrameBuffer:
    """Cuts a byte stream into frames, for the side that reads without asyncio."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> list[Message]:
        """The messages that `piece` completes, in order."""
        self._bytes += piece
        messages: list[Message] = []
        while len(self._bytes) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._bytes)
            if len(self._bytes) < HEADER.size + length:
                break
            messages.append(decode(bytes(self._bytes[HEADER.size : HEADER.size + length])))
            del self._bytes[: HEADER.size + length]
        return messages
