"""When each station works: the calendar and the shifts as days and periods, with planned maintenance and too few people taken off.

A period is one shift of one day. Everything here is known beforehand; what happens by chance is in `breakdowns`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from engine.capacity.distribution import Floats
from engine.capacity.scenario.calendar import Calendar
from engine.capacity.scenario.model import WEEKDAYS, Group, Scenario, Shift


@dataclass(frozen=True, slots=True)
class Period:
    """`day` counts from the start, `shift` is its place in the scenario; `fresh`: no shift ends where this one begins."""

    day: int
    shift: int
    begin: float
    seconds: float
    fresh: bool


@dataclass(frozen=True)
class Timetable:
    """`weekdays` per day (-1 closed). `seconds` by group: (periods, stations) of scheduled working time, 0 for a station not at work."""

    days: list[date]
    weekdays: list[int]
    periods: list[Period]
    seconds: dict[str, Floats]

    def begin(self, period: Period) -> float:
        """Seconds from midnight of the first day."""
        return period.day * 86400.0 + period.begin


def timetable(scenario: Scenario, days: int) -> Timetable:
    """The first `days` days of a scenario."""
    calendar = Calendar(scenario.country, scenario.closed)
    dates = [scenario.start + timedelta(n) for n in range(days)]
    weekdays = [calendar.weekday(day) for day in dates]
    periods = _periods(scenario.shifts, weekdays)
    return Timetable(dates, weekdays, periods, _seconds(scenario, periods))


def _periods(shifts: tuple[Shift, ...], weekdays: list[int]) -> list[Period]:
    found: list[Period] = []
    order = sorted(range(len(shifts)), key=lambda at: shifts[at].begin)
    ended = -1.0
    for day, weekday in enumerate(weekdays):
        for at in order:
            shift = shifts[at]
            if weekday < 0 or WEEKDAYS[weekday] not in shift.days:
                continue
            begin = day * 86400.0 + shift.begin * 60.0
            found.append(Period(day, at, shift.begin * 60.0, shift.seconds, fresh=begin > ended))
            ended = begin + shift.seconds
    return found


def _seconds(scenario: Scenario, periods: list[Period]) -> dict[str, Floats]:
    found = {}
    free = np.full(len(periods), np.inf if scenario.staff is None else scenario.staff.people * scenario.staff.stations_per_person)
    offset = 0
    for group in scenario.groups:
        works = np.array([_at_work(group, scenario.shifts[period.shift]) for period in periods], dtype=bool)
        staffed = np.minimum(group.count, np.floor(free)) * works
        free = free - staffed
        length = np.array([period.seconds for period in periods])
        table = np.where(np.arange(group.count)[None, :] < staffed[:, None], length[:, None], 0.0)
        found[group.name] = table if scenario.maintenance is None else _maintained(scenario, table, periods, offset)
        offset += group.count
    return found


def _at_work(group: Group, shift: Shift) -> bool:
    return not group.shifts or shift.name in group.shifts


def _maintained(scenario: Scenario, table: Floats, periods: list[Period], offset: int) -> Floats:
    """Stations take turns: number i of all stands still on working days i, i + n, i + 2n, ... from the day's first shift on."""
    if scenario.maintenance is None:
        return table
    every, hours = scenario.maintenance.every_days, scenario.maintenance.hours
    table = table.copy()
    turn = {day: number for number, day in enumerate(sorted({period.day for period in periods}))}
    station = np.arange(table.shape[1]) + offset
    left = np.zeros(table.shape[1])
    today = -1
    for at, period in enumerate(periods):
        if period.day != today:
            today = period.day
            left = np.where((turn[today] + station) % every == every - 1, hours * 3600.0, 0.0)
        taken = np.minimum(left, table[at])
        table[at] -= taken
        left -= taken
    return table
