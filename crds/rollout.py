"""How a new revision replaces the old one: what a person says in `spec.rollout`, and how far the operator is."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from crds.fields import Duration, ListMap, ListSet, Moment, ObjectName, Part, Rule

Percent = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,2}(\.[0-9]{1,4})?%$", max_length=8)]
"""A share below 100%: `1%`, `0.05%`."""


class Strategy(StrEnum):
    """Rolling replaces worker by worker; canary and blueGreen compare the two revisions first."""

    ROLLING = "rolling"
    CANARY = "canary"
    BLUE_GREEN = "blueGreen"


class RolloutMetric(StrEnum):
    """What two revisions are compared by. Length is that of answers, in tokens."""

    ERRORS = "errors"
    TTFT = "ttft"
    TPOT = "tpot"
    LENGTH = "length"


class RolloutStep(Part):
    """One step: a share of the sessions, for a time at least."""

    rules: ClassVar = (
        Rule(
            "self.weight > 0 || has(self.mirror)", "a step of weight 0 needs mirror: without traffic it shows nothing"
        ),
    )
    weight: Annotated[int, Field(description="Share of sessions for the new revision, in percent.", ge=0, le=100)]
    mirror: Annotated[
        int | None,
        Field(
            description="Share of the other requests, in percent, of which the new revision gets a copy whose answer "
            "nobody sees.",
            ge=1,
            le=100,
        ),
    ] = None
    duration: Annotated[Duration, Field(description="How long the step lasts at least.")] = "5m"


class Analysis(Part):
    """How the two revisions are compared. The tests may be looked at at any time and stay right."""

    rules: ClassVar = (Rule("self.tolerance < self.margin", "tolerance must be smaller than margin"),)
    metrics: Annotated[
        list[RolloutMetric] | None,
        ListSet(),
        Field(description="What is compared; all four when left out.", min_length=1, max_length=4),
    ] = None
    confidence: Annotated[
        Percent,
        Field(description="How sure a verdict is: at 99% at most 1 of 100 good revisions is rolled back by chance."),
    ] = "99%"
    tolerance: Annotated[
        int,
        Field(description="How much worse it may be, in percent, before it is rolled back.", ge=0, le=400),
    ] = 10
    margin: Annotated[
        int,
        Field(
            description="It is promoted only when it has been shown to be worse by less than this, in percent.",
            ge=1,
            le=900,
        ),
    ] = 20
    error_margin: Annotated[
        Percent,
        Field(description="The same for errors, in percentage points of the requests."),
    ] = "1%"
    min_requests: Annotated[
        int, Field(description="Requests that it must have ended before a step may be left.", ge=1, le=10_000_000)
    ] = 100


class Guardrails(Part):
    """What ends a rollout at once, whatever the tests say. Looked at over the last minute, from 20 requests on."""

    errors: Annotated[Percent, Field(description="Share of its requests that fail.")] = "20%"
    ttft: Annotated[Duration | None, Field(description="Median time to first token.")] = None
    tpot: Annotated[Duration | None, Field(description="Median time per output token.")] = None
    ready_timeout: Annotated[Duration, Field(description="How long its first worker may take to become ready.")] = "10m"


Prompt = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class OutputCheck(Part):
    """Fixed prompts that both revisions answer greedily, before the new one gets its first session.

    The old revision answers them twice: what differs then is noise, and is no fault of the new one.
    """

    prompts: Annotated[
        list[Prompt],
        ListSet(),
        Field(description="Prompts, which also warm its caches: begin them as your requests begin.", max_length=16),
    ]
    max_tokens: Annotated[int, Field(description="Tokens of each answer.", ge=1, le=64)] = 16
    max_drop: Annotated[
        int,
        Field(
            description="Share of the tokens, in percent, that may differ beyond the noise. 100 for another model.",
            ge=0,
            le=100,
        ),
    ] = 20
    max_divergence: Annotated[
        str,
        Field(
            description="Mean difference of the logarithms of the tokens' probabilities that is allowed beyond the "
            "noise.",
            pattern=r"^[0-9]{1,3}(\.[0-9]{1,3})?$",
            max_length=7,
        ),
    ] = "0.5"


_STEPS = "!has(self.steps) || self.strategy != '{}' || self.steps.all(s, {})"


class Rollout(Part):
    """How a new revision replaces the old one."""

    rules: ClassVar = (
        Rule("self.maxSurge + self.maxUnavailable >= 1", "maxSurge and maxUnavailable must not both be 0"),
        Rule(
            "self.strategy != 'canary' || self.maxSurge >= 1",
            "strategy canary needs a place for the new revision beside the old one: set maxSurge to 1 or more",
        ),
        Rule("self.strategy != 'rolling' || !has(self.steps)", "steps need strategy canary or blueGreen"),
        Rule(
            _STEPS.format("canary", "s.weight < 100"),
            "a step of a canary has a weight below 100: after the last one it is promoted",
        ),
        Rule(_STEPS.format("blueGreen", "s.weight in [0, 100]"), "a step of blueGreen has weight 0 or 100"),
        Rule(
            "!has(self.steps) || self.steps.map(s, s.weight).isSorted()",
            "weights of steps must not fall: a session that has moved to the new revision stays there",
        ),
        Rule(
            "!has(self.abort) || !has(self.promote) || self.abort != self.promote",
            "abort and promote name the same revision",
        ),
    )
    strategy: Annotated[
        Strategy,
        Field(
            description="rolling replaces worker by worker; canary gives the new revision growing shares of the "
            "sessions and rolls it back when it is worse; blueGreen starts all its workers first and switches at once."
        ),
    ] = Strategy.ROLLING
    steps: Annotated[
        list[RolloutStep] | None,
        Field(
            description="Steps of canary and blueGreen. When left out: 1% for a minute, 10% for 5m, 50% for 10m; and "
            "for blueGreen copies of 10% for 5m, then all for 5m.",
            min_length=1,
            max_length=16,
        ),
    ] = None
    analysis: Annotated[Analysis | None, Field(description="How the two revisions are compared.")] = None
    guardrails: Annotated[Guardrails | None, Field(description="What ends a rollout at once.")] = None
    outputs: Annotated[OutputCheck | None, Field(description="Answers to fixed prompts that are compared.")] = None
    paused: Annotated[bool, Field(description="Stay at the present step. Guardrails and tests still roll it back.")] = (
        False
    )
    abort: Annotated[
        ObjectName | None, Field(description="Revision to roll back now, as status.rollout.candidate names it.")
    ] = None
    promote: Annotated[
        ObjectName | None,
        Field(description="Revision to promote now, whatever the steps, the tests and the error budget say."),
    ] = None
    rollback_to: Annotated[
        ObjectName | None,
        Field(description="Earlier revision that serves instead of the spec's while this is set."),
    ] = None
    restarted_at: Annotated[
        Moment | None,
        Field(
            description="Every new time is a new revision, though nothing else has changed (RFC 3339): workers are "
            "replaced, and are then as this release of the operator makes them.",
        ),
    ] = None
    max_surge: Annotated[int, Field(description="Workers above the desired number while rolling.", ge=0, le=100)] = 1
    max_unavailable: Annotated[
        int, Field(description="Workers that may be missing from the desired number while rolling.", ge=0, le=100)
    ] = 0
    revision_history_limit: Annotated[
        int, Field(description="Earlier revisions kept at 0 workers, ready to be rolled back to.", ge=0, le=20)
    ] = 3
    drain_timeout: Annotated[
        Duration, Field(description="How long a worker that leaves may go on with its open streams.")
    ] = "2m"

    @property
    def stages(self) -> tuple[RolloutStep, ...]:
        """The steps in force; none for rolling."""
        if self.steps is not None:
            return tuple(self.steps)
        return _USUAL[self.strategy]

    @property
    def comparison(self) -> Analysis:
        """`analysis`, with its defaults when left out."""
        return self.analysis or Analysis()

    @property
    def limits(self) -> Guardrails:
        """`guardrails`, with their defaults when left out."""
        return self.guardrails or Guardrails()


_USUAL = {
    Strategy.ROLLING: (),
    Strategy.CANARY: (
        RolloutStep(weight=1, duration="1m"),
        RolloutStep(weight=10, duration="5m"),
        RolloutStep(weight=50, duration="10m"),
    ),
    Strategy.BLUE_GREEN: (
        RolloutStep(weight=0, mirror=10, duration="5m"),
        RolloutStep(weight=100, duration="5m"),
    ),
}


class RolloutPhase(StrEnum):
    """Stable: one revision serves. Preparing: the new one starts. Analysing: it gets traffic. Promoting: it replaces
    the old one. RolledBack: it was refused, and the old one serves."""

    STABLE = "Stable"
    PREPARING = "Preparing"
    ANALYSING = "Analysing"
    PROMOTING = "Promoting"
    ROLLED_BACK = "RolledBack"


class VerdictWord(StrEnum):
    """What a test says now."""

    WORSE = "Worse"
    NO_WORSE = "NoWorse"
    UNDECIDED = "Undecided"
    TOO_LITTLE_DATA = "TooLittleData"


class MetricVerdict(Part):
    """One metric of the two revisions beside each other."""

    metric: Annotated[RolloutMetric, Field(description="What is compared.")]
    verdict: Annotated[VerdictWord, Field(description="What its tests say now.")]
    message: Annotated[str, Field(description="The arithmetic behind it.", max_length=512)]
    stable: Annotated[list[int], Field(description="Counts of the old revision.", max_length=4)]
    candidate: Annotated[list[int], Field(description="Counts of the new revision.", max_length=4)]
    worse: Annotated[
        list[int],
        Field(description="Evidence that it is worse, in thousandths of a nat, for each alternative.", max_length=16),
    ]
    no_worse: Annotated[
        list[int],
        Field(description="Evidence that it is not, in thousandths of a nat, for each alternative.", max_length=16),
    ]


class RolloutOutcome(StrEnum):
    """How the rollout of a revision ended."""

    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    SUPERSEDED = "Superseded"


class RolloutRecord(Part):
    """A rollout that has ended."""

    revision: Annotated[str, Field(description="The revision that was new.", max_length=63)]
    before: Annotated[str, Field(description="The revision that served before it.", max_length=63)]
    outcome: Annotated[RolloutOutcome, Field(description="How it ended.")]
    reason: Annotated[str, Field(description="Why, as one CamelCase word for machines.", max_length=64)]
    message: Annotated[str, Field(description="Why, as arithmetic for people.", max_length=1024)]
    time: Annotated[str, Field(description="When (RFC 3339).", json_schema_extra={"format": "date-time"})]


HISTORY_MOST = 10


class RolloutStatus(Part):
    """How far a rollout is. All that a restart of the operator needs to go on from."""

    phase: Annotated[RolloutPhase, Field(description="Where it stands.")]
    summary: Annotated[str, Field(description="For people, in one line.", max_length=256)]
    stable: Annotated[str | None, Field(description="Revision that serves whatever happens.", max_length=63)] = None
    candidate: Annotated[str | None, Field(description="Revision that is tried, or was refused.", max_length=63)] = None
    step: Annotated[int | None, Field(description="Present step, from 0.", ge=0, le=15)] = None
    since: Annotated[
        str | None,
        Field(
            description="When the present step or phase began (RFC 3339).", json_schema_extra={"format": "date-time"}
        ),
    ] = None
    reason: Annotated[
        str | None, Field(description="What it does or waits for, as one CamelCase word for machines.", max_length=64)
    ] = None
    message: Annotated[str | None, Field(description="What it does or waits for, for people.", max_length=1024)] = None
    verdicts: Annotated[
        list[MetricVerdict] | None,
        ListMap(("metric",)),
        Field(description="What each metric says of the two revisions.", max_length=4),
    ] = None
    outputs: Annotated[
        str | None, Field(description="What the fixed prompts said, when they were asked.", max_length=512)
    ] = None
    history: Annotated[
        list[RolloutRecord] | None,
        Field(description="The last rollouts, newest first.", max_length=HISTORY_MOST),
    ] = None
