"""How what programs read is written."""

from __future__ import annotations

import io
import sys


def print_utf8(text: str) -> None:
    """As JSON and our pages are, whatever the locale says."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    print(text)
