"""Where builds and running clusters live: outside the work tree, under the folders the XDG rules name."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).resolve().parent


def cache_dir() -> Path:
    """Builds; may be deleted at any time, at the price of building again."""
    return _under("XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """The running cluster; exists only while one does."""
    return _under("XDG_STATE_HOME", ".local/state") / "cluster"


def _under(variable: str, default: str) -> Path:
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / default) / "foretide"
