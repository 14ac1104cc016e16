"""The aggregates give what the simulation card by card gives: the same cards in the same time, the same spread, the same queues.

Bounds: means within 1 % (2 % where several things wait for one another) plus what the number of replications leaves open; spreads, which
are known less well, within a factor that their sampling error allows.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from math import sqrt

import numpy as np
import pytest

from engine.capacity.distribution import Distribution
from engine.capacity.plan import Planner
from engine.capacity.scenario.model import Blanks, Counter, Engine, Failures, Group, Hsm, Orders, Range, Scenario, Shift, Staff, Times
from engine.capacity.scenario.timetable import timetable
from engine.capacity.simulation.cards import JobLoad, StationModel, simulate
from engine.capacity.simulation.counters import levels, quantile, queue
from engine.capacity.simulation.inputs import Inputs, Part, resolve
from engine.capacity.simulation.model import CardModel, Failure, PlantModel

REPLICATIONS = 24
HOUR = 3600.0
GAMMA = Distribution.of(np.random.default_rng(7).gamma(16.0, 1.0 / 16.0, 40_000))
ALL_WEEK = frozenset(("mon", "tue", "wed", "thu", "fri", "sat", "sun"))


def scenario(**changes: object) -> Scenario:
    base = Scenario(
        name="small",
        start=date(2026, 3, 2),
        orders=Orders("p", total=4000, backlog=4000),
        shifts=(Shift("early", 6 * 60, 10 * 60, ALL_WEEK), Shift("late", 13 * 60, 17 * 60, ALL_WEEK)),
        groups=(Group("a", 3, times=Times(Range(20, 20), Range(6, 6), Range(8, 8), Range(1, 1))),),
        horizon_days=60,
    )
    return replace(base, **changes)


class Spread(Planner):
    """Chip and print times that differ from card to card, as measured ones do."""

    def run(self, scenario):
        import engine.capacity.plan as planning

        original = planning.resolve
        planning.resolve = _resolved  # type: ignore[assignment]
        try:
            return super().run(scenario)
        finally:
            planning.resolve = original


def _resolved(scenario: Scenario, profile: object, replications: int, seed: int) -> Inputs:
    inputs = resolve(scenario, None, replications, seed)
    for name, card in inputs.cards.items():
        inputs.cards[name] = replace(card, chip=Part(GAMMA, card.chip.mean), printing=Part(GAMMA, card.printing.mean))
    return inputs


def card_by_card(scenario: Scenario, replications: int) -> tuple[np.ndarray, np.ndarray]:
    """Finish times in working seconds of the wall clock, and blanks used, by the other simulation."""
    inputs = _resolved(scenario, None, replications, 1)
    table = timetable(scenario, scenario.horizon_days)
    finishes, blanks = [], []
    for number in range(replications):
        stations = []
        cards = {}
        for group in scenario.groups:
            seconds = table.seconds[group.name]
            for at in range(group.count):
                spans = [(table.begin(p), table.begin(p) + seconds[i, at]) for i, p in enumerate(table.periods) if seconds[i, at] > 0]
                name = f"{group.name}-{at}"
                stations.append(StationModel(name, group.heads, group.printers, frozenset(), tuple(spans)))
                cards[name, "p"] = _model(inputs, f"group {group.name}", number)
        stock = scenario.blanks
        model = PlantModel(
            cards,
            hsm_calls_per_s=None if inputs.calls_per_s is None else float(inputs.calls_per_s[number]),
            cores=inputs.cores,
            uptime=None if inputs.uptime is None else inputs.uptime.at(number),
            repair=None if inputs.repair is None else inputs.repair.at(number),
            blanks=None if stock is None else stock.stock,
            deliveries=() if stock is None or not stock.per_week else tuple((week * 7 * 86400.0, stock.per_week) for week in range(8)),
        )
        job = JobLoad("j", "p", ((0.0, scenario.orders.total),))
        found = simulate([job], stations, model, np.random.default_rng([5, number]))
        finishes.append(found.finish["j"])
        blanks.append(found.blanks)
    return np.array(finishes), np.array(blanks, dtype=float)


def _model(inputs: Inputs, where: str, number: int) -> CardModel:
    card = inputs.cards[where]
    failures = (Failure("scrap", float(card.scrap[number])), Failure("blank", float(card.blank[number]), blank=True))
    return CardModel(
        card.chip.at(number),
        card.printing.at(number),
        card.handling.at(number),
        card.gap.at(number),
        failures,
        card.calls,
        float(card.cpu[number]),
    )


def work(scenario: Scenario, finish: np.ndarray) -> np.ndarray:
    """Working seconds until a time of the wall clock: what a finish date is made of, without the nights between."""
    table = timetable(scenario, scenario.horizon_days)
    begins = np.array([table.begin(period) for period in table.periods])
    lengths = np.array([period.seconds for period in table.periods])
    return np.array([np.clip(at - begins, 0.0, lengths).sum() for at in finish])


BREAKS = Failures(blank_rejected=Range(0.02, 0.02), scrap=Range(0.03, 0.03), uptime_hours=Range(3, 3), repair_minutes=Range(30, 30))
TWO = (
    Group("a", 2, heads=1, times=Times(Range(20, 20), Range(6, 6), Range(8, 8), Range(1, 1))),
    Group("b", 2, heads=3, printers=1, times=Times(Range(25, 25), Range(9, 9), Range(5, 5), Range(1, 1))),
)
CASES = {
    "plain": (scenario(), 0.01),
    "failures and stops": (scenario(failures=BREAKS), 0.01),
    "stops many times a shift": (scenario(failures=replace(BREAKS, uptime_hours=Range(0.2, 0.2), repair_minutes=Range(3, 3))), 0.02),
    "two kinds, one printer for three readers": (scenario(groups=TWO, failures=BREAKS), 0.015),
    "a slow token": (scenario(groups=TWO, hsm=Hsm(40, Range(10, 10))), 0.02),
    "a token that is some of the limit": (scenario(groups=TWO, hsm=Hsm(24, Range(12, 12))), 0.02),
    "a slow server": (scenario(groups=TWO, engine=Engine(1, 2, Range(6000, 6000))), 0.03),
    "too few people": (scenario(groups=TWO, staff=Staff(3, 1)), 0.015),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_finish_by_both_simulations(case):
    asked, bound = CASES[case]
    fast = Spread(None, replications=200, seed=3).run(asked)
    finish, blanks = card_by_card(asked, REPLICATIONS)
    ours, theirs = work(asked, fast.course.finish), work(asked, finish)
    open_to_chance = 3 * sqrt(ours.var() / len(ours) + theirs.var() / len(theirs))
    assert abs(ours.mean() - theirs.mean()) <= bound * theirs.mean() + open_to_chance
    # one in ten thousand: a chi-square of 23 degrees between a fifth and twice and a half its mean, and the wave of the last cards
    wave = 60.0
    assert ours.std() <= 2.5 * theirs.std() + wave
    assert theirs.std() <= 2.5 * ours.std() + wave
    pieces = (fast.course.good[-1] + fast.course.scrapped.sum(0) + fast.course.rejected.sum(0)).mean()
    assert pieces == pytest.approx(blanks.mean(), rel=0.005)


def test_the_same_finish_when_blanks_are_short():
    asked = scenario(blanks=Blanks(1000, 1500))
    fast = Spread(None, replications=100, seed=3).run(asked)
    finish, _ = card_by_card(asked, 8)
    assert abs(fast.course.finish.mean() - finish.mean()) <= 600.0
    assert fast.finish_date(0.5) == date(2026, 3, 9)


@pytest.mark.parametrize(("stations", "customers", "stops"), [(1, 60.0, False), (1, 130.0, False), (3, 250.0, False), (2, 120.0, True)])
def test_the_same_queue_at_a_counter_as_by_events(stations, customers, stops):
    """Against SimPy's own queue: first come, first served, random arrivals, closing time."""
    counter = Counter(
        "c", 1, stations, 9 * 60, 17 * 60, ALL_WEEK, Range(customers, customers), Range(240, 300), Times(chip_seconds=Range(20, 20))
    )
    failures = Failures(scrap=Range(0.05, 0.05))
    if stops:
        failures = replace(failures, uptime_hours=Range(2, 2), repair_minutes=Range(20, 20))
    asked = scenario(groups=(), shifts=(), counters=(counter,), failures=failures)
    inputs = resolve(asked, None, 400, 1)
    found = queue(asked, inputs, counter, levels(asked, counter, timetable(asked, 5)))
    waits, came = _counter_by_events(inputs, stations, customers, days=400, stops=stops)
    served = np.sort(np.concatenate(waits))
    ours = found.waits / found.waits.sum()
    mean = float((ours * (np.arange(ours.size) + 0.5)).sum())
    per_day = np.array([day.mean() for day in waits])
    assert mean == pytest.approx(served.mean(), abs=4 * per_day.std() / sqrt(len(per_day)) + 1.0)
    assert quantile(found.waits, 0.5) == pytest.approx(np.quantile(served, 0.5), abs=0.1 * served.mean() + 5)
    assert quantile(found.waits, 0.95) == pytest.approx(np.quantile(served, 0.95), rel=0.12)
    assert found.per_day == pytest.approx(came / 400, rel=0.02)
    assert found.unserved_share == pytest.approx(1 - served.size / came, abs=0.01)


def _counter_by_events(inputs: Inputs, stations: int, customers: float, *, days: int, stops: bool):
    import simpy

    rng = np.random.default_rng(11)
    length = 8 * HOUR
    waits: list[np.ndarray] = []
    came = 0

    def service() -> float:
        seconds = rng.uniform(240, 300) + 20.0
        while rng.random() < 0.05:
            seconds += 20.0
        if stops and inputs.uptime is not None and inputs.repair is not None and rng.random() < -np.expm1(-seconds / (2 * HOUR)):
            seconds += rng.exponential(20 * 60.0)
        return seconds

    for _ in range(days):
        env = simpy.Environment()
        desks = simpy.Resource(env, stations)
        today: list[float] = []

        def customer(env=env, desks=desks, today=today):
            arrived = env.now
            with desks.request() as desk:
                yield desk
                if env.now < length:
                    today.append(env.now - arrived)
                    yield env.timeout(service())

        def arrivals(env=env, customer=customer):
            nonlocal came
            while True:
                yield env.timeout(rng.exponential(length / customers))
                if env.now >= length:
                    return
                came += 1
                env.process(customer())

        env.process(arrivals())
        env.run()
        waits.append(np.array(today))
    return waits, came
