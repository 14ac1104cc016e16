"""Who gets which line: order, credits, and what holds a job up. Who gets how many is in test_dispatch_turns."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dispatch.breaker import Breaker
from engine.dispatch.dispatcher import Assignment, Dispatcher, StationInfo
from engine.dispatch.evidence import Seen
from engine.dispatch.queues import JobInfo
from keys.errors import Conflict, InvalidInput, NotFound


def job(name: str, priority: int = 5, due: int | None = None, profile: str = "city", chip: str = "chip") -> JobInfo:
    return JobInfo(name, priority, due, profile, chip)


def station(name: str, profiles=(), chips=("chip",)) -> StationInfo:
    return StationInfo(name, frozenset(profiles), frozenset(chips))


def filled(*jobs: JobInfo, lines: int = 10) -> Dispatcher:
    dispatcher = Dispatcher()
    for one in jobs:
        dispatcher.add_job(one)
        dispatcher.lines_ready(one.job_id, range(1, lines + 1))
    return dispatcher


def jobs_in_order(dispatcher: Dispatcher, credit: int) -> list[str]:
    dispatcher.station_on(station("S"))
    dispatcher.credit("S", credit)
    return [one.job_id for one in dispatcher.assign(0)]


def test_an_instant_job_overtakes_what_waits():
    dispatcher = filled(job("bulk"))
    assert jobs_in_order(dispatcher, 2) == ["bulk", "bulk"]
    dispatcher.add_job(job("now", 0))
    dispatcher.lines_ready("now", [1])
    dispatcher.credit("S", 2)
    assert [one.job_id for one in dispatcher.assign(0)] == ["now", "bulk"]


def test_turns_go_on_between_calls():
    dispatcher = filled(job("a"), job("b"), job("c"))
    dispatcher.station_on(station("S"))
    given_out = []
    for _ in range(6):
        dispatcher.credit("S", 1)
        given_out += [one.job_id for one in dispatcher.assign(0)]
    assert given_out == ["a", "b", "c", "a", "b", "c"]


def test_lines_go_out_in_order_and_remakes_first():
    dispatcher = filled(job("a"), lines=5)
    dispatcher.station_on(station("S"))
    dispatcher.credit("S", 3)
    assert [one.line_no for one in dispatcher.assign(0)] == [1, 2, 3]
    dispatcher.line_back("a", 2)
    dispatcher.line_done("a", 1)
    dispatcher.credit("S", 9)
    assert [one.line_no for one in dispatcher.assign(0)] == [2, 4, 5]


def test_a_line_held_back_waits_for_its_time():
    dispatcher = filled(job("a"), lines=3)
    dispatcher.station_on(station("S"))
    dispatcher.credit("S", 1)
    dispatcher.assign(0)
    dispatcher.line_back("a", 1, not_before_us=500)
    dispatcher.credit("S", 9)
    assert [one.line_no for one in dispatcher.assign(499)] == [2, 3]
    assert [one.line_no for one in dispatcher.assign(500)] == [1]


def test_a_line_is_never_out_twice():
    dispatcher = filled(job("a"), lines=2)
    dispatcher.station_on(station("S"))
    dispatcher.credit("S", 9)
    assert len(dispatcher.assign(0)) == 2
    dispatcher.lines_ready("a", [1, 2])
    assert dispatcher.assign(0) == []
    dispatcher.line_back("a", 1)
    dispatcher.line_back("a", 1)
    dispatcher.lines_ready("a", [1])
    assert [one.line_no for one in dispatcher.assign(0)] == [1]


def test_a_short_queue_is_shared_between_stations():
    dispatcher = filled(job("a"), lines=4)
    for name in ("S1", "S2"):
        dispatcher.station_on(station(name))
        dispatcher.credit(name, 10)
    assert Counter(one.station_id for one in dispatcher.assign(0)) == {"S1": 2, "S2": 2}


def test_lines_go_only_where_chip_and_profile_fit():
    dispatcher = filled(job("a", chip="other"), job("b", profile="tram"), job("c"), lines=1)
    dispatcher.station_on(station("S1", profiles=["city"]))
    dispatcher.station_on(station("S2", chips=["other", "third"]))
    for name in ("S1", "S2"):
        dispatcher.credit(name, 9)
    assert set(dispatcher.assign(0)) == {Assignment("S2", "a", 1), Assignment("S1", "c", 1)}
    assert dispatcher.waiting_for("b") == "no connected station takes chip type chip and profile tram"


def test_pause_resume_cancel_remove():
    dispatcher = filled(job("a"), job("b"), lines=2)
    dispatcher.pause("a")
    assert jobs_in_order(dispatcher, 1) == ["b"]
    assert not dispatcher.wants_lines("a", 99)
    dispatcher.resume("a")
    dispatcher.cancel("b")
    dispatcher.line_back("b", 1)
    dispatcher.line_done("b", 1)
    dispatcher.credit("S", 9)
    assert [one.job_id for one in dispatcher.assign(0)] == ["a", "a"]
    assert not dispatcher.has_job("b")
    dispatcher.remove("a")
    dispatcher.remove("a")
    for call in (dispatcher.pause, dispatcher.resume, lambda name: dispatcher.lines_ready(name, [1])):
        with pytest.raises(NotFound):
            call("a")


def test_low_water():
    dispatcher = filled(job("a"), lines=10)
    assert dispatcher.wants_lines("a", 11)
    assert not dispatcher.wants_lines("a", 10)
    assert not dispatcher.wants_lines("unknown", 10)


def test_a_station_that_left_takes_its_credits_along():
    dispatcher = filled(job("a"))
    dispatcher.station_on(station("S"))
    dispatcher.credit("S", 5)
    dispatcher.station_off("S")
    assert (dispatcher.assign(0), dispatcher.credits("S")) == ([], 0)
    with pytest.raises(NotFound):
        dispatcher.credit("S", 1)
    dispatcher.station_on(station("S"))
    assert dispatcher.assign(0) == []
    dispatcher.credit("S", 3)
    dispatcher.station_on(station("S"))
    assert dispatcher.credits("S") == 0


def test_nonsense_is_refused():
    dispatcher = filled(job("a"))
    with pytest.raises(Conflict):
        dispatcher.add_job(job("a"))
    with pytest.raises(InvalidInput):
        dispatcher.add_job(job("b", priority=10))
    dispatcher.station_on(station("S"))
    with pytest.raises(InvalidInput):
        dispatcher.credit("S", -1)
    with pytest.raises(InvalidInput):
        Breaker(0)


def test_what_a_job_waits_for_in_words():
    dispatcher = filled(job("a"), lines=3)
    assert dispatcher.waiting_for("a") == "no connected station takes chip type chip and profile city"
    dispatcher.station_on(station("S"))
    assert dispatcher.waiting_for("a") == "every fitting station is busy"
    dispatcher.pause("a")
    assert dispatcher.waiting_for("a") == "the job is paused"
    dispatcher.resume("a")
    for _ in range(5):
        dispatcher.breaker.note(Seen("S", failure="torn"))
    assert dispatcher.waiting_for("a").startswith("station S is stopped: 5 cards in a row failed (5 x torn)")
    dispatcher.breaker.reset("S")
    dispatcher.credit("S", 1)
    assert dispatcher.waiting_for("a") == ""
    dispatcher.assign(0)
    assert dispatcher.waiting_for("a") == ""
    assert dispatcher.waiting_for("nobody's") == ""


def test_a_stopped_station_starts_again_only_when_reset():
    dispatcher = filled(job("a"))
    for name in ("S", "T"):
        dispatcher.station_on(station(name))
        dispatcher.credit(name, 1)
    for _ in range(5):
        dispatcher.breaker.note(Seen("S", failure="torn"))
    assert [one.station_id for one in dispatcher.assign(0)] == ["T"]
    dispatcher.breaker.note(Seen("S"))
    assert dispatcher.assign(0) == []
    dispatcher.breaker.reset("S")
    assert [one.station_id for one in dispatcher.assign(0)] == ["S"]


def test_a_job_that_comes_back_under_its_name_is_a_new_one():
    """A finished job opens again when a card of it is taken as a sample."""
    dispatcher = filled(job("a"), job("b"))
    dispatcher.remove("a")
    dispatcher.add_job(job("a", 0))
    dispatcher.lines_ready("a", [7])
    assert jobs_in_order(dispatcher, 3) == ["a", "b", "b"]


# ---- any history

_jobs = st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 3)), min_size=1, max_size=5)
_events = st.lists(
    st.tuples(st.sampled_from(["credit", "lines", "back", "done", "pause", "resume", "off", "on", "fail", "reset"]), st.integers(0, 99)),
    max_size=60,
)


@given(_jobs, _events)
def test_no_history_breaks_the_rules(jobs, events):
    dispatcher = Dispatcher(Breaker(3))
    infos = [job(f"J{number}", priority, due) for number, (priority, due) in enumerate(jobs)]
    names = ["S0", "S1", "S2"]
    for info in infos:
        dispatcher.add_job(info)
    for name in names:
        dispatcher.station_on(station(name))
    granted = dict.fromkeys(names, 0)
    on = set(names)
    waiting: dict[str, set[int]] = {info.job_id: set() for info in infos}
    out: set[tuple[str, int]] = set()
    paused: set[str] = set()
    for what, number in events:
        name, info = names[number % 3], infos[number % len(infos)]
        match what:
            case "credit" if name in on:
                dispatcher.credit(name, number % 4)
                granted[name] += number % 4
            case "lines":
                lines = range(number, number + 3)
                dispatcher.lines_ready(info.job_id, lines)
                waiting[info.job_id] |= {line for line in lines if (info.job_id, line) not in out}
            case "back" | "done" if out:
                job_id, line = sorted(out)[number % len(out)]
                out.discard((job_id, line))
                if what == "back":
                    dispatcher.line_back(job_id, line)
                    waiting[job_id].add(line)
                else:
                    dispatcher.line_done(job_id, line)
            case "pause" | "resume":
                (dispatcher.pause if what == "pause" else dispatcher.resume)(info.job_id)
                (paused.add if what == "pause" else paused.discard)(info.job_id)
            case "off":
                dispatcher.station_off(name)
                on.discard(name)
                granted[name] = 0
            case "on":
                dispatcher.station_on(station(name))
                on.add(name)
                granted[name] = 0
            case "fail":
                dispatcher.breaker.note(Seen(name, failure="torn"))
            case "reset":
                dispatcher.breaker.reset(name)
        given_out = dispatcher.assign(0)
        bulk = [infos[int(one.job_id[1:])].priority > 0 for one in given_out]
        assert bulk == sorted(bulk)
        for one in given_out:
            assert one.station_id in on
            assert dispatcher.breaker.stopped(one.station_id) is None
            assert one.job_id not in paused
            assert one.line_no in waiting[one.job_id]
            waiting[one.job_id].discard(one.line_no)
            assert (one.job_id, one.line_no) not in out
            out.add((one.job_id, one.line_no))
            granted[one.station_id] -= 1
        # Never more than the granted, and none left idle while a line waits.
        assert all(dispatcher.credits(name) == granted[name] >= 0 for name in names)
        idle = [name for name in on if granted[name] and dispatcher.breaker.stopped(name) is None]
        left = [job_id for job_id, lines in waiting.items() if lines and job_id not in paused]
        assert not (idle and left)
