"""One choice of one request inside the engine: its tokens, how far they are computed, and where its cache lies.

The scheduler alone changes these fields; runners and samplers read them. No tensor, no decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from worker_image.engine.grammar import Matcher
from worker_image.engine.messages import Sampling
from worker_image.engine.standing import ORDINARY, Standing


@dataclass(eq=False, slots=True)
class Sequence:
    """Its life: waiting → prefilling → decoding → ended; preemption leads back to waiting.

    With steps in flight the engine knows less than it has launched: `tokens` are the known ones, `n_in_flight` more are
    on their way, and `computed` counts what is in the cache once every launched step has run.
    """

    request_id: int
    tokens: list[int]
    """The client's prompt, then what was generated and committed."""
    sampling: Sampling
    limit: int
    """It ends at this many tokens."""
    n_prompt: int
    """Where the generated ones begin: less than the first `tokens` for a request that was begun elsewhere."""
    seed: int = 0
    """0 to 2**64 - 1: the token at index i of `tokens` is drawn with the noise of (seed, i)."""
    salt: bytes = b""
    """Only sequences with the same salt share cached blocks."""
    standing: Standing = ORDINARY
    parent: Sequence | None = None
    """The first choice of the same request, from which the prompt's cache is taken."""
    matcher: Matcher | None = None
    """The grammar's state after `tokens`."""

    row: int | None = None
    """A number below `max_num_seqs`, kept from admission until it leaves; None while waiting."""
    blocks: list[int] = field(default_factory=list)
    room: int = 0
    """Tokens that `blocks` hold."""
    computed: int = 0
    saved: list[int] = field(default_factory=list)
    """While it waits: where its first blocks lie in host memory."""
    n_saved: int = 0
    """Tokens whose keys and values lie there."""
    n_in_flight: int = 0
    n_steps: int = 0
    """Launched steps that are not committed and use its blocks."""
    decoding: bool = False
    leaving: bool = False
    """Its blocks and row go back once `n_steps` is 0."""
    ended: bool = False
    """Whatever is still computed for it is dropped."""
    prefilled_at: int = 0
    """The step that computed the last of its prompt; 0 before."""
    alone: bool = False
    """A step with it failed: it runs in a step of its own, and a second failure is its end."""

    stop_ids: frozenset[int] = frozenset()
    needs_history: bool = False
    """Sampling needs every earlier token on the host: not scheduled while one is in flight."""
    keys: list[bytes] = field(default_factory=list)
    """The prefix cache's keys of its first full blocks."""
    next_key_at: int = 0
    """At this many committed tokens one more block is full and may be shared."""
    arrived_at: float = 0.0
    admitted: bool = False
    """The server has been told."""
    n_displaced: int = 0
    """How often it gave its place to one that the policy ranks better."""
    charged: bool = False
    """Its tenant has paid for its prompt: not again after a preemption."""
    n_cached: int = 0
    """Tokens that its latest admission found in the cache."""

    def __post_init__(self) -> None:
        self.needs_history = self.sampling.needs_history
        self.stop_ids = frozenset(self.sampling.stop_ids)
        if self.matcher is not None:
            self.stop_ids |= self.matcher.eos_ids

    @property
    def watched(self) -> bool:
        """Each of its tokens needs a look."""
        return self.alone or self.matcher is not None

    @property
    def n_pending(self) -> int:
        """Known tokens whose keys and values no launched step computes."""
        return len(self.tokens) - self.computed

    @property
    def n_generated(self) -> int:
        return len(self.tokens) - self.n_prompt
