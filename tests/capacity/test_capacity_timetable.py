"""When stations work: shifts, maintenance, people, and stops that come by chance on the working clock only."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capacity.distribution import Distribution
from engine.capacity.scenario.model import Group, Maintenance, Orders, Range, Scenario, Shift, Staff, Times
from engine.capacity.scenario.timetable import timetable
from engine.capacity.simulation.breakdowns import working
from engine.capacity.simulation.inputs import Inputs, Part
from engine.capacity.simulation.queueing import Class, network

BASE = Scenario(
    name="t",
    start=date(2026, 2, 9),
    orders=Orders("p", 1, 1),
    shifts=(Shift("early", 360, 840), Shift("late", 840, 1320)),
    groups=(Group("a", 3, times=Times(Range(1, 1))), Group("b", 2, shifts=frozenset({"late"}), times=Times(Range(1, 1)))),
    country="cn",
)
GAMMA = Distribution.of(np.random.default_rng(1).gamma(2.0, 0.5, 4000))


def test_shifts_are_worked_on_working_days_and_those_worked_instead():
    table = timetable(BASE, 21)
    worked = {table.days[period.day] for period in table.periods}
    assert date(2026, 2, 14) in worked
    assert date(2026, 2, 15) not in worked
    assert date(2026, 2, 23) not in worked
    assert date(2026, 2, 28) in worked
    assert [period.fresh for period in table.periods[:4]] == [True, False, True, False]
    assert (table.seconds["b"].sum(axis=1) > 0).tolist() == [period.shift == 1 for period in table.periods]


def test_maintenance_takes_its_hours_from_every_station_by_turns():
    table = timetable(replace(BASE, maintenance=Maintenance(5, 10.0), country=""), 35)
    off = 8 * 3600.0 - table.seconds["a"]
    assert off.sum(axis=0) == pytest.approx([5 * 10 * 3600.0] * 3)
    # never two stations of the five on the same day
    early = off[::2] > 0
    assert early.sum(axis=1).max() == 1


def test_people_are_shared_out_in_the_order_of_the_groups():
    table = timetable(replace(BASE, staff=Staff(2, 2.0)), 5)
    at_work = [(int((table.seconds["a"][at] > 0).sum()), int((table.seconds["b"][at] > 0).sum())) for at in (0, 1)]
    assert at_work == [(3, 0), (3, 1)]


def inputs(up: float, down: float, replications: int = 50) -> Inputs:
    mean = np.full(replications, 1.0)
    return Inputs(
        replications, 4, uptime=Part(GAMMA.scaled(1 / GAMMA.mean), mean * up), repair=Part(GAMMA.scaled(1 / GAMMA.mean), mean * down)
    )


@pytest.mark.parametrize(("up", "down"), [(40_000.0, 9_000.0), (4_000.0, 1_000.0), (900.0, 100.0)])
def test_stations_work_their_share_of_the_time(up, down):
    seconds = np.full((200, 3), 8 * 3600.0)
    worked, starts = working(inputs(up, down), "g", seconds)
    assert worked.shape == (200, 50)
    assert worked.mean() / (3 * 8 * 3600.0) == pytest.approx(up / (up + down), rel=0.02)
    assert starts.mean() / 3 == pytest.approx(8 * 3600.0 / (up + down), rel=0.05)
    assert worked.min() >= 0
    assert worked.max() <= 3 * 8 * 3600.0


@given(st.lists(st.floats(0.0, 50.0), min_size=1, max_size=12))
def test_no_second_is_lost_however_the_time_is_cut(lengths):
    """The same clock cut into other periods: as much is worked in all, since nights do not count."""
    cut, _ = working(inputs(400.0, 40.0, 5), "g", np.array(lengths)[:, None] + 100.0)
    whole, _ = working(inputs(400.0, 40.0, 5), "g", np.array([[sum(lengths) + 100.0 * len(lengths)]]))
    assert cut.sum(axis=0) == pytest.approx(whole.sum(axis=0))


def test_a_longer_look_begins_with_the_same_days():
    short, _ = working(inputs(40_000.0, 9_000.0), "g", np.full((10, 2), 28_800.0))
    long, _ = working(inputs(40_000.0, 9_000.0), "g", np.full((80, 2), 28_800.0))
    assert long[:10] == pytest.approx(short)


def test_waiting_never_lets_more_through_than_the_resource_can():
    one = np.ones(4)
    heads = np.array([1.0, 3.5, 40.0, 400.0])
    load = network(
        [Class(heads, one * 20.0, one * 0.5, one * 1.0), Class(heads / 2, one * 30.0, one * 0.0, one * 1.0)], 1, one * 0.0, one * 0.0
    )
    assert np.all(load.hsm <= 1.0 + 1e-9)
    assert np.all(load.engine <= 1.0 + 1e-9)
    assert load.cycles[0][0] == pytest.approx(20.0, rel=0.02)
    assert load.hsm[3] > 0.99
    assert np.all(np.diff(load.cycles[0]) > 0)
    alone = network([Class(one, one * 20.0, one * 0.0, one * 4.0)], None, one * 0.0, one * 0.0)
    assert alone.cycles[0] == pytest.approx(one * 20.0)
