"""Log lines for people or for machines, and the one place a fatal sentence goes."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Final

from crds.log_lines import JsonFormatter

TERMINATION_LOG: Final = Path("/dev/termination-log")
"""Mounted by the kubelet; what is written here is what `kubectl describe pod` shows."""


def configure(log_format: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else plain)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def report_fatal(message: str, termination_log: Path = TERMINATION_LOG) -> None:
    """Logs the sentence, and leaves it for the kubelet where there is one."""
    logging.getLogger("worker_image").critical("%s", message)
    if termination_log.exists():
        try:
            termination_log.write_text(message + "\n")
        except OSError as error:
            logging.getLogger("worker_image").warning("%s cannot be written: %s", termination_log, error)
