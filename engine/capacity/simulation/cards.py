"""The simulation card by card: every line, lease, blank, chip, print and failure, with the real dispatcher giving out the lines.

Exact and slow: for replaying a job, and as the proof of the aggregates in `shifts`. Times are seconds from the start.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engine.capacity.simulation.draw import Draws
from engine.capacity.simulation.model import CardModel, Failure, PlantModel
from engine.dispatch.breaker import Breaker
from engine.dispatch.dispatcher import Dispatcher, StationInfo
from engine.dispatch.queues import JobInfo

if TYPE_CHECKING:
    import simpy

Events = Generator[Any, Any, Any]
_CHIP: Final = "any"
# an operator's decision, not a simulation's: stations stop by the repair and uptime distributions
_NO_BREAKER: Final = 1 << 62
_TICK: Final = 1e-6


@dataclass(frozen=True, slots=True)
class JobLoad:
    """`releases`: (second, lines) that become ready. `pauses`: from and to, while nothing of it is given out. `due_s` as seconds, too."""

    job_id: str
    profile: str
    releases: tuple[tuple[float, int], ...]
    priority: int = 5
    due_s: float | None = None
    pauses: tuple[tuple[float, float], ...] = ()

    @property
    def lines(self) -> int:
        """All lines that ever become ready."""
        return sum(number for _, number in self.releases)


@dataclass(frozen=True, slots=True)
class StationModel:
    """`intervals`: from and to, in order, while the station takes lines; a card in hand at the end of one is finished. `printers` 0:
    every head has its own. `busy`: seconds after which the first heads are free, cards of before lying in them. `blanks` in its feeder and
    `refills` (second, blanks); an empty feeder asks for no lines.
    """

    station_id: str
    heads: int = 1
    printers: int = 0
    profiles: frozenset[str] = frozenset()
    intervals: tuple[tuple[float, float], ...] = ((0.0, inf),)
    busy: tuple[float, ...] = ()
    blanks: float = inf
    refills: tuple[tuple[float, int], ...] = ()


@dataclass(slots=True)
class Finishes:
    """`finish`: when the last line of a job was good; absent where it never was. `good_at`: seconds of all good cards, in order.
    `utilization` by resource: the share of the time it could have worked, "stations", "chip", "printing", "hsm", "engine".
    """

    finish: dict[str, float] = field(default_factory=dict)
    good: Counter[str] = field(default_factory=Counter)
    good_at: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    waits: dict[str, list[float]] = field(default_factory=dict)
    blanks: int = 0
    utilization: dict[str, float] = field(default_factory=dict)
    end: float = 0.0


def simulate(
    jobs: Sequence[JobLoad],
    stations: Sequence[StationModel],
    model: PlantModel,
    rng: np.random.Generator,
    *,
    until: float = inf,
    wanted: str = "",
) -> Finishes:
    """Runs until every line is good (of the job `wanted`, if one is), nothing can be done any more, or `until`.

    `waits` are the seconds each line of a job waited from being ready until its first lease. Raises NotFound NOT_MEASURED when a station
    could be given a card no model is known for.
    """
    for station in stations:
        for profile in {job.profile for job in jobs}:
            if not station.profiles or profile in station.profiles:
                model.card(station.station_id, profile)
    return _Plant(jobs, stations, model, rng, wanted).run(until)


class _Plant:
    def __init__(
        self, jobs: Sequence[JobLoad], stations: Sequence[StationModel], model: PlantModel, rng: np.random.Generator, wanted: str
    ) -> None:
        import simpy

        self.env = simpy.Environment()
        self.jobs = {job.job_id: job for job in jobs}
        self.stations = {station.station_id: station for station in stations}
        self.model = model
        self.draws = Draws(rng)
        self.done = self.env.event()
        self.wanted = wanted
        self.left = sum(job.lines for job in jobs)
        self.out = Finishes(waits={job.job_id: [] for job in jobs})
        self.dispatcher = Dispatcher(Breaker(_NO_BREAKER))
        self.idle: dict[str, deque[simpy.Event]] = {name: deque() for name in self.stations}
        self.ready_at: dict[str, dict[int, float]] = {job.job_id: {} for job in jobs}
        self.blanks = inf if model.blanks is None else model.blanks
        self.blank_waiters: deque[simpy.Event] = deque()
        self.feeders = {station.station_id: station.blanks for station in stations}
        self.hungry: defaultdict[str, deque[simpy.Event]] = defaultdict(deque)
        self.hsm = None if model.hsm_calls_per_s is None else simpy.Resource(self.env, 1)
        self.cores = None if model.cores is None else simpy.Resource(self.env, model.cores)
        self.busy: defaultdict[str, float] = defaultdict(float)
        self.on_since: dict[str, float] = {}
        self.worked = 0.0

    def run(self, until: float) -> Finishes:
        import simpy

        if not self.left:
            return self.out
        for job in self.jobs.values():
            self.dispatcher.add_job(_info(job))
            self.env.process(self._releases(job))
            for interval in job.pauses:
                self.env.process(self._pause(job, interval))
        for station in self.stations.values():
            printers = simpy.Resource(self.env, station.printers) if 0 < station.printers < station.heads else None
            for number in range(station.heads):
                self.env.process(self._head(station, printers, station.busy[number] if number < len(station.busy) else 0.0))
            for at, blanks in station.refills:
                self.env.process(self._refill(station.station_id, at, blanks))
            self.env.process(self._works(station))
        for at, number in self.model.deliveries:
            self.env.process(self._delivery(at, number))
        if until < inf:
            self.env.process(self._stop(until))
        # until the end, or until the events run dry: nothing can be made any more
        while not self.done.processed and self.env.peek() < inf:
            self.env.step()
        self.out.end = self.env.now
        self._utilization()
        return self.out

    # ---- what comes from outside

    def _releases(self, job: JobLoad) -> Events:
        first = 0
        for at, number in job.releases:
            yield self.env.timeout(max(0.0, at - self.env.now))
            lines = range(first, first + number)
            self.ready_at[job.job_id].update(dict.fromkeys(lines, self.env.now))
            self.dispatcher.lines_ready(job.job_id, lines)
            first += number
            self._assign()

    def _pause(self, job: JobLoad, interval: tuple[float, float]) -> Events:
        begin, end = interval
        yield self.env.timeout(begin)
        self.dispatcher.pause(job.job_id)
        if end < inf:
            yield self.env.timeout(end - begin)
            self.dispatcher.resume(job.job_id)
            self._assign()

    def _delivery(self, at: float, number: int) -> Events:
        yield self.env.timeout(at)
        self.blanks += number
        while self.blanks > 0 and self.blank_waiters:
            self.blanks -= 1
            self.blank_waiters.popleft().succeed()

    def _refill(self, name: str, at: float, number: int) -> Events:
        yield self.env.timeout(at)
        self.feeders[name] += number
        for _ in range(min(number, len(self.hungry[name]))):
            self.hungry[name].popleft().succeed()

    def _feed(self, name: str) -> Events:
        """A head asks for a line only when it can take a blank, and has its blank from then on."""
        while self.feeders[name] < 1:
            refill = self.env.event()
            self.hungry[name].append(refill)
            yield refill
        self.feeders[name] -= 1

    def _stop(self, until: float) -> Events:
        yield self.env.timeout(until)
        if not self.done.triggered:
            self.done.succeed()

    # ---- a station

    def _works(self, station: StationModel) -> Events:
        """Its intervals; within them it works and stands still by turns. Both clocks stop while it is closed."""
        up, left = True, self._phase(up=True)
        for begin, end in station.intervals:
            yield self.env.timeout(max(0.0, begin - self.env.now))
            while (rest := end - self.env.now) > _TICK:
                span = min(left, rest)
                if up:
                    self._on(station)
                if span == inf:
                    return
                yield self.env.timeout(span)
                left -= span
                if up:
                    self._off(station)
                if left <= _TICK:
                    up = not up
                    left = self._phase(up=up)

    def _phase(self, *, up: bool) -> float:
        model = self.model
        if model.uptime is None or model.repair is None:
            return inf if up else 0.0
        return self.draws.one(model.uptime if up else model.repair)

    def _on(self, station: StationModel) -> None:
        name = station.station_id
        self.dispatcher.station_on(StationInfo(name, station.profiles, frozenset({_CHIP}), station.heads))
        self.on_since[name] = self.env.now
        if self.idle[name]:
            self.dispatcher.credit(name, len(self.idle[name]))
            self._assign()

    def _off(self, station: StationModel) -> None:
        self.dispatcher.station_off(station.station_id)
        self.worked += (self.env.now - self.on_since.pop(station.station_id)) * station.heads

    def _assign(self) -> None:
        for given in self.dispatcher.assign(int(self.env.now * 1e6)):
            self.idle[given.station_id].popleft().succeed((given.job_id, given.line_no))

    def _head(self, station: StationModel, printers: simpy.Resource | None, busy: float) -> Events:
        name = station.station_id
        if busy:
            yield self.env.timeout(busy)
        while True:
            yield from self._feed(name)
            lease = self.env.event()
            self.idle[name].append(lease)
            if name in self.on_since:
                self.dispatcher.credit(name, 1)
                self._assign()
            job_id, line = yield lease
            began = self.env.now
            ready = self.ready_at[job_id].pop(line, None)
            if ready is not None:
                self.out.waits[job_id].append(began - ready)
            yield from self._blank()
            card = self.model.card(name, self.jobs[job_id].profile)
            yield from self._attempt(card, job_id, line, printers)
            self.busy["stations"] += self.env.now - began
            gap = self.draws.one(card.gap)
            if gap:
                yield self.env.timeout(gap)

    def _blank(self) -> Events:
        if self.blanks > 0:
            self.blanks -= 1
        else:
            waiter = self.env.event()
            self.blank_waiters.append(waiter)
            yield waiter
        self.out.blanks += 1

    # ---- one card

    def _attempt(self, card: CardModel, job_id: str, line: int, printers: simpy.Resource | None) -> Events:
        failure = self._failure(card)
        if failure is not None and failure.blank:
            yield self.env.timeout(self.draws.one(failure.cycle or card.handling))
        else:
            served = yield from self._server(card)
            if failure is not None and failure.cycle is not None:
                yield self.env.timeout(max(0.0, self.draws.one(failure.cycle) - served))
            else:
                chip = self.draws.one(card.chip)
                self.busy["chip"] += chip
                yield self.env.timeout(chip + max(0.0, self.draws.one(card.handling) - served))
                if failure is None:
                    yield from self._print(card, printers)
        if failure is None:
            self._good(job_id, line)
            return
        self.out.failures[failure.reason] += 1
        self.dispatcher.line_back(job_id, line)
        self._assign()

    def _failure(self, card: CardModel) -> Failure | None:
        if not card.failures:
            return None
        drawn = self.draws.uniform()
        for failure in card.failures:
            drawn -= failure.share
            if drawn < 0:
                return failure
        return None

    def _server(self, card: CardModel) -> Events:
        """Waits for a core and for the token; the seconds they worked, which handling holds already."""
        served = 0.0
        if self.cores is not None and card.cpu_seconds:
            with self.cores.request() as core:
                yield core
                yield self.env.timeout(card.cpu_seconds)
            self.busy["engine"] += card.cpu_seconds
            served += card.cpu_seconds
        if self.hsm is not None and self.model.hsm_calls_per_s and card.hsm_calls:
            calls = card.hsm_calls / self.model.hsm_calls_per_s
            with self.hsm.request() as token:
                yield token
                yield self.env.timeout(calls)
            self.busy["hsm"] += calls
            served += calls
        return served

    def _print(self, card: CardModel, printers: simpy.Resource | None) -> Events:
        seconds = self.draws.one(card.printing)
        if not seconds:
            return
        self.busy["printing"] += seconds
        if printers is None:
            yield self.env.timeout(seconds)
            return
        with printers.request() as printer:
            yield printer
            yield self.env.timeout(seconds)

    def _good(self, job_id: str, line: int) -> None:
        self.dispatcher.line_done(job_id, line)
        self.out.good[job_id] += 1
        self.out.good_at.append(self.env.now)
        if self.out.good[job_id] == self.jobs[job_id].lines:
            self.out.finish[job_id] = self.env.now
        self.left -= 1
        if (not self.left or self.wanted in self.out.finish) and not self.done.triggered:
            self.done.succeed()

    def _utilization(self) -> None:
        now = self.env.now
        open_now = sum((now - since) * self.stations[name].heads for name, since in self.on_since.items())
        worked = self.worked + open_now
        if worked:
            self.out.utilization = {name: self.busy[name] / worked for name in ("stations", "chip", "printing")}
        if now and self.hsm is not None:
            self.out.utilization["hsm"] = self.busy["hsm"] / now
        if now and self.model.cores is not None:
            self.out.utilization["engine"] = self.busy["engine"] / (now * self.model.cores)


def _info(job: JobLoad) -> JobInfo:
    return JobInfo(job.job_id, job.priority, None if job.due_s is None else int(job.due_s * 1e6), job.profile, _CHIP)
