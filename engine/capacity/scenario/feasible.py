"""Scenarios that can never come to an end, said in plain words before anything is simulated."""

from __future__ import annotations

from math import ceil

import numpy as np

from engine.capacity.distribution import Floats
from engine.capacity.scenario.model import WEEKDAYS, Counter, Scenario
from engine.capacity.scenario.timetable import Timetable, timetable
from engine.capacity.simulation.counters import rates
from engine.capacity.simulation.inputs import Inputs
from engine.capacity.simulation.shifts import makers
from engine.capacity.simulation.stationrate import cycle
from keys.errors import InvalidInput


def require_possible(scenario: Scenario, inputs: Inputs) -> None:
    """InvalidInput IMPOSSIBLE with every reason, a line each."""
    reasons = impossible(scenario, inputs)
    if reasons:
        raise InvalidInput(
            "IMPOSSIBLE", "\n".join([f"scenario {scenario.name} can never be done:", *(f"  {reason}" for reason in reasons)])
        )


def impossible(scenario: Scenario, inputs: Inputs) -> list[str]:
    """Why the scenario cannot be done, even with luck: every best end of a range, no failure, no stop."""
    table = timetable(scenario, scenario.horizon_days)
    reasons = [*_nobody(scenario, table), *_hsm(scenario), *_blanks(scenario, inputs), *_orders(scenario, table)]
    for counter in scenario.counters:
        reasons += _overrun(scenario, inputs, counter)
    return reasons or _too_slow(scenario, inputs, table)


def _nobody(scenario: Scenario, table: Timetable) -> list[str]:
    if not scenario.groups:
        return []
    found = []
    able = makers(scenario)
    profile = scenario.orders.profile
    if not able and not scenario.counters:
        found.append(
            f"no station can make {profile}: the groups make {', '.join(sorted(set().union(*(g.profiles for g in scenario.groups))))}"
        )
    staffed = any(group.count for group in able)
    if able and not staffed:
        found.append(f"the groups that can make {profile} have no stations")
    if not scenario.shifts:
        found.append("there are stations but no shifts: nobody works at them")
    elif staffed and not any(table.seconds[group.name].any() for group in able):
        if scenario.staff is not None and scenario.staff.people * scenario.staff.stations_per_person < 1:
            found.append("there are not even people for one station")
        else:
            found.append("no station ever works: its shifts, the calendar and maintenance leave no time")
    return found


def _hsm(scenario: Scenario) -> list[str]:
    hsm = scenario.hsm
    if hsm is None or (hsm.count and (hsm.calls_per_second is None or hsm.calls_per_second.high > 0)):
        return []
    speed = "" if hsm.calls_per_second is None else f" x {hsm.calls_per_second} a second"
    return [f"the HSM makes no calls ({hsm.count}{speed}), and every card needs {hsm.calls_per_card:g}"]


def _blanks(scenario: Scenario, inputs: Inputs) -> list[str]:
    blanks = scenario.blanks
    if blanks is None:
        return []
    fewest = min((float((card.scrap + card.blank).min()) for card in inputs.cards.values()), default=0.0)
    needed = ceil(scenario.orders.total / (1.0 - fewest))
    ever = blanks.stock + blanks.per_week * ceil(scenario.horizon_days / 7)
    if ever >= needed:
        return []
    until = "" if not blanks.per_week else f" and {blanks.per_week:,} a week for {scenario.horizon_days} days"
    return [f"blanks are never enough: {blanks.stock:,} in stock{until} make {ever:,}, and {needed:,} are needed"]


def _orders(scenario: Scenario, table: Timetable) -> list[str]:
    orders = scenario.orders
    walk_ins = sum(float(rates(scenario, counter).sum()) for counter in scenario.counters) if not orders.instant_share else 0.0
    most = max(orders.weekday_factors) * max(orders.month_factors)
    ever = orders.backlog + (orders.per_day + walk_ins) * most * len(table.days)
    if ever >= orders.total:
        return []
    return [f"only {ever:,.0f} cards are ever ordered within {scenario.horizon_days} days, and {orders.total:,} are to be made"]


def _overrun(scenario: Scenario, inputs: Inputs, counter: Counter) -> list[str]:
    """More people than a counter could serve if nobody ever waited for another."""
    service = _quickest(inputs, counter)
    most = float(rates(scenario, counter).max()) * max(scenario.orders.weekday_factors) * max(scenario.orders.month_factors)
    serves = (counter.close - counter.open) * 60.0 * counter.stations / service
    if most <= serves:
        return []
    office = f"an office with {counter.stations} stations and {service:.0f} s for each person serves {serves:,.0f}"
    return [f"counters {counter.name}: up to {most:,.0f} people a day come, and {office} at most"]


def _quickest(inputs: Inputs, counter: Counter) -> float:
    name = f"counter {counter.name}"
    card = inputs.cards[name]
    parts = (card.chip, card.printing, card.handling, card.gap, inputs.talk[name])
    return max(1e-9, float(np.min(sum((part.mean for part in parts), np.zeros(inputs.replications)))))


def _too_slow(scenario: Scenario, inputs: Inputs, table: Timetable) -> list[str]:
    """All stations at work all the time, with nobody waiting and nothing failing."""
    able = 0.0
    for group in makers(scenario):
        alone = cycle(inputs.cards[f"group {group.name}"], inputs)
        heads = float(table.seconds[group.name].sum()) * group.heads / float(alone.mean.min())
        printing: Floats = alone.printing
        printers = group.printers or group.heads
        most = float(table.seconds[group.name].sum()) * printers / float(printing.min()) if printing.min() > 0 else np.inf
        able += min(heads, most)
    for counter in scenario.counters:
        days = sum(weekday >= 0 and WEEKDAYS[weekday] in counter.days for weekday in table.weekdays)
        able += float(rates(scenario, counter).sum()) * days * max(scenario.orders.weekday_factors) * max(scenario.orders.month_factors)
    if able >= scenario.orders.total:
        return []
    total = scenario.orders.total
    return [f"stations and counters make {able:,.0f} cards at most within {scenario.horizon_days} days, and {total:,} are to be made"]
