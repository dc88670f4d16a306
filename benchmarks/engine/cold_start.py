"""`python -m benchmarks.engine.cold_start SETTINGS PROMPT_TOKENS`: one start, from nothing to the first token.

A process of its own, timed by its parent from before it is made: the interpreter's start and the imports count.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.report import REPOSITORY

LIMIT_S: Final = 300.0


def measure(settings: Path, prompt_tokens: int, environment: dict[str, str]) -> dict[str, float]:
    """Seconds by phase. Raises RuntimeError with the process's words where no token came."""
    command = [sys.executable, "-m", "benchmarks.engine.cold_start", str(settings), str(prompt_tokens)]
    started_at = time.time()
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"the cold start gave no token: {done.stdout}{done.stderr}")
    at: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {
        "total_s": at["first_token"] - started_at,
        "client_imports_s": at["imported"] - started_at,
        "engine_ready_s": at["ready"] - at["imported"],
        "first_request_s": at["first_token"] - at["ready"],
    }


def main(arguments: list[str]) -> int:
    from benchmarks.engine.driver import Engine
    from benchmarks.engine.settings import read
    from benchmarks.engine.workloads import Request, Workload, splitmix64_tokens

    imported = time.time()
    engine = Engine(read(Path(arguments[0])))
    ready = time.time()
    prompt = splitmix64_tokens(0, 0, int(arguments[1]), 300)
    engine.run(Workload("cold_start", "", 0.0, (Request(prompt, 1),)))
    print(json.dumps({"imported": imported, "ready": ready, "first_token": time.time()}))
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
