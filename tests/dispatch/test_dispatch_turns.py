"""Shares of jobs: what a step of priority and a due date are worth, that nobody waits for ever, and that the same history repeats."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dispatch.dispatcher import Dispatcher, StationInfo
from engine.dispatch.queues import JobInfo

CHIPS = frozenset({"chip"})


def plant(*jobs: JobInfo, stations: int = 1, lines: int = 1000) -> Dispatcher:
    dispatcher = Dispatcher()
    for info in jobs:
        dispatcher.add_job(info)
        dispatcher.lines_ready(info.job_id, range(1, lines + 1))
    for number in range(stations):
        dispatcher.station_on(StationInfo(f"S{number}", frozenset(), CHIPS))
    return dispatcher


def info(name: str, priority: int = 5, due: int | None = None, profile: str = "p") -> JobInfo:
    return JobInfo(name, priority, due, profile, "chip")


def leases(dispatcher: Dispatcher, number: int, station: str = "S0") -> list[str]:
    """One lease after the other, as a single head asks."""
    given_out = []
    for _ in range(number):
        dispatcher.credit(station, 1)
        given_out += [one.job_id for one in dispatcher.assign(0)]
    return given_out


def test_a_step_of_priority_is_worth_double():
    dispatcher = plant(info("five"), info("four", 4), info("seven", 7))
    assert dispatcher.shares() == pytest.approx({"five": 4 / 13, "four": 8 / 13, "seven": 1 / 13})
    assert Counter(leases(dispatcher, 130)) == {"four": 80, "five": 40, "seven": 10}


def test_the_job_due_first_gets_every_second_lease_of_its_priority():
    dispatcher = plant(info("none"), info("later", due=200), info("first", due=100), info("other"))
    assert dispatcher.shares() == pytest.approx({"first": 5 / 8, "later": 1 / 8, "none": 1 / 8, "other": 1 / 8})
    assert Counter(leases(dispatcher, 160)) == {"first": 100, "later": 20, "none": 20, "other": 20}
    dispatcher.pause("first")
    assert dispatcher.shares() == pytest.approx({"first": 0, "later": 4 / 6, "none": 1 / 6, "other": 1 / 6})


def test_a_due_date_changes_nothing_between_priorities():
    dispatcher = plant(info("a", 5, 100), info("b", 5), info("c", 4))
    assert dispatcher.shares() == pytest.approx({"a": 3 / 8, "b": 1 / 8, "c": 4 / 8})


def test_a_new_job_neither_waits_for_nor_takes_what_went_before():
    dispatcher = plant(info("old"))
    leases(dispatcher, 500)
    dispatcher.add_job(info("new"))
    dispatcher.lines_ready("new", range(1, 1001))
    assert Counter(leases(dispatcher, 20)) == {"old": 10, "new": 10}
    dispatcher.pause("new")
    leases(dispatcher, 100)
    dispatcher.resume("new")
    assert Counter(leases(dispatcher, 20)) == {"old": 10, "new": 10}


def test_jobs_of_different_size_get_the_same_until_the_small_one_is_done():
    dispatcher = plant(info("large"))
    dispatcher.add_job(info("small"))
    dispatcher.lines_ready("small", range(1, 11))
    given_out = leases(dispatcher, 40)
    assert Counter(given_out[:20]) == {"large": 10, "small": 10}
    assert set(given_out[20:]) == {"large"}


def test_instant_jobs_take_all_and_share_among_themselves():
    dispatcher = plant(info("bulk", 1), info("now", 0), info("too", 0), lines=5)
    assert dispatcher.shares() == pytest.approx({"bulk": 0, "now": 0.5, "too": 0.5})
    assert leases(dispatcher, 12) == ["now", "too"] * 5 + ["bulk"] * 2
    assert dispatcher.shares() == {"bulk": 1, "now": 0, "too": 0}


def test_shares_count_heads_that_can_do_the_job_and_are_not_stopped():
    dispatcher = plant(info("any", profile="p"), info("only", profile="q"), stations=0)
    assert dispatcher.shares() == {"any": 0.5, "only": 0.5}
    dispatcher.station_on(StationInfo("both", frozenset(), CHIPS, heads=2))
    dispatcher.station_on(StationInfo("plain", frozenset({"p"}), CHIPS, heads=6))
    assert dispatcher.shares() == pytest.approx({"any": 7 / 8, "only": 1 / 8})
    assert Counter(leases(dispatcher, 20, "both")) == {"any": 10, "only": 10}
    assert Counter(leases(dispatcher, 20, "plain")) == {"any": 20}
    dispatcher.station_off("plain")
    assert dispatcher.shares() == {"any": 0.5, "only": 0.5}


# ---- any jobs

_jobs = st.lists(st.tuples(st.integers(1, 9), st.none() | st.integers(0, 3)), min_size=1, max_size=8)


@given(_jobs)
def test_every_job_gets_its_share_within_one_lease_a_job(jobs):
    dispatcher = plant(*(info(f"J{number}", *one) for number, one in enumerate(jobs)), lines=2000)
    shares = dispatcher.shares()
    assert sum(shares.values()) == pytest.approx(1)
    seen: Counter[str] = Counter()
    for number, job_id in enumerate(leases(dispatcher, 600), 1):
        seen[job_id] += 1
        for name, share in shares.items():
            assert abs(seen[name] - number * share) <= len(jobs)


@given(_jobs, st.lists(st.tuples(st.sampled_from(["add", "pause", "resume", "gone", "lease"]), st.integers(0, 50)), max_size=60))
def test_whoever_waits_gets_a_lease_within_what_its_share_says_and_history_repeats(jobs, events):
    """A job that has waited through as many leases as the inverse of the smallest share it had has got one of them."""

    def run() -> list[str]:
        dispatcher = plant(*(info(f"J{number}", *one) for number, one in enumerate(jobs)), lines=500)
        told: list[str] = []
        waited: dict[str, float] = {}
        extra = 0
        for what, number in events:
            name = f"J{number % len(jobs)}"
            match what:
                case "add":
                    extra += 1
                    dispatcher.add_job(info(f"X{extra}", 1 + number % 9, number if number % 2 else None))
                    dispatcher.lines_ready(f"X{extra}", range(1, number + 1))
                case "pause" if dispatcher.has_job(name):
                    dispatcher.pause(name)
                case "resume" if dispatcher.has_job(name):
                    dispatcher.resume(name)
                case "gone":
                    dispatcher.remove(name)
                case "lease":
                    for _ in range(number):
                        before = dispatcher.shares()
                        got = leases(dispatcher, 1)
                        assert bool(got) == any(before.values())
                        told += got
                        for waiting, share in before.items():
                            if not share or waiting in got:
                                waited.pop(waiting, None)
                            else:
                                waited[waiting] = waited.get(waiting, 0.0) + share
                        # shares change while a job waits: every arrival may put one lease of its own in front
                        assert all(one <= 2 + len(before) for one in waited.values())
        return told

    assert run() == run()
