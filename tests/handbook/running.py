"""What of the handbook's blocks of commands and manifests runs in a test, and what the other commands would need.

A block is run as a person would type it: in one shell, against an API server of its own, without nodes. `NEEDS` names
what is left out of it, a mark above a block what leaves out the whole of it.
"""

from __future__ import annotations

import re
from typing import Final

import yaml

from tests.handbook.blocks import Block, blocks, pages

_PODS: Final = "pods that run"
_OPERATOR: Final = "an operator that runs"
NEEDS: Final = {
    r"^make ": "minutes: CI has each target, or says in the Makefile that it has not",
    r"^docker ": "Docker",
    r"^curl ": "a gateway that runs",
    r"kubectl .*\bport-forward\b": _PODS,
    r"kubectl .*\blogs\b": _PODS,
    r"kubectl .*\bwait --for=condition\b": _PODS,
    r"kubectl get --raw ": _OPERATOR,
    r"kubectl foretide (explain|top)\b": _OPERATOR,
    r"kubectl foretide chat ": "a gateway that runs",
    r"foretide simulate .*--prometheus ": "a Prometheus with a day of a service",
    r"kubectl .*\bpodmonitors\b": "the kinds of the Prometheus Operator",
    r"kubectl .*\binferencepools\b": "the kinds of the Gateway API",
    r"python -m worker_image (serve|chat) ": "somebody at the terminal; both run in tests/worker_image",
}
"""Commands that are not run, by what CI lacks for them."""

_FIRST: Final = "docs/start/cluster.md"
_LAST: Final = "helm uninstall"


def need_of(command: str) -> str | None:
    return next((need for pattern, need in NEEDS.items() if re.search(pattern, command)), None)


def unmarked() -> list[Block]:
    return [block for path in pages() for block in blocks(path) if block.needs is None]


def scripts() -> list[tuple[Block, str]]:
    """What is run: the installation first, then manifests, then commands about them, the end of it all last.

    The same command is run once: where two pages tell of the same, the first does it.
    """
    found, done = [], set[str]()
    for block in sorted(unmarked(), key=_turn):
        text = _applied(block) if block.kind == "yaml" else _typed(block, done)
        if text is not None:
            found.append((block, text))
    return found


def _turn(block: Block) -> int:
    if block.kind == "yaml":
        return 1
    return 3 if _LAST in block.text else 0 if block.page == _FIRST else 2


def _applied(block: Block) -> str | None:
    """None for a part of a manifest."""
    return f"kubectl apply -f - <<'END'\n{block.text}\nEND\n" if _is_whole(block.text) else None


def _typed(block: Block, done: set[str]) -> str | None:
    """None where every command was run, or needs what is not there. Adds to `done`."""
    commands = [command for command in block.commands if need_of(command) is None and command not in done]
    done.update(commands)
    return "\n".join(["set -euo pipefail", *_made_anew(block), "set -x", *commands]) if commands else None


def _is_whole(manifest: str) -> bool:
    documents = [one for one in yaml.safe_load_all(manifest) if one]
    return all(isinstance(one, dict) and {"apiVersion", "kind", "metadata"} <= one.keys() for one in documents)


def _made_anew(block: Block) -> list[str]:
    """Secrets that it creates: a block of another page may have, and each is written as if it were the first."""
    made = re.findall(r"kubectl -n (\S+) create secret generic (\S+)", block.text)
    return [f"kubectl -n {namespace} delete secret {name} --ignore-not-found" for namespace, name in made]
