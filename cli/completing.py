"""What TAB offers: names out of the cluster, and the program that kubectl asks for those of its plugin.

`kubectl foretide …<TAB>` runs `kubectl_complete-foretide …` (kubectl 1.26 and later) and reads words, one a line, and
how to go on. The shell's own completion of `foretide` is that of `foretide --install-completion`. Never says an error.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from contextlib import redirect_stdout, suppress
from functools import partial
from typing import Final

import typer

from cli import kubectl
from cli.errors import CliError

ANSWERS_WITHIN_S: Final = 3.0
"""A shell that waits for names is a shell that hangs."""
_FILES: Final = ":0"
_NO_FILES: Final = ":4"


def services(context: typer.Context, incomplete: str) -> list[str]:
    """InferenceServices of the namespace named so far."""
    return _names(context, "inferenceservices", incomplete)


def policies(context: typer.Context, incomplete: str) -> list[str]:
    """AlertPolicies of the namespace named so far."""
    return _names(context, "alertpolicies", incomplete)


def _names(context: typer.Context, plural: str, incomplete: str) -> list[str]:
    quickly = partial(kubectl.run_kubectl, within_s=ANSWERS_WITHIN_S)
    cluster = kubectl.of(context, context.params.get("kube_context"), quickly)
    try:
        found = cluster.objects(plural, context.params.get("namespace"))
    except CliError:
        return []
    return sorted(name for one in found if (name := str(one["metadata"]["name"])).startswith(incomplete))


def main() -> None:
    """The console script `kubectl_complete-foretide`. The words so far are its arguments, the last one incomplete."""
    from cli.main import app  # which has the commands, which offer these names

    words = ["foretide", *(sys.argv[1:] or [""])]
    asked = {"COMP_WORDS": shlex.join(words), "COMP_CWORD": str(len(words) - 1)}
    os.environ.update({"_FORETIDE_COMPLETE": "complete_bash", **asked})
    said = io.StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        app(prog_name="foretide")
    found = said.getvalue().split()
    # Where nothing is known, a file may be meant: the shell looks.
    print("\n".join([*found, _NO_FILES if found else _FILES]))
