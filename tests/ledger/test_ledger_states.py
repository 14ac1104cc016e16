"""Every state of an attempt against every operation: it is allowed and leads where it must, or it is refused with the right reason."""

from __future__ import annotations

import itertools

import pytest

from engine.ledger import attempts, audit, jobs, serials
from engine.ledger.attempts import AttemptState as S
from engine.ledger.states import JOB_MOVES, JobState
from keys.errors import CitycardError, Precondition

STALE, WRONG = "STALE_TOKEN", "WRONG_STATE"
ENDED = (S.RELEASED, S.BLANK_REJECTED, S.SCRAP_PENDING, S.DESTROYED)
MADE = (S.INTENT, S.ENCODED, S.VERIFIED, S.PRINTED, S.GOOD, S.HELD)


def reach(world, state: S):
    """An attempt in `state`, by the operations alone."""
    world.start()
    attempt = world.reserve()
    match state:
        case S.HELD:
            return world.do(attempts.held, world.advance(attempt, S.GOOD).token)
        case S.RELEASED:
            return world.do(attempts.release, attempt.token, "no-blank")
        case S.BLANK_REJECTED:
            return world.do(attempts.blank_rejected, attempt.token, "no-answer")
        case S.SCRAP_PENDING:
            return world.do(attempts.scrap, world.advance(attempt, S.ENCODED).token, "torn")
        case S.DESTROYED:
            world.do(attempts.scrap, world.advance(attempt, S.ENCODED).token, "torn")
            return world.do(attempts.destroyed, attempt.attempt_id, "Li Wei", "Zhang Min")
        case S.STACKED | S.PRESENTED | S.INTENT | S.ENCODED | S.VERIFIED | S.PRINTED | S.GOOD:
            return world.advance(attempt, state)
    return attempt


OPERATIONS = {
    "present": lambda w, a: w.present(a, "F" * 20),
    "intent": lambda w, a: w.intent(a),
    "encoded": lambda w, a: w.do(attempts.encoded, a.token),
    "verified": lambda w, a: w.do(attempts.verified, a.token, {}),
    "printed": lambda w, a: w.do(attempts.printed, a.token),
    "good": lambda w, a: w.do(attempts.good, a.token),
    "held": lambda w, a: w.do(attempts.held, a.token),
    "stacked good": lambda w, a: w.do(attempts.stacked, a.token, "good"),
    "stacked reject": lambda w, a: w.do(attempts.stacked, a.token, "reject"),
    "release": lambda w, a: w.do(attempts.release, a.token, "no-blank"),
    "blank_rejected": lambda w, a: w.do(attempts.blank_rejected, a.token, "no-answer"),
    "scrap": lambda w, a: w.do(attempts.scrap, a.token, "verify-failed", "tag 9F"),
    "cryptogram_failed": lambda w, a: w.do(attempts.cryptogram_failed, a.token, "AB"),
    "destroyed": lambda w, a: w.do(attempts.destroyed, a.attempt_id, "Li Wei", "Zhang Min"),
    "sample_drawn": lambda w, a: w.do(attempts.sample_drawn, a.attempt_id, "Li Wei"),
}

# operation -> state -> state reached; anything not here is refused.
ALLOWED = {
    "present": {S.RESERVED: S.PRESENTED},
    "intent": {S.PRESENTED: S.INTENT},
    "encoded": {S.INTENT: S.ENCODED},
    "verified": {S.ENCODED: S.VERIFIED},
    "printed": {S.VERIFIED: S.PRINTED},
    "good": {S.PRINTED: S.GOOD},
    "held": {S.GOOD: S.HELD},
    "stacked good": {S.GOOD: S.STACKED, S.HELD: S.STACKED, S.STACKED: S.STACKED, **{state: state for state in ENDED}},
    "stacked reject": {S.GOOD: S.SCRAP_PENDING, S.HELD: S.SCRAP_PENDING, **{state: state for state in ENDED}},
    "release": {S.RESERVED: S.RELEASED, S.PRESENTED: S.RELEASED},
    "blank_rejected": {S.RESERVED: S.BLANK_REJECTED, S.PRESENTED: S.BLANK_REJECTED},
    "scrap": dict.fromkeys(MADE, S.SCRAP_PENDING),
    "cryptogram_failed": {S.RESERVED: S.RESERVED, S.PRESENTED: S.PRESENTED},
    "destroyed": {S.SCRAP_PENDING: S.DESTROYED},
    "sample_drawn": {S.STACKED: S.SCRAP_PENDING},
}
# By number, not by token: an ended attempt is simply in the wrong state for them.
BY_NUMBER = ("destroyed", "sample_drawn")

LINE = {
    **dict.fromkeys((S.RESERVED, S.PRESENTED, S.INTENT, S.ENCODED, S.VERIFIED, S.PRINTED, S.HELD), "HELD"),
    **dict.fromkeys((S.GOOD, S.STACKED), "GOOD"),
    **dict.fromkeys(ENDED, "READY"),
}


@pytest.mark.parametrize(("state", "operation"), list(itertools.product(S, OPERATIONS)), ids=str)
def test_every_state_against_every_operation(world, state, operation):
    attempt = reach(world, state)
    assert attempt.state is state
    assert world.line() == LINE[state]
    leaves = world.see(audit.head).count
    expected = ALLOWED[operation].get(state)
    if expected is None:
        with pytest.raises(Precondition) as caught:
            OPERATIONS[operation](world, attempt)
        assert caught.value.reason == (STALE if state in ENDED and operation not in BY_NUMBER else WRONG)
        assert world.attempt(attempt) == attempt
        assert world.line() == LINE[state]
        assert world.see(audit.head).count == leaves
    else:
        OPERATIONS[operation](world, attempt)
        assert world.attempt(attempt).state is expected
        assert world.line() == LINE[expected]
        unchanged = operation == "stacked good" and state is S.STACKED
        assert (world.see(audit.head).count == leaves) == unchanged
    world.see(audit.verify)


@pytest.mark.parametrize("token", [0, 1, 1 << 20, (1 << 64) - 1])
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in BY_NUMBER])
def test_a_token_never_given_is_stale(world, operation, token):
    world.start()
    attempt = world.reserve()
    forged = type("Forged", (), {"token": token, "chip_id": "AB", "attempt_no": 1})()
    with pytest.raises(Precondition) as caught:
        OPERATIONS[operation](world, forged)
    assert caught.value.reason == STALE
    assert world.attempt(attempt) == attempt


def test_a_token_of_another_life_of_the_ledger_is_stale(world):
    world.start()
    attempt = world.reserve()
    other = attempt.token ^ 1
    with pytest.raises(Precondition) as caught:
        world.do(attempts.release, other, "x")
    assert caught.value.reason == STALE


def test_tokens_grow(world):
    world.start()
    tokens = [world.reserve(line).token for line in (1, 2, 3)]
    assert tokens == sorted(set(tokens))


def _job_in(world, state: JobState):
    world.stage()
    way = {
        JobState.STAGING: [],
        JobState.READY: ["READY"],
        JobState.RUNNING: ["READY", "RUNNING"],
        JobState.PAUSED: ["READY", "RUNNING", "PAUSED"],
        JobState.CANCELLING: ["READY", "RUNNING", "CANCELLING"],
        JobState.CANCELLED: ["CANCELLING"],
        JobState.COMPLETE: ["READY", "RUNNING"],
        JobState.FAILED: ["FAILED"],
    }[state]
    world.do(serials.define_pool, "city", 1, 100)
    for step in way:
        if step == "CANCELLING" and state is JobState.CANCELLING:
            world.advance(world.reserve(1), S.INTENT)
        world.do(jobs.set_state, "J1", step)
    if state is JobState.COMPLETE:
        for line in range(1, 6):
            world.card(line)
    assert world.job().state is state


@pytest.mark.parametrize(("state", "wanted"), list(itertools.product(JobState, JobState)), ids=str)
def test_every_job_state_against_every_other(world, state, wanted):
    _job_in(world, state)
    same = state is wanted or (state, wanted) == (JobState.CANCELLED, JobState.CANCELLING)
    # Ends come by themselves, never by asking while something is open.
    by_itself = wanted in (JobState.CANCELLED, JobState.COMPLETE)
    if same or (wanted in JOB_MOVES[state] and not by_itself):
        change = world.do(jobs.set_state, "J1", wanted)
        # Nothing is in flight here, so a cancel is over at once.
        at_once = JobState.CANCELLED if wanted is JobState.CANCELLING else wanted
        reached = state if same else at_once
        assert change.job.state is world.job().state is reached
    else:
        with pytest.raises(CitycardError) as caught:
            world.do(jobs.set_state, "J1", wanted)
        assert caught.value.reason == "JOB_STATE"
        assert world.job().state is state
