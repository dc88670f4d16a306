"""What a scenario stands on: an installed Foretide, two tenants, a verified model, and words for acting and waiting."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from openai import OpenAI

from e2e.cluster.errors import CommandFailed
from e2e.install import SYSTEM, Kubectl, resource
from e2e.load import Load

MODEL = "smollm2-135m"
SERVICE_LABEL = "foretide.dev/inference-service"
QUESTION = "What is the capital of France?"

Object = dict[str, Any]
T = TypeVar("T")


class Late(AssertionError):
    """Something that should have happened did not, in the time it was given."""


def until(look: Callable[[], T], what: str, timeout_s: float = 60.0, every_s: float = 0.1) -> T:
    """The first true value of `look`. Raises Late with the last one seen."""
    deadline = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise Late(f"{what}: not within {timeout_s:.0f} s; last seen: {seen!r}")
        time.sleep(every_s)


@dataclass(frozen=True)
class World:
    """One cluster with Foretide in it. Tenant `acme` owns namespace `demo`, `rival` owns `elsewhere`."""

    kubectl: Kubectl
    url: str
    """Base URL of the gateway for OpenAI clients, `http://…/v1`."""
    keys: dict[str, str]
    """API key by tenant."""

    def client(self, tenant: str = "acme") -> OpenAI:
        return OpenAI(base_url=self.url, api_key=self.keys[tenant], max_retries=0, timeout=60)

    def load(self, model: str, **options: Any) -> Load:
        return Load(self.url, self.keys["acme"], model, **options)

    def ask(self, model: str, tenant: str = "acme") -> str:
        answer = self.client(tenant).chat.completions.create(
            model=model, messages=[{"role": "user", "content": QUESTION}], max_tokens=16, temperature=0
        )
        return answer.choices[0].message.content or ""

    # --- objects ----------------------------------------------------------------------------------------------------
    def service(self, name: str, namespace: str = "demo", **spec: Any) -> Object:
        """A small InferenceService of the shared model; `spec` replaces fields."""
        small = {"model": MODEL, "accelerator": {"cpu": {"cores": "100m", "memory": "1500Mi"}}, "replicas": 1}
        small["engine"] = {"maxModelLen": 1024, "kvCache": "128Mi"}
        if "scaling" in spec:
            del small["replicas"]
        return resource("InferenceService", name, namespace, **(small | spec))

    def get(self, what: str, namespace: str = "demo") -> Object | None:
        found: Object | None = self.kubectl.get("-n", namespace, what)
        return found

    def select(self, kind: str, selector: str, namespace: str = "demo") -> list[Object]:
        found = self.kubectl.get("-n", namespace, kind, "-l", selector) or {"items": []}
        items: list[Object] = found["items"]
        return items

    def pods(self, service: str, namespace: str = "demo") -> list[Object]:
        """Worker pods that are not on their way out."""
        pods = self.select("pods", f"{SERVICE_LABEL}={service}", namespace)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def status(self, service: str, namespace: str = "demo") -> Object:
        found = self.get(f"inferenceservice/{service}", namespace)
        status: Object = (found or {}).get("status", {})
        return status

    def condition(self, what: str, type_: str, namespace: str = "demo") -> Object:
        """The condition, when it speaks of the present generation; else an empty one."""
        found = self.get(what, namespace) or {}
        generation = found.get("metadata", {}).get("generation")
        for condition in found.get("status", {}).get("conditions", []):
            if condition["type"] == type_ and condition.get("observedGeneration") == generation:
                return dict(condition)
        return {}

    def wait(self, what: str, type_: str = "Servable", timeout_s: float = 120, namespace: str = "demo") -> Object:
        """Until the condition is True for the present generation. Raises Late with the condition's own words."""
        try:
            return until(
                lambda: c if (c := self.condition(what, type_, namespace)).get("status") == "True" else {},
                f"{what} {type_}",
                timeout_s,
            )
        except Late as late:
            seen = (self.get(what, namespace) or {}).get("status")
            raise Late(f"{late}\n{json.dumps(seen, indent=1)}") from None

    def rolled(self, service: str, replicas: int, timeout_s: float = 180) -> str:
        """Waits until exactly `replicas` workers of the current revision stand and no other; its name."""

        def done() -> str | None:
            found = self.get(f"inferenceservice/{service}") or {}
            status = found.get("status", {})
            current = status.get("observedGeneration") == found.get("metadata", {}).get("generation")
            wanted = [{"name": status.get("currentRevision"), "replicas": replicas, "readyReplicas": replicas}]
            return status["currentRevision"] if current and status.get("revisions") == wanted else None

        try:
            return until(done, f"{service} rolled to {replicas} workers of one revision", timeout_s) or ""
        except Late as late:
            raise Late(f"{late}\n{json.dumps(self.status(service), indent=1)}") from None

    @contextmanager
    def serving(self, name: str, **spec: Any) -> Iterator[Object]:
        """An InferenceService that is Servable inside the block and deleted after it."""
        wanted = self.service(name, **spec)
        self.kubectl.apply(wanted)
        try:
            self.wait(f"inferenceservice/{name}")
            yield wanted
        finally:
            self.kubectl("-n", "demo", "delete", "inferenceservice", name, "--ignore-not-found", "--timeout=120s")

    # --- the control plane of Foretide ------------------------------------------------------------------------------
    def leader(self) -> str:
        """Pod name of the leading operator; empty while there is none."""
        lease = self.kubectl.get("-n", SYSTEM, "lease", "foretide-operator") or {}
        holder = str(lease.get("spec", {}).get("holderIdentity") or "")
        return holder.split("_")[0]

    def kill(self, pod: str, namespace: str) -> None:
        """SIGKILL to every process of a pod's container, then the pod goes: a death without a goodbye."""
        strike = ["--", "python3", "-c", "import os; os.kill(-1, 9)"]
        with contextlib.suppress(CommandFailed):  # The blow also ends the connection that carries it.
            self.kubectl("-n", namespace, "exec", pod, *strike)
        try:
            self.kubectl("-n", namespace, "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
        except CommandFailed as failed:
            if "NotFound" not in failed.output:
                raise
