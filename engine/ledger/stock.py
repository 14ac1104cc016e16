"""Blanks: received by lot into the store, issued to stations, brought back, used up, and counted.

A station's blanks are counted by somebody or something that does not read the ledger. The count is written together with what the
ledger held at that moment, so that the two can be compared at any later time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import bindparam, case, func, insert, select

from engine.ledger import schema
from engine.ledger.job_rows import job_no_of
from engine.ledger.pieces import figures
from engine.ledger.tx import Source, Tx, conn_of
from keys.errors import Conflict, Exhausted, InvalidInput, NotFound

_moves = schema.stock_moves.c
_insert_move = insert(schema.stock_moves)
_insert_lot = insert(schema.stock_lots)
_insert_count = insert(schema.stock_counts)
_lot = select(schema.stock_lots.c.chip_type).where(schema.stock_lots.c.lot == bindparam("lot"))


class Move(StrEnum):
    """What happened to blanks. BLANK and RELEASED go back to the store, from the feeder and from the return bin; SETUP was used
    up setting a machine up; SPOILED was ruined before it was inserted.
    """

    RECEIVE = "receive"
    ISSUE = "issue"
    BLANK = "blank"
    RELEASED = "released"
    SETUP = "setup"
    SPOILED = "spoiled"


_STORE_SIGN = {Move.RECEIVE: 1, Move.ISSUE: -1, Move.BLANK: 1, Move.RELEASED: 1}
_FROM_FEEDER = (Move.BLANK, Move.SETUP, Move.SPOILED)
_sign = case({move.value: sign for move, sign in _STORE_SIGN.items()}, value=_moves.kind, else_=0)
_in_store_of_lot = select(func.coalesce(func.sum(_moves.count * _sign), 0)).where(_moves.lot == bindparam("lot"))
_by_lot = (
    select(
        schema.stock_lots.c.lot,
        schema.stock_lots.c.chip_type,
        func.coalesce(func.sum(_moves.count * _sign), 0).label("in_store"),
    )
    .select_from(schema.stock_lots.outerjoin(schema.stock_moves, _moves.lot == schema.stock_lots.c.lot))
    .group_by(schema.stock_lots.c.lot, schema.stock_lots.c.chip_type)
    .order_by(schema.stock_lots.c.lot)
)
_stations = select(_moves.station_id).where(_moves.station_id.is_not(None)).distinct().order_by(_moves.station_id)
_sum_at_station = select(func.coalesce(func.sum(_moves.count), 0)).where(
    _moves.station_id == bindparam("station_id"),
    _moves.lot == bindparam("lot"),
    _moves.kind.in_(bindparam("kinds", expanding=True)),
)
_sum_released = select(func.coalesce(func.sum(_moves.count), 0)).where(
    _moves.station_id == bindparam("station_id"), _moves.kind == Move.RELEASED.value
)


@dataclass(frozen=True, slots=True)
class Lot:
    """A lot of blanks and how many of it lie in the store."""

    lot: str
    chip_type: str
    in_store: int


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted at a station. Bins count every piece that ever fell into them; feeder and heads what is in them now."""

    feeder_remaining: int
    good: int
    reject: int
    returned: int
    in_heads: int | None = None


def _check(count: int, by: str) -> None:
    if count <= 0:
        raise InvalidInput("STOCK_COUNT", f"a number of blanks must be positive, not {count}")
    if not by.strip():
        raise InvalidInput("STOCK_BY", "stock moves need the name of who moved it")


def _move(tx: Tx, kind: Move, lot: str, *, station_id: str | None, count: int, by: str) -> int:
    tx.conn.execute(_insert_move, {"at_us": tx.now_us, "kind": kind.value, "lot": lot, "station_id": station_id, "count": count, "by": by})
    left = in_store(tx, lot)
    tx.audit(f"stock.{kind.value}", lot, station=station_id, count=count, by=by, in_store=left)
    return left


def in_store(source: Source, lot: str) -> int:
    """Blanks of a lot in the store. Raises NotFound LOT_UNKNOWN."""
    conn = conn_of(source)
    if conn.execute(_lot, {"lot": lot}).one_or_none() is None:
        raise NotFound("LOT_UNKNOWN", f"there is no lot {lot}: receive it first")
    return int(conn.execute(_in_store_of_lot, {"lot": lot}).scalar_one())


def lots(source: Source) -> list[Lot]:
    """Every lot, with what is left of it in the store."""
    return [Lot(lot, chip_type, int(number)) for lot, chip_type, number in conn_of(source).execute(_by_lot)]


def stations(source: Source) -> list[str]:
    """Every station that blanks were ever issued to."""
    return list(conn_of(source).execute(_stations).scalars())


def receive(tx: Tx, lot: str, chip_type: str, count: int, by: str) -> int:
    """Takes blanks into the store; returns how many of the lot are there. Raises Conflict LOT_TYPE for a lot of another chip
    type.
    """
    _check(count, by)
    if not lot or not chip_type:
        raise InvalidInput("STOCK_LOT", "a lot needs a name and a chip type")
    known = tx.conn.execute(_lot, {"lot": lot}).scalar_one_or_none()
    if known is None:
        tx.conn.execute(_insert_lot, {"lot": lot, "chip_type": chip_type})
    elif known != chip_type:
        raise Conflict("LOT_TYPE", f"lot {lot} holds {known}, not {chip_type}")
    return _move(tx, Move.RECEIVE, lot, station_id=None, count=count, by=by)


def issue(tx: Tx, lot: str, station_id: str, count: int, by: str) -> int:
    """Gives blanks out to a station; returns how many of the lot are left. Raises Exhausted NO_BLANKS, NotFound LOT_UNKNOWN."""
    _check(count, by)
    if not station_id:
        raise InvalidInput("STOCK_STATION", "blanks are issued to a station")
    left = in_store(tx, lot)
    if count > left:
        raise Exhausted("NO_BLANKS", f"the store holds {left} blanks of lot {lot}, not {count}")
    return _move(tx, Move.ISSUE, lot, station_id=station_id, count=count, by=by)


def return_(tx: Tx, lot: str, station_id: str, count: int, by: str, *, kind: Move | str = Move.BLANK) -> int:
    """Books blanks out of a station: `blank` or `released` back to the store, `setup` and `spoiled` used up. Returns what is in
    the store.

    Raises Exhausted NO_BLANKS for more than the station can have, NotFound LOT_UNKNOWN, InvalidInput STOCK_KIND.
    """
    _check(count, by)
    try:
        move = Move(kind)
    except ValueError:
        move = Move.RECEIVE
    if move in (Move.RECEIVE, Move.ISSUE):
        raise InvalidInput("STOCK_KIND", f"unknown kind of return {kind!r}: known are blank, released, setup, spoiled")
    in_store(tx, lot)
    held = figures(tx, station_id=station_id)
    if move is Move.RELEASED:
        available = held.fell_returned - int(tx.conn.execute(_sum_released, {"station_id": station_id}).scalar_one())
    else:
        key = {"station_id": station_id, "lot": lot}
        given = tx.conn.execute(_sum_at_station, {**key, "kinds": [Move.ISSUE.value]}).scalar_one()
        gone = tx.conn.execute(_sum_at_station, {**key, "kinds": [one.value for one in _FROM_FEEDER]}).scalar_one()
        available = min(int(given) - int(gone), held.in_feeder)
    if count > available:
        raise Exhausted("NO_BLANKS", f"station {station_id} can have at most {max(available, 0)} such blanks of lot {lot}, not {count}")
    return _move(tx, move, lot, station_id=station_id, count=count, by=by)


def count(tx: Tx, station_id: str, counted: Counted, by: str, job_id: str | None = None) -> int:
    """Records what was counted at a station, beside what the ledger holds now; returns the record's number.

    With `job_id` the bins are those of that job alone. Raises InvalidInput STOCK_COUNT, NotFound JOB_UNKNOWN.
    """
    numbers = (counted.feeder_remaining, counted.good, counted.reject, counted.returned, counted.in_heads or 0)
    if min(numbers) < 0 or not by.strip():
        raise InvalidInput("STOCK_COUNT", "counted numbers are not negative, and a count names who counted")
    job_no = None if job_id is None else job_no_of(tx, job_id)
    held = figures(tx, station_id=station_id, job_no=job_no)
    key = tx.conn.execute(
        _insert_count,
        {
            "at_us": tx.now_us,
            "station_id": station_id,
            "job_no": job_no,
            "feeder_remaining": counted.feeder_remaining,
            "good": counted.good,
            "reject": counted.reject,
            "returned": counted.returned,
            "in_heads": counted.in_heads,
            "expected_feeder": held.in_feeder,
            "expected_good": held.fell_good,
            "expected_reject": held.fell_reject,
            "expected_returned": held.fell_returned,
            "expected_in_heads": held.in_hand,
            "by": by,
        },
    ).inserted_primary_key
    tx.audit(
        "stock.counted",
        station_id,
        by=by,
        job=job_id,
        feeder=counted.feeder_remaining,
        good=counted.good,
        reject=counted.reject,
        returned=counted.returned,
        in_heads=counted.in_heads,
    )
    return int(key[0]) if key is not None else 0
