"""A job as it lies in the ledger: reading it, moving its state, and noticing when nothing of it is open any more."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, bindparam, case, exists, select, update

from engine.ledger import schema
from engine.ledger.rows import row_values
from engine.ledger.states import JOB_ENDED, OPEN, JobState, LineState
from engine.ledger.tx import Source, Tx, conn_of
from keys.errors import NotFound


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job. Times are Unix microseconds. `pii_key_wrapped` is a sealed key: None once the personal data is destroyed."""

    job_no: int
    job_id: str
    idempotency_key: str
    request_sha256: bytes = field(repr=False)
    profile: str
    profile_hash: str
    priority: int
    kind: str
    due_us: int | None
    submitted_by: str
    pii_key_wrapped: bytes | None = field(repr=False)
    options: dict[str, Any]
    remake_waits: bool
    state: JobState
    state_reason: str
    created_us: int
    started_us: int | None
    ended_us: int | None
    pii_destroyed_us: int | None


_columns = schema.jobs.c
_by_id = select(schema.jobs).where(_columns.job_id == bindparam("job_id"))
_by_no = select(schema.jobs).where(_columns.job_no == bindparam("job_no"))
_by_key = select(schema.jobs).where(_columns.idempotency_key == bindparam("key"))
_all = select(schema.jobs).order_by(_columns.job_no)
_no_of = select(_columns.job_no).where(_columns.job_id == bindparam("job_id"))
_move = (
    update(schema.jobs)
    .where(_columns.job_no == bindparam("key_job_no"))
    .values(
        state=bindparam("new_state"),
        state_reason=bindparam("new_reason"),
        started_us=case((_columns.started_us.is_(None), bindparam("new_started_us")), else_=_columns.started_us),
        ended_us=bindparam("new_ended_us"),
    )
)
_wanting = (LineState.READY, LineState.HELD, LineState.WAITING)
_lines_left = select(
    exists().where(schema.lines.c.job_no == bindparam("job_no"), schema.lines.c.state.in_([str(state) for state in _wanting]))
)
_attempts_open = select(
    exists().where(schema.attempts.c.job_no == bindparam("job_no"), schema.attempts.c.state.in_([str(state) for state in sorted(OPEN)]))
)


def _job(row: Row[Any]) -> JobRow:
    values = row_values(row)
    values["options"] = json.loads(values["options"])
    values["remake_waits"] = bool(values["remake_waits"])
    values["state"] = JobState(values["state"])
    return JobRow(**values)


def unknown_job(job_id: str) -> NotFound:
    """The error for a job nobody made."""
    return NotFound("JOB_UNKNOWN", f"there is no job {job_id}")


def get(source: Source, job_id: str) -> JobRow:
    """Raises NotFound JOB_UNKNOWN."""
    row = conn_of(source).execute(_by_id, {"job_id": job_id}).one_or_none()
    if row is None:
        raise unknown_job(job_id)
    return _job(row)


def get_by_no(source: Source, job_no: int) -> JobRow:
    """By the ledger's own number, which other tables refer to."""
    return _job(conn_of(source).execute(_by_no, {"job_no": job_no}).one())


def get_by_idempotency_key(source: Source, key: str) -> JobRow | None:
    """The job made under this key, if one was."""
    row = conn_of(source).execute(_by_key, {"key": key}).one_or_none()
    return None if row is None else _job(row)


def list_jobs(source: Source) -> list[JobRow]:
    """All jobs in the order they were submitted."""
    return [_job(row) for row in conn_of(source).execute(_all)]


def job_no_of(source: Source, job_id: str) -> int:
    """The ledger's own number of a job. Raises NotFound JOB_UNKNOWN."""
    number: int | None = conn_of(source).execute(_no_of, {"job_id": job_id}).scalar_one_or_none()
    if number is None:
        raise unknown_job(job_id)
    return number


def write_state(tx: Tx, job: JobRow, state: JobState, reason: str) -> None:
    """Writes and audits a state; whether the move is legal is the caller's to know."""
    tx.conn.execute(
        _move,
        {
            "key_job_no": job.job_no,
            "new_state": state.value,
            "new_reason": reason,
            "new_started_us": tx.now_us if state is JobState.RUNNING else None,
            "new_ended_us": tx.now_us if state in JOB_ENDED else None,
        },
    )
    tx.audit("job.state", job.job_id, before=job.state.value, after=state.value, reason=reason)


def anything_in_flight(source: Source, job_no: int) -> bool:
    """Whether an attempt of the job is neither stacked nor ended."""
    return bool(conn_of(source).execute(_attempts_open, {"job_no": job_no}).scalar_one())


def anything_left(source: Source, job_no: int) -> bool:
    """Whether a line of the job still wants, or may come to want, a card."""
    return bool(conn_of(source).execute(_lines_left, {"job_no": job_no}).scalar_one())


def settle(tx: Tx, job_no: int) -> None:
    """Moves a job whose last piece has come to its end: CANCELLING to CANCELLED, RUNNING or PAUSED to COMPLETE."""
    if anything_in_flight(tx, job_no):
        return
    job = get_by_no(tx, job_no)
    if job.state is JobState.CANCELLING:
        write_state(tx, job, JobState.CANCELLED, job.state_reason)
    elif job.state in (JobState.RUNNING, JobState.PAUSED) and not anything_left(tx, job_no):
        write_state(tx, job, JobState.COMPLETE, "")
