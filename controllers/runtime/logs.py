"""One JSON object a line on stderr, for machines; nothing here decides what is worth saying."""

from __future__ import annotations

import logging
import sys

from crds.log_lines import JsonFormatter


def configure(level: str) -> None:
    """Log to stderr at `level`. Kopf's per-handler lines and aiohttp's access lines stay out below WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("kopf", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    # It warns at every start that it leaves signals alone in a thread of its own, which is why it has one.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
