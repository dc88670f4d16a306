"""A child of the pool that behaves badly when a job's name says so; started with `python -m`."""

from __future__ import annotations

import os
import pickle
import sys
import time

from controllers.capacity_forecast import child


def main() -> None:
    """Answers 'raises' with text, hangs at 'hangs', dies at 'dies', and does every other job as it should."""
    while (data := child.read(sys.stdin.buffer)) is not None:
        job = pickle.loads(data)
        if job.series.name == "hangs":
            time.sleep(600)
        if job.series.name == "dies":
            os._exit(7)
        from controllers.capacity_forecast.job import run

        child.write(sys.stdout.buffer, pickle.dumps(run(job)))


if __name__ == "__main__":
    main()
