"""A plan: the scenario simulated many times, what limits it, and what one more of everything would give."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date, timedelta
from math import sqrt
from typing import Final

import numpy as np

from engine.capacity import result
from engine.capacity.distribution import Floats
from engine.capacity.machine import Machine
from engine.capacity.profile import CapacityProfile
from engine.capacity.scenario.calendar import Calendar
from engine.capacity.scenario.feasible import impossible, require_possible
from engine.capacity.scenario.model import Scenario
from engine.capacity.scenario.timetable import Timetable, timetable
from engine.capacity.scenario.vary import Step, one_more, said, varied
from engine.capacity.simulation.counters import OfficeDay, Queue, levels, quantile, queue
from engine.capacity.simulation.daily import DAY, Course, course
from engine.capacity.simulation.inputs import Inputs, resolve
from engine.capacity.simulation.shifts import Capacity, Memory, capacity
from engine.capacity.simulation.stages import blanks, instant, stages

# one-sided 95 %, so a range of 90 %
_Z: Final = 1.645
# gains below it are rounding of a day's last hour, whatever their range
_LEAST_DAYS: Final = 0.05
_FIRST_LOOK: Final = 56


@dataclass(frozen=True)
class Run:
    """One scenario simulated. `queues` with the load level of each day."""

    scenario: Scenario
    inputs: Inputs
    table: Timetable
    able: Capacity
    queues: list[tuple[Queue, Floats]]
    course: Course

    @property
    def finish_days(self) -> Floats:
        """Days from the start, per replication; the horizon where it is not done by then."""
        return np.asarray(np.minimum(self.course.finish / DAY, float(self.scenario.horizon_days)))

    def finish_date(self, share: float) -> date | None:
        """The day by whose end that share of the replications is done; None where it is not within the horizon."""
        finish = np.quantile(np.where(np.isfinite(self.course.finish), self.course.finish, 1e18), share, method="higher")
        return None if finish >= self.scenario.horizon_days * DAY else self.scenario.start + timedelta(days=int(finish // DAY))

    @property
    def shown(self) -> int:
        """Days that are shown: up to the P95 finish."""
        last = self.finish_date(0.95)
        return len(self.table.days) if last is None else min(len(self.table.days), (last - self.scenario.start).days + 1)

    @property
    def wait_p95(self) -> float:
        """Seconds, over the customers of all counters."""
        waits = [one.waits for one, _ in self.queues]
        return quantile(np.sum(waits, axis=0), 0.95) if waits else 0.0


class Planner:
    """Simulates scenarios that differ in a number or two, with the same chances for each."""

    def __init__(self, profile: CapacityProfile | None, *, replications: int, seed: int) -> None:
        self.profile = profile
        self.replications = replications
        self.seed = seed
        self._memory = Memory()
        self._days: dict[object, dict[float, OfficeDay]] = {}

    def run(self, scenario: Scenario) -> Run:
        """Raises InvalidInput IMPOSSIBLE, NOT_MEASURED."""
        inputs = resolve(scenario, self.profile, self.replications, self.seed)
        require_possible(scenario, inputs)
        days = self._first_guess(scenario, inputs)
        while True:
            days = min(days, scenario.horizon_days)
            found = self._simulate(scenario, inputs, days)
            if found.course.done or days >= scenario.horizon_days:
                return found
            days *= 2

    def possible(self, scenario: Scenario) -> bool:
        """Whether a varied scenario can be simulated at all."""
        return not impossible(scenario, resolve(scenario, self.profile, self.replications, self.seed))

    def _first_guess(self, scenario: Scenario, inputs: Inputs) -> int:
        """From the pace of the first weeks; too few days cost a second run, no more."""
        table = timetable(scenario, min(_FIRST_LOOK, scenario.horizon_days))
        idle = np.zeros(self.replications)
        able = capacity(scenario, inputs, table, idle, idle, self._memory)
        made = able.attempts * (1.0 - able.scrap - able.blank)
        a_day = float(np.quantile(made.mean(axis=0), 0.05))
        for counter in scenario.counters:
            factors = levels(scenario, counter, table)
            a_day += self._queue(scenario, inputs, counter.name, factors).per_day * float((factors > 0).mean())
        needed = [scenario.orders.total / max(a_day, 1e-6)]
        if scenario.blanks is not None and scenario.blanks.per_week:
            pieces = scenario.orders.total / (1.0 - float(max(able.scrap.max() + able.blank.max(), 0.0)))
            needed.append((pieces - scenario.blanks.stock) / scenario.blanks.per_week * 7)
        if scenario.orders.per_day:
            needed.append((scenario.orders.total - scenario.orders.backlog) / scenario.orders.per_day * 7 / 5)
        return int(min(max(needed), 1e6) * 1.15) + 42

    def _queue(self, scenario: Scenario, inputs: Inputs, name: str, factors: Floats) -> Queue:
        counter = next(one for one in scenario.counters if one.name == name)
        key = (counter, scenario.orders, scenario.failures, scenario.hsm, scenario.engine, scenario.counters)
        return queue(scenario, inputs, counter, factors, self._days.setdefault(key, {}))

    def _simulate(self, scenario: Scenario, inputs: Inputs, days: int) -> Run:
        table = timetable(scenario, days)
        queues = []
        for counter in scenario.counters:
            factors = levels(scenario, counter, table)
            queues.append((self._queue(scenario, inputs, counter.name, factors), factors))
        able = capacity(scenario, inputs, table, *_taken(inputs, queues), self._memory)
        return Run(scenario, inputs, table, able, queues, course(scenario, self.seed, table, able, queues))

    # ---- what one more gives

    def marginal(self, base: Run) -> list[result.Marginal]:
        """Each step of `one_more`, the largest gain first."""
        found = [self._gain(base, step) for step in one_more(base.scenario)]
        return sorted(found, key=lambda one: (-one.days_saved if one.real else 0.0, -one.wait_p95_saved))

    def _gain(self, base: Run, step: Step) -> result.Marginal:
        more = self.run(varied(base.scenario, step.field, step.value))
        saved = base.finish_days - more.finish_days
        error = float(saved.std(ddof=1)) / sqrt(len(saved)) if len(saved) > 1 else float("inf")
        mean = float(saved.mean())
        low, high = mean - _Z * error, mean + _Z * error
        return result.Marginal(
            what=step.what,
            field=step.field,
            days_saved=mean,
            low=low,
            high=high,
            real=abs(mean) >= _LEAST_DAYS and (low > 0 or high < 0),
            wait_p95_saved=base.wait_p95 - more.wait_p95,
        )

    def sweep(self, scenario: Scenario, field: str, values: list[float]) -> result.Sweep:
        """A value with which the scenario cannot be done has no dates."""
        points = []
        for value in values:
            one = varied(scenario, field, value)
            if not self.possible(one):
                points.append(result.SweepPoint(value, None, None, None, "impossible", 0.0, 0.0))
                continue
            run = self.run(one)
            first = stages(run)[0]
            p50, p80, p95 = (run.finish_date(share) for share in (0.5, 0.8, 0.95))
            points.append(result.SweepPoint(value, p50, p80, p95, first.name, first.utilization, run.wait_p95))
        return result.Sweep(field, points)


def _taken(inputs: Inputs, queues: list[tuple[Queue, Floats]]) -> tuple[Floats, Floats]:
    """Share of cores and of the token that the counters take while they are open."""
    engine, hsm = np.zeros(inputs.replications), np.zeros(inputs.replications)
    for one, _ in queues:
        seconds = (one.counter.close - one.counter.open) * 60.0
        cards = one.per_day / seconds
        if inputs.cores:
            engine += cards * one.card.cpu / inputs.cores
        if inputs.calls_per_s is not None:
            hsm += cards * one.card.calls / np.maximum(inputs.calls_per_s, 1e-9)
    return np.minimum(engine, 1.0), np.minimum(hsm, 1.0)


def plan(
    scenario: Scenario,
    profile: CapacityProfile | None,
    *,
    replications: int = 200,
    seed: int = 1,
    sweeps: dict[str, list[float]] | None = None,
    by: date | None = None,
    past_errors: list[str] | None = None,
    profile_file: str = "",
) -> result.PlanResult:
    """Raises InvalidInput IMPOSSIBLE, NOT_MEASURED, SWEEP."""
    began = time.monotonic()
    here = Machine.here()
    planner = Planner(profile, replications=replications, seed=seed)
    base = planner.run(scenario)
    marginal = planner.marginal(base)
    swept = [planner.sweep(scenario, field, values) for field, values in (sweeps or {}).items()]
    shown = base.shown
    last = base.table.days[shown - 1]
    calendar = Calendar(scenario.country, scenario.closed)
    dates = [base.finish_date(share) for share in (0.5, 0.8, 0.95)]
    return result.PlanResult(
        name=scenario.title or scenario.name,
        scenario_file=scenario.file,
        profile_file=profile_file,
        machine=f"{here.cpu}, {here.cores} cores",
        commit=here.commit,
        seed=seed,
        replications=replications,
        seconds=time.monotonic() - began,
        start=scenario.start,
        horizon_days=scenario.horizon_days,
        total=scenario.orders.total,
        summary=summary(scenario),
        sources=base.inputs.sources,
        warnings=_warnings(base, profile, here, calendar, last),
        past_errors=past_errors or [],
        finish=[_date(scenario, seconds) for seconds in base.course.finish],
        p50=dates[0],
        p80=dates[1],
        p95=dates[2],
        days=base.table.days[:shown],
        closed=[day for day in base.table.days[:shown] if calendar.closed(day)],
        good=_bands(base.course.good[:shown]),
        stages=stages(base),
        instant=instant(base),
        blanks=blanks(base),
        marginal=marginal,
        sweeps=swept,
        deadline=None if by is None else _deadline(base, by),
    )


def summary(scenario: Scenario) -> list[tuple[str, str]]:
    """The scenario for people."""
    orders = scenario.orders
    lines = [("cards", f"{orders.total:,} {orders.profile}, {orders.backlog:,} of them ordered at the start")]
    if orders.per_day:
        lines.append(("orders", f"{orders.per_day:,.0f} a working day, {orders.instant_share:.0%} of them at counters"))
    for group in scenario.groups:
        printers = f", {group.printers} printers" if group.printers else ""
        lines.append(("stations", f"{group.name}: {group.count} with {group.heads} readers{printers}"))
    for counter in scenario.counters:
        people = "" if counter.customers_per_day is None else f", {counter.customers_per_day} people a day each"
        lines.append(("counters", f"{counter.name}: {counter.offices} offices with {counter.stations} stations{people}"))
    lines += [("shift", f"{shift.name}: {said(shift)}") for shift in scenario.shifts]
    lines.append(("calendar", {"cn": "Chinese public holidays", "": "the week only"}[scenario.country]))
    return lines


def _warnings(base: Run, profile: CapacityProfile | None, here: Machine, calendar: Calendar, last: date) -> list[str]:
    said = [] if profile is None else profile.warnings(here)
    said += dict.fromkeys(base.inputs.warnings)
    said += calendar.warnings(base.scenario.start, last)
    late = int((~np.isfinite(base.course.finish)).sum())
    if late:
        said.append(f"{late} of {base.inputs.replications} replications are not done within {base.scenario.horizon_days} days")
    assumed = [f"{what} = {value}" for what, value, kind in base.inputs.sources if kind == "assumed"]
    if assumed:
        said.append(f"assumed, neither measured nor said: {'; '.join(assumed)}")
    for one, _ in base.queues:
        if one.unserved_share > 0.001:
            said.append(f"counters {one.counter.name}: {one.unserved_share:.1%} of the people are still waiting when the office closes")
    return said


def _date(scenario: Scenario, seconds: float) -> date | None:
    return scenario.start + timedelta(days=int(seconds // DAY)) if np.isfinite(seconds) else None


def _bands(values: Floats) -> result.Bands:
    found = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1)
    return result.Bands(*([float(value) for value in row] for row in found))


def _deadline(base: Run, by: date) -> result.Deadline:
    days = (by - base.scenario.start).days
    in_time = base.course.finish < (days + 1) * DAY
    made = base.course.good[min(max(days, 0), len(base.table.days) - 1)] if days >= 0 else np.zeros(base.inputs.replications)
    late = base.finish_days - (days + 1)
    p95 = None if base.finish_date(0.95) is None else max(0.0, float(np.quantile(late, 0.95)))
    quantiles = (float(value) for value in np.quantile(made, [0.5, 0.2, 0.05]))
    return result.Deadline(by, float(in_time.mean()), result.Quantiles(*quantiles), p95)
