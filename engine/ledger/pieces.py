"""Where every piece of plastic is, as far as the ledger knows: the sums that counting is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, case, func, select

from engine.ledger import schema
from engine.ledger.rows import row_values
from engine.ledger.states import ENDED, AttemptState, Bin, ScrapReason
from engine.ledger.tx import Source, conn_of

_attempts = schema.attempts.c
_moves = schema.stock_moves.c
_SCRAP = (AttemptState.SCRAP_PENDING.value, AttemptState.DESTROYED.value)


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers of pieces. Each piece that left a feeder is in exactly one of good, scrapped, blank_rejected, samples, returned,
    in_making.

    `scrapped` leaves out samples; `returned` is released pieces; `in_hand` is pieces nobody saw falling into a bin yet;
    `fell_*` is what fell into a bin, whatever became of it later; `recalled` is part of `scrapped`.
    """

    issued: int = 0
    setup: int = 0
    spoiled: int = 0
    returned_to_store: int = 0
    good: int = 0
    scrapped: int = 0
    blank_rejected: int = 0
    samples: int = 0
    returned: int = 0
    in_making: int = 0
    in_hand: int = 0
    fell_good: int = 0
    fell_reject: int = 0
    fell_returned: int = 0
    misplaced: int = 0

    @property
    def drawn(self) -> int:
        """Pieces that left a feeder for an attempt."""
        return self.good + self.scrapped + self.blank_rejected + self.samples + self.returned + self.in_making

    @property
    def in_feeder(self) -> int:
        """Blanks that must still lie in the feeders; negative where more were drawn than issued."""
        return self.issued - self.setup - self.spoiled - self.returned_to_store - self.drawn


def _sum(condition: Any) -> Any:  # noqa: ANN401 - SQL expressions
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


_is_scrap = _attempts.state.in_(_SCRAP)
_is_sample = and_(_is_scrap, _attempts.reason == ScrapReason.SAMPLE.value)
# A sample or recalled card did fall into the good bin before it was taken out.
_was_good = _attempts.reason.in_([ScrapReason.SAMPLE.value, ScrapReason.RECALLED.value])
_misplaced = (
    and_(_is_scrap, ~_was_good, _attempts.bin != Bin.REJECT.value)
    | and_(_attempts.state == AttemptState.BLANK_REJECTED.value, _attempts.bin != Bin.REJECT.value)
    | and_(_attempts.state == AttemptState.RELEASED.value, _attempts.bin != Bin.RETURNED.value)
)
_pieces: Select[Any] = select(
    _sum(_attempts.state == AttemptState.STACKED.value).label("good"),
    _sum(and_(_is_scrap, _attempts.reason != ScrapReason.SAMPLE.value)).label("scrapped"),
    _sum(_attempts.state == AttemptState.BLANK_REJECTED.value).label("blank_rejected"),
    _sum(_is_sample).label("samples"),
    _sum(_attempts.state == AttemptState.RELEASED.value).label("returned"),
    _sum(_attempts.state.not_in([AttemptState.STACKED.value, *sorted(state.value for state in ENDED)])).label("in_making"),
    _sum(_attempts.bin.is_(None)).label("in_hand"),
    _sum(_attempts.bin == Bin.GOOD.value).label("fell_good"),
    _sum(_attempts.bin == Bin.REJECT.value).label("fell_reject"),
    _sum(_attempts.bin == Bin.RETURNED.value).label("fell_returned"),
    _sum(_misplaced).label("misplaced"),
).where(_attempts.piece == 1)
_stock = select(_moves.kind, func.sum(_moves.count).label("number")).group_by(_moves.kind)
_STOCK_FIELDS = {"issue": "issued", "setup": "setup", "spoiled": "spoiled", "blank": "returned_to_store"}


def figures(source: Source, *, station_id: str | None = None, job_no: int | None = None) -> Figures:
    """The ledger's sums for one station, one job, both, or all. For a job `issued` is what was drawn: blanks are not issued to
    jobs.
    """
    pieces, stock = _pieces, _stock
    if station_id is not None:
        pieces = pieces.where(_attempts.station_id == station_id)
        stock = stock.where(_moves.station_id == station_id)
    if job_no is not None:
        pieces = pieces.where(_attempts.job_no == job_no)
    conn = conn_of(source)
    sums = {name: int(number) for name, number in row_values(conn.execute(pieces).one()).items()}
    if job_no is not None:
        return Figures(**sums, issued=Figures(**sums).drawn)
    moved = {_STOCK_FIELDS[row.kind]: int(row.number) for row in conn.execute(stock) if row.kind in _STOCK_FIELDS}
    return Figures(**sums, **moved)
