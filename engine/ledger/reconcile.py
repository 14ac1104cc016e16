"""The closing of the books: the ledger's sums beside what was counted, per job, per station, per shift, or over everything.

The two sources are independent: attempts written by the engine, and pieces counted by people or by the machines' own counters.
An empty list of differences means that every blank issued is accounted for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, select

from engine.ledger import schema
from engine.ledger.job_rows import job_no_of
from engine.ledger.pieces import Figures, figures
from engine.ledger.stock import Counted, stations
from engine.ledger.tx import Source, conn_of

_counts = schema.stock_counts.c
_attempts = schema.attempts.c


@dataclass(frozen=True, slots=True)
class CountRecord:
    """One count of one station, beside what the ledger held at that moment."""

    count_id: int
    at_us: int
    station_id: str
    by: str
    counted: Counted
    expected: Counted

    def offsets(self) -> dict[str, int]:
        """Counted minus expected, by place. With heads counted, feeder and heads are one place: a blank on its way from the one
        into the other may not be reported yet.
        """
        seen, held = self.counted, self.expected
        if seen.in_heads is None:
            places = {"feeder": seen.feeder_remaining - held.feeder_remaining}
        else:
            places = {"feeder and heads": seen.feeder_remaining + seen.in_heads - held.feeder_remaining - (held.in_heads or 0)}
        return {
            **places,
            "good bin": seen.good - held.good,
            "reject bin": seen.reject - held.reject,
            "return bin": seen.returned - held.returned,
        }


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """`figures` are the ledger's, now; `counts` the latest count of each station concerned; `differences` in plain words, none
    when the books balance.
    """

    scope: str
    figures: Figures
    counts: list[CountRecord]
    differences: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        """Whether every piece is accounted for."""
        return not self.differences

    @property
    def in_feeder_expected(self) -> int:
        """Blanks that must still lie in the feeders; 0 for a job, which has no feeder of its own."""
        return self.figures.in_feeder


def _record(row: Row[Any]) -> CountRecord:
    return CountRecord(
        row.count_id,
        row.at_us,
        row.station_id,
        row.by,
        Counted(row.feeder_remaining, row.good, row.reject, row.returned, row.in_heads),
        Counted(row.expected_feeder, row.expected_good, row.expected_reject, row.expected_returned, row.expected_in_heads),
    )


def counts(source: Source, station_id: str, job_no: int | None = None) -> list[CountRecord]:
    """Every count of a station, oldest first; those for one job where given, else those for all it does."""
    statement = select(schema.stock_counts).where(_counts.station_id == station_id, _counts.job_no.is_not_distinct_from(job_no))
    return [_record(row) for row in conn_of(source).execute(statement.order_by(_counts.count_id))]


def reconcile(source: Source, *, job_id: str | None = None, station_id: str | None = None) -> Reconciliation:
    """Compares ledger and counts for one job, for one station, or (neither given) for all stations. Raises NotFound JOB_UNKNOWN.

    A job's own balance is that of its pieces; counts are compared where somebody counted for this job.
    """
    if job_id is not None:
        return _reconcile_job(source, job_id, station_id)
    held = figures(source, station_id=station_id)
    differences = _impossible(held)
    latest: list[CountRecord] = []
    for name in [station_id] if station_id is not None else _all_stations(source):
        records = counts(source, name)
        if not records:
            differences.append(f"station {name} was never counted")
            continue
        latest.append(records[-1])
        differences += _differences(records[-1])
        differences += _moved_since(records[-1], figures(source, station_id=name))
    return Reconciliation("all stations" if station_id is None else f"station {station_id}", held, latest, differences)


def shift(source: Source, station_id: str, opening_id: int, closing_id: int) -> list[str]:
    """What went missing or appeared at a station between two of its counts, in plain words; empty when that shift balances."""
    records = {record.count_id: record for record in counts(source, station_id)}
    opening, closing = records[opening_id].offsets(), records[closing_id].offsets()
    by_place = {place: closing[place] - opening.get(place, 0) for place in closing}
    return [f"station {station_id}, {place}: {off:+d} in this shift" for place, off in by_place.items() if off]


def _reconcile_job(source: Source, job_id: str, station_id: str | None) -> Reconciliation:
    job_no = job_no_of(source, job_id)
    held = figures(source, station_id=station_id, job_no=job_no)
    differences = _impossible(held)
    latest: list[CountRecord] = []
    for name in [station_id] if station_id is not None else _all_stations(source):
        records = counts(source, name, job_no)
        if records:
            latest.append(records[-1])
            differences += [one for one in _differences(records[-1]) if "feeder" not in one]
    if held.in_hand:
        differences.append(f"job {job_id}: {held.in_hand} pieces were not seen falling into a bin yet")
    return Reconciliation(f"job {job_id}", held, latest, differences)


def _all_stations(source: Source) -> list[str]:
    seen = conn_of(source).execute(select(_attempts.station_id).where(_attempts.piece == 1).distinct()).scalars()
    return sorted({*stations(source), *seen})


def _impossible(held: Figures) -> list[str]:
    found = []
    if held.in_feeder < 0:
        found.append(f"{-held.in_feeder} more blanks were used than were issued")
    if held.misplaced:
        found.append(f"{held.misplaced} pieces fell into a bin where they do not belong")
    return found


def _differences(record: CountRecord) -> list[str]:
    return [
        f"station {record.station_id}, {place}: counted {abs(off)} {'more' if off > 0 else 'fewer'} than the ledger holds"
        for place, off in record.offsets().items()
        if off
    ]


def _moved_since(record: CountRecord, held: Figures) -> list[str]:
    then = record.expected
    now = Counted(held.in_feeder, held.fell_good, held.fell_reject, held.fell_returned, held.in_hand)
    return [] if then == now else [f"station {record.station_id}: pieces moved since it was last counted; count it again"]
