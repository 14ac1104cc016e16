"""The simulation card by card, where the answer can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from engine.capacity.distribution import Distribution
from engine.capacity.simulation.cards import JobLoad, StationModel, simulate
from engine.capacity.simulation.model import CardModel, Failure, PlantModel
from keys.errors import NotFound

TEN = CardModel(Distribution.constant(7.0), Distribution.constant(2.0), Distribution.constant(1.0))


def run(jobs, stations, until=float("inf"), card=TEN, **model):
    return simulate(jobs, stations, PlantModel({("", "p"): card}, **model), np.random.default_rng(1), until=until)


def job(name, lines, at=0.0, **more):
    return JobLoad(name, "p", ((at, lines),), **more)


def test_cards_follow_one_another_on_a_head_and_beside_each_other_on_several():
    assert run([job("a", 10)], [StationModel("s")]).finish == {"a": pytest.approx(100.0)}
    found = run([job("a", 10)], [StationModel("s", heads=2), StationModel("t", heads=3)])
    assert found.finish == {"a": pytest.approx(20.0)}
    assert found.utilization["stations"] == pytest.approx(1.0)
    assert found.utilization["chip"] == pytest.approx(0.7)


def test_the_gap_lies_between_cards_and_not_after_the_last():
    card = CardModel(Distribution.constant(7.0), Distribution.constant(2.0), Distribution.constant(1.0), Distribution.constant(5.0))
    assert run([job("a", 3)], [StationModel("s")], card=card).finish["a"] == pytest.approx(40.0)


def test_a_shared_printer_is_waited_for():
    card = CardModel(Distribution.constant(1.0), Distribution.constant(4.0))
    assert run([job("a", 4)], [StationModel("s", heads=2, printers=1)], card=card).finish["a"] == pytest.approx(1 + 4 * 4)
    assert run([job("a", 4)], [StationModel("s", heads=2)], card=card).finish["a"] == pytest.approx(10.0)


def test_instant_cards_go_before_all_others_and_a_pause_holds_a_job_back():
    found = run([job("bulk", 10), job("now", 2, at=25.0, priority=0)], [StationModel("s")])
    assert found.finish == {"now": pytest.approx(50.0), "bulk": pytest.approx(120.0)}
    assert found.waits["now"] == pytest.approx([5.0, 15.0])
    held = run([job("a", 4, pauses=((15.0, 100.0),))], [StationModel("s")])
    assert held.finish["a"] == pytest.approx(120.0)


def test_a_card_in_hand_is_finished_when_the_shift_ends_and_the_rest_waits_for_the_next():
    station = StationModel("s", intervals=((0.0, 25.0), (1000.0, 2000.0)))
    found = run([job("a", 5)], [station])
    assert found.good_at == pytest.approx([10.0, 20.0, 30.0, 1010.0, 1020.0])


def test_shifts_without_a_break_between_them_are_one():
    found = run([job("a", 5)], [StationModel("s", intervals=((0.0, 25.0), (25.0, 2000.0)))])
    assert found.finish["a"] == pytest.approx(50.0)


def test_stops_come_on_working_time_only():
    stops = {"uptime": Distribution.constant(25.0), "repair": Distribution.constant(100.0)}
    # 25 s of work, of which the night does not count, then 100 s of repair, which the night interrupts too
    station = StationModel("s", intervals=((0.0, 15.0), (1000.0, 1050.0), (2000.0, 9000.0)))
    found = run([job("a", 5)], [station], **stops)
    assert found.good_at[:3] == pytest.approx([10.0, 20.0, 1010.0])
    assert found.good_at[3] == pytest.approx(2000.0 + 60.0 + 10.0)


def test_blanks_are_waited_for_and_failures_use_them_too():
    found = run([job("a", 3)], [StationModel("s")], blanks=2, deliveries=((500.0, 5),))
    assert found.good_at == pytest.approx([10.0, 20.0, 510.0])
    assert found.blanks == 3
    card = CardModel(Distribution.constant(7.0), failures=(Failure("torn", 0.2), Failure("blank", 0.1, blank=True)))
    many = run([job("a", 5000)], [StationModel("s", heads=4)], card=card)
    assert many.good["a"] == 5000
    assert many.blanks == 5000 + many.failures.total()
    assert many.failures["torn"] / many.blanks == pytest.approx(0.2, abs=0.02)
    assert many.failures["blank"] / many.blanks == pytest.approx(0.1, abs=0.015)


def test_the_token_lets_no_more_through_than_its_calls():
    card = CardModel(Distribution.constant(5.0), handling=Distribution.constant(2.0), hsm_calls=20, cpu_seconds=0.5)
    alone = run([job("a", 10)], [StationModel("s")], card=card, hsm_calls_per_s=40.0, cores=1)
    assert alone.finish["a"] == pytest.approx(70.0)
    crowd = run([job("a", 400)], [StationModel(f"s{n}") for n in range(40)], card=card, hsm_calls_per_s=40.0, cores=1)
    assert crowd.finish["a"] == pytest.approx(200.0, rel=0.05)
    assert crowd.utilization["hsm"] > 0.95
    assert crowd.utilization["engine"] > 0.95


def test_work_that_nobody_can_do_ends_without_a_finish():
    found = run([job("a", 3)], [StationModel("s", profiles=frozenset({"other"}))])
    assert found.finish == {}
    assert found.good.total() == 0
    short = run([job("a", 3)], [StationModel("s")], blanks=2)
    assert short.finish == {}
    assert short.good["a"] == 2


def test_it_stops_when_told():
    found = run([job("a", 100)], [StationModel("s")], until=55.0)
    assert found.good["a"] == 5
    assert found.end == pytest.approx(55.0)


def test_a_card_without_times_is_refused():
    with pytest.raises(NotFound, match="nothing says how long"):
        simulate([JobLoad("a", "q", ((0.0, 1),))], [StationModel("s")], PlantModel({("", "p"): TEN}), np.random.default_rng(1))


def test_the_same_seed_gives_the_same_day():
    spread = Distribution.of(np.random.default_rng(3).gamma(5, 2, 500))
    card = CardModel(spread, failures=(Failure("torn", 0.1),))
    asked = [job("a", 200), job("b", 50, at=30.0, priority=0)]
    stations = [StationModel("s", 2), StationModel("t", 1)]
    assert run(asked, stations, card=card).good_at == run(asked, stations, card=card).good_at
