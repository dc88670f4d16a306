"""`foretide top`: the services with the most load. Reads only.

The load is the objects' own; requests, tokens and queues are what the operator measured for its last decision, which is
at most some minutes old, and read for the services shown alone.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli import kubectl
from cli.decisions import read_newest
from cli.fleet import read_fleet
from cli.kubectl import OPERATOR_NAMESPACE, ContextOption, NamespaceOption, OperatorNamespaceOption
from cli.lines import Form
from cli.top_text import busiest, row_of, top_lines


def command(
    context: typer.Context,
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Services of all namespaces.")] = False,
    most: Annotated[int, typer.Option(help="So many services.", min=1, max=200)] = 20,
    operator_namespace: OperatorNamespaceOption = OPERATOR_NAMESPACE,
    kube_context: ContextOption = None,
    output: Annotated[Form, typer.Option("-o", "--output", help="text or json.")] = Form.TEXT,
) -> None:
    """Show the services with the most load: tokens, requests, queues, workers."""
    cluster = kubectl.of(context, kube_context)
    fleet = read_fleet(cluster, namespace, everywhere=everywhere)
    shown = busiest(fleet.services)[:most]
    scaled = [(one.namespace, one.name) for one in shown if one.spec.get("scaling")]
    newest = read_newest(cluster, operator_namespace, scaled)
    for note in (*fleet.notes, *newest.notes):
        print(note, file=sys.stderr)
    rows = [row_of(one, newest.decisions, datetime.now(UTC)) for one in shown]
    if output is Form.JSON:
        print(json.dumps({"total": len(fleet.services), "services": [asdict(row) for row in rows]}))
    elif not rows:
        print("There is no InferenceService here. -A looks in all namespaces.")
    else:
        print("\n".join(top_lines(rows)))
        if len(rows) < len(fleet.services):
            print(f"{len(fleet.services) - len(rows)} more have less load; --most shows more.")
