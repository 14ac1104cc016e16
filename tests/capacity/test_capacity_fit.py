"""What is fitted from a ledger is what stations really did in it: times, failures, standstills, and nothing that did not happen."""

from __future__ import annotations

import pytest
from alembic import command
from hypothesis import given
from hypothesis import strategies as st

from engine.capacity.evidence.fit import fit, from_ledger
from engine.capacity.evidence.pastjob import job_inputs
from engine.capacity.evidence.spans import Spans, Times
from engine.ledger import migrate
from engine.ledger.events import Gone, StationEvent
from engine.ledger.sqlite import writer_engine
from keys.errors import NotFound, Precondition
from tests.capacity.past import PROFILE, SECOND, START, Made, Past

BUSY = {"profile": PROFILE}


def one(measurements, quantity, **labels):
    (found,) = [m for m in measurements if m.quantity == quantity and m.labels == labels]
    return found


def seconds(measurements, quantity, **labels):
    d = one(measurements, quantity, **labels).distribution
    return d.n, pytest.approx(d.mean, abs=1e-3), (pytest.approx(d.quantiles[0], abs=1e-3), pytest.approx(d.quantiles[-1], abs=1e-3))


@pytest.fixture
def past(tmp_path):
    return Past(tmp_path / "ledger.sqlite")


def test_times_are_those_of_the_cards(past):
    past.job(0, 4)
    past.station(0)
    past.station(0, "S2")
    past.made(
        Made(1, 3.0, 1, chip=1.0),
        Made(4.5, 5.0, 2, chip=2.0, print_=0.5, lot="0002"),
        Made(1, 4.0, 3, "S2", "R9", chip=3.0, print_=0.0),
        Made(6, 4.0, 4, "S2", "R9", chip=3.0, print_=0.0),
    )
    found = from_ledger(past.tell())
    assert seconds(found, "chip_seconds", **BUSY, transport="pcsc") == (4, 2.25, (1.0, 3.0))
    assert seconds(found, "chip_seconds", **BUSY, transport="pcsc", station="S1") == (2, 1.5, (1.0, 2.0))
    assert seconds(found, "chip_seconds", **BUSY, transport="pcsc", station="S2", reader="R9") == (2, 3.0, (3.0, 3.0))
    assert seconds(found, "chip_seconds", **BUSY, transport="pcsc", lot="0002") == (1, 2.0, (2.0, 2.0))
    assert seconds(found, "print_seconds", **BUSY) == (4, 0.1875, (0.0, 0.5))
    assert seconds(found, "cycle_seconds", **BUSY, outcome="good") == (4, 4.0, (3.0, 5.0))
    # 3 - 1 - 0.25, 5 - 2 - 0.5, 4 - 3, 4 - 3
    assert seconds(found, "handling_seconds", **BUSY) == (4, 1.5625, (1.0, 2.5))
    assert seconds(found, "gap_seconds") == (2, 0.75, (0.5, 1.0))
    assert seconds(found, "gap_seconds", station="S2") == (1, 1.0, (1.0, 1.0))


def test_a_gap_counts_only_while_work_waited_the_station_worked_and_its_feeder_had_blanks(past):
    past.job(0, 2)
    past.station(0)
    past.blanks(0, 5)
    past.made(Made(1, 2, 1), Made(3.25, 2, 2))
    # no work: job 1 is done at 5.25, job 2 comes at 50
    past.job(50, 9, "J2")
    past.made(Made(51, 2, 1, job="J2"), Made(53.5, 2, 2, job="J2"))
    # paused from 56 to 60
    past.state(56, "PAUSED", "J2")
    past.state(60, "RUNNING", "J2")
    past.made(Made(61, 2, 3, job="J2"))
    # the feeder is empty after the fifth blank, until 70
    past.blanks(70, 5)
    past.made(Made(71, 2, 4, job="J2"), Made(73.5, 2, 5, job="J2"))
    # stopped from 76 to 80, gone from 83 to 90
    past.event(76, StationEvent.STOPPED, "torn")
    past.event(80, StationEvent.RESET)
    past.made(Made(81, 1, 6, job="J2"))
    past.event(83, StationEvent.DISCONNECTED, Gone.LOST.value)
    past.station(90)
    past.made(Made(91, 1, 7, job="J2"))
    found = from_ledger(past.tell())
    assert seconds(found, "gap_seconds") == (3, (0.25 + 0.5 + 0.5) / 3, (0.25, 0.5))
    assert seconds(found, "repair_seconds", station="S1", cause="torn") == (1, 4.0, (4.0, 4.0))
    assert seconds(found, "repair_seconds", station="S1", cause="lost") == (1, 7.0, (7.0, 7.0))
    assert seconds(found, "repair_seconds") == (2, 5.5, (4.0, 7.0))
    # 76 s to the first failure, 3 s more to the second, then 2 s without one until the ledger ends
    assert one(found, "uptime_seconds").distribution.mean == pytest.approx((76 + 3 + 2) / 2)


def test_two_heads_are_told_apart_by_their_readers(past):
    past.job(0, 6)
    past.station(0, heads=2)
    past.made(Made(1, 2, 1, reader="A"), Made(2, 2, 2, reader="B"), Made(3.25, 2, 3, reader="A"), Made(4.5, 2, 4, reader="B"))
    # nobody knows which head this one was in: what is around it is no gap
    past.made(Made(5.5, 1, 5, timed=False), Made(7, 1, 6, reader="A"))
    found = from_ledger(past.tell())
    assert seconds(found, "gap_seconds") == (2, 0.375, (0.25, 0.5))


def test_failures_are_shares_of_pieces_and_remakes_count(past):
    past.job(0, 4)
    past.station(0)
    past.made(
        Made(1, 2, 1, end="torn"),
        Made(4, 2, 1),
        Made(7, 1, 2, end="CHIP_NO_ANSWER", reader="R2"),
        Made(9, 2, 2),
        Made(12, 1, 3, end="released"),
        Made(14, 2, 3),
        Made(17, 2, 4, lot="0002"),
    )
    found = from_ledger(past.tell())

    def share(reason, **labels):
        m = one(found, "failure_share", **BUSY, reason=reason, **labels)
        return m.events, m.trials

    assert share("torn") == share("torn", station="S1") == (1, 6)
    assert share("blank-rejected") == (1, 6)
    assert share("verify-failed") == (0, 6)
    assert share("torn", lot="0001") == (1, 4)
    assert not [m for m in found if m.quantity == "failure_share" and m.labels.get("lot") == "0002"]
    ends = {m.labels["outcome"]: m.distribution.n for m in found if m.quantity == "cycle_seconds" and "station" not in m.labels}
    assert ends == {"good": 4, "scrapped": 1, "blank-rejected": 1, "released": 1}


def test_a_planned_end_is_no_failure_and_a_dead_server_is_not_the_stations(past):
    past.job(0, 3)
    past.station(0)
    past.made(Made(1, 2, 1))
    past.event(10, StationEvent.DISCONNECTED, Gone.LEFT.value)
    past.station(20)
    past.event(30, StationEvent.DISCONNECTED, Gone.SERVER.value)
    past.station(40)
    past.made(Made(41, 2, 2))
    past.station(60)  # the server was killed: the stream never ended
    past.made(Made(61, 2, 3))
    found = fit(past.tell())
    assert not [m for m in found.measurements if m.quantity in ("repair_seconds", "uptime_seconds")]
    assert any("no station broke down" in note for note in found.notes)


def test_jobs_without_timings_are_said_and_not_fitted(past):
    past.job(0, 2)
    past.job(0, 2, "J2")
    past.station(0)
    past.made(Made(1, 2, 1, timed=False), Made(4, 2, 1, job="J2"))
    path = past.tell()
    found = fit(path)
    assert found.jobs == ["J2"]
    assert any("J1" in note and "before stations timed" in note for note in found.notes)
    assert one(found.measurements, "cycle_seconds", **BUSY, outcome="good").distribution.n == 1
    with pytest.raises(Precondition, match="J1") as caught:
        fit(path, ["J1"])
    assert caught.value.reason == "NO_TIMINGS"
    with pytest.raises(NotFound):
        fit(path, ["J9"])


def test_what_is_no_ledger_of_this_version_is_refused(tmp_path):
    with pytest.raises(NotFound):
        fit(tmp_path / "none")
    old = tmp_path / "old.sqlite"
    engine = writer_engine(old)
    with engine.connect() as conn, conn.begin():
        command.upgrade(migrate._config(conn), "0002")
    engine.dispose()
    with pytest.raises(Precondition) as caught:
        fit(old)
    assert caught.value.reason == "LEDGER_OLDER"


def test_the_inputs_of_a_job_are_what_it_had_to_work_with(past):
    past.job(0, 3, "J1", priority=0)
    past.station(0, heads=2)
    past.station(0, "S2")
    past.blanks(0, 4)
    past.made(Made(1, 1, 1), Made(9, 2, 2), Made(21, 2, 3))
    past.job(10, 3, "J2")
    past.made(Made(11, 2, 1, "S2", job="J2"), Made(14, 2, 2, "S2", job="J2", end="torn"))
    past.event(17, StationEvent.STOPPED, "torn", name="S2")
    past.state(18, "PAUSED", "J2")
    past.state(20, "RUNNING", "J2")
    past.blanks(22, 6)
    past.event(25, StationEvent.RESET, name="S2")
    past.made(Made(26, 2, 2, "S2", job="J2"), Made(29, 2, 3, "S2", job="J2"))
    inputs = job_inputs(past.tell(), "J2")

    def since(interval):
        return tuple((at - START) / SECOND for at in interval)

    assert (since((inputs.begin_us, inputs.end_us)), inputs.measured_s) == ((10.0, 31.0), 21.0)
    assert (inputs.job.lines, inputs.job.kind, [since(i) for i in inputs.job.running]) == (3, "bulk", [(10, 18), (20, 31)])
    assert inputs.attempts == {"good": 3, "scrapped": 1}
    # of J1 one line was made and one in hand when J2 began
    (other,) = inputs.others
    assert (other.job_id, other.kind, other.priority, other.lines) == ("J1", "instant", 0, 1)
    first, second = inputs.stations
    assert (first.station_id, first.heads, first.blanks) == ("S1", 2, 2)
    assert [(since((at,)), n) for at, n in first.refills] == [((22.0,), 6)]
    assert (second.station_id, second.blanks, [since(i) for i in second.working]) == ("S2", None, [(10, 17), (25, 31)])


def test_an_unfinished_job_has_no_inputs_yet(past):
    past.job(0, 2)
    past.station(0)
    past.made(Made(1, 2, 1))
    with pytest.raises(Precondition) as caught:
        job_inputs(past.tell(), "J1")
    assert caught.value.reason == "JOB_STATE"


spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8)


@given(spans, st.integers(0, 60), st.integers(1, 20))
def test_spans_are_sets_of_moments(pairs, begin, length):
    merged = Spans.of(pairs)
    inside = {t for b, e in pairs for t in range(b, e)}
    assert {t for b, e in merged.pairs() for t in range(b, e)} == inside
    asked = set(range(begin, begin + length))
    begins, ends = numbers(begin), numbers(begin + length)
    assert merged.covers(begins, ends).tolist() == [asked <= inside]
    assert merged.touch(begins, ends).tolist() == [bool(asked & inside)]
    assert {t for b, e in merged.within(begin, begin + length).pairs() for t in range(b, e)} == asked & inside
    assert merged.total_us == len(inside)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(-3, 3)), max_size=12))
def test_a_counts_positive_times(changes):
    found = Spans.positive(numbers(*(t for t, _ in changes)), numbers(*(c for _, c in changes)), 40)
    for moment in range(40):
        level = sum(c for t, c in changes if t <= moment)
        assert found.covers(numbers(moment), numbers(moment + 1)).tolist() == [level > 0]


def numbers(*values: int) -> Times:
    import numpy as np

    return np.array(values, np.int64)
