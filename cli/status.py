"""`foretide status`: how the services are, and why those that are not well are so. Reads only."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cli import kubectl
from cli.completing import services
from cli.errors import CliError
from cli.fleet import Fleet, Service, read_fleet, the_one
from cli.kubectl import ContextOption, NamespaceOption
from cli.lines import Form
from cli.output import print_utf8
from cli.status_text import fleet_lines, service_lines


def command(
    context: typer.Context,
    service: Annotated[
        str | None, typer.Argument(help="One service; all of them when left out.", autocompletion=services)
    ] = None,
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Services of all namespaces.")] = False,
    kube_context: ContextOption = None,
    output: Annotated[Form, typer.Option("-o", "--output", help="text or json.")] = Form.TEXT,
) -> None:
    """Show the services: ready, servable and why not, revision, rollout, SLA, forecast, alerts."""
    if service is not None and everywhere:
        raise CliError(f"A service is in one namespace: say -n NAMESPACE with '{service}', or -A alone.")
    fleet = read_fleet(kubectl.of(context, kube_context), namespace, everywhere=everywhere)
    for note in fleet.notes:
        print(note, file=sys.stderr)
    if service is not None:
        one = the_one(fleet, service)
        if output is Form.JSON:
            print_utf8(json.dumps(plain(one), ensure_ascii=False))
        else:
            print(_text_of_one(one))
    elif output is Form.JSON:
        print_utf8(json.dumps({"services": [plain(one) for one in fleet.services]}, ensure_ascii=False))
    else:
        print(_text(fleet))


def plain(one: Service) -> dict[str, Any]:
    """The objects' own words, joined."""
    return {
        "namespace": one.namespace,
        "name": one.name,
        "spec": one.spec,
        "status": one.status,
        "sla": one.sla and {"spec": one.sla.get("spec"), "status": one.sla.get("status")},
        "forecast": one.expected or None,
        "alerts": list(one.alerts),
    }


def _text_of_one(one: Service) -> str:
    return "\n".join(service_lines(one, datetime.now(UTC)))


def _text(fleet: Fleet) -> str:
    if not fleet.services:
        return "There is no InferenceService here. -A looks in all namespaces."
    return "\n".join(fleet_lines(fleet.services))
