"""The operator with a profile of its main thread: `python -m benchmarks.control_plane.profiled FILE <flags>`.

Each life writes `FILE.<process id>`, to be read with `python -m pstats`. Numbers of a profiled run are not results: the
profiler itself takes about as much CPU as what it looks at.
"""

from __future__ import annotations

import cProfile
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from benchmarks.report import REPOSITORY


def main(arguments: list[str]) -> int:
    target = Path(f"{arguments[0]}.{os.getpid()}")
    operator = _load(REPOSITORY / "operator" / "main.py")
    profile = cProfile.Profile()
    try:
        return int(profile.runcall(operator.main, arguments[1:]))
    finally:
        profile.dump_stats(target)


def _load(path: Path) -> ModuleType:
    """`operator` is no package of ours on purpose, so its main module is loaded by its path."""
    spec = importlib.util.spec_from_file_location("foretide_operator_main", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
