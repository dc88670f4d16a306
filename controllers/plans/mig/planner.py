"""The partition planner: which GPUs are cut anew and into what, so that most demand is served. Pure.

An integer program over counts, not over GPUs: units that look alike are one variable, and a GPU that is cut anew is one
of a pool of its family, so 4,000 GPUs are hardly larger than 40. In this order it

1. maximises served demand by priority, less the price of drains: slices in use move only where the gain pays for it;
2. among plans that serve as much, leaves spare capacity in the largest pieces;
3. and disturbs least.

The solver (HiGHS, branch and bound) proves a bound with every answer, so a plan says how far from the best it can be.
When it finds nothing in its time, everything stays as it is, which is always a valid plan, beside a counting bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array

from controllers.plans.mig.demand import CLASSES, Plan, PlanSettings, Served, Unit, Want, worth
from controllers.plans.mig.geometry import Family
from controllers.plans.mig.layouts import WHOLE, Layout, slices_of, useful_layouts

Floats = npt.NDArray[np.float64]
_Looks = tuple[tuple[tuple[str, int], ...], tuple[Layout, ...], int, float, int, bool]
"""All fields of a class but its names."""


@dataclass(frozen=True, slots=True)
class _Class:
    """Units that are alike for the program."""

    families: tuple[tuple[str, int], ...]
    stays: tuple[Layout, ...]
    used_slices: int
    used_worth: float
    worker_count: int
    frozen: bool
    names: tuple[str, ...]

    @property
    def gpus(self) -> int:
        """Of one unit."""
        return sum(count for _, count in self.families)


@dataclass(slots=True)
class _Program:
    """Variables by meaning, rows of constraints as triplets."""

    upper: list[float] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    least: list[float] = field(default_factory=list)
    most: list[float] = field(default_factory=list)

    def variable(self, upper: float, *, whole: bool) -> int:
        self.upper.append(upper)
        self.whole.append(int(whole))
        return len(self.upper) - 1

    def row(self, terms: Mapping[int, float], least: float, most: float) -> None:
        for column, value in terms.items():
            self.rows.append(len(self.least))
            self.columns.append(column)
            self.values.append(value)
        self.least.append(least)
        self.most.append(most)

    def solve(self, gain: Floats, settings: PlanSettings, gap: float) -> OptimizeResult:
        shape = (len(self.least), len(self.upper))
        matrix = csr_array((self.values, (self.rows, self.columns)), shape=shape)
        return milp(
            -gain,
            integrality=np.array(self.whole),
            bounds=Bounds(0.0, np.array(self.upper)),
            constraints=LinearConstraint(matrix, np.array(self.least), np.array(self.most)),
            options={"time_limit": settings.time_limit_s, "mip_rel_gap": gap},
        )


class _Model:
    """The program of one pool and the way back from its numbers."""

    def __init__(
        self, wants: Sequence[Want], units: Sequence[Unit], families: Mapping[str, Family], settings: PlanSettings
    ) -> None:
        self.settings, self.wants = settings, wants
        self.classes = _classes(units)
        self.program = program = _Program()
        self.demand = _demand(wants)
        self.whole_slices = max((one.compute for one in families.values()), default=7)
        supply: dict[str, dict[int, float]] = {}
        # What units that stay give.
        self.stay: list[list[int]] = []
        self.recut: list[int] = []
        for one in self.classes:
            count = len(one.names)
            stays = [program.variable(count, whole=True) for _ in one.stays]
            recut = program.variable(0 if one.frozen else count, whole=True)
            program.row({**dict.fromkeys(stays, 1.0), recut: 1.0}, count, count)
            for variable, given in zip(stays, one.stays, strict=True):
                _add(supply, variable, given)
            self.stay.append(stays)
            self.recut.append(recut)
        # What GPUs that are cut anew give.
        self.pool: dict[str, list[tuple[Layout, int]]] = {}
        for name in sorted(families):
            gpus = [dict(one.families).get(name, 0) for one in self.classes]
            most = sum(count * len(one.names) for count, one in zip(gpus, self.classes, strict=True))
            choices = _choices(families[name], settings)
            self.pool[name] = [(choice, program.variable(most, whole=True)) for choice in choices]
            freed = {recut: -float(count) for recut, count in zip(self.recut, gpus, strict=True) if count}
            program.row({**freed, **{variable: 1.0 for _, variable in self.pool[name]}}, 0.0, 0.0)
            for choice, variable in self.pool[name]:
                _add(supply, variable, choice)
        # Who is served, and what is left.
        self.served: dict[tuple[str, int], int] = {}
        self.spare: dict[str, int] = {}
        for profile in sorted({*supply, *(profile for profile, _ in self.demand)}):
            terms = dict(supply.get(profile, {}))
            for priority in range(CLASSES):
                wanted = self.demand.get((profile, priority), 0)
                if wanted:
                    self.served[profile, priority] = program.variable(wanted, whole=False)
                    terms[self.served[profile, priority]] = -1.0
            self.spare[profile] = program.variable(np.inf, whole=False)
            terms[self.spare[profile]] = -1.0
            program.row(terms, 0.0, 0.0)

    def slices(self, profile: str) -> int:
        return slices_of(profile, self.whole_slices)

    def served_gain(self) -> Floats:
        """Served by priority, less drains."""
        gain = np.zeros(len(self.program.upper))
        for (profile, priority), variable in self.served.items():
            gain[variable] = worth(priority) * self.slices(profile)
        for one, recut in zip(self.classes, self.recut, strict=True):
            gain[recut] = -one.used_worth * self.settings.drain_price
        return gain

    def spare_gain(self) -> Floats:
        """Spare capacity in large pieces (a piece is worth the square of its slices), less every GPU cut anew."""
        gain = np.zeros(len(self.program.upper))
        for profile, variable in self.spare.items():
            gain[variable] = self.slices(profile) ** 2 / self.whole_slices
        for one, recut in zip(self.classes, self.recut, strict=True):
            gain[recut] = -float(one.gpus)
        return gain

    def plan(self, numbers: Floats, value: float, bound: float) -> Plan:
        values = [round(one) for one in numbers]
        stays: dict[str, Layout] = {}
        recut: list[str] = []
        slices = workers = 0
        for one, stay, again in zip(self.classes, self.stay, self.recut, strict=True):
            names = list(one.names)
            for _ in range(values[again]):
                recut.append(names.pop())
            slices += values[again] * one.used_slices
            workers += values[again] * one.worker_count
            for variable, given in zip(stay, one.stays, strict=True):
                for _ in range(values[variable]):
                    stays[names.pop()] = given
        pool = {
            name: tuple((choice, values[variable]) for choice, variable in choices if values[variable])
            for name, choices in self.pool.items()
        }
        served = {key: values[variable] for key, variable in self.served.items()}
        spare = {profile: values[variable] for profile, variable in self.spare.items()}
        return Plan(
            recut=tuple(sorted(recut)),
            stays=stays,
            pool={name: given for name, given in pool.items() if given},
            served=share_out(self.wants, served),
            value=value,
            bound=max(bound, value),
            drained_slices=slices,
            drained_workers=workers,
            fragmentation=fragmentation(spare, self.whole_slices),
        )


def plan_layouts(
    wants: Sequence[Want], units: Sequence[Unit], families: Mapping[str, Family], settings: PlanSettings
) -> Plan:
    """The plan of one pool; `families` by the names that units use."""
    model = _Model(wants, units, families, settings)
    if not model.classes:
        return model.plan(np.zeros(len(model.program.upper)), 0.0, 0.0)
    served = model.served_gain()
    best = model.program.solve(served, settings, settings.relative_gap)
    if best.x is None:
        return _as_it_is(model, units, families)
    value = float(served @ np.round(best.x))
    bound = min(-float(best.mip_dual_bound), counting_bound(wants, units, families))
    # As much served for the same drains; a hair less, or rounding makes it infeasible. A thicker hair, of the order of
    # the solver's own tolerance, lets it take a worse answer for the best.
    terms = {int(i): float(served[i]) for i in np.nonzero(served)[0]}
    model.program.row(terms, value - 1e-9 * max(1.0, abs(value)), np.inf)
    tidy = model.program.solve(model.spare_gain(), settings, max(settings.relative_gap, 1e-4))
    numbers = best.x if tidy.x is None else tidy.x
    return model.plan(numbers, float(served @ np.round(numbers)), bound)


def _as_it_is(model: _Model, units: Sequence[Unit], families: Mapping[str, Family]) -> Plan:
    supply: Counter[str] = Counter()
    for unit in units:
        supply.update(dict(unit.stays[0]))
    served = dict(serve(model.demand, supply))
    value = float(sum(worth(priority) * model.slices(profile) * n for (profile, priority), n in served.items()))
    spare = supply - Counter({profile: sum(served.get((profile, k), 0) for k in range(CLASSES)) for profile in supply})
    return Plan(
        recut=(),
        stays={unit.name: unit.stays[0] for unit in units},
        pool={},
        served=share_out(model.wants, served),
        value=value,
        bound=max(value, counting_bound(model.wants, units, families)),
        fragmentation=fragmentation(spare, model.whole_slices),
        notes=("No plan was found in the solver's time; everything stays as it is.",),
    )


def counting_bound(wants: Sequence[Want], units: Sequence[Unit], families: Mapping[str, Family]) -> float:
    """No plan is worth more than the most valuable demand that as many compute slices could hold, cut at will."""
    left = float(sum(families[name].compute * count for unit in units for name, count in unit.families.items()))
    whole = max((one.compute for one in families.values()), default=7)
    total = 0.0
    for want in sorted(wants, key=lambda one: one.priority):
        taken = min(left, float(want.replicas * want.gpus * slices_of(want.profile, whole)))
        total += worth(want.priority) * taken
        left -= taken
    return total


def serve(demand: Mapping[tuple[str, int], int], supply: Mapping[str, int]) -> list[tuple[tuple[str, int], int]]:
    """Slices given out by priority."""
    left = dict(supply)
    out = []
    for (profile, priority), wanted in sorted(demand.items(), key=lambda item: item[0][1]):
        given = min(wanted, left.get(profile, 0))
        left[profile] = left.get(profile, 0) - given
        out.append(((profile, priority), given))
    return out


def share_out(wants: Sequence[Want], served: Mapping[tuple[str, int], int]) -> tuple[Served, ...]:
    """To the services, in the order of priority, of turn, then as they were given; a worker is served whole or not."""
    left = dict(served)
    out = []
    for want in sorted(wants, key=lambda one: (one.priority, one.turn)):
        key = (want.profile, want.priority)
        given = min(want.replicas, left.get(key, 0) // want.gpus)
        left[key] = left.get(key, 0) - given * want.gpus
        out.append(Served(want, given))
    return tuple(out)


def fragmentation(spare: Mapping[str, int], whole_slices: int) -> float:
    """1 − Σ slices² ÷ (whole × Σ slices) over the spare pieces; 0 when all are whole GPUs or nothing is spare."""
    slices = sum(slices_of(profile, whole_slices) * count for profile, count in spare.items())
    squares = sum(slices_of(profile, whole_slices) ** 2 * count for profile, count in spare.items())
    return 1 - squares / (whole_slices * slices) if slices else 0.0


def _classes(units: Sequence[Unit]) -> list[_Class]:
    groups: dict[_Looks, list[str]] = {}
    for unit in sorted(units, key=lambda one: one.name):
        families = tuple(sorted(unit.families.items()))
        key = (families, unit.stays, unit.used_slices, unit.used_worth, unit.worker_count, unit.frozen)
        groups.setdefault(key, []).append(unit.name)
    return [_Class(*key, tuple(names)) for key, names in groups.items()]


def _demand(wants: Sequence[Want]) -> dict[tuple[str, int], int]:
    demand: Counter[tuple[str, int]] = Counter()
    for want in wants:
        demand[want.profile, want.priority] += want.replicas * want.gpus
    return dict(demand)


def _choices(family: Family, settings: PlanSettings) -> list[Layout]:
    choices = [one for one in useful_layouts(family, settings.allowed) if one]
    return [*choices, WHOLE] if settings.whole_gpus or not choices else choices


def _add(supply: dict[str, dict[int, float]], variable: int, given: Layout) -> None:
    for profile, count in given:
        supply.setdefault(profile, {})[variable] = float(count)
