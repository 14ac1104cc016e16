"""Instant issuance: how long people wait at the counters, customer by customer, all offices and replications beside each other.

One station: Lindley's recursion. Several: that of Kiefer and Wolfowitz on the sorted work before the next customer; both are exact. Days
are independent, since an office opens empty, so one day is drawn for every load a calendar holds, not every day of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from engine.capacity.distribution import Floats
from engine.capacity.scenario.model import WEEKDAYS, Counter, Scenario
from engine.capacity.scenario.timetable import Timetable
from engine.capacity.simulation.inputs import Card, Inputs
from engine.capacity.simulation.streams import stream

# offices x replications beside each other, at least, so that the tail of the waits is seen
_COLUMNS: Final = 20_000
# waits are counted in bins of a second, up to a day
_BINS: Final = 86_400


@dataclass
class Queue:
    """Of one group of counters. `waits`: how many customers waited so many whole seconds; `office_p95` per office, in seconds; `came`,
    `served` and `pieces` of plastic on one day by load level, per replication; `busy`: share of opening time in which stations work,
    per replication; `days` on which each level is met.
    """

    counter: Counter
    card: Card
    waits: Floats
    office_p95: Floats
    came: dict[float, Floats] = field(default_factory=dict)
    served: dict[float, Floats] = field(default_factory=dict)
    pieces: dict[float, Floats] = field(default_factory=dict)
    busy: Floats = field(default_factory=lambda: np.zeros(1))
    days: dict[float, int] = field(default_factory=dict)

    @property
    def customers(self) -> float:
        """All who came on all these days, the mean of the replications."""
        return sum(float(self.came[level].mean()) * number for level, number in self.days.items())

    @property
    def per_day(self) -> float:
        """Customers on an average opening day, at all its offices."""
        number = sum(self.days.values())
        return self.customers / number if number else 0.0

    @property
    def unserved_share(self) -> float:
        """Of all customers, those sent away when the offices closed."""
        served = sum(float(self.served[level].mean()) * number for level, number in self.days.items())
        return 1.0 - served / self.customers if self.customers else 0.0


def rates(scenario: Scenario, counter: Counter) -> Floats:
    """Customers per ordinary day at each office."""
    if counter.customers_per_day is None:
        offices = sum(one.offices for one in scenario.counters)
        return np.full(counter.offices, scenario.orders.per_day * scenario.orders.instant_share / offices)
    return np.linspace(counter.customers_per_day.low, counter.customers_per_day.high, counter.offices)


def levels(scenario: Scenario, counter: Counter, table: Timetable) -> Floats:
    """The factor on the customers of each day; 0 where the offices are closed."""
    found = np.zeros(len(table.days))
    for at, (day, weekday) in enumerate(zip(table.days, table.weekdays, strict=True)):
        if weekday >= 0 and WEEKDAYS[weekday] in counter.days:
            found[at] = scenario.orders.weekday_factors[weekday] * scenario.orders.month_factors[day.month - 1]
    return found


def queue(scenario: Scenario, inputs: Inputs, counter: Counter, factors: Floats, known: dict[float, OfficeDay] | None = None) -> Queue:
    """One day for each level of `factors`, with as many offices and replications as the scenario has. `known` keeps the days simulated for
    this counter and these inputs.
    """
    known = {} if known is None else known
    per_office = rates(scenario, counter)
    found = Queue(counter, inputs.cards[f"counter {counter.name}"], np.zeros(_BINS), np.zeros(counter.offices))
    working = factors[factors > 0]
    found.busy = np.zeros(inputs.replications)
    office_waits = np.zeros((counter.offices, 24 * 60))
    for level in np.unique(working):
        weight = int((working == level).sum())
        found.days[float(level)] = weight
        if float(level) not in known:
            known[float(level)] = OfficeDay(inputs, counter, per_office * level)
            known[float(level)].run(float(level))
        day = known[float(level)]
        found.waits += day.waits * (weight / day.repeats / inputs.replications)
        office_waits += day.office_waits * weight
        found.came[float(level)] = day.per_replication(day.came)
        found.served[float(level)] = day.per_replication(day.served)
        found.pieces[float(level)] = day.per_replication(day.pieces)
        open_seconds = (counter.close - counter.open) * 60.0 * counter.stations * counter.offices
        found.busy += day.per_replication(day.worked) / open_seconds * weight / len(working)
    found.office_p95 = _quantile_rows(office_waits, 0.95) * 60.0
    return found


class OfficeDay:
    """All columns (repeat, replication, office) through one day, the n-th customer of each at once."""

    def __init__(self, inputs: Inputs, counter: Counter, rate: Floats) -> None:
        self.inputs, self.counter = inputs, counter
        self.repeats = max(1, -(-_COLUMNS // (inputs.replications * counter.offices)))
        shape = (self.repeats, inputs.replications, counter.offices)
        self.rate = np.broadcast_to(rate, shape).ravel()
        self.replication = np.broadcast_to(np.arange(inputs.replications)[None, :, None], shape).ravel()
        self.office = np.broadcast_to(np.arange(counter.offices)[None, None, :], shape).ravel()
        self.waits = np.zeros(_BINS)
        self.office_waits = np.zeros((counter.offices, 24 * 60))
        self.came, self.served, self.pieces, self.worked = (np.zeros(self.rate.size) for _ in range(4))

    def run(self, level: float) -> None:
        """Customers come at random over the opening time. Who is still waiting when the office closes is sent away."""
        name = f"counter {self.counter.name}"
        arrivals, services = stream(self.inputs.seed, name, level, "come"), stream(self.inputs.seed, name, level, "served")
        length = (self.counter.close - self.counter.open) * 60.0
        alive = np.nonzero(self.rate > 0)[0]
        now = np.zeros(alive.size)
        # when each station is free, the earliest first
        free = np.zeros((alive.size, self.counter.stations))
        while alive.size:
            now = now + arrivals.exponential(size=alive.size) * length / self.rate[alive]
            here = now < length
            alive, now, free = alive[here], now[here], free[here]
            self.came[alive] += 1
            begin = np.maximum(now, free[:, 0])
            taken = begin < length
            seconds, pieces = self._service(services, alive)
            free[:, 0] = np.where(taken, begin + seconds, free[:, 0])
            if self.counter.stations > 1:
                free.sort(axis=1)
            self._count(alive[taken], (begin - now)[taken], seconds[taken], pieces[taken])

    def _count(self, column: np.ndarray, wait: Floats, seconds: Floats, pieces: Floats) -> None:
        self.served[column] += 1
        self.worked[column] += seconds
        self.pieces[column] += pieces
        self.waits += np.bincount(wait.astype(np.int64), minlength=_BINS)[:_BINS]
        minute = self.office[column] * (24 * 60) + (wait / 60.0).astype(np.int64)
        self.office_waits += np.bincount(minute, minlength=self.office_waits.size).reshape(self.office_waits.shape)

    def _service(self, rng: np.random.Generator, column: np.ndarray) -> tuple[Floats, Floats]:
        """Seconds a station is with a customer, failed cards and a stop in the middle of it included, and pieces it takes."""
        of = self.replication[column]
        name = f"counter {self.counter.name}"
        card, talk = self.inputs.cards[name], self.inputs.talk[name]
        seconds = talk.draw(rng, of) + card.handling.draw(rng, of) + card.chip.draw(rng, of) + card.printing.draw(rng, of)
        seconds += card.gap.draw(rng, of)
        pieces = np.ones(of.size)
        wrong = np.nonzero(rng.random(of.size) < (card.scrap + card.blank)[of])[0]
        while wrong.size:
            which = of[wrong]
            handling = card.handling.draw(rng, which)
            scrapped = rng.random(wrong.size) * (card.scrap + card.blank)[which] < card.scrap[which]
            blank = handling if card.blank_cycle is None else card.blank_cycle.draw(rng, which)
            scrap = handling + card.chip.draw(rng, which) if card.scrap_cycle is None else card.scrap_cycle.draw(rng, which)
            seconds[wrong] += np.where(scrapped, scrap, blank) + card.gap.draw(rng, which)
            pieces[wrong] += 1
            wrong = wrong[rng.random(wrong.size) < (card.scrap + card.blank)[which]]
        if self.inputs.uptime is not None and self.inputs.repair is not None:
            stops = np.nonzero(rng.random(of.size) < -np.expm1(-seconds / self.inputs.uptime.mean[of]))[0]
            seconds[stops] += self.inputs.repair.draw(rng, of[stops])
        return seconds, pieces

    def per_replication(self, values: Floats) -> Floats:
        """The sum over offices, the mean over repeats."""
        return np.asarray(values.reshape(self.repeats, self.inputs.replications, -1).sum(axis=2).mean(axis=0))


def quantile(waits: Floats, share: float) -> float:
    """The wait in seconds below which a share of the customers lie."""
    total = waits.sum()
    return float(np.searchsorted(np.cumsum(waits), share * total)) if total else 0.0


def within(waits: Floats, seconds: int, came: float) -> float:
    """Share of those who came who waited at most so long."""
    return float(waits[:seconds].sum() / came) if came else 1.0


def _quantile_rows(counts: Floats, share: float) -> Floats:
    totals = counts.sum(axis=1, keepdims=True)
    return np.asarray((np.cumsum(counts, axis=1) < share * totals).sum(axis=1), dtype=np.float64)
