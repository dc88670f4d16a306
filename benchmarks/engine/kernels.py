"""`python -m benchmarks.engine.kernels`: every kernel beside its peers and its error against float64, on the card here.

The last line it prints is JSON: {"rows": [...]} of `benchmarks.report.Row`. A process of its own, for its memory.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

import torch

from benchmarks.engine.kernels_attention import decode_rows, prefill_rows
from benchmarks.engine.kernels_other import elementwise_rows, matmul_rows, sampling_rows
from benchmarks.report import Row
from worker_image.kernels.tuning import tuning_for


def rows() -> Iterator[Row]:
    """Raises RuntimeError without a card."""
    card = torch.cuda.get_device_name()
    tuning = tuning_for(card)
    yield from decode_rows(card, tuning)
    yield from prefill_rows(card, tuning)
    yield from elementwise_rows(tuning)
    yield from sampling_rows()
    yield from matmul_rows(tuning)


def main() -> int:
    if not torch.cuda.is_available():
        print("there is no GPU here; the kernels' results are checked by tests/worker_image/kernels", file=sys.stderr)
        print(json.dumps({"rows": []}))
        return 0
    found = []
    for row in rows():
        peer = "" if row.peer is None else f"  {row.peer_name}: {row.peer:.4g}"
        print(f"{row.workload}: {row.metric} {row.ours:.4g} {row.unit}{peer}", file=sys.stderr, flush=True)
        found.append(asdict(row))
    print(json.dumps({"rows": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
