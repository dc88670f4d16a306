"""`make demo`: from nothing to a streamed answer, with the time that each stage took.

Every step looks first, so a second run does what is missing and asks again.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from openai import OpenAI

from e2e import checkpoint
from e2e.cluster import tools
from e2e.cluster.errors import ClusterError
from e2e.cluster.progress import Progress
from e2e.install import Kubectl, install, namespace, resource, tenant_key
from e2e.target import Target, choose

QUESTION = "What is the capital of France?"
MODEL, SERVICE = "smollm2-135m", "chat"
WAIT_S = 300.0


@dataclass
class Stages:
    """What happened when, in seconds since `kubectl apply`."""

    started: float = field(default_factory=time.monotonic)
    seen: list[tuple[str, float]] = field(default_factory=list)

    def reach(self, name: str) -> None:
        """Note the first time that `name` was reached."""
        if name not in [known for known, _ in self.seen]:
            self.seen.append((name, time.monotonic() - self.started))
            print(f"  {self.seen[-1][1]:6.1f} s  {name}", flush=True)


def main() -> int:
    began = time.monotonic()
    progress = Progress(sys.stdout)
    try:
        target = choose(nodes=1, progress=progress)
        print(f"Using {target.name}.", flush=True)
        with progress.step("Install Foretide with its Helm charts"):
            install(target.kubectl, target.chart_values)
        key = tenant_key(target.kubectl, "acme")
        _prepare(target, progress)
        stages = _serve(target.kubectl)
        with target.gateway() as url:
            _ask(url, key, stages)
            _next_steps(target, url, key, time.monotonic() - began)
    except ClusterError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode
    except KeyboardInterrupt:
        print("\nInterrupted. `make demo` goes on from here; `make cluster-down` removes the cluster.", file=sys.stderr)
        return 130
    return 0


def _prepare(target: Target, progress: Progress) -> None:
    """Tenant and Model; returns when a node holds a verified copy."""
    known = {}
    if target.local_model:
        known = {"digest": "sha256:" + hashlib.sha256(checkpoint.path().read_bytes()).hexdigest()}
    target.kubectl.apply(
        namespace("demo"),
        resource("Tenant", "acme", namespaces=["demo"], apiKeys=[{"secret": "acme-key"}]),
        resource("SLA", "interactive", "demo", priority="P1", targets={"ttft": "1s", "tpot": "50ms"}),
    )
    target.kubectl.apply(resource("Model", MODEL, "demo", source=target.model_source, **known))
    with progress.step("Fetch and verify the model"):
        _until(lambda: _condition(target.kubectl, f"model/{MODEL}", "Ready"), target.kubectl, f"model/{MODEL}")


def _serve(kubectl: Kubectl) -> Stages:
    """Applies the InferenceService and follows it until it is Servable."""
    service = resource(
        "InferenceService",
        SERVICE,
        "demo",
        model=MODEL,
        sla="interactive",
        accelerator={"cpu": {"cores": "500m"}},
        replicas=1,
    )
    print(f"\nkubectl apply: InferenceService demo/{SERVICE}")
    stages = Stages()
    kubectl.apply(service)

    def look() -> bool:
        _note(kubectl, stages)
        return _condition(kubectl, f"inferenceservice/{SERVICE}", "Servable")

    _until(look, kubectl, f"inferenceservice/{SERVICE}")
    stages.reach("Servable: a probe token came back through every gateway")
    print()
    print(kubectl("-n", "demo", "get", "inferenceservices"), end="")
    return stages


def _note(kubectl: Kubectl, stages: Stages) -> None:
    for pod in kubectl.items("-n", "demo", "pods", "-l", f"foretide.dev/inference-service={SERVICE}"):
        stages.reach("pod created")
        status = pod["status"]
        if status.get("containerStatuses") and "running" in status["containerStatuses"][0]["state"]:
            stages.reach("worker started")
        if any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])):
            stages.reach("worker ready: model loaded")


def _condition(kubectl: Kubectl, what: str, type_: str) -> bool:
    found: dict[str, Any] = kubectl.get("-n", "demo", what) or {}
    generation = found.get("metadata", {}).get("generation")
    conditions = found.get("status", {}).get("conditions", [])
    return any(
        c["type"] == type_ and c["status"] == "True" and c["observedGeneration"] == generation for c in conditions
    )


def _until(done: Callable[[], bool], kubectl: Kubectl, what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > deadline:
            described = kubectl("-n", "demo", "describe", what)
            raise ClusterError(f"{what} did not become ready within {WAIT_S:.0f} s:\n{described}")
        time.sleep(0.1)


def _ask(url: str, key: str, stages: Stages) -> None:
    print(f"\n> {QUESTION}")
    asked = time.monotonic()
    stream = OpenAI(base_url=url, api_key=key).chat.completions.create(
        model=SERVICE, messages=[{"role": "user", "content": QUESTION}], max_tokens=48, temperature=0, stream=True
    )
    first_s = None
    for chunk in stream:
        text = chunk.choices[0].delta.content if chunk.choices else None
        if text:
            first_s = first_s or time.monotonic() - asked
            print(text, end="", flush=True)
    total = time.monotonic() - asked
    print(f"\n\nfirst token after {(first_s or total) * 1000:.0f} ms, whole answer after {total:.1f} s; ", end="")
    print(f"from kubectl apply to the first token {asked - stages.started + (first_s or total):.1f} s")


def _next_steps(target: Target, url: str, key: str, took_s: float) -> None:
    print(f"\nDone in {took_s:.0f} s, on {target.name}. What to try next:\n")
    if target.cluster is not None or target.name == "kind":
        print(f"  export KUBECONFIG={target.kubectl.kubeconfig}")
    kubectl = "kubectl" if shutil.which("kubectl") else tools.kubectl()
    print(f"  {kubectl} -n demo describe inferenceservice chat     # conditions and events")
    print(f"  {kubectl} -n demo scale inferenceservice chat --replicas=2")
    print(f"  {kubectl} get foretide -A                            # everything that is ours")
    if target.cluster is not None:
        print(
            f"\n  curl {url}/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\"
        )
        print("""    -d '{"model": "chat", "messages": [{"role": "user", "content": "Tell me a joke."}]}'""")
        print("\n  make cluster-down                                  # removes the cluster and all that it left")


if __name__ == "__main__":
    sys.exit(main())
