"""Whether a command or a manifest of the handbook could be right: each is read by what would read it in earnest.

`foretide` and our processes by their own parsers, `helm` by rendering the chart with the values that are set, kubectl's
objects, fields and labels by the CRDs and the charts, manifests by the types. A problem is a sentence; None is none.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import typer
import typer.main
import yaml
from jsonschema import Draft202012Validator
from typer.exceptions import TyperException

from cli.main import app
from controllers.model_cache.settings import _parser as node_agent
from crds.kinds import KINDS, Kind
from crds.render import render
from gateway.settings import _parser as gateway
from tests.charts.test_foretide import template
from tests.handbook.http_page import URLS
from worker_image.__main__ import _parser as worker

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "charts/foretide"

_BUILT_IN: Final = {
    "pod", "pods", "secret", "secrets", "deployment", "deployments", "statefulset", "service", "services", "node",
    "nodes", "namespace", "namespaces", "lease", "leases", "events", "configmap", "crd", "inferencepools", "httproutes",
    "generic", "podmonitors", "prometheusrules", "clusterroles", "foretide", "token",
}  # fmt: skip
_VERBS: Final = {
    "apply", "get", "describe", "delete", "wait", "patch", "edit", "scale", "label", "annotate", "logs", "create",
    "port-forward", "rollout",
}  # fmt: skip
_WITH_VALUE: Final = {
    "-n", "--namespace", "-o", "--output", "-l", "--selector", "--type", "-p", "--patch", "--for", "--timeout",
    "--tail", "-f", "--filename", "--from-literal", "--from-file", "--replicas", "--context", "--raw", "--sort-by",
    "--since", "-c",
}  # fmt: skip
_PLAIN: Final = {"export", "openssl", "jq", "cat", "mkdir", "cd"}
"""Programs that are nobody's business here."""


class Wrong(Exception):
    """A command that could not work, with the reason."""


def problem_of(command: str) -> str | None:
    """What is wrong with one line of a shell; None for nothing."""
    try:
        for words in _simple_commands(command):
            _read(words)
    except (Wrong, ValueError) as error:
        return f"{command!r}: {error}"
    return None


def _simple_commands(command: str) -> Iterator[list[str]]:
    """Parts of a pipeline, without redirections and assignments."""
    plain = re.sub(r"\$\([^()]*\)", "SUBSTITUTED", command)
    lexer = shlex.shlex(plain, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in ("|", "&", ";", "&&", "||"):
            if words := [one for one in words if not re.match(r"[A-Z_]+=", one)]:
                yield words
            words = []
        else:
            words.append(word)


def _read(words: list[str]) -> None:
    name, *rest = words
    if ">" in rest:
        rest = rest[: rest.index(">")]
    reader = _READERS.get(name)
    if reader is None and name not in _PLAIN:
        raise Wrong(f"nobody reads '{name}' here; mark the block with what it needs")
    if reader is not None:
        reader(rest)


# --- kubectl and our command ------------------------------------------------------------------------------------------
def _kubectl(words: list[str]) -> None:
    if words[:1] == ["foretide"]:
        _foretide(words[1:])
        return
    flags, others = _split(words)
    if "--raw" in flags:
        return
    if not others or others[0] not in _VERBS:
        raise Wrong(f"kubectl has no verb '{(others or ['nothing'])[0]}' that we know")
    for file in [*flags.get("-f", ()), *flags.get("--filename", ())]:
        if not file.startswith(("https://", "-")) and not (ROOT / file).exists():
            raise Wrong(f"there is no file {file}")
    kinds = [] if others[0] == "logs" else _kinds(others)
    for selector in flags.get("-l", []) + flags.get("--selector", []):
        _check_labels(selector)
    for shown in flags.get("-o", []) + flags.get("--output", []):
        _check_path(shown, kinds)
    for patch in flags.get("-p", []) + flags.get("--patch", []):
        _check_fields(kinds[0], json.loads(patch))


def _split(words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Flags with their values, and the rest."""
    flags: dict[str, list[str]] = {}
    others: list[str] = []
    left = iter(words)
    for word in left:
        if not word.startswith("-") or word == "-":
            others.append(word)
            continue
        name, equals, value = word.partition("=")
        flags.setdefault(name, []).append(value if equals else next(left, "") if name in _WITH_VALUE else "")
    return flags, others


def _kinds(others: Sequence[str]) -> list[Kind]:
    """Kinds of ours among the objects that a command names. Raises Wrong for one that nobody knows."""
    verb, *rest = others
    if verb == "rollout":
        rest = rest[1:]
    words = [word.partition("/")[0] for word in rest if "/" in word and "=" not in word] or rest[:1]
    ours = {word: kind for kind in KINDS for word in (kind.plural, kind.singular, kind.kind, *kind.short_names)}
    found = []
    for word in (one for words_ in words for one in words_.split(",")):
        if word in ours:
            found.append(ours[word])
        elif word not in _BUILT_IN:
            raise Wrong(f"the cluster has no kind '{word}' that we know")
    return found


def _check_labels(selector: str) -> None:
    for one in selector.split(","):
        key, _, value = one.replace("==", "=").partition("=")
        if key not in _sources() or value not in _sources():
            if key == "foretide.dev/inference-service" and key in _sources():
                continue
            raise Wrong(f"nothing of ours has the label {one}")


@cache
def _sources() -> str:
    paths = [*(CHART / "templates").glob("*"), ROOT / "crds/contract.py", *(ROOT / "controllers/plans").rglob("*.py")]
    made = "".join(path.read_text(encoding="utf-8") for path in paths)
    return made.replace('f"{GROUP}/', '"foretide.dev/')


def _check_path(shown: str, kinds: Sequence[Kind]) -> None:
    """Fields that a JSON path names exist."""
    if not shown.startswith("jsonpath=") or not kinds:
        return
    for path in re.findall(r"\.((?:spec|status)(?:\[[^\]]*\]|\.\w+)*)", shown):
        at: Any = _schema(kinds[0])
        for name in re.sub(r"\[[^\]]*\]", "", path).split("."):
            at = at.get("items", at)
            if name not in at.get("properties", {}):
                raise Wrong(f"{kinds[0].kind} has no field {path}")
            at = at["properties"][name]


def _foretide(words: list[str]) -> None:
    """By the command's own parser; files of an example need not be there."""
    group: Any = typer.main.get_command(app)
    name, *rest = words or [""]
    if name.startswith("--"):
        return
    if name not in group.commands:
        raise Wrong(f"foretide has no command '{name}'")
    try:
        group.commands[name].make_context(name, rest)
    except SystemExit:
        raise Wrong("the parser ends") from None
    except typer.Exit:
        return
    except TyperException as error:
        said = getattr(error, "message", str(error))
        if "does not exist" not in said:
            raise Wrong(f"foretide {name}: {said}") from None


# --- helm, make and the like ------------------------------------------------------------------------------------------
_HELM: Final = {"upgrade", "install", "uninstall", "template", "rollback", "history", "show", "package", "pull", "push"}


def _helm(words: list[str]) -> None:
    verb, *rest = words
    if verb not in _HELM:
        raise Wrong(f"helm has no verb '{verb}' that we know")
    charts = [word for word in rest if word.startswith("charts/")]
    for chart in charts:
        if not (ROOT / chart / "Chart.yaml").exists():
            raise Wrong(f"there is no chart {chart}")
    flags = [pair for at, word in enumerate(rest) if word.startswith("--set") for pair in rest[at : at + 2]]
    if "charts/foretide" in charts and flags:
        _rendered(tuple(flags))


@cache
def _rendered(flags: tuple[str, ...]) -> None:
    """Helm itself refuses values that the schema does not know."""
    if (done := template(*flags)).returncode:
        raise Wrong(f"helm refuses {' '.join(flags)}: {done.stderr}")


def _make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for word in words:
        if "=" not in word and word not in targets:
            raise Wrong(f"the Makefile has no target '{word}'")


def _docker(words: list[str]) -> None:
    if words[0] == "build":
        file = words[words.index("-f") + 1]
        if not (ROOT / file).exists():
            raise Wrong(f"there is no file {file}")
    elif words[0] not in ("push", "pull", "tag", "save", "load"):
        raise Wrong(f"docker {words[0]} is not known here")


def _curl(words: list[str]) -> None:
    known = {re.sub(r"\{[^}]*\}", "[^/]+", path) for urls in URLS.values() for _, path in urls}
    targets = [word for word in words if re.match(r"https?://|\$", word)]
    for target in targets:
        path = re.sub(r"^(https?://[^/]+|\$\w+)", "", target).partition("?")[0]
        if not any(re.search(rf"{one}$", path) or path == one.removeprefix("/v1") for one in known):
            raise Wrong(f"nobody of ours serves {path}")
    for flag, value in itertools.pairwise(words):
        if flag in ("-d", "--data") and "…" not in value:
            json.loads(value)


def _python(words: list[str]) -> None:
    if words[:1] != ["-m"]:
        raise Wrong("only modules of ours are read")
    parsers: dict[str, Callable[[], Any]] = {
        "worker_image": worker,
        "gateway": gateway,
        "controllers.model_cache": node_agent,
    }
    module, *rest = words[1:]
    if module in parsers:
        try:
            parsers[module]().parse_args(rest)
        except SystemExit:
            raise Wrong(f"{module} refuses its flags") from None
    elif not (ROOT / module.replace(".", "/")).is_dir() and not (ROOT / f"{module.replace('.', '/')}.py").exists():
        raise Wrong(f"there is no module {module}")


_READERS: Final[Mapping[str, Callable[[list[str]], None]]] = {
    "kubectl": _kubectl,
    "foretide": _foretide,
    "helm": _helm,
    "make": _make,
    "docker": _docker,
    "curl": _curl,
    "python": _python,
    "python3": _python,
}


# --- manifests --------------------------------------------------------------------------------------------------------
@cache
def _schema(kind: Kind) -> dict[str, Any]:
    schema: dict[str, Any] = render(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


@cache
def _values_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return schema


def _strict(schema: Any, *, whole: bool) -> Any:
    """Refuses unknown fields; of a part nothing is required."""
    if isinstance(schema, list):
        return [_strict(one, whole=whole) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {key: _strict(value, whole=whole) for key, value in schema.items() if key != "required" or whole}
    if "properties" in made and isinstance(schema["properties"], Mapping) and schema.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def _errors(schema: Any, data: Any, *, whole: bool) -> list[str]:
    found = Draft202012Validator(_strict(schema, whole=whole)).iter_errors(data)
    return [f"{'.'.join(map(str, one.absolute_path))}: {one.message}" for one in found]


def _check_fields(kind: Kind, data: Any) -> None:
    if found := _errors(_schema(kind), data, whole=False):
        raise Wrong(f"{kind.kind}: {found[0]}")


def problem_of_yaml(text: str) -> str | None:
    """Of a manifest, a part of one, or values of the chart."""
    try:
        for document in yaml.safe_load_all(text):
            _read_document(document)
    except (Wrong, yaml.YAMLError) as error:
        return str(error)
    return None


def _read_document(data: Any) -> None:
    if not isinstance(data, Mapping):
        raise Wrong("it is no mapping")
    kinds = {kind.kind: kind for kind in KINDS}
    if (kind := kinds.get(str(data.get("kind")))) is not None:
        whole = "metadata" in data and "apiVersion" in data
        metadata = {**_schema(kind), "properties": {**_schema(kind)["properties"], "metadata": {}}}
        if found := _errors(metadata, data, whole=whole):
            raise Wrong(f"{kind.kind}: {found[0]}")
        if whole:
            kind.spec.model_validate(data["spec"])
    elif "kind" in data:
        raise Wrong(f"kind {data['kind']} is not ours; mark the block with what it needs")
    else:
        _read_part(data)


def _read_part(data: Mapping[str, Any]) -> None:
    """Values of the chart, or what stands in or below `spec` of one of the kinds."""
    schemas = [_values_schema()]
    for kind in KINDS:
        fields = _schema(kind)["properties"]
        schemas += [{"type": "object", "properties": {"spec": fields["spec"]}}, fields["spec"]]
    reasons = [_errors(schema, data, whole=False) for schema in schemas]
    if all(reasons):
        # What does not even know the first field is no candidate.
        nearest = min(reasons, key=lambda found: ("unexpected" in found[0], len(found)))
        raise Wrong(f"neither values of the chart nor a part of a manifest: {nearest[0]}")
