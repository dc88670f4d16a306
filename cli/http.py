"""What a person names as a URL, and why nobody answers there."""

from __future__ import annotations

from urllib.parse import urlsplit

import requests

from cli.errors import CliError


def checked(option: str, url: str, such_as: str) -> str:
    """The URL itself.

    Raises:
        CliError: it is none; says what one looks like.
    """
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise CliError(f"{option} is {url!r}; a URL such as {such_as} is needed.")
    return url


def cause(error: Exception) -> str:
    """Without the layers above: `[Errno 111] Connection refused`."""
    text = " ".join(str(error).split())
    return text.rsplit(": ", 1)[-1].strip("\"')>")[:200] if isinstance(error, requests.ConnectionError) else text[:200]
