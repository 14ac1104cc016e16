"""What a job should have taken is near what it took: real server, few stations and many, failures, mixed priorities."""

from __future__ import annotations

import pytest

from bench.predictions import Run, measure
from engine.capacity.check import check, past_errors
from engine.capacity.evidence.history import read
from engine.rpc.local import LEDGER_FILE
from keys.errors import NotFound, Precondition

# On a quiet machine the errors are a few hundredths; this one may be anything, and what it does to the durations is not predicted.
BOUND = 0.4


def test_every_job_is_predicted_from_the_jobs_before_it(tmp_path):
    """Made once, for it takes most of a minute: the errors, what is kept of them, and what cannot be checked."""
    runs = (
        Run("few", 2, 1, 24, chip_s=0.5),
        Run("many", 40, 2, 480, chip_s=1.0),
        Run("failing", 8, 2, 100, chip_s=1.0, fail=0.1),
        Run("mixed", 10, 2, 120, chip_s=1.0, kind="mixed"),
    )
    found = measure(Run("learning", 10, 1, 60, chip_s=1.0, fail=0.1), runs, tmp_path / "plant")
    assert [one["run"] for one in found] == ["few", "many", "failing", "mixed, bulk", "mixed, instant"]
    assert all(one["books_agree"] and not one["in_sample"] for one in found), found
    # the first learned nothing of chips that take half as long: a wrong measurement must show as an error, whatever else is right
    assert found[0]["error"] > BOUND, found[0]
    off = {one["run"]: one["error"] for one in found[1:]}
    assert all(abs(error) < BOUND for error in off.values()), off

    ledger = tmp_path / "plant" / "server" / LEDGER_FILE
    lines = past_errors(ledger)
    assert len(lines) == len(found) + 1
    assert lines[-1].startswith(f"{len(found)} fair predictions so far: off by ")
    assert f"{found[1]['error']:+.1%}" in lines[1]

    with pytest.raises(NotFound, match="there is no job J0"):
        check(ledger, "J0", None)
    with pytest.raises(NotFound, match="there is no ledger"):
        check(ledger.with_name("other.sqlite"), "J0", None)
    first = min(read(ledger).jobs.values(), key=lambda job: job.job_no)
    with pytest.raises(Precondition, match="nothing to predict it from: give --profile FILE"):
        check(ledger, first.job_id, None)
    assert past_errors(ledger) == lines


def test_a_running_job_says_when_it_will_be_done(works, orders):
    """Silent before there is anything to say and after the end; in between a range around the middle, in the future."""
    works.add_station("one", 90, faults={"speed": {"bits_per_s": 1_200_000}})
    works.all_connected("one")
    job = works.submit(orders(60))
    assert job.finish_us == 0
    told = []

    def look(now) -> bool:
        if now.finish_us:
            told.append(now)
        return now.state == "COMPLETE"

    ended = works.wait(job.job_id, look)
    assert told, "sixty cards, one head: there was something to say from the twentieth on"
    for seen in told:
        assert seen.state == "RUNNING"
        assert seen.started_us < seen.finish_early_us <= seen.finish_us <= seen.finish_late_us
        assert seen.good >= 18
    assert ended.finish_us == ended.finish_early_us == ended.finish_late_us == 0
