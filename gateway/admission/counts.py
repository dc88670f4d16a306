"""What admission counts. Labels are tenants, services, classes and our own words, so their number is bounded."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric

from gateway.admission.terms import Prices, Priority
from gateway.catalog import ServiceKey
from gateway.figures import Counter, Histogram
from gateway.usage import Usage

_WAIT_BUCKETS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_BY_SERVICE = ("namespace", "service")
_BY_TENANT = ("tenant", *_BY_SERVICE)


class Bill:
    """What one tenant took of one service in one class. Plain numbers: a request pays for additions only."""

    __slots__ = ("cost", "input", "output", "unused")

    def __init__(self) -> None:
        self.input = self.output = 0
        self.unused = self.cost = 0.0

    def settle(self, usage: Usage, reserved: float, prices: Prices | None) -> None:
        self.input += usage.prompt
        self.output += usage.completion
        unused = reserved - usage.prompt - usage.completion
        if unused > 0:
            self.unused += unused
        if prices is not None:
            self.cost += usage.prompt * prices.input + usage.completion * prices.output


class Counts:
    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, help_: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"foretide_gateway_{name}", help_, labels, registry)

        self.limited = counter("limited", "Requests refused by a limit of the Tenant.", ("tenant", "limit"))
        self.shed = counter("shed", "Requests refused because waiting is too long.", (*_BY_SERVICE, "class", "reason"))
        self.limited_bytes = counter("limited_bytes", "Bytes of Tenants with a limit of bytes a second.", ("tenant",))
        self.paces = counter("bandwidth_waits", "Times that a request or an answer waited for bandwidth.", ("tenant",))
        self.waits = Histogram(
            "foretide_gateway_queue_seconds",
            "Wait of the requests that queued.",
            (*_BY_SERVICE, "class"),
            _WAIT_BUCKETS,
            registry,
        )
        self._bills: dict[tuple[str, ServiceKey, Priority], Bill] = {}

    def bill(self, tenant: str, key: ServiceKey, priority: Priority) -> Bill:
        found = self._bills.get((tenant, key, priority))
        if found is None:
            found = self._bills[tenant, key, priority] = Bill()
        return found

    def forget(self, tenants: set[str], services: set[ServiceKey]) -> None:
        """What is gone from the catalog is not counted on."""
        gone = [one for one in self._bills if one[0] not in tenants or one[1] not in services]
        for tenant, key, priority in gone:
            del self._bills[tenant, key, priority]
        for counter in (self.limited, self.limited_bytes, self.paces, self.shed, self.waits):
            _drop(counter, tenants, services)

    def totals(self) -> Iterable[Metric]:
        """The bills as counters."""
        tokens = _counter("tenant_tokens", "Tokens that answers took.", (*_BY_TENANT, "class", "direction"))
        unused = _counter("tenant_refunded_tokens", "Reserved at admission and not taken.", (*_BY_TENANT, "class"))
        cost = _counter("tenant_cost", "Tokens × the Tenant's prices, in their currency.", (*_BY_TENANT, "class"))
        for (tenant, key, priority), bill in self._bills.items():
            labels = (tenant, *key, priority.name)
            tokens.add_metric((*labels, "input"), bill.input)
            tokens.add_metric((*labels, "output"), bill.output)
            unused.add_metric(labels, bill.unused)
            cost.add_metric(labels, bill.cost)
        return (tokens, unused, cost)


def _counter(name: str, help_: str, labels: tuple[str, ...]) -> CounterMetricFamily:
    return CounterMetricFamily(f"foretide_gateway_{name}", help_, labels=labels)


def _drop(metric: Counter | Histogram, tenants: set[str], services: set[ServiceKey]) -> None:
    for values in metric:
        row = dict(zip(metric.label_names, values, strict=True))
        known = row.get("tenant", "") in tenants if "tenant" in row else True
        if "service" in row:
            known = known and ServiceKey(row["namespace"], row["service"]) in services
        if not known:
            metric.remove(*values)
