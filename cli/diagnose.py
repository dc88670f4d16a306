"""`foretide diagnose`: what is wrong with a service, what speaks for it, what was done and what to do. Reads only.

The operator's own findings come first, as the status holds them. What pods and nodes show beside them is found by the
operator's own function; what only gateways know, only the operator can tell.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli import kubectl
from cli.completing import services
from cli.diagnose_text import Picture, diagnosis_lines, plain
from cli.fleet import Service, read_fleet, the_one
from cli.kubectl import ContextOption, Json, Kubectl, NamespaceOption, NotAllowed
from cli.lines import Form
from cli.output import print_utf8
from controllers.plans.healing.diagnose import diagnose
from controllers.plans.healing.objects import view_of
from crds.contract import LABEL_SERVICE


def command(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="The service.", autocompletion=services)],
    namespace: NamespaceOption = None,
    kube_context: ContextOption = None,
    output: Annotated[Form, typer.Option("-o", "--output", help="text or json.")] = Form.TEXT,
) -> None:
    """Say what is wrong with a service: evidence, cause, what was done, advice and its effect."""
    cluster = kubectl.of(context, kube_context)
    fleet = read_fleet(cluster, namespace, everywhere=False)
    one = the_one(fleet, service)
    picture, notes = _picture(cluster, one, datetime.now(UTC))
    for note in (*fleet.notes, *notes):
        print(note, file=sys.stderr)
    if output is Form.JSON:
        print_utf8(json.dumps(plain(picture), ensure_ascii=False))
    else:
        print("\n".join(diagnosis_lines(picture, datetime.now(UTC))))


def _picture(cluster: Kubectl, one: Service, now: datetime) -> tuple[Picture, list[str]]:
    notes: list[str] = []
    pods = _read(cluster, "pods", one.namespace, f"{LABEL_SERVICE}={one.name}", notes)
    nodes = _read(cluster, "nodes", None, None, notes)
    view = view_of(one.object, pods, nodes)
    return Picture(one, view, tuple(diagnose(view, now.timestamp()))), notes


def _read(cluster: Kubectl, what: str, namespace: str | None, selector: str | None, notes: list[str]) -> list[Json]:
    try:
        return cluster.labelled(what, namespace, selector)
    except NotAllowed as error:
        notes.append(f"{what} could not be read, so what they show is left out: {error}")
        return []
