"""Numbers as people read them: bytes, rates, durations, lists of names. Formatting only."""

from __future__ import annotations

from collections.abc import Sequence

_STEPS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def bytes_text(count: int) -> str:
    """98_123_456 → `98 MB`, 1_400_000_000 → `1.4 GB`, 512 → `512 B`. Decimal units, as disks and networks have them."""
    for i, (factor, unit) in enumerate(_STEPS):
        if count >= factor:
            amount = count / factor
            if amount < 10:
                return f"{amount:.1f} {unit}".replace(".0 ", " ")
            if round(amount) < 1000 or i == 0:
                return f"{round(amount)} {unit}"
            return f"1 {_STEPS[i - 1][1]}"
    return f"{count} B"


def duration_text(seconds: float) -> str:
    """2419.2 → `40m19s`, 93784 → `1d2h`, 1.5 → `1.5s`, 0.0018 → `1.8ms`. The two largest units, rounded down."""
    if seconds < 1:
        return f"{seconds * 1000:.3g}ms"
    if seconds < 10:
        return f"{seconds:.3g}s"
    rest = int(seconds)
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        amount, rest = divmod(rest, size)
        if amount or parts:
            parts.append(f"{amount}{unit}" if amount else "")
        if len(parts) == 2:
            break
    return "".join(parts)


def names_text(names: Sequence[str], most: int = 5) -> str:
    """`'a'`, `'a' and 'b'`, `'a', 'b' and 7 more`."""
    shown = [f"'{name}'" for name in names[:most]]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
