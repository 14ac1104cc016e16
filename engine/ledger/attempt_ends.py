"""How an attempt ends, and what that does to its line and its job.

Before INTENT the blank is unharmed (RELEASED) or useless (BLANK_REJECTED) and the line goes back. After INTENT whatever is not
a good card is scrap: it waits for its destruction under two names, and the line is made again on a new blank.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from sqlalchemy import bindparam, delete, exists, literal, select, update

from engine.ledger import schema
from engine.ledger.attempt_rows import Attempt, by_id, by_token, change, in_states, require, stale_token, wrong_state
from engine.ledger.job_rows import get_by_no, settle, write_state
from engine.ledger.prepared import Prepared
from engine.ledger.states import BEFORE_INTENT, ENDED, JOB_ENDED, ON_CHIP, UNSEEN, AttemptState, Bin, JobState, LineState, ScrapReason
from engine.ledger.tx import Tx
from keys.errors import Denied, InvalidInput, Precondition

# why an attempt was released whose head found its feeder empty
NO_BLANK: Final = "no-blank"

_BEFORE_INTENT = (AttemptState.RESERVED, AttemptState.PRESENTED)
_MADE = (
    AttemptState.INTENT,
    AttemptState.ENCODED,
    AttemptState.VERIFIED,
    AttemptState.PRINTED,
    AttemptState.GOOD,
    AttemptState.HELD,
)

_lines = schema.lines.c
_attempts = schema.attempts.c
_set_line = Prepared(
    update(schema.lines)
    .where(_lines.job_no == bindparam("key_job_no"), _lines.line_no == bindparam("key_line_no"))
    .values(state=bindparam("new_state")),
    "key_job_no",
    "key_line_no",
    "new_state",
)
_has_record = select(_lines.blob.is_not(None)).where(_lines.job_no == bindparam("job_no"), _lines.line_no == bindparam("line_no"))
_unissue = delete(schema.issued).where(
    schema.issued.c.job_no == bindparam("key_job_no"), schema.issued.c.line_no == bindparam("key_line_no")
)
_scrap_left = select(
    exists().where(
        _attempts.job_no == bindparam("job_no"),
        _attempts.line_no == bindparam("line_no"),
        _attempts.state == AttemptState.SCRAP_PENDING.value,
    )
)
_free_waiting = (
    update(schema.lines)
    .where(
        _lines.job_no == bindparam("key_job_no"),
        _lines.line_no == bindparam("key_line_no"),
        _lines.state == LineState.WAITING.value,
    )
    .values(state=LineState.READY.value)
)
# Asked every second: by the jobs that have not ended, so that the index finds the few attempts among millions of finished ones.
_live_jobs = select(schema.jobs.c.job_no).where(schema.jobs.c.state.not_in([literal(state.value) for state in sorted(JOB_ENDED)]))
_leases_over = Prepared(
    select(_attempts.attempt_id)
    .where(
        _attempts.job_no.in_(_live_jobs),
        _attempts.state.in_([literal(state.value) for state in sorted(BEFORE_INTENT)]),
        (_attempts.epoch != bindparam("epoch")) | (_attempts.lease_boot_us < bindparam("boot_us")),
    )
    .order_by(_attempts.attempt_id),
    "epoch",
    "boot_us",
)
_overdue = Prepared(
    select(_attempts.attempt_id)
    .where(
        _attempts.job_no.in_(_live_jobs),
        _attempts.state.in_([literal(state.value) for state in sorted(ON_CHIP)]),
        _attempts.deadline_boot_us < bindparam("boot_us"),
    )
    .order_by(_attempts.attempt_id),
    "boot_us",
)


def set_line(tx: Tx, attempt: Attempt, state: LineState) -> None:
    """Moves the attempt's line."""
    _set_line.run(tx.db, attempt.job_no, attempt.line_no, state.value)


def _requeue(tx: Tx, attempt: Attempt, *, repeats_keys: bool) -> None:
    """The line wants a card again, unless its job is being cancelled; then the job may be at its end."""
    job = get_by_no(tx, attempt.job_no)
    if job.state in (JobState.CANCELLING, JobState.CANCELLED):
        set_line(tx, attempt, LineState.CANCELLED)
    elif repeats_keys and job.remake_waits:
        set_line(tx, attempt, LineState.WAITING)
    else:
        set_line(tx, attempt, LineState.READY)
    if job.state is JobState.COMPLETE:
        write_state(tx, job, JobState.RUNNING, f"line {attempt.line_no} is made again")
    settle(tx, attempt.job_no)


def end_before_intent(tx: Tx, attempt: Attempt, state: AttemptState, reason: str, detail: str = "") -> Attempt:
    """RELEASED or BLANK_REJECTED; the line goes back."""
    piece = attempt.piece or state is AttemptState.BLANK_REJECTED
    ended = change(tx, attempt, state=state, reason=reason[:32], detail=detail, piece=piece, ended_us=tx.now_us)
    tx.audit(
        "attempt.ended",
        str(attempt.attempt_id),
        state=state.value,
        reason=reason[:32],
        job=attempt.job_id,
        line=attempt.line_no,
        chip=attempt.chip_id,
    )
    _requeue(tx, attempt, repeats_keys=False)
    return ended


def end_in_scrap(tx: Tx, attempt: Attempt, reason: ScrapReason, detail: str) -> Attempt:
    """SCRAP_PENDING; the line is made again, or waits for the piece's destruction where a remake would repeat its keys."""
    ended = change(tx, attempt, state=AttemptState.SCRAP_PENDING, reason=reason.value, detail=detail, ended_us=tx.now_us)
    if attempt.good_us is not None:
        tx.conn.execute(_unissue, {"key_job_no": attempt.job_no, "key_line_no": attempt.line_no})
    tx.audit(
        "attempt.scrapped",
        str(attempt.attempt_id),
        reason=reason.value,
        was=attempt.state.value,
        job=attempt.job_id,
        line=attempt.line_no,
        chip=attempt.chip_id,
    )
    _requeue(tx, attempt, repeats_keys=True)
    return ended


def release(tx: Tx, token: int, why: str, detail: str = "") -> Attempt:
    """RESERVED or PRESENTED to RELEASED: the blank is unharmed, the line READY again.

    `why` is a short fixed word (at most 32 characters), such as `no-blank`; `detail` says more and stays out of the audit chain.
    """
    return end_before_intent(tx, require(tx, token, *_BEFORE_INTENT), AttemptState.RELEASED, why, detail)


def blank_rejected(tx: Tx, token: int, reason: str, detail: str = "") -> Attempt:
    """RESERVED or PRESENTED to BLANK_REJECTED: the blank does not answer as it must. `reason` is a short fixed word."""
    return end_before_intent(tx, require(tx, token, *_BEFORE_INTENT), AttemptState.BLANK_REJECTED, reason, detail)


def scrap(tx: Tx, token: int, reason: ScrapReason | str, detail: str = "") -> Attempt:
    """Anything past INTENT and not yet stacked to SCRAP_PENDING. Raises InvalidInput SCRAP_REASON for an unknown reason."""
    try:
        known = ScrapReason(reason)
    except ValueError:
        raise InvalidInput("SCRAP_REASON", f"unknown scrap reason {reason!r}") from None
    if known in (ScrapReason.SAMPLE, ScrapReason.RECALLED):
        raise InvalidInput("SCRAP_REASON", f"{known.value} is recorded by taking a stacked card out, not by scrap")
    return end_in_scrap(tx, require(tx, token, *_MADE), known, detail)


def expire_leases(tx: Tx) -> list[Attempt]:
    """Releases every attempt before INTENT whose lease is over by the lease clock. After INTENT leases never expire."""
    over = _leases_over.all(tx.db, tx.epoch, tx.boottime_us)
    return [end_before_intent(tx, by_id(tx, number), AttemptState.RELEASED, "lease-expired") for (number,) in over]


def tear_overdue(tx: Tx) -> list[Attempt]:
    """Scraps as torn every attempt that reached INTENT and is past its profile's max_chip_time by the lease clock."""
    overdue = _overdue.all(tx.db, tx.boottime_us)
    return [end_in_scrap(tx, by_id(tx, number), ScrapReason.TORN, "past max_chip_time") for (number,) in overdue]


def release_job(tx: Tx, job_no: int, why: str) -> list[Attempt]:
    """Releases every attempt of a job before INTENT."""
    return [end_before_intent(tx, attempt, AttemptState.RELEASED, why) for attempt in in_states(tx, BEFORE_INTENT, job_no=job_no)]


def stacked(tx: Tx, token: int, bin_name: Bin | str) -> Attempt:
    """The piece was seen falling into a bin.

    GOOD or HELD into the good bin: STACKED. GOOD or HELD into any other bin is a card nobody can vouch for: SCRAP_PENDING. For
    an ended attempt the bin is recorded as seen, so that reconciliation shows a piece in the wrong one. The same report twice
    changes nothing. Raises Precondition STALE_TOKEN for an unknown token, WRONG_STATE while the chip is still being made or
    another bin is on record.
    """
    try:
        seen = Bin(bin_name)
    except ValueError:
        raise InvalidInput("BIN", f"unknown bin {bin_name!r}: known are {', '.join(Bin)}") from None
    attempt = by_token(tx, token)
    if attempt is None:
        raise stale_token(None)
    if attempt.bin is not None:
        if attempt.bin == seen.value:
            return attempt
        raise Precondition("WRONG_STATE", f"the piece of attempt {attempt.attempt_id} was already seen in the bin {attempt.bin}")
    if attempt.state not in UNSEEN | ENDED:
        raise wrong_state(attempt, *UNSEEN)
    was = attempt.state
    becomes = AttemptState.STACKED if was in UNSEEN and seen is Bin.GOOD else was
    # a head that found its feeder empty ends its lease as any other does, but nothing fell
    fell = attempt.piece or not (was is AttemptState.RELEASED and attempt.reason == NO_BLANK)
    attempt = change(tx, attempt, state=becomes, bin=seen.value, piece=fell, stacked_us=tx.now_us)
    tx.audit("piece.stacked", str(attempt.attempt_id), bin=seen.value, state=was.value, chip=attempt.chip_id)
    if becomes is AttemptState.STACKED:
        if was is AttemptState.HELD:
            set_line(tx, attempt, LineState.GOOD)
        settle(tx, attempt.job_no)
    elif was in UNSEEN:
        attempt = end_in_scrap(tx, attempt, ScrapReason.REFUSED, f"a good card fell into the bin {seen.value}")
    return attempt


def _name(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def destroyed(tx: Tx, attempt_id: int, name1: str, name2: str) -> Attempt:
    """SCRAP_PENDING to DESTROYED, witnessed by two different people. Raises Denied DUAL_CONTROL, NotFound, Precondition
    WRONG_STATE.
    """
    first, second = _name(name1), _name(name2)
    if not first or not second or first == second:
        raise Denied("DUAL_CONTROL", "destroying scrap takes the names of two different people")
    attempt = by_id(tx, attempt_id)
    if attempt.state is not AttemptState.SCRAP_PENDING:
        raise wrong_state(attempt, AttemptState.SCRAP_PENDING)
    names = [name1.strip(), name2.strip()]
    gone = change(tx, attempt, state=AttemptState.DESTROYED, destroyed_us=tx.now_us, destroyed_by=names)
    tx.audit("piece.destroyed", str(attempt_id), by=names, chip=attempt.chip_id, job=attempt.job_id, line=attempt.line_no)
    line = {"job_no": attempt.job_no, "line_no": attempt.line_no}
    if not tx.conn.execute(_scrap_left, line).scalar_one():
        tx.conn.execute(_free_waiting, {"key_job_no": attempt.job_no, "key_line_no": attempt.line_no})
    return gone


def sample_drawn(tx: Tx, attempt_id: int, by: str) -> Attempt:
    """A STACKED card becomes a quality sample: SCRAP_PENDING, its line made again; a COMPLETE job runs again.

    Raises Precondition WRONG_STATE, or PII_DESTROYED where the line could not be made again.
    """
    attempt = by_id(tx, attempt_id)
    if attempt.state is not AttemptState.STACKED:
        raise wrong_state(attempt, AttemptState.STACKED)
    if not tx.conn.execute(_has_record, {"job_no": attempt.job_no, "line_no": attempt.line_no}).scalar_one():
        raise Precondition("PII_DESTROYED", f"line {attempt.line_no} cannot be made again: the job's personal data is destroyed")
    tx.audit("sample.drawn", str(attempt_id), by=by, chip=attempt.chip_id)
    return end_in_scrap(tx, attempt, ScrapReason.SAMPLE, f"drawn by {by}")


def recalled(tx: Tx, attempt_id: int, by: str) -> Attempt:
    """A STACKED card of a cancelled job is not delivered: SCRAP_PENDING, to be destroyed. Raises Precondition WRONG_STATE |
    JOB_STATE.
    """
    attempt = by_id(tx, attempt_id)
    if attempt.state is not AttemptState.STACKED:
        raise wrong_state(attempt, AttemptState.STACKED)
    if get_by_no(tx, attempt.job_no).state not in (JobState.CANCELLING, JobState.CANCELLED):
        raise Precondition("JOB_STATE", f"job {attempt.job_id} is not cancelled: only its cards can be recalled for destruction")
    return end_in_scrap(tx, attempt, ScrapReason.RECALLED, f"recalled by {by}")
