"""`foretide silence`: adds one silence to an AlertPolicy, for a time and with a reason. Changes nothing else in it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from cli import kubectl
from cli.completing import policies
from cli.errors import CliError
from cli.fleet import named
from cli.kubectl import ContextOption, Kubectl, NamespaceOption, NotAllowed
from cli.lines import Form, clock
from cli.output import print_utf8
from controllers.plans.alerting.alerts import matches
from crds.alert_policy import Silence
from crds.fields import seconds

Json = dict[str, Any]

LONGEST_S: Final = 30 * 86_400.0
SHORTEST_S: Final = 60.0
MOST: Final = 50
"""Of a policy; the schema's limit."""
_MATCHER: Final = re.compile(r"(?P<label>[^=!]+)(?P<not>!?)=(?P<value>.*)", re.DOTALL)


def command(
    context: typer.Context,
    policy: Annotated[str, typer.Argument(help="The AlertPolicy.", autocompletion=policies)],
    matchers: Annotated[list[str], typer.Argument(help="label=value or label!=value; * stands for anything.")],
    lasts: Annotated[str, typer.Option("--for", help="How long, for example 90m, 2h or 7d; 30d at most.")],
    reason: Annotated[str, typer.Option(help="Why, and by whom; 200 characters at most.")],
    name: Annotated[str | None, typer.Option(help="Of the silence; made from the time when left out.")] = None,
    namespace: NamespaceOption = None,
    kube_context: ContextOption = None,
    output: Annotated[Form, typer.Option("-o", "--output", help="text or json.")] = Form.TEXT,
) -> None:
    """Keep quiet about some alerts of a policy for a while, and say which that are now."""
    now = datetime.now(UTC)
    silence = silence_of(name, matchers, lasts, reason, now)
    cluster = kubectl.of(context, kube_context)
    found = named("AlertPolicy", policy, cluster.objects("alertpolicies", namespace))
    add(cluster, found, silence)
    muted = quiet_now(found, silence)
    if output is Form.JSON:
        where = {"namespace": found["metadata"]["namespace"], "policy": policy}
        print_utf8(json.dumps({**where, "silence": silence.dump(), "silencedNow": muted}, ensure_ascii=False))
    else:
        print(_text(found, silence, muted, now))


def silence_of(name: str | None, matchers: Sequence[str], lasts: str, reason: str, now: datetime) -> Silence:
    """The silence as the schema has it.

    Raises:
        CliError: a part of it cannot be; says which.
    """
    if not reason.strip():
        raise CliError("--reason is empty. Say why, and who knows more: somebody will wonder.")
    try:
        return Silence.model_validate(
            {
                "name": name or f"silence-{now:%Y%m%d-%H%M%S}",
                "matchers": [_matcher(each) for each in matchers],
                "ends": f"{now + timedelta(seconds=_lasting(lasts)):%Y-%m-%dT%H:%M:%SZ}",
                "comment": reason.strip(),
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])).replace("comment", "--reason").replace("name", "--name", 1)
        raise CliError(f"{field}: {first['msg']} (found {str(first['input'])[:80]!r}).") from error


def _lasting(text: str) -> float:
    try:
        found = seconds(text)
    except ValueError as error:
        raise CliError(f"--for is {text!r}; a time such as 90m, 2h or 7d is needed.") from error
    if not SHORTEST_S <= found <= LONGEST_S:
        raise CliError(f"--for is {text!r}; from 1m to 30d are allowed. What is to be quiet for ever is no alert.")
    return found


def _matcher(text: str) -> Json:
    found = _MATCHER.fullmatch(text)
    if found is None:
        raise CliError(f"The matcher is {text!r}; label=value or label!=value is needed, such as service=chat.")
    matcher: Json = {"label": found["label"], "value": found["value"]}
    return {**matcher, "negate": True} if found["not"] else matcher


def add(cluster: Kubectl, policy: Json, silence: Silence) -> None:
    """Raises CliError where there is no room, the name is taken, or somebody else was quicker."""
    metadata, known = policy["metadata"], policy["spec"].get("silences") or []
    where = f"AlertPolicy '{metadata['namespace']}/{metadata['name']}'"
    if len(known) >= MOST:
        raise CliError(f"{where} has {len(known)} silences, and {MOST} are allowed. Remove those that have ended.")
    if any(each["name"] == silence.name for each in known):
        raise CliError(f"{where} has a silence '{silence.name}' already. Choose another --name.")
    value = silence.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    # The generation is that of the spec: the status may change as it likes meanwhile.
    unchanged = {"op": "test", "path": "/metadata/generation", "value": metadata["generation"]}
    if known:
        step: Json = {"op": "add", "path": "/spec/silences/-", "value": value}
    else:
        step = {"op": "add", "path": "/spec/silences", "value": [value]}
    try:
        cluster.patch("alertpolicies", metadata["name"], metadata["namespace"], [unchanged, step])
    except NotAllowed:
        raise
    except CliError as error:
        if _generation(cluster, policy) != metadata["generation"]:
            raise CliError(f"{where} was edited meanwhile. Nothing was changed: say it again.") from error
        raise


def _generation(cluster: Kubectl, policy: Json) -> Any:
    metadata = policy["metadata"]
    now = cluster.object("alertpolicies.foretide.dev", metadata["name"], metadata["namespace"])
    return now["metadata"]["generation"]


def quiet_now(policy: Json, silence: Silence) -> list[str]:
    """Alerts of the status that fire and that it is about."""
    alerts = (policy.get("status") or {}).get("alerts") or []
    return [
        f"{each['severity']} {each['rule']} of {each['subject']}"
        for each in alerts
        if each["state"] not in ("pending", "resolved") and matches(silence.matchers, each.get("labels") or {})
    ]


def _text(policy: Json, silence: Silence, muted: Sequence[str], now: datetime) -> str:
    metadata = policy["metadata"]
    until = clock(datetime.fromisoformat(silence.ends), now)
    what = " and ".join(f"{one.label}{'!' if one.negate else ''}={one.value}" for one in silence.matchers)
    head = f"{metadata['namespace']}/{metadata['name']}: silence '{silence.name}' until {until} UTC for {what}"
    lines = [f"  quiet now: {each}" for each in muted] or ["  No alert that fires now is among them."]
    return "\n".join([head, *lines])
