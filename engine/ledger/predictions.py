"""Predicted durations of finished jobs beside the measured ones: how far predictions were off so far.

Written by whoever compares, beside a running server: one short transaction on a table that nobody else writes.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import insert, select
from sqlalchemy.exc import SQLAlchemyError

from engine.ledger import schema
from engine.ledger.errors import translate
from engine.ledger.sqlite import writer_engine
from engine.ledger.tx import Source, conn_of
from keys.errors import NotFound


@dataclass(frozen=True, slots=True)
class Prediction:
    """Durations in microseconds: predicted (median and the range of nine in ten) and measured. `in_sample`: what it was predicted
    from had seen the job itself. `at_us` is Unix time, `profile_sha256` tells the measurements it was predicted from, `host` the machine.
    """

    job_id: str
    at_us: int
    profile_sha256: str
    host: str
    p05_us: int
    p50_us: int
    p95_us: int
    measured_us: int
    in_sample: bool

    @property
    def error(self) -> float:
        """Predicted over measured, less 1: above 0 the job was quicker than predicted."""
        return self.p50_us / self.measured_us - 1.0


_columns = schema.predictions.c
_job_no = select(schema.jobs.c.job_no)
_all = (
    select(schema.jobs.c.job_id, *(c for c in _columns if c.name not in ("prediction_id", "job_no", "error")))
    .join(schema.jobs, schema.jobs.c.job_no == _columns.job_no)
    .order_by(_columns.prediction_id)
)


def store(path: Path, prediction: Prediction) -> None:
    """Adds one to the ledger of this file. Raises NotFound JOB_UNKNOWN, and what storage raises."""
    engine = writer_engine(path)
    try:
        with engine.connect() as conn, conn.begin():
            job_no = conn.execute(_job_no.where(schema.jobs.c.job_id == prediction.job_id)).scalar()
            if job_no is None:
                raise NotFound("JOB_UNKNOWN", f"there is no job {prediction.job_id}")
            row = {name: getattr(prediction, name) for name in prediction.__slots__ if name != "job_id"}
            conn.execute(insert(schema.predictions), row | {"job_no": job_no, "error": prediction.error})
    except (SQLAlchemyError, sqlite3.Error) as error:
        known = translate(error)
        if known is None:
            raise
        raise known from None
    finally:
        engine.dispose()


def predictions(source: Source) -> list[Prediction]:
    """All, oldest first."""
    rows = conn_of(source).execute(_all)
    return [
        Prediction(r.job_id, r.at_us, r.profile_sha256, r.host, r.p05_us, r.p50_us, r.p95_us, r.measured_us, bool(r.in_sample))
        for r in rows
    ]
