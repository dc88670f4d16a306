"""What the handlers share: the model being served, the engine, and whether new requests are taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import uuid4

from worker_image.checkpoint.tokenizer import Vocabulary
from worker_image.engine.client import EngineClient
from worker_image.errors import EngineEnded, RequestError
from worker_image.profile import NotAlone, Profile, Shape, measure_profile
from worker_image.server.errors import DrainingError, LoadingError
from worker_image.server.metrics import Metrics
from worker_image.text.chat_template import ChatTemplate
from worker_image.text.detokenizer import TokenBytes
from worker_image.text.grammar_check import GrammarCheck
from worker_image.text.tool_format import ToolFormat

PATIENCE: Final = 3.0
"""Times what the engine says that a long step takes, it may take."""


@dataclass(frozen=True)
class Served:
    """The loaded model as the API sees it."""

    names: tuple[str, ...]
    max_model_len: int
    vocabulary: Vocabulary
    token_bytes: TokenBytes
    template: ChatTemplate | None
    tool_format: ToolFormat | None
    """How this model calls tools; None where it does not, or not in a way known here."""
    grammars: GrammarCheck
    shape: Shape
    prefix_caching: bool = True
    fingerprint: str = "0"
    """Equal for workers that give the same answers; hexadecimal. A stream goes on only where it is."""
    created: int = field(default_factory=lambda: int(time.time()))

    def check_name(self, name: str) -> None:
        """Raises RequestError (404) for a model that is not served here."""
        if name not in self.names:
            raise RequestError(
                f"the model '{name}' does not exist; this worker serves {', '.join(self.names)}.",
                param="model", code="model_not_found", status=404,
            )  # fmt: skip

    def cache_salt(self, asked: str | None) -> str:
        """Requests of the same salt share cached prefixes; a salt of its own shares with nobody."""
        return (asked or "") if self.prefix_caching else uuid4().hex

    def encode(self, text: str, *, add_bos: bool, param: str) -> list[int]:
        """Token ids. Raises RequestError for a text that has more than the context however it is cut into tokens."""
        n_bytes = len(text.encode())
        if n_bytes > self.max_model_len:
            most = self.vocabulary.most_bytes_a_token
            if most is not None and n_bytes > self.max_model_len * most:
                raise RequestError(
                    f"this model's context is {self.max_model_len} tokens; the prompt has {n_bytes} bytes, "
                    "which are more. Shorten the prompt.",
                    param=param, code="context_length_exceeded",
                )  # fmt: skip
        return self.vocabulary.encode(text, add_bos=add_bos)

    def check_ids(self, token_ids: Sequence[int], *, param: str) -> None:
        """Raises RequestError for a token id that the vocabulary has not."""
        n_tokens = len(self.vocabulary.tokens)
        if token_ids and max(token_ids) >= n_tokens:
            first = next(i for i in token_ids if i >= n_tokens)
            raise RequestError(f"token id {first} is outside the vocabulary of {n_tokens}.", param=param)


class Leaver(Protocol):
    """What can be told to go on elsewhere."""

    def leave(self) -> None: ...


class ServerState:
    """Loading → ready → draining; `engine.gone` ends any of them."""

    def __init__(self, engine: EngineClient, metrics: Metrics, stall_limit_s: float) -> None:
        self.engine = engine
        self.metrics = metrics
        self._stall_limit_s = stall_limit_s
        self._served: Served | None = None
        self._draining = self._measuring = False
        self._n_open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._journalled: set[Leaver] = set()

    def loaded(self, served: Served) -> None:
        self._served = served

    async def stop(self) -> None:
        """Ends what serves beside the engine."""
        if self._served is not None:
            await self._served.grammars.stop()

    def drain(self) -> None:
        """New requests are refused from now on. Idempotent."""
        self._draining = True

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def model(self) -> str | None:
        """The first of its names; None until it is loaded."""
        return None if self._served is None else self._served.names[0]

    @property
    def max_num_seqs(self) -> int | None:
        return None if self._served is None else self._served.shape.max_num_seqs

    @property
    def n_open(self) -> int:
        return self._n_open

    async def wait_idle(self) -> None:
        await self._idle.wait()

    def served(self) -> Served:
        """Raises LoadingError, or EngineError where the engine ended before there was anything to serve."""
        if self._served is None:
            if self.engine.gone.done():
                raise EngineEnded("the engine process has ended; this worker is being restarted.")
            raise LoadingError
        return self._served

    def enter(self) -> Served:
        """A request begins; `leave` must follow. Raises DrainingError, LoadingError or EngineError: then not."""
        if self._draining:
            raise DrainingError
        served = self.served()
        self._n_open += 1
        self._idle.clear()
        return served

    def leave(self) -> None:
        self._n_open -= 1
        if self._n_open == 0:
            self._idle.set()

    async def profile(self) -> Profile:
        """Measured now. Raises NotAlone while there are requests or another measurement; LoadingError; EngineError."""
        served = self.served()
        if self._measuring:
            raise NotAlone("the engine is being measured already.")
        self._measuring = True
        try:
            return await measure_profile(self.engine, served.shape, lambda: self._n_open == 0 and not self._draining)
        finally:
            self._measuring = False

    def began(self, stream: Leaver) -> None:
        """A stream that can go on elsewhere; `ended` must follow."""
        self._journalled.add(stream)

    def ended(self, stream: Leaver) -> None:
        self._journalled.discard(stream)

    def hand_over(self) -> int:
        """Every stream that has a journal leaves; how many those are."""
        for stream in self._journalled:
            stream.leave()
        return len(self._journalled)

    def why_not_ready(self, now: float) -> str | None:
        """Whether a request would be answered: one that is taken by an engine that hangs would not."""
        return self.why_not_taking() or self.why_not_live(now)

    def why_not_taking(self) -> str | None:
        if self.engine.gone.done():
            return "the engine process has ended"
        if self._served is None:
            return "the model is being loaded"
        return "draining" if self._draining else None

    def why_not_live(self, now: float) -> str | None:
        """Liveness is forward progress: an engine that owes an answer must move, at its own word about long steps."""
        if self.engine.gone.done():
            return "the engine process has ended"
        stalled_s = self.engine.stalled_for_s(now)
        expected_s = self.engine.expected.expected_s if self.engine.expected else 0.0
        limit_s = self._stall_limit_s + PATIENCE * expected_s
        if stalled_s > limit_s:
            return f"the engine owes answers but made no progress for {stalled_s:.0f} s, over {limit_s:g} s"
        return None
