"""Tests of quality samples: which attempt is a drawn sample, and what was found in each test of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import bindparam, insert, select

from engine.ledger import schema
from engine.ledger.attempt_rows import Attempt, by_chip, by_id
from engine.ledger.states import AttemptState, ScrapReason
from engine.ledger.tx import Source, Tx, conn_of
from keys.errors import InvalidInput, NotFound, Precondition

_tests = schema.sample_tests.c
_attempts = schema.attempts.c
_insert = insert(schema.sample_tests)
_of_job = (
    select(_tests.attempt_id, _attempts.chip_id, _tests.at_us, _tests.by, _tests.passed, _tests.checks)
    .join(schema.attempts, _attempts.attempt_id == _tests.attempt_id)
    .where(_attempts.job_no == bindparam("job_no"))
    .order_by(_tests.test_id)
)


@dataclass(frozen=True, slots=True)
class Check:
    """What was found about one thing: `subject` is a key's label, or "pin". `message` says what was wrong."""

    subject: str
    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class SampleTest:
    """One test of one sample. `at_us` is Unix microseconds."""

    attempt_id: int
    chip_id: str
    at_us: int
    by: str
    passed: bool
    checks: tuple[Check, ...]


def find(source: Source, *, chip_id: str = "", attempt_id: int = 0) -> Attempt:
    """The drawn sample with this chip, or of this attempt.

    Raises InvalidInput SAMPLE_WHICH unless exactly one is given, NotFound CHIP_UNKNOWN | ATTEMPT_UNKNOWN, Precondition NOT_A_SAMPLE.
    """
    if bool(chip_id) == bool(attempt_id):
        raise InvalidInput("SAMPLE_WHICH", "name the sample by its chip id or by its attempt number")
    if attempt_id:
        return _require(by_id(source, attempt_id))
    known = by_chip(source, chip_id)
    if not known:
        raise NotFound("CHIP_UNKNOWN", f"no chip {chip_id} was ever presented here")
    # earlier attempts let the blank go untouched: only the last one can have made a card of it
    return _require(known[-1])


def _require(attempt: Attempt) -> Attempt:
    if attempt.state is not AttemptState.SCRAP_PENDING or attempt.reason != ScrapReason.SAMPLE:
        why = f" ({attempt.reason})" if attempt.reason else ""
        raise Precondition(
            "NOT_A_SAMPLE",
            f"chip {attempt.chip_id or 'none'} of attempt {attempt.attempt_id} is {attempt.state}{why}, not a sample that was drawn:"
            " only samples are tested, for the test moves their balance",
        )
    return attempt


def tested(tx: Tx, attempt_id: int, by: str, *, passed: bool, checks: Sequence[Check]) -> None:
    """Records one test of a drawn sample. Raises as `find`, and InvalidInput SAMPLE_BY."""
    if not by.strip():
        raise InvalidInput("SAMPLE_BY", "the test of a sample needs the name of who does it")
    attempt = find(tx, attempt_id=attempt_id)
    told = json.dumps([asdict(check) for check in checks], ensure_ascii=False)
    row = {"attempt_id": attempt_id, "at_us": tx.now_us, "by": by, "passed": int(passed), "checks": told}
    tx.conn.execute(_insert, row)
    found = [f"{check.subject}: {'ok' if check.ok else check.message}" for check in checks]
    tx.audit("sample.tested", str(attempt_id), passed=passed, checks=found, by=by, chip=attempt.chip_id, job=attempt.job_id)


def of_job(source: Source, job_no: int) -> list[SampleTest]:
    """Every test of a job's samples, oldest first; those of destroyed samples too."""
    rows = conn_of(source).execute(_of_job, {"job_no": job_no})
    return [
        SampleTest(r.attempt_id, r.chip_id, r.at_us, r.by, bool(r.passed), tuple(Check(**c) for c in json.loads(r.checks))) for r in rows
    ]
