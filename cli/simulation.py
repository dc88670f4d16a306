"""One service over one trace: the operator's own policy and settings, in the simulator.

Traces of up to EXACT_MOST requests are simulated exactly, longer ones by the second (fluid). A run keeps its state in
the user's cache folder now and then, so that one that was interrupted goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cli.errors import CliError
from cli.foretelling import place
from cli.kept import Saver, forget, place_of, restored, stopped
from cli.service_files import Subject
from cli.setting import ForecastBy, Load, Setting, asks_for_forecast
from controllers.plans.capacity import INPUT_WEIGHT
from controllers.plans.carried import NOTHING_KNOWN, MeanLengths, carried, within
from controllers.plans.scaling import settings_of
from forecasting.capacity import ReplicaCapacity
from forecasting.capacity import capacity_of as replica_capacity
from forecasting.cost import Mix, mix
from forecasting.errors import ForecastingError
from forecasting.policy import Bounds
from forecasting.simulator.autoscaler import Autoscaler
from forecasting.simulator.autoscalers.headroom import Static
from forecasting.simulator.autoscalers.ours import Forecasts, Foretide, GrowthForecasts
from forecasting.simulator.many import TICK_S, Batch, Run
from forecasting.simulator.outcome import Outcome
from forecasting.simulator.record import record_of
from forecasting.simulator.replay import Replay
from forecasting.simulator.world import World

EXACT_MOST = 300_000
PERIOD_S = 15


@dataclass(frozen=True, slots=True)
class Result:
    """What one service would have given. wanted, ready: replicas every TICK_S. dollars: at the on-demand price."""

    subject: Subject
    exact: bool
    capacity: ReplicaCapacity
    outcome: Outcome
    wanted: list[int]
    ready: list[int]
    mix: Mix
    cost: float


def check(subject: Subject, load: Load, setting: Setting) -> None:
    """Before minutes are spent on what comes first.

    Raises:
        CliError: the service cannot be simulated on this profile; says why.
    """
    try:
        _Prepared.of(subject, load, setting)
    except ForecastingError as error:
        raise CliError(f"{subject.label}: {error}") from error


def simulate(subject: Subject, load: Load, setting: Setting, progress: Callable[[float], None], fresh: bool) -> Result:
    """Run it, or go on where an earlier call stopped.

    Raises:
        CliError: the service cannot be simulated on this profile; says why. Or a person stopped it.
    """
    states = [place(load, setting)]
    try:
        run = _Prepared.of(subject, load, setting)
        states.append(run.place)
        outcome, wanted, ready = run.finish(progress, fresh)
    except ForecastingError as error:
        raise CliError(f"{subject.label}: {error}") from error
    except KeyboardInterrupt as stop:
        raise stopped(*states) from stop
    chosen = mix(wanted, TICK_S, setting.prices, gpus=run.world.profile.gpus)
    cost = outcome.gpu_hours * setting.gpu_price
    return Result(subject, load.requests is not None, run.capacity, outcome, wanted, ready, chosen, cost)


@dataclass(frozen=True, slots=True)
class _Prepared:
    world: World
    capacity: ReplicaCapacity
    autoscaler: Autoscaler
    replicas: int
    load: Load
    seed: int
    place: Path

    @classmethod
    def of(cls, subject: Subject, load: Load, setting: Setting) -> _Prepared:
        spec, scaling = subject.spec, subject.spec.scaling
        gpus = spec.accelerator.gpu.count if spec.accelerator.gpu else 1
        profile = replace(setting.profile, gpus=gpus)
        capacity = replica_capacity(profile, load.arrivals.lengths, subject.slo)
        least, most = (scaling.fewest, scaling.max) if scaling else (0, 1000)
        world = World(profile, setting.cold_start, subject.slo, least, most)
        first = max(scaling.min, 1) if scaling else (1 if spec.replicas is None else spec.replicas)
        autoscaler = _autoscaler(subject, load, capacity, setting)
        kept_at = place_of("state", subject, load, setting)
        return cls(world, capacity, autoscaler, first, load, setting.seed, kept_at)

    def finish(self, progress: Callable[[float], None], fresh: bool) -> tuple[Outcome, list[int], list[int]]:
        if fresh:
            forget(self.place)
        found = restored(self.place)
        run = found if isinstance(found, Replay | Batch) else self._new()
        finished = _finished(run, Saver(self.place, run, progress))
        forget(self.place)
        return finished

    def _new(self) -> Replay | Batch:
        if self.load.requests is not None:
            return Replay(self.load.requests, self.world, self.autoscaler, replicas=self.replicas, seed=self.seed)
        return Batch(
            [Run(self.world, self.autoscaler, self.seed, self.replicas)], [self.load.arrivals], keeps_course=True
        )


def _finished(run: Replay | Batch, saved: Callable[[float], None]) -> tuple[Outcome, list[int], list[int]]:
    if isinstance(run, Replay):
        done = run.run(saved)
        return done.outcome, [each.wanted for each in done.course], [each.ready for each in done.course]
    outcome = run.run(saved)[0]
    wanted, ready = run.course()[0]
    return outcome, wanted, ready


def _autoscaler(subject: Subject, load: Load, capacity: ReplicaCapacity, setting: Setting) -> Autoscaler:
    """As the operator would do it; without `scaling` the number of replicas stays as it is."""
    spec = subject.spec
    if spec.scaling is None:
        return Static(1 if spec.replicas is None else spec.replicas)
    lengths = load.arrivals.lengths
    mean = MeanLengths(lengths.mean_input, lengths.decode + 1)
    settings = settings_of(spec.scaling, subject.promise)
    forecasts = _forecasts(subject, load, setting, settings.horizon_s)
    bounds = Bounds(spec.scaling.min, spec.scaling.max)
    if spec.scaling.tokens_per_second:
        carries = carried(spec, NOTHING_KNOWN)
    else:
        carries = within(subject.slo, capacity.requests_per_s, capacity.running, mean, spec.scaling.target_concurrency)
    capable, lead_s = carries.for_policy(), setting.lead_s
    return Foretide(subject.name, bounds, capable, settings, forecasts, lead_s, PERIOD_S, setting.start_s)


def _forecasts(subject: Subject, load: Load, setting: Setting, horizon_s: float) -> Forecasts | None:
    foretelling = setting.foretelling
    if foretelling.by is ForecastBy.GROWTH and asks_for_forecast(subject):
        return GrowthForecasts(record_of(None, load.arrivals, TICK_S), INPUT_WEIGHT, setting.lead_s + horizon_s)
    return foretelling.forecasts if asks_for_forecast(subject) else None
