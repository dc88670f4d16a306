"""The cluster as `kubectl` gives it: its login, its context, its rights. Never a client of its own.

What kubectl says on stderr becomes one sentence that a person can act on.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol

import typer

from cli.errors import CliError
from crds.contract import GROUP

Json = dict[str, Any]

ANSWERS_WITHIN_S: Final = 20
"""One request; kubectl may make a few, so it is given three times as long."""

NO_KUBECTL: Final = (
    "There is no kubectl on the PATH, and the cluster is asked through it."
    " Install it (https://kubernetes.io/docs/tasks/tools/) or add its folder to PATH."
)

NamespaceOption = Annotated[str | None, typer.Option("-n", "--namespace", help="Default: that of the context.")]
ContextOption = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
OperatorNamespaceOption = Annotated[str, typer.Option(help="Namespace in which Foretide was installed.")]
OPERATOR_NAMESPACE: Final = "foretide-system"


class NotAllowed(CliError):
    """The API server refuses this person."""


class NotServed(CliError):
    """The cluster does not know the kind."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How kubectl ended."""

    status: int
    stdout: str
    stderr: str


class Run(Protocol):
    """`kubectl ARGUMENTS`. Raises FileNotFoundError where there is no kubectl."""

    def __call__(self, arguments: Sequence[str]) -> Answer: ...


def run_kubectl(arguments: Sequence[str], within_s: float = 3 * ANSWERS_WITHIN_S) -> Answer:
    """The real one."""
    try:
        done = subprocess.run(
            ["kubectl", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(1, "", f"i/o timeout: kubectl gave no answer in {within_s:g} s")
    return Answer(done.returncode, done.stdout, done.stderr)


class Kubectl:
    """Reads objects and pages, and patches one object. Every error is a CliError."""

    def __init__(self, run: Run, context: str | None) -> None:
        self._run, self._context = run, context

    def objects(self, plural: str, namespace: str | None, *, everywhere: bool = False) -> list[Json]:
        """All objects of one of our kinds, in the namespace (None: the context's) or everywhere."""
        where = ["-A"] if everywhere else _in(namespace)
        return list(self._json(["get", f"{plural}.{GROUP}", *where, "-o", "json"])["items"])

    def object(self, resource: str, name: str, namespace: str | None) -> Json:
        """One object."""
        return self._json(["get", resource, name, *_in(namespace), "-o", "json"])

    def labelled(self, resource: str, namespace: str | None, selector: str | None = None) -> list[Json]:
        """All objects of a kind of Kubernetes' own; None: of a kind without namespaces."""
        where = [] if namespace is None else _in(namespace)
        chosen = [] if selector is None else ["-l", selector]
        return list(self._json(["get", resource, *where, *chosen, "-o", "json"])["items"])

    def page(self, path: str) -> str:
        """What the API server answers at a path, pages that it proxies included."""
        return self._said(["get", "--raw", path])

    def patch(self, plural: str, name: str, namespace: str, changes: Sequence[Json]) -> None:
        """A JSON patch; its `test` steps fail where somebody else was quicker."""
        text = json.dumps(list(changes))
        self._said(["patch", f"{plural}.{GROUP}", name, *_in(namespace), "--type=json", "--patch", text])

    def _json(self, arguments: Sequence[str]) -> Json:
        said = self._said(arguments)
        try:
            value = json.loads(said)
        except json.JSONDecodeError as error:
            raise CliError(f"kubectl answered no JSON: {said[:200]!r}. Try kubectl {' '.join(arguments)}.") from error
        if not isinstance(value, dict):
            raise CliError(f"kubectl answered no object: {said[:200]!r}. Try kubectl {' '.join(arguments)}.")
        return value

    def _said(self, arguments: Sequence[str]) -> str:
        context = ["--context", self._context] if self._context else []
        try:
            answer = self._run([*arguments, *context, f"--request-timeout={ANSWERS_WITHIN_S}s"])
        except (FileNotFoundError, PermissionError) as error:
            raise CliError(NO_KUBECTL) from error
        if answer.status:
            raise error_of(answer.stderr)
        return answer.stdout


def of(context: typer.Context, name: str | None, run: Run = run_kubectl) -> Kubectl:
    """The real cluster, unless whoever called the command brought another way to run kubectl."""
    return Kubectl(context.obj or run, name)


def _in(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []


_UNREACHED: Final = (
    "connection refused",
    "was refused",
    "unable to connect",
    "i/o timeout",
    "no such host",
    "no route to host",
    "client.timeout exceeded",
    "context deadline exceeded",
)


def error_of(stderr: str) -> CliError:
    """What kubectl said, as what a person can do."""
    lines = stderr.strip().splitlines() or ["nothing was said"]
    errors = [line for line in lines if line.startswith(("error", "Error", "Unable to"))]
    said = " ".join((errors or lines)[-1].split())[:600].rstrip(".?")
    low = stderr.lower()
    if "(forbidden)" in low or "forbidden:" in low:
        return NotAllowed(f"{said}. Ask whoever runs the cluster for that right.")
    if "no endpoints available for service" in low:
        return CliError(f"{said}. Nobody leads there now: is an operator running?")
    if "(notfound)" in low or "could not find the requested resource" in low:
        return CliError(f"{said}.")
    if "doesn't have a resource type" in low or "no matches for kind" in low:
        return NotServed(f"{said}. Foretide's kinds are not installed here: is this the right --context?")
    if "getting credentials" in low:
        return CliError(f"{said}. Install the login plugin that the kubeconfig names, or sign in to the cluster again.")
    if "unauthorized" in low or "must be logged in" in low:
        return CliError(f"{said}. Sign in to the cluster again.")
    if "context" in low and ("does not exist" in low or "not found for specified context" in low):
        return CliError(f"{said}. kubectl config get-contexts lists those that do.")
    if any(each in low for each in _UNREACHED):
        return CliError(f"The cluster does not answer: {said}. Check kubectl config current-context.")
    return CliError(f"kubectl: {said}")
