"""Order lines: taken in by the thousand, handed out in order, and matched against people and cards that were issued before."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from engine.ledger import schema
from engine.ledger.job_rows import get, job_no_of
from engine.ledger.prepared import Prepared
from engine.ledger.rows import row_values
from engine.ledger.states import AttemptState, JobState, LineState
from engine.ledger.tx import Source, Tx, conn_of, db_of
from keys.errors import Conflict, InvalidInput, NotFound, Precondition

_HASH_BYTES = 16
# Well below SQLite's 32,766 and PostgreSQL's 65,535 parameters to a statement.
_LOOKUP = 1000

_lines = schema.lines.c
_issued = schema.issued.c
_rejects = schema.rejects.c
_attempts = schema.attempts.c
_insert_lines = Prepared(insert(schema.lines), "job_no", "line_no", "state", "person_hash", "card_hash", "blob")
_insert_reject = insert(schema.rejects)
_ready = (
    select(_lines.line_no)
    .where(
        _lines.job_no == bindparam("job_no"),
        _lines.state == LineState.READY.value,
        _lines.line_no > bindparam("after_line"),
    )
    .order_by(_lines.line_no)
    .limit(bindparam("most"))
)
_blob = Prepared(
    select(_lines.blob)
    .join(schema.jobs, schema.jobs.c.job_no == _lines.job_no)
    .where(schema.jobs.c.job_id == bindparam("job_id"), _lines.line_no == bindparam("line_no")),
    "job_id",
    "line_no",
)
_state = select(_lines.state).where(_lines.job_no == bindparam("job_no"), _lines.line_no == bindparam("line_no"))
_by_person = (
    select(_issued.person_hash, _issued.card_hash)
    .where(_issued.person_hash.in_(bindparam("hashes", expanding=True)))
    .order_by(_issued.job_no, _issued.line_no)
)
_by_card = (
    select(_issued.person_hash, _issued.card_hash)
    .where(_issued.card_hash.in_(bindparam("hashes", expanding=True)))
    .order_by(_issued.job_no, _issued.line_no)
)
_reject_page = (
    select(_rejects.reject_id, _rejects.line, _rejects.field, _rejects.rule, _rejects.message)
    .where(_rejects.job_no == bindparam("job_no"), _rejects.reject_id > bindparam("after"))
    .order_by(_rejects.reject_id)
    .limit(bindparam("most"))
)
_last_attempt = (
    select(func.max(_attempts.attempt_no))
    .where(_attempts.job_no == _lines.job_no, _attempts.line_no == _lines.line_no)
    .correlate(schema.lines)
    .scalar_subquery()
)
_results = (
    select(
        _lines.line_no,
        _lines.state,
        _lines.blob,
        _attempts.attempt_no,
        _attempts.state.label("attempt_state"),
        _attempts.reason,
        _attempts.chip_id,
        _attempts.psn,
        func.coalesce(_attempts.good_us, _attempts.ended_us, _attempts.reserved_us).label("at_us"),
    )
    .select_from(
        schema.lines.outerjoin(
            schema.attempts,
            (_attempts.job_no == _lines.job_no) & (_attempts.line_no == _lines.line_no) & (_attempts.attempt_no == _last_attempt),
        )
    )
    .where(_lines.job_no == bindparam("job_no"), _lines.line_no > bindparam("after_line"))
    .order_by(_lines.line_no)
    .limit(bindparam("most"))
)


@dataclass(frozen=True, slots=True)
class Reject:
    """One broken rule of one line of the order file. `reject_id` is for paging."""

    reject_id: int
    line: int
    field: str
    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class LineResult:
    """One line and its latest attempt, as the issuer's return file needs them. `blob` is the sealed record, None once
    destroyed.
    """

    line_no: int
    state: LineState
    blob: bytes | None
    attempt_no: int | None
    attempt_state: AttemptState | None
    reason: str | None
    chip_id: str | None
    psn: int | None
    at_us: int | None


def add_batch(tx: Tx, job_id: str, lines: Sequence[tuple[int, bytes, bytes, bytes]]) -> None:
    """Adds (line_no, person_hash, card_hash, sealed record) rows, READY; hashes have 16 bytes.

    Raises Precondition JOB_STATE outside STAGING, Conflict LINE_EXISTS, InvalidInput LINE_HASH.
    """
    job = get(tx, job_id)
    if job.state is not JobState.STAGING:
        raise Precondition("JOB_STATE", f"job {job_id} is {job.state}: lines are added while it is staged")
    if not lines:
        return
    job_no, ready_state = job.job_no, LineState.READY.value
    if any(len(person) != _HASH_BYTES or len(card) != _HASH_BYTES for _number, person, card, _blob in lines):
        raise InvalidInput("LINE_HASH", f"hashes of persons and cards have {_HASH_BYTES} bytes")
    try:
        _insert_lines.many(tx.db, [(job_no, number, ready_state, person, card, blob) for number, person, card, blob in lines])
    except sqlite3.IntegrityError:
        raise Conflict("LINE_EXISTS", f"a line between {lines[0][0]} and {lines[-1][0]} is in job {job_id} already") from None
    tx.audit("lines.added", job_id, first=lines[0][0], last=lines[-1][0], count=len(lines))


def add_rejects(tx: Tx, job_id: str, rejects: Iterable[Mapping[str, Any]]) -> None:
    """Adds rejects, each with `line`, `field`, `rule`, `message` (masked by whoever wrote it). Raises Precondition JOB_STATE."""
    job = get(tx, job_id)
    if job.state is not JobState.STAGING:
        raise Precondition("JOB_STATE", f"job {job_id} is {job.state}: rejects are added while it is staged")
    rows = [
        {"job_no": job.job_no, "line": one["line"], "field": one["field"], "rule": one["rule"], "message": one["message"]}
        for one in rejects
    ]
    if rows:
        tx.conn.execute(_insert_reject, rows)
        tx.audit("lines.rejected", job_id, first=rows[0]["line"], last=rows[-1]["line"], rules_broken=len(rows))


def clear(tx: Tx, job_id: str) -> None:
    """Forgets lines and rejects of a job whose order file turned out to be wrong as a whole. STAGING only: Precondition JOB_STATE."""
    job = get(tx, job_id)
    if job.state is not JobState.STAGING:
        raise Precondition("JOB_STATE", f"job {job_id} is {job.state}: its lines are not forgotten")
    for table in (schema.lines, schema.rejects):
        tx.conn.execute(delete(table).where(table.c.job_no == job.job_no))


def ready(source: Source, job_id: str, after_line: int = -1, limit: int = 1000) -> list[int]:
    """Up to `limit` READY line numbers above `after_line`, ascending. Raises NotFound JOB_UNKNOWN."""
    key = {"job_no": job_no_of(source, job_id), "after_line": after_line, "most": limit}
    return list(conn_of(source).execute(_ready, key).scalars())


def state(source: Source, job_id: str, line_no: int) -> LineState:
    """Raises NotFound JOB_UNKNOWN | LINE_UNKNOWN."""
    found = conn_of(source).execute(_state, {"job_no": job_no_of(source, job_id), "line_no": line_no}).scalar_one_or_none()
    if found is None:
        raise NotFound("LINE_UNKNOWN", f"job {job_id} has no line {line_no}")
    return LineState(found)


def get_blob(source: Source, job_id: str, line_no: int) -> bytes:
    """The sealed record of a line. Raises NotFound LINE_UNKNOWN, Precondition PII_DESTROYED."""
    row = _blob.one(db_of(source), job_id, line_no)
    if row is None:
        raise NotFound("LINE_UNKNOWN", f"job {job_id} has no line {line_no}")
    blob: bytes | None = row[0]
    if blob is None:
        raise Precondition("PII_DESTROYED", f"the personal data of job {job_id} is destroyed")
    return blob


def rejects(source: Source, job_id: str, after: int = 0, limit: int = 1000) -> list[Reject]:
    """A page of rejects in the order they were found, those after reject_id `after`."""
    key = {"job_no": job_no_of(source, job_id), "after": after, "most": limit}
    return [Reject(*row) for row in conn_of(source).execute(_reject_page, key)]


def results(source: Source, job_id: str, after_line: int = -1, limit: int = 1000) -> list[LineResult]:
    """A page of lines with their latest attempts, ascending."""
    key = {"job_no": job_no_of(source, job_id), "after_line": after_line, "most": limit}
    page = []
    for row in conn_of(source).execute(_results, key):
        values = row_values(row)
        values["state"] = LineState(values["state"])
        values["attempt_state"] = None if values["attempt_state"] is None else AttemptState(values["attempt_state"])
        page.append(LineResult(**values))
    return page


Holder = tuple[bytes, bytes]
"""(person_hash, card_hash) of a good card."""


def issued(
    conn: Connection, person_hashes: Iterable[bytes], card_hashes: Iterable[bytes]
) -> tuple[dict[bytes, Holder], dict[bytes, Holder]]:
    """Good cards made so far for these people, and under these card numbers: two mappings, hash -> (person_hash, card_hash).

    Where a person has several cards, or a number was issued again, the latest one is given.
    """
    people: dict[bytes, Holder] = {}
    cards: dict[bytes, Holder] = {}
    for chunk in _chunks(person_hashes):
        people.update((row.person_hash, (row.person_hash, row.card_hash)) for row in conn.execute(_by_person, {"hashes": chunk}))
    for chunk in _chunks(card_hashes):
        cards.update((row.card_hash, (row.person_hash, row.card_hash)) for row in conn.execute(_by_card, {"hashes": chunk}))
    return people, cards


def _chunks(hashes: Iterable[bytes]) -> Iterable[list[bytes]]:
    every = list(hashes)
    return (every[start : start + _LOOKUP] for start in range(0, len(every), _LOOKUP))
