"""The books of a job: the report, and the issuer's return file."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection

from engine.ledger import audit, jobs, pieces, reconcile, samples
from engine.ledger.lines import LineResult
from engine.ledger.states import AttemptState, ScrapReason
from engine.orders.pii import JobSeal
from engine.orders.records import decode_records
from engine.personalize.sampling import PIN
from engine.personalize.verification import BY_SAMPLE, proofs
from engine.production.views import JobView
from engine.profiles.compile import CompiledProfile
from keys.custody import Custody

RESULT_COLUMNS: Final = ("line", "card_number", "chip_id", "psn", "attempt", "time", "outcome")
RESULTS_HEADING: Final = (",".join(RESULT_COLUMNS) + "\r\n").encode()


def books(found: reconcile.Reconciliation) -> dict[str, Any]:
    """A reconciliation as JSON: issued = good + scrapped + blank rejected + samples + set-up + returned + in feeders + in making."""
    f = found.figures
    return {
        "issued": f.issued,
        "good": f.good,
        "scrapped": f.scrapped,
        "blank_rejected": f.blank_rejected,
        "samples": f.samples,
        "setup": f.setup + f.spoiled,
        "returned": f.returned + f.returned_to_store,
        "in_feeder": f.in_feeder,
        "in_making": f.in_making,
        "agrees": found.balanced,
        "differences": found.differences,
    }


def build(conn: Connection, job: jobs.JobRow, view: JobView, compiled: CompiledProfile) -> dict[str, Any]:
    """The report object; `blanks_drawn` are the pieces that left a feeder for this job."""
    counts = jobs.counts(conn, job.job_id)
    drawn = pieces.figures(conn, job_no=job.job_no).drawn
    tests = samples.of_job(conn, job.job_no)
    head = audit.head(conn)
    drawn_samples = counts.scrapped.get(ScrapReason.SAMPLE.value, 0)
    failures = {f"scrapped: {k}": v for k, v in counts.scrapped.items() if k != ScrapReason.SAMPLE.value}
    failures |= {f"blank rejected: {k}": v for k, v in counts.blanks_rejected.items()}
    return {
        "job_id": job.job_id,
        "profile": job.profile,
        "profile_sha256": job.profile_hash,
        "state": view.state,
        "created": _time(job.created_us),
        "started": _time(job.started_us),
        "ended": _time(job.ended_us),
        "encoding": view.encoding,
        "lines": view.lines,
        "accepted": view.accepted,
        "rejected": view.rejected,
        "counts": {
            "good": view.good,
            "scrapped": view.scrapped - drawn_samples,
            "blanks_rejected": view.blanks_rejected,
            "samples": drawn_samples,
            "held": counts.attempts.get(AttemptState.HELD, 0),
            "cancelled": view.cancelled,
            "remaining": view.remaining,
        },
        "blanks_drawn": drawn,
        "failures": failures,
        "key_proofs": _key_proofs(compiled, tests),
        "sample_tests": [_sample_test(test) for test in tests],
        # keep this elsewhere too: it is what shows an audit chain that was cut or an old copy put back
        "audit": {"leaves": head.count, "head": head.hash.hex().upper()},
        "job_pieces": books(reconcile.reconcile(conn, job_id=job.job_id)),
        "reconciliation": books(reconcile.reconcile(conn)),
    }


def _key_proofs(compiled: CompiledProfile, tests: Sequence[samples.SampleTest]) -> dict[str, Any]:
    """Grades by key. What only a sample can prove is `sample-due` until one of this job passed; a failed one outweighs that.

    Of a piece that was tested several times the last test counts: a bench's reader may have been at fault before.
    """
    last = {test.chip_id: test for test in tests}.values()
    proven = {check.subject for test in last if test.passed for check in test.checks}
    failed = {check.subject for test in last for check in test.checks if not check.ok}

    def grade(subject: str, intended: str) -> str:
        if intended != BY_SAMPLE:
            return intended
        return "sample-failed" if subject in failed else BY_SAMPLE if subject in proven else "sample-due"

    keys = {label: grade(label, intended) for label, intended in proofs(compiled).items()}
    found: dict[str, Any] = {"summary": dict(Counter(keys.values())), "keys": keys}
    return found | ({"pin": grade(PIN, BY_SAMPLE)} if compiled.pin_offsets else {})


def _sample_test(test: samples.SampleTest) -> dict[str, Any]:
    return {
        "attempt_id": test.attempt_id,
        "chip_id": test.chip_id,
        "time": _time(test.at_us),
        "by": test.by,
        "passed": test.passed,
        "failures": {check.subject: check.message for check in test.checks if not check.ok},
    }


def _time(us: int | None) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="milliseconds") if us else ""


def result_rows(found: Sequence[LineResult], custody: Custody, job: jobs.JobRow) -> bytes:
    """Lines of the return file; the card number is empty once the job's personal data is destroyed."""
    numbers: dict[int, str] = {}
    sealed = [(r.line_no, r.blob) for r in found if r.blob is not None]
    if sealed and job.pii_key_wrapped is not None:
        with custody.unwrap_data_key(job.pii_key_wrapped) as key:
            seal = JobSeal(key.reveal(), job.job_id)
            columns = decode_records([seal.open_row(line, blob) for line, blob in sealed])
        numbers = {line: bytes(number).decode() for (line, _), number in zip(sealed, columns["card_number"], strict=True)}
    out = io.StringIO()
    writer = csv.writer(out)
    for row in found:
        made = row.attempt_no is not None and row.state.value == "GOOD"
        outcome = "good" if made else row.state.value.lower()
        psn = "" if row.psn is None else f"{row.psn:02d}"
        writer.writerow(
            (row.line_no, numbers.get(row.line_no, ""), row.chip_id or "", psn, row.attempt_no or "", _time(row.at_us), outcome)
        )
    return out.getvalue().encode()
