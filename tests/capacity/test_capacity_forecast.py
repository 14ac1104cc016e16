"""The forecast of running jobs: right in the middle, honest in its range, silent when it knows too little."""

from __future__ import annotations

import math
import random

import pytest

from engine.capacity.forecast import ENOUGH, Pace, PaceKeeper, Waiting, finishes

STEADY = Pace(10.0, 0.01, 0.1)


def test_too_few_cards_say_nothing() -> None:
    keeper = PaceKeeper()
    for number in range(ENOUGH - 1):
        keeper.card(float(number))
    assert keeper.pace(20.0, 1) is None
    keeper.card(20.0)
    assert keeper.pace(20.0, 1) is not None
    assert keeper.pace(20.0, 100) is None, "fewer cards than heads: the first round says nothing of the rate"


def test_cards_of_one_instant_have_no_pace() -> None:
    keeper = PaceKeeper()
    for _ in range(50):
        keeper.card(1.0)
    assert keeper.pace(1.0, 1) is None


def test_a_regular_line_is_known_precisely() -> None:
    keeper = PaceKeeper()
    for number in range(400):
        keeper.card(number * 0.5)
    pace = keeper.pace(200.0, 2)
    assert pace is not None
    assert pace.rate == pytest.approx(2.0, rel=0.01)
    assert pace.error < 0.02


def test_a_line_that_stands_gets_slower() -> None:
    keeper = PaceKeeper()
    for number in range(100):
        keeper.card(float(number))
    going, standing = keeper.pace(100.0, 1), keeper.pace(400.0, 1)
    assert going is not None
    assert standing is not None
    assert standing.rate == pytest.approx(99 / 400)
    assert going.rate == pytest.approx(1.0)


def test_equal_jobs_share_and_the_rest_speeds_up() -> None:
    done = finishes(STEADY, {"a": Waiting(100, 1, 1.0), "b": Waiting(300, 1, 1.0)})
    assert done["a"].middle_s == pytest.approx(20.0)
    assert done["b"].middle_s == pytest.approx(40.0)


def test_weights_and_instant_work_are_obeyed() -> None:
    done = finishes(STEADY, {"now": Waiting(50, 0, 1.0), "a": Waiting(300, 1, 3.0), "b": Waiting(300, 1, 1.0)})
    assert done["now"].middle_s == pytest.approx(5.0)
    assert done["a"].middle_s == pytest.approx(5.0 + 300 / 7.5)
    assert done["b"].middle_s == pytest.approx(5.0 + 60.0)
    assert finishes(STEADY, {"none": Waiting(0, 1, 1.0)})["none"].middle_s == 0.0


def test_the_range_holds_nine_of_ten() -> None:
    """Exponential gaps, the least regular line there is: the stated range must hold the true finish about as often as it says."""
    rng = random.Random(5)
    held, runs = 0, 600
    for _ in range(runs):
        keeper, now = PaceKeeper(), 0.0
        for _ in range(200):
            now += rng.expovariate(3.0)
            keeper.card(now)
        pace = keeper.pace(now, 1)
        assert pace is not None
        guess = finishes(pace, {"job": Waiting(300, 1, 1.0)})["job"]
        truth = sum(rng.expovariate(3.0) for _ in range(300))
        held += guess.early_s <= truth <= guess.late_s
    # binomial: 0.9 with a standard deviation of 0.0122; the dispersion is itself estimated, which costs a few hundredths
    assert 0.82 <= held / runs <= 0.97


def test_remakes_widen_the_range() -> None:
    few = finishes(Pace(10.0, 0.02, 1.0), {"job": Waiting(100, 1, 1.0)})["job"]
    many = finishes(Pace(10.0, 0.02, 1.0), {"job": Waiting(100, 1, 1.0)}, remake_share=0.5)["job"]
    assert many.late_s > few.late_s
    assert many.middle_s == few.middle_s, "the pace counts good cards: what is lost has slowed it already"
    assert math.isclose(few.early_s * few.late_s, few.middle_s**2, rel_tol=1e-9)


def test_bursts_leave_a_range_that_can_be_told() -> None:
    """Hundreds of cards at two moments, and one card left: the scatter is enormous, the range must not be."""
    keeper = PaceKeeper()
    for at in [0.0] * 300 + [100.0] * 300:
        keeper.card(at)
    pace = keeper.pace(100.0, 300)
    assert pace is not None
    assert pace.dispersion > 100
    guess = finishes(pace, {"job": Waiting(1, 1, 1.0)})["job"]
    assert 0 < guess.early_s < guess.middle_s < guess.late_s < 20 * guess.middle_s
