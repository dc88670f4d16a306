"""AlertPolicy: what counts as trouble with the services of a namespace, who is told, and how often."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints

from crds.alert_status import AlertPolicyStatus, AlertSeverity
from crds.fields import ListMap, ListSet, Moment, ObjectName, Part, Quantity, Rule

__all__ = ["AlertPolicySpec", "AlertPolicyStatus", "AlertSeverity"]

SPAN = r"^[1-9][0-9]{0,4}(s|m|h|d)$"
Span = Annotated[str, StringConstraints(pattern=SPAN, max_length=6)]
"""A length of time: `30s`, `5m`, `6h`, `3d`."""
Window = Annotated[
    Span,
    Rule(
        "self.matches('^([1-9]|1[0-4])d$') || (!self.endsWith('d') && duration(self) <= duration('336h'))",
        "over is 14d at most: no more of the past is held",
    ),
]
"""A length of time of the past."""
LabelName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,62}$", max_length=63)]


class Metric(StrEnum):
    """What a rule looks at, of one InferenceService."""

    REQUESTS = "requests"
    ANSWERED = "answered"
    FAILURES = "failures"
    INPUT_TOKENS = "inputTokens"
    OUTPUT_TOKENS = "outputTokens"
    WORKERS_MISSING = "workersMissing"
    UNSERVABLE = "unservable"
    QUALITY_DRIFT = "qualityDrift"


class Direction(StrEnum):
    """Which side is bad."""

    ABOVE = "above"
    BELOW = "below"
    BOTH = "both"


class Threshold(Part):
    """A bound."""

    rules: ClassVar = (Rule("has(self.above) != has(self.below)", "set exactly one of above and below"),)
    above: Annotated[Quantity | None, Field(description='Trouble above this, for example "0.05".')] = None
    below: Annotated[Quantity | None, Field(description="Trouble below this.")] = None
    over: Annotated[Window, Field(description="The metric is taken over this time, 14d at most.")] = "5m"


class Anomaly(Part):
    """Unlike the past. Exactly one of sigmas and falseAlarms."""

    rules: ClassVar = (Rule("has(self.sigmas) != has(self.falseAlarms)", "set exactly one of sigmas and falseAlarms"),)
    sigmas: Annotated[
        Quantity | None, Field(description="Standard deviations from the mean of the day before: the k of k·σ.")
    ] = None
    false_alarms: Annotated[
        int | None,
        Field(
            description="Calibrated: so many false alarms in a year are accepted; the score is compared with its past.",
            ge=1,
            le=365,
        ),
    ] = None
    direction: Annotated[Direction, Field(description="Which side is bad.")] = Direction.BOTH


class Trend(Part):
    """On its way to a bound."""

    rules: ClassVar = (Rule("has(self.above) != has(self.below)", "set exactly one of above and below"),)
    above: Annotated[Quantity | None, Field(description="The bound that a rising metric must not pass.")] = None
    below: Annotated[Quantity | None, Field(description="The bound that a falling metric must not pass.")] = None
    over: Annotated[Window, Field(description="The straight line is fitted to this time, 14d at most.")] = "1h"
    within: Annotated[Span, Field(description="Trouble when the bound is reached within this time.")] = "4h"


class BurnRate(Part):
    """How fast the error budget of the service's SLA is used up: the windows of Google's SRE workbook."""

    slow: Annotated[
        bool, Field(description="Also the windows of a day and of three days, which make tickets (P2).")
    ] = True


class AlertRule(Part):
    """One kind of trouble."""

    rules: ClassVar = (
        Rule(
            "[has(self.threshold), has(self.anomaly), has(self.trend), has(self.burnRate)].filter(x, x).size() == 1",
            "set exactly one of threshold, anomaly, trend and burnRate",
        ),
        Rule(
            "has(self.burnRate) != has(self.metric)",
            "metric is what threshold, anomaly and trend look at; burnRate reads the SLA",
        ),
        Rule(
            "!has(self.metric) || has(self.threshold)"
            " || !(self.metric in ['workersMissing', 'unservable', 'qualityDrift'])",
            "workersMissing, unservable and qualityDrift have no history: use them with threshold",
        ),
    )
    name: Annotated[ObjectName, Field(description="Name of the alert.")]
    severity: Annotated[
        AlertSeverity, Field(description="P0: wake somebody; P1: today; P2: a ticket. A burn rate chooses its own.")
    ] = AlertSeverity.P1
    metric: Annotated[
        Metric | None,
        Field(
            description="requests, answered, inputTokens and outputTokens each second; failures as a share of the"
            " requests; workersMissing; unservable (1 while a request would not be answered); qualityDrift (1 while"
            " answers are unlike those of the baseline)."
        ),
    ] = None
    threshold: Annotated[Threshold | None, Field(description="Beyond a bound.")] = None
    anomaly: Annotated[Anomaly | None, Field(description="Unlike the past.")] = None
    trend: Annotated[Trend | None, Field(description="On its way to a bound.")] = None
    burn_rate: Annotated[BurnRate | None, Field(description="Error budget used up too fast.")] = None
    for_: Annotated[
        Span | None, Field(alias="for", description="How long it must last before it fires; at once when left out.")
    ] = None
    keep_firing: Annotated[
        Span | None, Field(description="How long it must be over before it is resolved; at once when left out.")
    ] = None
    summary: Annotated[str | None, Field(description="One line for people.", max_length=200)] = None
    runbook: Annotated[
        str | None, Field(description="What a person should look at first; text or a link.", max_length=2000)
    ] = None
    labels: Annotated[
        dict[str, str] | None,
        Rule(
            "self.all(k, k.matches('^[a-zA-Z_][a-zA-Z0-9_]{0,62}$')"
            " && !(k in ['alertname', 'namespace', 'policy', 'service', 'severity', 'window']))",
            "names of labels are letters, digits and '_', and none of alertname, namespace, policy, service, severity"
            " and window, which are set already",
        ),
        Field(description="More labels on its alerts.", max_length=16),
    ] = None


class Matcher(Part):
    """A test of one label."""

    label: Annotated[LabelName, Field(description="Name of the label.")]
    value: Annotated[str, Field(description="Value; `*` stands for anything.", max_length=253)]
    negate: Annotated[bool, Field(description="Match everything else.")] = False


Matchers = Annotated[list[Matcher], Field(max_length=16)]


class Receive(Part):
    """Which alerts of an Alertmanager belong here, too."""

    matchers: Annotated[
        Matchers, Field(description="All must match; every alert of this namespace when empty.", max_length=16)
    ]


class ReactionKind(StrEnum):
    """What follows from an alert beside being told."""

    HOLD_ROLLOUT = "holdRollout"
    SCALE_UP = "scaleUp"
    DIAGNOSE = "diagnose"


class Reaction(Part):
    """What follows from an alert about a service, while it fires and for a bounded time."""

    rules: ClassVar = (
        Rule(
            "(self.action == 'scaleUp') == has(self.workers)", "action scaleUp needs workers; no other action has them"
        ),
    )
    name: Annotated[ObjectName, Field(description="Name of the reaction.")]
    matchers: Annotated[Matchers, Field(description="Alerts that all of these match.", min_length=1)]
    action: Annotated[
        ReactionKind,
        Field(
            description="holdRollout: a canary or blue-green rollout of the service neither begins nor goes on. "
            "scaleUp: it has at least so many workers, within scaling.max, Tenant and pools. diagnose: its status and "
            "an Event say what is wrong with it, what speaks for that and what to do."
        ),
    ] = ReactionKind.HOLD_ROLLOUT
    workers: Annotated[
        int | None,
        Field(description="Fewest workers of the service meanwhile; not below its own minimum.", ge=1, le=1000),
    ] = None
    duration: Annotated[
        Span | None,
        Field(description="It ends so long after the alert began to fire; a day at most, and when left out."),
    ] = None


DEFAULT_GROUPING: Final = ["incident"]


class Grouping(Part):
    """What is told together."""

    by: Annotated[
        list[LabelName],
        ListSet(),
        Field(
            description="Labels whose alerts are told together; `incident` stands for one cause.",
            max_length=8,
            min_length=1,
        ),
    ] = DEFAULT_GROUPING
    wait: Annotated[Span, Field(description="How long more alerts of one cause are waited for.")] = "30s"
    interval: Annotated[Span, Field(description="Between two messages about one group that changed.")] = "5m"
    repeat: Annotated[Span, Field(description="An unresolved group is told again after this.")] = "4h"


class Inhibition(Part):
    """A cause that makes its consequences not worth a message."""

    source: Annotated[Matchers, Field(description="While an alert fires that all of these match…", min_length=1)]
    target: Annotated[Matchers, Field(description="…alerts that all of these match are not told.", min_length=1)]
    equal: Annotated[
        list[LabelName] | None, ListSet(), Field(description="Labels that both must have alike.", max_length=8)
    ] = None


class Silence(Part):
    """Times in which some alerts are not told."""

    rules: ClassVar = (
        Rule(
            "!has(self.starts) || timestamp(self.starts) < timestamp(self.ends)",
            "starts and ends are times (RFC 3339), and starts is before ends",
        ),
        Rule("timestamp(self.ends) > timestamp('2000-01-01T00:00:00Z')", "ends must be a time (RFC 3339)"),
    )
    name: Annotated[ObjectName, Field(description="Name of the silence.")]
    matchers: Annotated[Matchers, Field(description="All must match.", min_length=1)]
    starts: Annotated[Moment | None, Field(description="From when (RFC 3339); at once when left out.")] = None
    ends: Annotated[Moment, Field(description="Until when (RFC 3339).")]
    comment: Annotated[str | None, Field(description="Why, and by whom.", max_length=200)] = None


class Flapping(Part):
    """When an alert that comes and goes is held as one."""

    firings: Annotated[int, Field(description="So many times…", ge=2, le=100)] = 3
    within: Annotated[
        Span,
        Field(description="…within this time, a day at most. It is over when nothing has been wrong for as long."),
    ] = "30m"


class SecretKey(Part):
    """An entry of a Secret in the policy's namespace that has the label foretide.dev/alert-receiver: "true"."""

    name: Annotated[ObjectName, Field(description="Name of the Secret.")]
    key: Annotated[
        str, Field(description="Entry of its data.", pattern=r"^[-._a-zA-Z0-9]+$", max_length=253, min_length=1)
    ]


URL = r"^https?://[^\s/?#@]+([/?#]\S*)?$"


class Webhook(Part):
    """Alertmanager's webhook message, version 4."""

    rules: ClassVar = (Rule("has(self.url) != has(self.urlSecret)", "set exactly one of url and urlSecret"),)
    url: Annotated[str | None, Field(description="Where it is sent.", pattern=URL, max_length=1024)] = None
    url_secret: Annotated[SecretKey | None, Field(description="Where the URL lies.")] = None
    token_secret: Annotated[SecretKey | None, Field(description="Where the bearer token lies, if one is sent.")] = None


class PagerDuty(Part):
    """PagerDuty's Events API, version 2."""

    routing_key_secret: Annotated[SecretKey, Field(description="Where the integration's routing key lies.")]
    url: Annotated[str, Field(description="The Events API.", pattern=URL, max_length=1024)] = (
        "https://events.pagerduty.com/v2/enqueue"
    )


class Slack(Part):
    """Slack's incoming webhook."""

    url_secret: Annotated[SecretKey, Field(description="Where the webhook's URL lies.")]


class Receiver(Part):
    """Who is told, and how."""

    rules: ClassVar = (
        Rule(
            "[has(self.webhook), has(self.pagerDuty), has(self.slack)].filter(x, x).size() == 1",
            "set exactly one of webhook, pagerDuty and slack",
        ),
    )
    name: Annotated[ObjectName, Field(description="Name of the receiver.")]
    webhook: Annotated[Webhook | None, Field(description="Alertmanager's webhook message.")] = None
    pager_duty: Annotated[PagerDuty | None, Field(description="PagerDuty.")] = None
    slack: Annotated[Slack | None, Field(description="Slack.")] = None
    send_resolved: Annotated[bool, Field(description="Also tell when it is over.")] = True


class Route(Part):
    """Who is told of a severity."""

    severity: Annotated[AlertSeverity, Field(description="Of the worst alert of the group.")]
    receivers: Annotated[
        list[ObjectName], ListSet(), Field(description="Names of receivers; nobody when empty.", max_length=16)
    ]


class AlertPolicySpec(Part):
    """Rules and receivers."""

    rules: ClassVar = (
        Rule(
            "!has(self.routes) || self.routes.all(r, r.receivers.all(n, has(self.receivers)"
            " && self.receivers.exists(one, one.name == n)))",
            "a route names a receiver that is not in receivers",
        ),
        Rule("has(self.rules) || has(self.receive)", "set rules, receive or both: without them nothing ever fires"),
    )
    services: Annotated[
        list[ObjectName] | None,
        ListSet(),
        Field(
            description="InferenceServices that the rules are about; all of the namespace when left out.",
            min_length=1,
            max_length=100,
        ),
    ] = None
    interval: Annotated[Span, Field(description="Between two looks.")] = "15s"
    alert_rules: Annotated[
        list[AlertRule] | None,
        ListMap(("name",)),
        Field(alias="rules", description="What counts as trouble.", max_length=50, min_length=1),
    ] = None
    receive: Annotated[
        Receive | None, Field(description="Alerts that an Alertmanager sends to the operator are taken in, too.")
    ] = None
    grouping: Annotated[Grouping, Field(description="What is told together, and how often.")] = Grouping()
    inhibitions: Annotated[
        list[Inhibition] | None,
        Field(description="Besides that of consequences by causes along the topology.", max_length=20),
    ] = None
    silences: Annotated[
        list[Silence] | None, ListMap(("name",)), Field(description="What is not told for a while.", max_length=50)
    ] = None
    reactions: Annotated[
        list[Reaction] | None,
        ListMap(("name",)),
        Field(description="What follows from alerts about services, those of an Alertmanager included.", max_length=8),
    ] = None
    flapping: Annotated[Flapping, Field(description="Damping of alerts that come and go.")] = Flapping()
    receivers: Annotated[
        list[Receiver] | None, ListMap(("name",)), Field(description="Who is told.", max_length=16)
    ] = None
    routes: Annotated[
        list[Route] | None,
        ListMap(("severity",)),
        Field(description="Who is told of which severity; a severity that is left out goes to all.", max_length=3),
    ] = None
    export: Annotated[
        bool,
        Field(
            description="Write the rules for Prometheus, too: a PrometheusRule where that is known, else a ConfigMap."
        ),
    ] = False
