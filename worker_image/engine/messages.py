"""What the server process and the engine process say to each other, and how it looks on the socket between them.

One frame is four bytes of length and that much JSON; nothing is pickled. Text never crosses: the engine sees
token ids only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from worker_image.checkpoint.source import LoadFormat
from worker_image.engine.scheduler.settings import DEFAULT, Batching, Packing, PolicyName, Scheduling
from worker_image.engine.standing import CLASSES, ORDINARY, Standing

HEADER: Final = struct.Struct("!I")
MAX_FRAME_BYTES: Final = 256 << 20


class Finish(StrEnum):
    """Why a generation ended: OpenAI's words, one for what went wrong on our side, and one for what nobody could do."""

    STOP = "stop"
    LENGTH = "length"
    ERROR = "error"
    REFUSED = "refused"
    """By the request's own grammar."""


class StepKind(StrEnum):
    """What keeps an engine busy."""

    WARM_UP = "warm-up"
    """The first step of its kind."""
    CAPTURE = "capture"
    """Of a CUDA graph, between steps."""
    PREFILL = "prefill"
    """Prompt tokens, beside which others may decode."""
    DECODE = "decode"


class Device(StrEnum):
    """What the engine computes on."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to end. `seed` None draws a fresh one."""

    max_tokens: int
    """Generated ones, those that an `Add` brings along included."""
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
    min_tokens: int = 0
    """Before these are generated, no stop id is chosen."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token, what is added to its logit)."""
    n: int = 1
    """Choices; each has its own noise."""
    grammar: str | None = None
    """llguidance's text, which the server has validated; the answer is a sentence of it."""

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def penalises(self) -> bool:
        return bool(self.presence_penalty or self.frequency_penalty) or self.repetition_penalty != 1.0

    @property
    def changes_logits(self) -> bool:
        """The request adds to its logits or forbids some."""
        return bool(self.logit_bias or self.min_tokens or self.needs_history)

    @property
    def needs_history(self) -> bool:
        """The next token can be chosen only when every earlier one is known on the host."""
        return self.penalises or self.grammar is not None


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
    device: Device = Device.CPU
    load_format: LoadFormat = LoadFormat.AUTO
    gpu_memory_utilization: float = 0.9
    """Share of the card's memory for weights, activations and the KV cache together; where `kv_cache_bytes` is None."""
    gpu_memory_bytes: int | None = None
    """On a card that others use, too: the most that this process takes of it, whatever they take."""
    deterministic: bool = False
    """The order of every sum is fixed, so a request gives the same bits in any batch."""
    scheduling: Scheduling = DEFAULT
    swap_bytes: int = 0
    """Host memory for what requests that give way have computed; 0: they compute it again."""


@dataclass(frozen=True)
class Start:
    """Server → engine, once: load this."""

    settings: EngineSettings


@dataclass(frozen=True)
class Add:
    """Server → engine: a new request. Its choices have the ids `request_id` to `request_id + sampling.n - 1`.

    The last `n_generated` tokens of `prompt` are its answer so far: a request goes on elsewhere exactly as it would
    have here if it brings them and its seed. Only requests of one `cache_salt` share cached prefixes.
    """

    request_id: int
    prompt: list[int]
    sampling: Sampling
    n_generated: int = 0
    cache_salt: str = ""
    standing: Standing = ORDINARY

    @property
    def choice_ids(self) -> range:
        return range(self.request_id, self.request_id + self.sampling.n)


@dataclass(frozen=True)
class Cancel:
    """Server → engine: nobody waits for this choice any more."""

    request_id: int


@dataclass(frozen=True)
class Progress:
    """Engine → server while loading."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Expect:
    """Engine → server: the next message may take so long. Said before whatever takes long; the next message ends it."""

    kind: StepKind
    expected_s: float


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


class TokenOut(NamedTuple):
    """One choice's result of one step. A tuple, because the server makes one for every token of every stream."""

    request_id: int
    """The choice's own: `Add.request_id` and those that follow it."""
    token: int
    finish: Finish | None = None
    logprobs: Logprobs | None = None


@dataclass(frozen=True)
class Admitted:
    """A choice got its place: after how long, and how much of its prompt was in the cache."""

    request_id: int
    queued_s: float
    cached_tokens: int


@dataclass(frozen=True)
class Ended:
    """A choice's last word, in the same frame as its last token. `message`: a sentence for ERROR and REFUSED."""

    request_id: int
    finish: Finish
    message: str | None = None


@dataclass(frozen=True)
class EngineLoad:
    """What the engine holds and has done, for metrics and liveness. Counters count from its start."""

    steps: int = 0
    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    preemptions: int = 0
    preemptions_by_class: list[int] = field(default_factory=lambda: [0] * len(CLASSES))
    kv_waste: float = 0.0
    """Share of the held slots of the KV cache that no token uses."""
    prefix_queried_tokens: int = 0
    prefix_hit_tokens: int = 0
    prefill_tokens: int = 0
    """Prompt tokens computed (again, after a preemption)."""
    decode_tokens: int = 0
    restored_tokens: int = 0
    """Read back from host memory instead of computed again."""
    failed_steps: int = 0
    oldest_waiting_s: float = 0.0
    step_s: float = 0.0
    """The last step, from one commit to the next or from its launch."""
    host_s: float = 0.0
    """Of that, what scheduling, launching and committing took."""


@dataclass(frozen=True)
class StepDone:
    """Engine → server after every step, and after a cancel that found nothing to do. Columns, as steps are large:
    `ids[i]` got `new_tokens[i]`. An id has two rows or more where several steps were committed at once."""

    load: EngineLoad
    ids: list[int] = field(default_factory=list)
    new_tokens: list[int] = field(default_factory=list)
    logprobs: list[tuple[int, Logprobs]] = field(default_factory=list)
    """By row."""
    ended: list[Ended] = field(default_factory=list)
    admitted: list[Admitted] = field(default_factory=list)

    @property
    def tokens(self) -> list[TokenOut]:
        """Row by row. The end of a choice that got no token any more (an error) is in `ended` only."""
        logprobs = dict(self.logprobs)
        last = {i: row for row, i in enumerate(self.ids)} if self.ended else {}
        ends = {last.get(end.request_id): end.finish for end in self.ended}
        rows = enumerate(zip(self.ids, self.new_tokens, strict=True))
        return [TokenOut(i, token, ends.get(row), logprobs.get(row)) for row, (i, token) in rows]


Message: TypeAlias = Start | Add | Cancel | Progress | Expect | Ready | Failed | StepDone


def encode(message: Message) -> bytes:
    body = orjson.dumps([type(message).__name__, message])
    return HEADER.pack(len(body)) + body


def decode(body: bytes) -> Message:
    kind, value = orjson.loads(body)
    match kind:
        case "Start":
            settings = value["settings"]
            enums = {"device": Device(settings["device"]), "load_format": LoadFormat(settings["load_format"])}
            return Start(EngineSettings(**settings | enums | {"scheduling": _scheduling(settings["scheduling"])}))
        case "Add":
            sampling = value["sampling"]
            bias = tuple((token, amount) for token, amount in sampling["logit_bias"])
            tuples = {"stop_ids": tuple(sampling["stop_ids"]), "logit_bias": bias}
            standing = Standing(**value["standing"])
            return Add(**value | {"sampling": Sampling(**sampling | tuples), "standing": standing})
        case "Cancel":
            return Cancel(**value)
        case "Progress":
            return Progress(**value)
        case "Expect":
            return Expect(StepKind(value["kind"]), value["expected_s"])
        case "Ready":
            return Ready(**value)
        case "Failed":
            return Failed(**value)
        case "StepDone":
            return _step_done(value)
    raise ValueError(f"unknown engine message {kind!r}")


def _scheduling(value: dict[str, Any]) -> Scheduling:
    enums = {"policy": PolicyName, "batching": Batching, "packing": Packing}
    return Scheduling(**value | {name: kind(value[name]) for name, kind in enums.items()})


def _step_done(value: dict[str, Any]) -> StepDone:
    return StepDone(
        EngineLoad(**value["load"]),
        value["ids"],
        value["new_tokens"],
        [(i, Logprobs(p["chosen"], [(t, q) for t, q in p["top"]])) for i, p in value["logprobs"]],
        [Ended(end["request_id"], Finish(end["finish"]), end["message"]) for end in value["ended"]],
        [Admitted(**each) for each in value["admitted"]],
    )


class FrameBuffer:
    """Cuts a byte stream into frames, for the side that reads without asyncio."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> list[Message]:
        """The messages that `piece` completes, in order."""
        self._bytes += piece
        messages: list[Message] = []
        at = 0
        while at + HEADER.size <= len(self._bytes):
            (length,) = HEADER.unpack_from(self._bytes, at)
            end = at + HEADER.size + length
            if end > len(self._bytes):
                break
            messages.append(decode(bytes(self._bytes[at + HEADER.size : end])))
            at = end
        del self._bytes[:at]
        return messages
