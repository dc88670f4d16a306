"""`python -m tests.fuzz.one TARGET CORPUS [libFuzzer's options]`: one target, led by what its bytes reach in our code.

A process of its own, since libFuzzer ends the one that it runs in. Needs atheris; `make fuzz` installs it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

OURS = ["cli", "controllers", "crds", "forecasting", "gateway", "worker_image", "json", "jinja2", "csv"]
"""What is instrumented; libraries in C and Rust are met, not led into."""


def main() -> None:
    name, corpus = sys.argv[1], Path(sys.argv[2])
    with atheris.instrument_imports(include=OURS, enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
