"""Jobs: made once per idempotency key, moved along their states, counted, and at last stripped of personal data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import bindparam, distinct, func, insert, select, update

from engine.ledger import schema
from engine.ledger.attempt_ends import release_job
from engine.ledger.attempt_rows import Attempt
from engine.ledger.job_rows import JobRow, get, get_by_idempotency_key, job_no_of, list_jobs, settle, write_state
from engine.ledger.states import JOB_ENDED, JOB_MOVES, OPEN, AttemptState, JobState, LineState
from engine.ledger.tx import Source, Tx, conn_of
from keys.errors import Conflict, InvalidInput, Precondition

_jobs = schema.jobs.c
_lines = schema.lines.c
_attempts = schema.attempts.c
_encoder = msgspec.json.Encoder(order="sorted")

_insert = insert(schema.jobs)
_set_options = update(schema.jobs).where(_jobs.job_no == bindparam("key_job_no")).values(options=bindparam("new_options"))
_cancel_lines = (
    update(schema.lines)
    .where(_lines.job_no == bindparam("key_job_no"), _lines.state.in_([LineState.READY.value, LineState.WAITING.value]))
    .values(state=LineState.CANCELLED.value)
)
_count_lines = select(_lines.state, func.count()).where(_lines.job_no == bindparam("job_no")).group_by(_lines.state)
_count_attempts = (
    select(_attempts.state, _attempts.reason, func.count())
    .where(_attempts.job_no == bindparam("job_no"))
    .group_by(_attempts.state, _attempts.reason)
)
_count_rejects = select(func.count(distinct(schema.rejects.c.line))).where(schema.rejects.c.job_no == bindparam("job_no"))
_drop_key = (
    update(schema.jobs)
    .where(_jobs.job_no == bindparam("key_job_no"))
    .values(pii_key_wrapped=None, pii_destroyed_us=bindparam("new_destroyed_us"))
)
_drop_records = update(schema.lines).where(_lines.job_no == bindparam("key_job_no")).values(blob=None, person_hash=None, card_hash=None)
_drop_messages = update(schema.rejects).where(schema.rejects.c.job_no == bindparam("key_job_no")).values(message="")


@dataclass(frozen=True, slots=True)
class Counts:
    """A job in numbers. `attempts` and `lines` are by state; `scrapped` by reason, over pieces pending and destroyed."""

    lines: dict[LineState, int]
    attempts: dict[AttemptState, int]
    scrapped: dict[str, int]
    blanks_rejected: dict[str, int]
    rejected_lines: int

    @property
    def accepted(self) -> int:
        """Lines taken into the job."""
        return sum(self.lines.values())

    @property
    def in_flight(self) -> int:
        """Attempts neither stacked nor ended."""
        return sum(number for state, number in self.attempts.items() if state in OPEN)

    @property
    def remaining(self) -> int:
        """Lines that still want a card."""
        return sum(self.lines.get(state, 0) for state in (LineState.READY, LineState.HELD, LineState.WAITING))


@dataclass(frozen=True, slots=True)
class StateChange:
    """The job as it is now, and the attempts released on the way: their stations are to be told."""

    job: JobRow
    released: list[Attempt]


def create(
    tx: Tx,
    *,
    job_id: str,
    idempotency_key: str,
    profile: str,
    profile_hash: str,
    priority: int,
    kind: str,
    due_us: int | None,
    submitted_by: str,
    pii_key_wrapped: bytes,
    options: Mapping[str, Any],
) -> JobRow:
    """Makes a job in STAGING. The same idempotency key with the same request returns the job made first (its `job_id` tells).

    priority 0 is instant, 1 (first) to 9 (last) are bulk. `options["remake_psn"] == "same"` makes remakes wait for the recorded
    destruction of the scrapped piece, because their keys would repeat. Raises Conflict IDEMPOTENCY_MISMATCH | JOB_EXISTS,
    InvalidInput JOB_REQUEST.
    """
    if kind not in ("bulk", "instant") or not 0 <= priority <= 9 or (kind == "instant") != (priority == 0):
        raise InvalidInput("JOB_REQUEST", "a bulk job has priority 1 to 9, an instant job has priority 0")
    if not job_id or not idempotency_key or not pii_key_wrapped:
        raise InvalidInput("JOB_REQUEST", "a job needs an id, an idempotency key and a sealed key for its personal data")
    request = {
        "profile": profile,
        "profile_hash": profile_hash,
        "priority": priority,
        "kind": kind,
        "due_us": due_us,
        "submitted_by": submitted_by,
        "options": dict(options),
    }
    digest = hashlib.sha256(_encoder.encode(request)).digest()
    first = get_by_idempotency_key(tx, idempotency_key)
    if first is not None:
        if first.request_sha256 != digest:
            raise Conflict("IDEMPOTENCY_MISMATCH", f"this idempotency key belongs to job {first.job_id}, which asked for something else")
        return first
    if tx.conn.execute(select(_jobs.job_no).where(_jobs.job_id == job_id)).one_or_none() is not None:
        raise Conflict("JOB_EXISTS", f"there is a job {job_id} already")
    tx.conn.execute(
        _insert,
        {
            "job_id": job_id,
            "idempotency_key": idempotency_key,
            "request_sha256": digest,
            "profile": profile,
            "profile_hash": profile_hash,
            "priority": priority,
            "kind": kind,
            "due_us": due_us,
            "submitted_by": submitted_by,
            "pii_key_wrapped": pii_key_wrapped,
            "options": _encoder.encode(dict(options)).decode(),
            "remake_waits": int(options.get("remake_psn") == "same"),
            "state": JobState.STAGING.value,
            "state_reason": "",
            "created_us": tx.now_us,
        },
    )
    tx.audit("job.created", job_id, profile=profile, profile_hash=profile_hash, priority=priority, kind=kind, by=submitted_by)
    return get(tx, job_id)


def update_options(tx: Tx, job_id: str, **changes: Any) -> JobRow:  # noqa: ANN401 - JSON values
    """Notes facts learnt while the order file is read, such as its encoding. STAGING only; raises Precondition JOB_STATE."""
    job = get(tx, job_id)
    if job.state is not JobState.STAGING or "remake_psn" in changes:
        raise Precondition("JOB_STATE", f"job {job_id} is {job.state}: options change while it is staged, remake_psn never")
    tx.conn.execute(_set_options, {"key_job_no": job.job_no, "new_options": _encoder.encode(job.options | changes).decode()})
    tx.audit("job.options", job_id, names=sorted(changes))
    return get(tx, job_id)


def set_state(tx: Tx, job_id: str, state: JobState | str, reason: str = "") -> StateChange:
    """Moves a job, and does what the new state means for its attempts and lines.

    PAUSED and CANCELLING release every attempt before INTENT; CANCELLING cancels every line not in hand and becomes CANCELLED
    at once when nothing is in flight. RUNNING without a line left becomes COMPLETE at once. Asking for the state the job is in,
    or for CANCELLING when it is CANCELLED, changes nothing. Raises Precondition JOB_STATE for an illegal move, NotFound
    JOB_UNKNOWN.
    """
    wanted = JobState(state)
    job = get(tx, job_id)
    if job.state is wanted or (job.state, wanted) == (JobState.CANCELLED, JobState.CANCELLING):
        return StateChange(job, [])
    if wanted is JobState.COMPLETE:
        return StateChange(complete(tx, job_id), [])
    if wanted not in JOB_MOVES[job.state] or wanted is JobState.CANCELLED:
        allowed = ", ".join(sorted(move for move in JOB_MOVES[job.state] if move is not JobState.CANCELLED)) or "nothing"
        raise Precondition("JOB_STATE", f"job {job_id} is {job.state}; from there it can become: {allowed}")
    write_state(tx, job, wanted, reason)
    released: list[Attempt] = []
    if wanted in (JobState.PAUSED, JobState.CANCELLING):
        released = release_job(tx, job.job_no, "job-paused" if wanted is JobState.PAUSED else "job-cancelled")
    if wanted is JobState.CANCELLING:
        tx.conn.execute(_cancel_lines, {"key_job_no": job.job_no})
    settle(tx, job.job_no)
    return StateChange(get(tx, job_id), released)


def complete(tx: Tx, job_id: str) -> JobRow:
    """COMPLETE when no line wants a card and no piece is in hand; usually this has happened by itself. Raises Precondition
    JOB_STATE.
    """
    job = get(tx, job_id)
    if job.state in (JobState.RUNNING, JobState.PAUSED):
        settle(tx, job.job_no)
        job = get(tx, job_id)
    if job.state is not JobState.COMPLETE:
        raise Precondition("JOB_STATE", f"job {job_id} is {job.state} and has lines or pieces open: it is not complete")
    return job


def counts(source: Source, job_id: str) -> Counts:
    """Counts a job's lines and attempts. Raises NotFound JOB_UNKNOWN."""
    conn = conn_of(source)
    key = {"job_no": job_no_of(source, job_id)}
    attempts: dict[AttemptState, int] = {}
    scrapped: dict[str, int] = {}
    blanks: dict[str, int] = {}
    for name, reason, number in conn.execute(_count_attempts, key):
        state = AttemptState(name)
        attempts[state] = attempts.get(state, 0) + number
        if state in (AttemptState.SCRAP_PENDING, AttemptState.DESTROYED):
            scrapped[reason] = scrapped.get(reason, 0) + number
        elif state is AttemptState.BLANK_REJECTED:
            blanks[reason] = number
    lines = {LineState(name): number for name, number in conn.execute(_count_lines, key)}
    return Counts(lines, attempts, scrapped, blanks, conn.execute(_count_rejects, key).scalar_one())


def destroy_pii(tx: Tx, job_id: str) -> JobRow:
    """Destroys an ended job's personal data: its sealed key, its records, their hashes, the reject messages. Counts and audit
    remain.

    Deleted bytes are overwritten in the file, and the write-ahead log is emptied after the commit. Raises Precondition JOB_STATE.
    """
    job = get(tx, job_id)
    if job.state not in JOB_ENDED:
        raise Precondition("JOB_STATE", f"job {job_id} is {job.state}: personal data is destroyed after a job has ended")
    if job.pii_destroyed_us is None:
        key = {"key_job_no": job.job_no}
        tx.conn.execute(_drop_key, {**key, "new_destroyed_us": tx.now_us})
        tx.conn.execute(_drop_records, key)
        tx.conn.execute(_drop_messages, key)
        tx.audit("job.personal-data-destroyed", job_id)
        tx.truncate_wal = True
        job = get(tx, job_id)
    return job


__all__ = [
    "Counts",
    "JobRow",
    "JobState",
    "StateChange",
    "complete",
    "counts",
    "create",
    "destroy_pii",
    "get",
    "list_jobs",
    "set_state",
    "update_options",
]
