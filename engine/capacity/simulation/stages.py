"""What limited a simulated scenario: every resource with its utilization, the one that was waited for most first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from engine.capacity import result
from engine.capacity.distribution import Floats
from engine.capacity.simulation.counters import Queue, quantile, within
from engine.capacity.simulation.daily import BLANKS, ORDERS, STATIONS
from engine.capacity.simulation.shifts import makers
from engine.capacity.simulation.stationrate import cycle

if TYPE_CHECKING:
    from engine.capacity.plan import Run

_MINUTES: Final = (5, 10, 15)
# a resource that works so much of its time lets no more through
_FULL: Final = 0.97
# the last day always ends with nothing left to do
_SHOWS: Final = 0.02


def stages(run: Run) -> list[result.Stage]:
    """Bottleneck first: by the share of the work that waited for it, then by utilization."""
    return _Stages(run).run()


class _Stages:
    def __init__(self, run: Run) -> None:
        self.of = run
        course = run.course
        last = np.where(np.isfinite(course.finish), course.finish / 86_400.0, len(run.table.days))
        self.end = max(1, min(len(run.table.days), int(np.median(last)) + 1))
        self.used = course.used[: run.shown] / np.maximum(run.able.attempts[: run.shown], 1e-9)
        self.at_work = run.able.attempts[: run.shown].mean(axis=1) > 0
        self.at_work[self.end :] = False
        waited = course.waited[: self.end]
        worked = max(1, int((waited >= 0).sum()))
        self.waited = {kind: float((waited == kind).sum()) / worked for kind in (STATIONS, BLANKS, ORDERS)}

    def run(self) -> list[result.Stage]:
        found = [*self._groups(), *self._shared(), *self._counters(), *self._outside()]
        return sorted(found, key=lambda one: (-one.limits, -one.utilization))

    def _stage(self, name: str, kind: result.StageKind, busy: Floats, limits: float, capacity: str) -> result.Stage:
        """`busy` (days shown, replications)."""
        daily = np.median(busy, axis=1)
        open_days = busy[self.at_work]
        overall = float(np.median(open_days.mean(axis=0))) if open_days.size else 0.0
        return result.Stage(name, kind, min(1.0, overall), limits, capacity, [min(1.0, float(value)) for value in daily])

    def _groups(self) -> list[result.Stage]:
        found = []
        limit = self._limiting()
        for group in makers(self.of.scenario):
            alone = cycle(self.of.inputs.cards[f"group {group.name}"], self.of.inputs)
            made = self.of.able.by_group[group.name][: self.of.shown]
            working = max(1, int((made.mean(axis=1) > 0).sum()))
            cycle_s, chip_s = float(alone.mean.mean()), float(alone.chip.mean())
            a_day = float(made.mean(axis=1).sum()) / working
            readers = _number(group.heads, "reader")
            words = f"{group.count} x {readers}, {a_day:,.0f} pieces/day; cycle {cycle_s:.1f} s (chip {chip_s:.1f})"
            busy = self.used * self.of.able.heads[group.name]
            found.append(self._stage(f"stations {group.name}", "stations", busy, limit.get(group.name, 0.0), words))
            if 0 < group.printers < group.heads:
                share = self.used * self.of.able.printers[group.name]
                words = f"{group.printers} for {group.heads} readers, {float(alone.printing.mean()):.1f} s a card"
                found.append(self._stage(f"printers {group.name}", "printer", share, limit.get(f"printers {group.name}", 0.0), words))
        return found

    def _limiting(self) -> dict[str, float]:
        """Work that waited for stations waited for the fullest of what stations need."""
        able = self.of.able
        groups = makers(self.of.scenario)
        share = self.waited[STATIONS]
        candidates: dict[str, float] = {}
        if self.of.inputs.calls_per_s is not None:
            candidates["hsm"] = float(able.hsm[: self.of.shown][self.at_work].mean()) if self.at_work.any() else 0.0
        if self.of.inputs.cores is not None:
            candidates["engine"] = float(able.engine[: self.of.shown][self.at_work].mean()) if self.at_work.any() else 0.0
        fullest = max(candidates, key=lambda name: candidates[name], default="")
        if fullest and candidates[fullest] >= _FULL:
            return {fullest: share}
        if self._short_of_people():
            return {"staff": share}
        whole = sum(float(able.by_group[group.name].sum()) for group in groups) or 1.0
        found = {}
        for group in groups:
            part = share * float(able.by_group[group.name].sum()) / whole
            shared = 0 < group.printers < group.heads
            full = shared and float(able.printers[group.name].mean()) > max(_FULL - 0.07, float(able.chip[group.name].mean()))
            found[f"printers {group.name}" if full else group.name] = part
        return found

    def _short_of_people(self) -> bool:
        staff = self.of.scenario.staff
        stations = sum(group.count for group in self.of.scenario.groups)
        return staff is not None and staff.people * staff.stations_per_person < stations

    def _shared(self) -> list[result.Stage]:
        limit = self._limiting()
        scenario, inputs, able = self.of.scenario, self.of.inputs, self.of.able
        found = []
        if scenario.hsm is not None and inputs.calls_per_s is not None:
            words = f"{float(inputs.calls_per_s.mean()):,.0f} calls a second, {scenario.hsm.calls_per_card:g} a card"
            found.append(self._stage("HSM", "hsm", self.used * able.hsm[: self.of.shown], limit.get("hsm", 0.0), words))
        if scenario.engine is not None and inputs.cores is not None:
            ms = float(next(iter(inputs.cards.values())).cpu.mean()) * 1000.0
            words = f"{inputs.cores} cores, {ms:.2g} ms of one a card"
            found.append(self._stage("engine", "engine", self.used * able.engine[: self.of.shown], limit.get("engine", 0.0), words))
        if scenario.staff is not None:
            stations = sum(group.count for group in scenario.groups)
            could = scenario.staff.people * scenario.staff.stations_per_person
            busy = np.where(self.at_work[:, None], min(1.0, stations / max(could, 1e-9)), 0.0) * np.ones_like(self.used)
            words = f"{scenario.staff.people} people for {scenario.staff.stations_per_person:g} stations each, of {stations}"
            found.append(self._stage("people", "staff", busy, limit.get("staff", 0.0), words))
        return found

    def _counters(self) -> list[result.Stage]:
        found = []
        only = not makers(self.of.scenario)
        for one, factors in self.of.queues:
            daily = [float(np.median(one.busy)) if factors[day] > 0 else 0.0 for day in range(self.of.shown)]
            counter = one.counter
            words = f"{counter.offices} offices x {_number(counter.stations, 'station')}; {one.per_day:,.0f} people a day"
            limits = one.unserved_share if only else 0.0
            found.append(result.Stage(f"counters {one.counter.name}", "counter", float(np.median(one.busy)), limits, words, daily))
        return found

    def _outside(self) -> list[result.Stage]:
        scenario, course = self.of.scenario, self.of.course
        found = []
        waited = course.waited[: self.of.shown]
        if scenario.blanks is not None:
            weeks = self.end / 7
            arrived = scenario.blanks.stock + scenario.blanks.per_week * weeks
            used = float(np.median(course.used[: self.end].sum(axis=0) + course.instant[: self.end].sum(axis=0)))
            words = f"{scenario.blanks.stock:,} in stock, {scenario.blanks.per_week:,} a week"
            short = (waited == BLANKS).mean(axis=1)
            daily = [float(value) for value in short]
            share = min(1.0, used / arrived) if arrived else 1.0
            found.append(result.Stage("blanks", "blanks", share, self.waited[BLANKS], words, daily))
        if self.waited[ORDERS] > _SHOWS or not makers(scenario):
            daily = [float(value) for value in (waited == ORDERS).mean(axis=1)]
            limits = self.waited[ORDERS] if makers(scenario) else 1.0 - sum(one.unserved_share for one, _ in self.of.queues)
            words = "stations wait for orders" if makers(scenario) else "the counters serve who comes, no faster"
            found.append(result.Stage("orders", "orders", limits, limits, words, daily))
        return found


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def instant(run: Run) -> list[result.InstantQueue]:
    """Every group of counters; all together first where there are several."""
    queues = [one for one, _ in run.queues]
    found = [_instant(one.counter.name, [one]) for one in queues]
    return [_instant("all", queues), *found] if len(queues) > 1 else found


def _instant(name: str, queues: list[Queue]) -> result.InstantQueue:
    waits = np.sum([one.waits for one in queues], axis=0)
    came = sum(one.customers for one in queues)
    stations = [one.counter.offices * one.counter.stations for one in queues]
    busy = sum(float(one.busy.mean()) * number for one, number in zip(queues, stations, strict=True)) / sum(stations)
    days = max(sum(one.days.values()) for one in queues) if queues else 0
    return result.InstantQueue(
        name=name,
        offices=sum(one.counter.offices for one in queues),
        stations=sum(stations),
        customers_per_day=sum(one.per_day for one in queues),
        wait_p50=quantile(waits, 0.5),
        wait_p95=quantile(waits, 0.95),
        wait_max=float(np.nonzero(waits)[0].max(initial=0)),
        within={str(minutes): within(waits, minutes * 60, came) for minutes in _MINUTES},
        worst_office=max(float(one.office_p95.max()) for one in queues),
        utilization=busy,
        unserved=(came - float(waits.sum())) / days * 365 if days else 0.0,
    )


def blanks(run: Run) -> result.Blanks:
    """Pieces of plastic until the work is done."""
    course, stock = run.course, run.scenario.blanks
    scrapped, rejected = course.scrapped.sum(axis=0), course.rejected.sum(axis=0)
    return result.Blanks(
        needed=_quantiles(course.good[-1] + scrapped + rejected),
        scrapped=_quantiles(scrapped),
        rejected=_quantiles(rejected),
        in_stock_at_start=0 if stock is None else stock.stock,
        delivered_per_week=0.0 if stock is None else float(stock.per_week),
        short_days=_quantiles((course.waited == BLANKS).sum(axis=0).astype(np.float64)),
    )


def _quantiles(values: Floats) -> result.Quantiles:
    return result.Quantiles(*(float(value) for value in np.quantile(values, [0.5, 0.8, 0.95])))
