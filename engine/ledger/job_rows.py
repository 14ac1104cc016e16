"""A job as it lies in the ledger: reading it, moving its state, and noticing when nothing of it is open any more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import bindparam, case, exists, literal, select, update

from engine.ledger import schema
from engine.ledger.prepared import Prepared
from engine.ledger.states import JOB_ENDED, OPEN, JobState, LineState
from engine.ledger.tx import Source, Tx, conn_of, db_of
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
_names = [one.name for one in fields(JobRow)]
_select = select(*(_columns[name] for name in _names))
_by_id = Prepared(_select.where(_columns.job_id == bindparam("job_id")), "job_id")
_by_no = Prepared(_select.where(_columns.job_no == bindparam("job_no")), "job_no")
_by_key = _select.where(_columns.idempotency_key == bindparam("key"))
_all = _select.order_by(_columns.job_no)
_no_of = Prepared(select(_columns.job_no).where(_columns.job_id == bindparam("job_id")), "job_id")
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
# Asks for columns of the index by state alone: for others SQLite takes the primary key, and walks through every finished line.
_lines_left = Prepared(
    select(
        select(schema.lines.c.line_no)
        .where(schema.lines.c.job_no == bindparam("job_no"), schema.lines.c.state.in_([literal(one.value) for one in _wanting]))
        .exists()
    ),
    "job_no",
)
_attempts_open = Prepared(
    select(
        exists().where(
            schema.attempts.c.job_no == bindparam("job_no"), schema.attempts.c.state.in_([literal(one.value) for one in sorted(OPEN)])
        )
    ),
    "job_no",
)
_OPTIONS, _WAITS, _STATE = map(_names.index, ("options", "remake_waits", "state"))


def _job(row: Sequence[Any]) -> JobRow:
    values = list(row)
    values[_OPTIONS] = json.loads(values[_OPTIONS])
    values[_WAITS] = bool(values[_WAITS])
    values[_STATE] = JobState(values[_STATE])
    return JobRow(*values)


def unknown_job(job_id: str) -> NotFound:
    """The error for a job nobody made."""
    return NotFound("JOB_UNKNOWN", f"there is no job {job_id}")


def get(source: Source, job_id: str) -> JobRow:
    """Raises NotFound JOB_UNKNOWN."""
    row = _by_id.one(db_of(source), job_id)
    if row is None:
        raise unknown_job(job_id)
    return _job(row)


def get_by_no(source: Source, job_no: int) -> JobRow:
    """By the ledger's own number, which other tables refer to."""
    (row,) = _by_no.all(db_of(source), job_no)
    return _job(row)


def get_by_idempotency_key(source: Source, key: str) -> JobRow | None:
    """The job made under this key, if one was."""
    row = conn_of(source).execute(_by_key, {"key": key}).one_or_none()
    return None if row is None else _job(row)


def list_jobs(source: Source) -> list[JobRow]:
    """All jobs in the order they were submitted."""
    return [_job(row) for row in conn_of(source).execute(_all)]


def job_no_of(source: Source, job_id: str) -> int:
    """The ledger's own number of a job. Raises NotFound JOB_UNKNOWN."""
    row = _no_of.one(db_of(source), job_id)
    if row is None:
        raise unknown_job(job_id)
    number: int = row[0]
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
    return _attempts_open.one(db_of(source), job_no) == (1,)


def anything_left(source: Source, job_no: int) -> bool:
    """Whether a line of the job still wants, or may come to want, a card."""
    return _lines_left.one(db_of(source), job_no) == (1,)


def settle(tx: Tx, job_no: int) -> None:
    """Moves a job whose last piece has come to its end: CANCELLING to CANCELLED, RUNNING or PAUSED to COMPLETE."""
    if anything_in_flight(tx, job_no):
        return
    job = get_by_no(tx, job_no)
    if job.state is JobState.CANCELLING:
        write_state(tx, job, JobState.CANCELLED, job.state_reason)
    elif job.state in (JobState.RUNNING, JobState.PAUSED) and not anything_left(tx, job_no):
        write_state(tx, job, JobState.COMPLETE, "")
