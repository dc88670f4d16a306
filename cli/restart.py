"""`foretide restart`: has the workers of one service replaced, as its rollout strategy says. Changes one field."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from cli import kubectl
from cli.completing import services
from cli.fleet import named
from cli.kubectl import ContextOption, Kubectl, NamespaceOption


def command(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="The InferenceService.", autocompletion=services)],
    namespace: NamespaceOption = None,
    kube_context: ContextOption = None,
) -> None:
    """Replace the workers of a service by new ones of the same spec, made as this release makes them."""
    cluster = kubectl.of(context, kube_context)
    found = named("InferenceService", service, cluster.objects("inferenceservices", namespace))
    restart(cluster, found, datetime.now(UTC))
    where = found["metadata"]["namespace"]
    print(f"{where}/{service}: its workers are replaced now. Watch it with: kubectl -n {where} get isvc {service} -w")


def restart(cluster: Kubectl, service: kubectl.Json, now: datetime) -> None:
    """A new `spec.rollout.restartedAt`. Raises CliError where the API server refuses it."""
    metadata, rollout = service["metadata"], service["spec"].get("rollout")
    at = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    change = (
        {"op": "add", "path": "/spec/rollout", "value": {"restartedAt": at}}
        if rollout is None
        else {"op": "add", "path": "/spec/rollout/restartedAt", "value": at}
    )
    cluster.patch("inferenceservices", metadata["name"], metadata["namespace"], [change])
