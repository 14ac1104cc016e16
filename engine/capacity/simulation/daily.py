"""Day by day: orders come in, blanks arrive, counters and stations make cards until all are good. All replications at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.capacity.distribution import Floats
from engine.capacity.scenario.model import WEEKDAYS, Blanks, Scenario
from engine.capacity.scenario.timetable import Timetable
from engine.capacity.simulation.counters import Queue
from engine.capacity.simulation.shifts import Capacity
from engine.capacity.simulation.streams import stream

DAY: Final = 86_400.0
# what a day's work waited for
STATIONS, BLANKS, ORDERS = range(3)


@dataclass(frozen=True)
class Course:
    """(days, replications) where not said otherwise. `finish`: (replications) seconds from midnight of the first day, inf where not all
    is good within the days looked at. `used`: attempts at stations. `waited`: STATIONS, BLANKS or ORDERS, -1 on days without work.
    """

    finish: Floats
    good: Floats
    used: Floats
    instant: Floats
    scrapped: Floats
    rejected: Floats
    stock: Floats
    waited: np.ndarray

    @property
    def done(self) -> bool:
        """Whether every replication came to its end."""
        return bool(np.isfinite(self.finish).all())


def course(scenario: Scenario, seed: int, table: Timetable, able: Capacity, queues: list[tuple[Queue, Floats]]) -> Course:
    """`queues` with the load level of each day."""
    return _Course(scenario, seed, table, able, queues).run()


class _Course:
    def __init__(self, scenario: Scenario, seed: int, table: Timetable, able: Capacity, queues: list[tuple[Queue, Floats]]) -> None:
        self.scenario, self.seed, self.table, self.able, self.queues = scenario, seed, table, able, queues
        self.shape = able.attempts.shape
        self.clock = _Clock(scenario, table)

    def run(self) -> Course:
        days, replications = self.shape
        orders = self.scenario.orders
        ordered = self._ordered()
        arriving = deliveries(self.scenario, self.seed, self.table, replications)
        rows: dict[str, Floats] = {name: np.zeros(self.shape) for name in ("good", "used", "instant", "scrapped", "rejected", "stock")}
        waited = np.full(self.shape, -1, dtype=np.int8)
        finish = np.full(replications, np.inf)
        good, bulk = np.zeros(replications), np.zeros(replications)
        stock = np.full(replications, np.inf if self.scenario.blanks is None else float(self.scenario.blanks.stock))
        for day in range(days):
            going = np.isinf(finish)
            if not going.any():
                rows["good"][day:] = good
                rows["stock"][day:] = stock
                break
            rng = stream(self.seed, "day", day)
            stock = stock + arriving[day]
            handed, pieces = self._instant(day, rng, orders.total - good, stock)
            stock, good = stock - pieces * going, good + handed * going
            wanted = np.maximum(0.0, np.minimum(ordered[day] - bulk - self._walk_ins(rows, day, handed), orders.total - good))
            made, tried, scrap, blank, limit = self._stations(day, rng, wanted, stock)
            before, good = good, good + made * going
            bulk, stock = bulk + made * going, stock - tried * going
            ended = going & (good >= orders.total - 0.5)
            share = np.where(before >= orders.total - 0.5, 0.0, tried / np.maximum(self.able.attempts[day], 1e-9))
            finish[ended] = self.clock.at(day, share[ended], instant=(made[ended] == 0) & (handed[ended] > 0))
            waited[day] = np.where(going, limit, -1)
            lost = np.maximum(0.0, pieces - handed)
            spoilt = self._spoilt()
            for name, values in (
                ("good", good), ("used", tried * going), ("instant", handed * going), ("stock", stock),
                ("scrapped", (scrap + lost * spoilt) * going), ("rejected", (blank + lost * (1.0 - spoilt)) * going),
            ):  # fmt: skip
                rows[name][day] = values
        return Course(finish=finish, waited=waited, **rows)

    def _ordered(self) -> Floats:
        """Cumulative orders for the stations at the end of each day."""
        orders = self.scenario.orders
        if not orders.per_day:
            return np.full(self.shape, float(orders.backlog))
        factors = np.array(
            [
                0.0 if weekday < 0 else orders.weekday_factors[weekday] * orders.month_factors[day.month - 1] * self._worked(weekday)
                for day, weekday in zip(self.table.days, self.table.weekdays, strict=True)
            ]
        )
        expected = orders.per_day * (1.0 - orders.instant_share) * factors
        drawn = stream(self.seed, "orders").poisson(np.broadcast_to(expected[:, None], self.shape))
        return np.asarray(np.minimum(orders.backlog + np.cumsum(drawn, axis=0), orders.total), dtype=np.float64)

    def _worked(self, weekday: int) -> bool:
        name = WEEKDAYS[weekday]
        worked = [*(shift.days for shift in self.scenario.shifts), *(counter.days for counter in self.scenario.counters)]
        return any(name in days for days in worked)

    def _walk_ins(self, rows: dict[str, Floats], day: int, handed: Floats) -> Floats:
        """Customers who are no instant orders take their card out of what the stations would have made."""
        if self.scenario.orders.instant_share:
            return np.zeros(self.shape[1])
        return np.asarray(rows["instant"][:day].sum(axis=0) + handed)

    def _instant(self, day: int, rng: np.random.Generator, left: Floats, stock: Floats) -> tuple[Floats, Floats]:
        """Cards handed out at the counters, and the pieces they took."""
        handed, pieces = np.zeros(self.shape[1]), np.zeros(self.shape[1])
        for queue, factors in self.queues:
            level = float(factors[day])
            if level <= 0:
                continue
            came = queue.came[level]
            number = rng.poisson(came.mean(), self.shape[1]) * (queue.served[level] / np.maximum(came, 1.0))
            handed += np.round(number)
            pieces += np.round(number * queue.pieces[level] / np.maximum(queue.served[level], 1.0))
        share = np.minimum(1.0, np.minimum(left / np.maximum(handed, 1.0), np.maximum(stock, 0.0) / np.maximum(pieces, 1.0)))
        return np.round(handed * share), np.round(pieces * share)

    def _stations(self, day: int, rng: np.random.Generator, wanted: Floats, stock: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Good cards, attempts, scrap, rejected blanks, and what was waited for."""
        able = self.able.attempts[day]
        tried = np.floor(np.maximum(0.0, np.minimum(able, stock)))
        scrap = rng.binomial(tried.astype(np.int64), np.clip(self.able.scrap[day], 0.0, 1.0)).astype(np.float64)
        rest = np.clip(self.able.blank[day] / np.maximum(1.0 - self.able.scrap[day], 1e-9), 0.0, 1.0)
        blank = rng.binomial((tried - scrap).astype(np.int64), rest).astype(np.float64)
        made = tried - scrap - blank
        # fewer are wanted than could be made: that share of the day is worked
        share = np.where(made > wanted, wanted / np.maximum(made, 1.0), 1.0)
        limit = np.where(made > wanted, ORDERS, np.where(stock < able, BLANKS, STATIONS))
        limit = np.where(able > 0, limit, -1)
        return np.minimum(made, wanted), np.round(tried * share), np.round(scrap * share), np.round(blank * share), limit

    def _spoilt(self) -> Floats:
        """Of the pieces that counters lose, the share that is scrap and not a rejected blank."""
        cards = [queue.card for queue, _ in self.queues]
        if not cards:
            return np.zeros(self.shape[1])
        scrap, blank = (np.mean([getattr(card, name) for card in cards], axis=0) for name in ("scrap", "blank"))
        return np.asarray(np.where(scrap + blank > 0, scrap / np.maximum(scrap + blank, 1e-12), 0.0))


class _Clock:
    """From a share of a day's work to the time of day."""

    def __init__(self, scenario: Scenario, table: Timetable) -> None:
        self.spans: dict[int, list[tuple[float, float]]] = {}
        for at, period in enumerate(table.periods):
            if any(seconds[at].any() for seconds in table.seconds.values()):
                self.spans.setdefault(period.day, []).append((period.begin, period.seconds))
        self.close = max((counter.close * 60.0 for counter in scenario.counters), default=DAY)

    def at(self, day: int, share: Floats, *, instant: np.ndarray) -> Floats:
        spans = self.spans.get(day, [])
        if not spans:
            return np.full(share.shape, day * DAY + self.close)
        worked = np.cumsum([0.0, *(seconds for _, seconds in spans)])
        begin = np.array([begin for begin, _ in spans])
        done = np.clip(share, 0.0, 1.0) * worked[-1]
        at = np.clip(np.searchsorted(worked, done, side="left") - 1, 0, len(spans) - 1)
        return np.asarray(day * DAY + np.where(instant, self.close, begin[at] + done - worked[at]))


def deliveries(scenario: Scenario, seed: int, table: Timetable, replications: int) -> Floats:
    """(days, replications) blanks that arrive before each day's work."""
    found = np.zeros((len(table.days), replications))
    blanks = scenario.blanks
    if blanks is None or not blanks.per_week:
        return found
    rng = stream(seed, "deliveries")
    columns = np.arange(replications)
    for day, date in enumerate(table.days):
        if WEEKDAYS[date.weekday()] == blanks.weekday:
            arrives = _open_from(table, day + _late(blanks, rng, replications))
            here = arrives < len(table.days)
            np.add.at(found, (arrives[here], columns[here]), float(blanks.per_week))
    return found


def _late(blanks: Blanks, rng: np.random.Generator, replications: int) -> np.ndarray:
    late = rng.random(replications) < blanks.late_share
    span = blanks.late_days.high - blanks.late_days.low
    return np.where(late, np.round(blanks.late_days.low + span * rng.random(replications)), 0.0).astype(np.int64)


def _open_from(table: Timetable, days: np.ndarray) -> np.ndarray:
    """The day itself, or the next one on which anybody delivers: no holiday, no Saturday or Sunday but those worked instead."""
    following = np.full(len(table.days) + 1, len(table.days), dtype=np.int64)
    for day in range(len(table.days) - 1, -1, -1):
        following[day] = day if 0 <= table.weekdays[day] < 5 else following[day + 1]
    return np.asarray(following[np.minimum(days, len(table.days))])
