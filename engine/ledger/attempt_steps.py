"""The way of a good card: RESERVED, PRESENTED, INTENT, ENCODED, VERIFIED, PRINTED, GOOD (HELD until somebody sees the piece)."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import bindparam, exists, func, insert, select

from engine.ledger import schema
from engine.ledger.attempt_ends import set_line
from engine.ledger.attempt_rows import SALT_BITS, Attempt, change, require, token_of
from engine.ledger.chips import sight
from engine.ledger.job_rows import unknown_job
from engine.ledger.prepared import Prepared
from engine.ledger.serials import record as record_serials
from engine.ledger.states import AttemptState, JobState, LineState
from engine.ledger.tx import Source, Tx, db_of
from keys.errors import Conflict, Exhausted, InvalidInput, NotFound, Precondition

_attempts = schema.attempts.c
_lines = schema.lines.c
_jobs = schema.jobs.c
_last_attempt_no = (
    select(func.max(_attempts.attempt_no))
    .where(_attempts.job_no == _jobs.job_no, _attempts.line_no == bindparam("line_no"))
    .scalar_subquery()
)
_for_reserve = Prepared(
    select(_jobs.job_no, _jobs.state, _lines.state, func.coalesce(_last_attempt_no, 0))
    .select_from(schema.jobs.outerjoin(schema.lines, (_lines.job_no == _jobs.job_no) & (_lines.line_no == bindparam("line_no"))))
    .where(_jobs.job_id == bindparam("job_id")),
    "job_id",
    "line_no",
)
_reserved = (
    "salt",
    "job_no",
    "line_no",
    "attempt_no",
    "station_id",
    "state",
    "epoch",
    "lease_boot_us",
    "host_challenge",
    "piece",
    "reserved_us",
)
_insert = Prepared(insert(schema.attempts).returning(_attempts.attempt_id), *_reserved)
_for_intent = Prepared(select(_jobs.state, _jobs.profile_hash, _jobs.remake_waits).where(_jobs.job_no == bindparam("job_no")), "job_no")
_begun = (_attempts.job_no == bindparam("job_no")) & (_attempts.line_no == bindparam("line_no")) & _attempts.intent_us.is_not(None)
_psn_on_piece = Prepared(select(exists().where(_begun, _attempts.psn == bindparam("psn"))), "job_no", "line_no", "psn")
_highest_psn = Prepared(
    select(
        _jobs.job_no,
        select(func.max(_attempts.psn))
        .where(_attempts.job_no == _jobs.job_no, _attempts.line_no == bindparam("line_no"), _attempts.intent_us.is_not(None))
        .scalar_subquery(),
    ).where(_jobs.job_id == bindparam("job_id")),
    "job_id",
    "line_no",
)
_issue = Prepared(
    insert(schema.issued).from_select(
        ["job_no", "line_no", "person_hash", "card_hash"],
        select(_lines.job_no, _lines.line_no, _lines.person_hash, _lines.card_hash).where(
            _lines.job_no == bindparam("job_no"), _lines.line_no == bindparam("line_no")
        ),
    ),
    "job_no",
    "line_no",
)
_TO_GOOD: Final = (AttemptState.ENCODED, AttemptState.VERIFIED, AttemptState.PRINTED, AttemptState.GOOD)


def reserve(tx: Tx, job_id: str, line_no: int, station_id: str, lease_us: int, host_challenge: bytes) -> Attempt:
    """Leases a READY line of a RUNNING job to a station for `lease_us` microseconds of the lease clock.

    Raises NotFound JOB_UNKNOWN | LINE_UNKNOWN, Precondition JOB_STATE | LINE_STATE, InvalidInput LEASE.
    """
    if lease_us <= 0 or not host_challenge or not station_id:
        raise InvalidInput("LEASE", "a lease needs a station, a positive time and a host challenge")
    row = _for_reserve.one(tx.db, job_id, line_no)
    if row is None:
        raise unknown_job(job_id)
    job_no, job_state, line_state, last_attempt_no = row
    if line_state is None:
        raise NotFound("LINE_UNKNOWN", f"job {job_id} has no line {line_no}")
    if job_state != JobState.RUNNING:
        raise Precondition("JOB_STATE", f"job {job_id} is {job_state}: only a running job gives out lines")
    if line_state != LineState.READY:
        raise Precondition("LINE_STATE", f"line {line_no} of job {job_id} is {line_state}: only a ready line can be reserved")
    salt, reserved = secrets.randbits(SALT_BITS), AttemptState.RESERVED.value
    row = (
        salt,
        job_no,
        line_no,
        last_attempt_no + 1,
        station_id,
        reserved,
        tx.epoch,
        tx.boottime_us + lease_us,
        host_challenge,
        0,
        tx.now_us,
    )
    ((attempt_id,),) = _insert.all(tx.db, *row)
    attempt = Attempt(
        attempt_id=attempt_id,
        token=token_of(attempt_id, salt),
        job_no=job_no,
        job_id=job_id,
        line_no=line_no,
        attempt_no=last_attempt_no + 1,
        station_id=station_id,
        state=AttemptState.RESERVED,
        epoch=tx.epoch,
        lease_boot_us=tx.boottime_us + lease_us,
        host_challenge=host_challenge,
        reserved_us=tx.now_us,
    )
    set_line(tx, attempt, LineState.HELD)
    tx.audit("attempt.reserved", str(attempt.attempt_id), job=job_id, line=line_no, attempt_no=attempt.attempt_no, station=station_id)
    return attempt


def _require_lease(tx: Tx, attempt: Attempt) -> None:
    if attempt.epoch != tx.epoch or tx.boottime_us > attempt.lease_boot_us:
        raise Precondition("LEASE_EXPIRED", f"the lease of attempt {attempt.attempt_id} is over: release the blank")


def present(tx: Tx, token: int, *, chip_id: str, atr: bytes, cplc: bytes, initialize_update_response: bytes) -> Attempt:
    """RESERVED to PRESENTED: a chip whose card cryptogram was verified lies in the head.

    `chip_id` is its KDD in upper-case hex. Raises Precondition STALE_TOKEN | WRONG_STATE | LEASE_EXPIRED, Conflict CHIP_DIFFERS |
    CHIP_QUARANTINED, InvalidInput CHIP_ID.
    """
    seen = _seen(tx, token, chip_id, atr, cplc)
    return _presented(tx, change(tx, seen, **_facts_of_chip(tx, chip_id, atr, cplc, initialize_update_response)))


def _seen(tx: Tx, token: int, chip_id: str, atr: bytes, cplc: bytes) -> Attempt:
    """The RESERVED attempt that a proven chip was presented for."""
    attempt = require(tx, token, AttemptState.RESERVED)
    _require_lease(tx, attempt)
    sight(tx, chip_id, atr, cplc)
    return attempt


def _facts_of_chip(tx: Tx, chip_id: str, atr: bytes, cplc: bytes, initialize_update_response: bytes) -> dict[str, Any]:
    """What PRESENTED adds to an attempt."""
    return {
        "state": AttemptState.PRESENTED,
        "chip_id": chip_id,
        "atr": atr,
        "cplc": cplc,
        "initialize_update_response": initialize_update_response,
        "piece": True,
        "presented_us": tx.now_us,
    }


def _presented(tx: Tx, attempt: Attempt) -> Attempt:
    tx.audit("attempt.presented", str(attempt.attempt_id), chip=attempt.chip_id, station=attempt.station_id)
    return attempt


def psn_for(source: Source, job_id: str, line_no: int, remake_psn: str = "next") -> int:
    """The PAN sequence number for the next card of a line: 0 first; then one more (`next`), or the same again (`same`).

    Raises Exhausted PSN above 99.
    """
    row = _highest_psn.one(db_of(source), job_id, line_no)
    if row is None:
        raise unknown_job(job_id)
    used: int | None = row[1]
    if used is None:
        return 0
    psn = used + (remake_psn == "next")
    if psn > 99:
        raise Exhausted("PSN", f"line {line_no} of job {job_id} has used all 100 PAN sequence numbers")
    return int(psn)


def intent(
    tx: Tx,
    token: int,
    *,
    chip_id: str,
    host_challenge: bytes,
    initialize_update_response: bytes,
    kvn: int,
    profile_hash: str,
    image_digest: bytes,
    serials: Mapping[str, int],
    psn: int | None,
    max_chip_us: int,
    presented: tuple[bytes, bytes] | None = None,
) -> Attempt:
    """PRESENTED to INTENT, to be durable before the first state-changing byte leaves the engine; burns the chip and the serials.

    `max_chip_us` is the profile's max_chip_time: past it the attempt is torn. `psn` is None where no finance key is made. With
    `presented`, the chip's ATR and CPLC, it is RESERVED to INTENT: `present` and this in one, with both leaves and the errors of both.
    Raises Precondition STALE_TOKEN | WRONG_STATE | LEASE_EXPIRED | JOB_STATE | INTENT_DIFFERS, Conflict CHIP_USED | SERIAL_USED |
    PSN_USED, NotFound POOL_UNKNOWN, InvalidInput SERIAL_RANGE | MAX_CHIP_TIME.
    """
    if max_chip_us <= 0:
        raise InvalidInput("MAX_CHIP_TIME", "max_chip_time must be positive")
    facts: dict[str, Any] = {}
    if presented is None:
        attempt = require(tx, token, AttemptState.PRESENTED)
        _require_lease(tx, attempt)
        shown = attempt.chip_id, attempt.initialize_update_response
    else:
        attempt = _seen(tx, token, chip_id, *presented)
        shown = chip_id, initialize_update_response
        facts = _facts_of_chip(tx, chip_id, *presented, initialize_update_response)
    ((job_state, job_profile_hash, remake_waits),) = _for_intent.all(tx.db, attempt.job_no)
    if job_state != JobState.RUNNING:
        raise Precondition("JOB_STATE", f"job {attempt.job_id} is {job_state}: no card is begun")
    if (*shown, attempt.host_challenge, job_profile_hash) != (chip_id, initialize_update_response, host_challenge, profile_hash):
        raise Precondition(
            "INTENT_DIFFERS",
            f"attempt {attempt.attempt_id}: chip, challenge, INITIALIZE UPDATE response or profile are not the leased ones",
        )
    if psn is not None and not remake_waits:
        ((used,),) = _psn_on_piece.all(tx.db, attempt.job_no, attempt.line_no, psn)
        if used:
            raise Conflict("PSN_USED", f"PSN {psn:02d} of line {attempt.line_no} is already on another piece: its finance key would repeat")
    try:
        facts |= {
            "state": AttemptState.INTENT,
            "kvn": kvn,
            "profile_hash": profile_hash,
            "image_digest": image_digest,
            "psn": psn,
            "max_chip_us": max_chip_us,
            "deadline_boot_us": tx.boottime_us + max_chip_us,
            "intent_us": tx.now_us,
        }
        attempt = change(tx, attempt, **facts)
    except sqlite3.IntegrityError:
        raise Conflict("CHIP_USED", f"chip {chip_id} was begun before: it cannot become another card") from None
    if presented is not None:
        _presented(tx, attempt)
    record_serials(tx, attempt.attempt_id, serials)
    tx.audit(
        "attempt.intent",
        str(attempt.attempt_id),
        job=attempt.job_id,
        line=attempt.line_no,
        chip=chip_id,
        kvn=kvn,
        profile=profile_hash,
        image=image_digest.hex(),
        serials=dict(serials),
        psn=psn,
    )
    return attempt


def _step(tx: Tx, token: int, before: AttemptState, after: AttemptState, **values: Any) -> Attempt:  # noqa: ANN401 - column values
    attempt = change(tx, require(tx, token, before), state=after, **values)
    tx.audit(f"attempt.{after.value.lower()}", str(attempt.attempt_id), chip=attempt.chip_id)
    return attempt


def encoded(tx: Tx, token: int) -> Attempt:
    """INTENT to ENCODED: every personalization command got exactly its expected answer."""
    return _step(tx, token, AttemptState.INTENT, AttemptState.ENCODED)


def verified(tx: Tx, token: int, proofs: Mapping[str, Any]) -> Attempt:
    """ENCODED to VERIFIED. `proofs` maps each key to proven-by-use, proven-by-sample or kcv-only; it holds no key and no
    personal data.
    """
    return _step(tx, token, AttemptState.ENCODED, AttemptState.VERIFIED, proofs=dict(proofs))


def printed(tx: Tx, token: int) -> Attempt:
    """VERIFIED to PRINTED; a profile that prints nothing passes through."""
    return _step(tx, token, AttemptState.VERIFIED, AttemptState.PRINTED)


def good(tx: Tx, token: int) -> Attempt:
    """PRINTED to GOOD: the station may eject to the good bin once this is durable. The line is done, its holder has a card."""
    return _good(tx, require(tx, token, AttemptState.PRINTED))


def finish(tx: Tx, token: int, proofs: Mapping[str, Any] | None = None) -> Attempt:
    """What is left of the way to GOOD, in one statement, with a leaf for every step: from VERIFIED or PRINTED; from ENCODED with
    `proofs` as `verified` wants them, where nothing is printed.
    """
    if proofs is None:
        return _good(tx, require(tx, token, AttemptState.VERIFIED, AttemptState.PRINTED))
    return _good(tx, require(tx, token, AttemptState.ENCODED), proofs=dict(proofs))


def _good(tx: Tx, attempt: Attempt, **values: Any) -> Attempt:  # noqa: ANN401 - column values
    made = change(tx, attempt, state=AttemptState.GOOD, good_us=tx.now_us, **values)
    for state in _TO_GOOD[_TO_GOOD.index(attempt.state) + 1 :]:
        tx.audit(f"attempt.{state.value.lower()}", str(made.attempt_id), chip=made.chip_id)
    set_line(tx, made, LineState.GOOD)
    _issue.run(tx.db, made.job_no, made.line_no)
    return made


def held(tx: Tx, token: int) -> Attempt:
    """GOOD to HELD: the station never acknowledged; the line is held until the piece is seen (`stacked`) or given up (`scrap`)."""
    attempt = _step(tx, token, AttemptState.GOOD, AttemptState.HELD)
    set_line(tx, attempt, LineState.HELD)
    return attempt
