"""What the command says instead of a traceback.

CliError    what was found, what is allowed, what to do; one sentence or two on stderr, exit status 2
"""

from __future__ import annotations


class CliError(Exception):
    """Something that a person can put right."""
