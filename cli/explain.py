"""`foretide explain`: the last scaling decisions of a service with their arithmetic. Reads only."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cli import kubectl
from cli.completing import services
from cli.decisions import Record, changes, read_decisions
from cli.explain_text import explain_lines
from cli.fleet import Service, read_fleet, the_one
from cli.kubectl import OPERATOR_NAMESPACE, ContextOption, NamespaceOption, OperatorNamespaceOption
from cli.lines import Form
from cli.output import print_utf8
from forecasting.policy import to_plain


def command(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="The service.", autocompletion=services)],
    namespace: NamespaceOption = None,
    last: Annotated[int, typer.Option(help="So many changes.", min=1, max=100)] = 3,
    operator_namespace: OperatorNamespaceOption = OPERATOR_NAMESPACE,
    kube_context: ContextOption = None,
    output: Annotated[Form, typer.Option("-o", "--output", help="text or json.")] = Form.TEXT,
) -> None:
    """Say why a service has so many replicas: the last decisions with their arithmetic."""
    cluster = kubectl.of(context, kube_context)
    fleet = read_fleet(cluster, namespace)
    one = the_one(fleet, service)
    scales = bool(one.spec.get("scaling"))
    record = read_decisions(cluster, operator_namespace, one.namespace, one.name) if scales else Record(())
    for note in (*fleet.notes, *record.notes):
        print(note, file=sys.stderr)
    if output is Form.JSON:
        print_utf8(json.dumps(plain(one, record, last), ensure_ascii=False))
    else:
        print(_text(one, record, last, datetime.now(UTC)))


def plain(one: Service, record: Record, last: int) -> dict[str, Any]:
    """Decisions as `foretide replay` knows them, newest first."""
    return {
        "namespace": one.namespace,
        "name": one.name,
        "desiredReplicas": one.status.get("desiredReplicas"),
        "scaling": one.status.get("scaling"),
        "forecast": one.expected or None,
        "newest": to_plain(record.decisions[-1]) if record.decisions else None,
        "changes": [to_plain(each) for each in changes(record.decisions)[:last]],
        "notes": list(record.notes),
    }


def _text(one: Service, record: Record, last: int, now: datetime) -> str:
    if not one.spec.get("scaling"):
        return (
            f"{one.namespace}/{one.name} has as many replicas as spec.replicas says ({one.spec.get('replicas', 1)});\n"
            "nothing decides them. spec.scaling lets the operator choose."
        )
    return "\n".join(explain_lines(one, record.decisions, last, now))
