"""Field types shared by the kinds: names, durations, quantities, and the markers that the renderer turns into schema.

A marker is metadata in `Annotated[...]`. Pydantic checks what it knows (pattern, bounds); `Rule` becomes a CEL rule
that only the API server evaluates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints


@dataclass(frozen=True)
class Rule:
    """A CEL rule (`x-kubernetes-validations`): `message` is the sentence that a person reads when `rule` is false."""

    rule: str
    message: str


@dataclass(frozen=True)
class ListMap:
    """A list whose items are told apart by `keys`, so that several writers can each own an item."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class ListSet:
    """A list of scalars without repeats."""


@dataclass(frozen=True)
class IntOrString:
    """A Kubernetes quantity: written as a number or as a string with a suffix, of so many characters in either case."""

    pattern: str
    characters: int


def camel(name: str) -> str:
    """`max_num_seqs` → `maxNumSeqs`; unlike pydantic's own, it leaves `e2e` as it is."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


class Part(BaseModel):
    """Base of every object in a spec or status. camelCase outside, snake_case inside.

    Unknown fields are dropped when read, not refused: the API server already pruned them, and an operator that is one
    release behind its CRDs must still be able to read its objects.
    """

    model_config = ConfigDict(alias_generator=camel, populate_by_name=True, extra="ignore", frozen=True)
    rules: ClassVar[tuple[Rule, ...]] = ()

    def dump(self) -> dict[str, Any]:
        """JSON value with camelCase keys; absent optionals are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
ObjectName = Annotated[str, StringConstraints(pattern=DNS_LABEL, min_length=1, max_length=63)]
"""Name of another object (RFC 1123 label)."""

LABEL_VALUE = "^(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?$"
"""Value of a label or a taint, as Kubernetes takes it."""
SUBDOMAIN = "[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
LABEL_KEY = f"^({SUBDOMAIN}/)?([A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9]$"
"""Key of a label or a taint; what is before the slash has at most 253 characters besides."""


def is_label_key(what: str) -> str:
    """CEL that says whether the expression `what` is one."""
    return f"{what}.matches('{LABEL_KEY}') && {what}.indexOf('/') <= 253"


SELECTOR_RULES = (
    Rule(
        f"self.all(key, {is_label_key('key')})",
        "keys of labels are names like 'disk' or 'example.com/disk': at most 63 letters, digits, '-', '_' and '.'; "
        "first and last is a letter or digit",
    ),
    Rule(
        f"self.all(key, self[key].matches('{LABEL_VALUE}'))",
        "values of labels have at most 63 letters, digits, '-', '_' and '.'; first and last is a letter or digit",
    ),
)
"""Of labels that a pod's node must have."""

MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
Moment = Annotated[str, StringConstraints(pattern=MOMENT, max_length=40)]
"""A time (RFC 3339): `2026-01-01T06:00:00Z`."""

DURATION = r"^[1-9][0-9]{0,5}(ms|s|m)$"
LONG_DURATION = r"^[1-9][0-9]{0,3}(m|h|d)$"
Duration = Annotated[str, StringConstraints(pattern=DURATION, max_length=8)]
"""A latency or a timeout: `50ms`, `1s`, `2m`."""
LongDuration = Annotated[str, StringConstraints(pattern=LONG_DURATION, max_length=5)]
"""A window: `30m`, `12h`, `28d`."""

QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
QUANTITY_CHARACTERS = 16
Quantity = Annotated[
    str,
    BeforeValidator(str),
    StringConstraints(pattern=QUANTITY, max_length=QUANTITY_CHARACTERS),
    IntOrString(QUANTITY, QUANTITY_CHARACTERS),
]
"""A Kubernetes quantity: `1`, `500m`, `2Gi`."""

SOME = Rule(
    "!isQuantity(string(self)) || quantity(string(self)).isGreaterThan(quantity('0'))", "must be greater than 0"
)
"""Of a quantity."""
SOME_BYTES = Rule(
    "!isQuantity(string(self)) || !quantity(string(self)).isLessThan(quantity('1'))",
    "must be one byte or more; the suffix m means thousandths, Mi is 1,048,576",
)
"""Of a quantity of bytes."""

Count = Annotated[int, Field(ge=0, le=1_000_000)]

_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_FACTORS = {
    "": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip


def seconds(duration: str) -> float:
    """`50ms` → 0.05, `28d` → 2419200.0. Raises ValueError on anything that the schema would refuse."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})(ms|s|m|h|d)", duration)
    if not match:
        raise ValueError(f"duration {duration!r} is not a number with one of ms, s, m, h, d; write for example 30s")
    return float(int(match[1]) * _SECONDS[match[2]])


def quantity(value: str) -> Decimal:
    """`500m` → 0.5, `2Gi` → 2147483648. Raises ValueError on anything that the schema would refuse."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?", value)
    if not match:
        raise ValueError(f"quantity {value!r} is not a number with one of m, k, M, G, T, Ki, Mi, Gi, Ti")
    return Decimal(match[1]) * _FACTORS[match[2] or ""]
