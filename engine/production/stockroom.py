"""Stock, scrap and samples, as operators ask for them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from engine.ledger import attempts, jobs, lines, reconcile, stock
from engine.ledger.states import AttemptState, LineState
from engine.ledger.tx import Tx
from engine.production.context import Context
from engine.production.line import Line
from engine.production.reports import books
from keys.errors import Exhausted, InvalidInput, NotFound


class Stockroom:
    """See stock.proto."""

    def __init__(self, context: Context, line: Line) -> None:
        self._ledger = context.ledger
        self._line = line

    async def receive(self, lot: str, chip_type: str, count: int, by: str) -> int:
        """Blanks into the store; what is there of the lot."""
        return await self._ledger.write(lambda tx: stock.receive(tx, lot, chip_type, count, by))

    async def issue(self, lot: str, station_id: str, count: int, by: str) -> int:
        """Blanks to a station; Exhausted NO_BLANKS."""
        return await self._ledger.write(lambda tx: stock.issue(tx, lot, station_id, count, by))

    async def take_back(self, lot: str, station_id: str, count: int, by: str, kind: str) -> int:
        """Blanks back from a station, or booked as used up."""
        return await self._ledger.write(lambda tx: stock.return_(tx, lot, station_id, count, by, kind=kind))

    async def count(self, station_id: str, counted: dict[str, int], by: str) -> list[str]:
        """Records a count and compares it; differences in plain words, none when it agrees. NotFound STATION_UNKNOWN."""

        def record(tx: Tx) -> list[str]:
            if station_id not in stock.stations(tx):
                # a count under a mistyped name would agree with nothing, or with nothing at all
                raise NotFound("STATION_UNKNOWN", f"no blanks were ever issued to a station {station_id}")
            stock.count(tx, station_id, stock.Counted(**counted), by)
            return reconcile.reconcile(tx, station_id=station_id).differences

        return await self._ledger.write(record)

    async def overview(self) -> dict[str, Any]:
        """Lots, those of chips that are stopped, and the reconciliation over all stations."""

        def look(conn: Connection) -> dict[str, Any]:
            lots = [{"lot": x.lot, "chip_type": x.chip_type, "in_store": x.in_store} for x in stock.lots(conn)]
            stations = {s: books(reconcile.reconcile(conn, station_id=s)) for s in stock.stations(conn)}
            stopped = [{"lot": lot, "stopped": why} for lot, why in sorted(self._line.outcomes.stopped_lots().items())]
            return {"lots": lots, "stopped_lots": stopped, "stations": stations, "reconciliation": books(reconcile.reconcile(conn))}

        return await self._ledger.aread(look)

    async def reset_lot(self, lot: str, by: str) -> None:
        """Blanks of a stopped lot may be used again; NotFound LOT_NOT_STOPPED."""
        await self._line.outcomes.reset_lot(lot.strip().upper(), by)
        await self._line.pump()

    async def scrap(self, job_id: str) -> list[dict[str, Any]]:
        """Scrapped pieces, pending and destroyed."""

        def look(conn: Connection) -> list[attempts.Attempt]:
            job_no = jobs.get(conn, job_id).job_no if job_id else None
            return attempts.in_states(conn, {AttemptState.SCRAP_PENDING, AttemptState.DESTROYED}, job_no=job_no)

        return [
            {
                "attempt_id": a.attempt_id,
                "job_id": a.job_id,
                "line": a.line_no,
                "chip_id": a.chip_id or "",
                "station": a.station_id,
                "state": a.state.value,
                "reason": a.reason or "",
                "detail": a.detail or "",
                "destroyed_by": a.destroyed_by or [],
            }
            for a in await self._ledger.aread(look)
        ]

    async def destroy(self, ids: list[int], first: str, second: str, *, everything: bool, job_id: str) -> int:
        """Records destruction under two names; lines that waited for it are made again. All or none."""
        if everything == bool(ids):
            raise InvalidInput("SCRAP_WHICH", "name the pieces by their attempt numbers, or say --all")

        def record(tx: Tx) -> list[attempts.Attempt]:
            wanted = ids
            if everything:
                job_no = jobs.get(tx, job_id).job_no if job_id else None
                wanted = [a.attempt_id for a in attempts.in_states(tx, {AttemptState.SCRAP_PENDING}, job_no=job_no)]
            return [attempts.destroyed(tx, number, first, second) for number in wanted]

        done = await self._ledger.write(record)
        for attempt in done:
            if await self._line_waits(attempt.job_id, attempt.line_no):
                await self._line.line_back(attempt.job_id, attempt.line_no)
        return len(done)

    async def draw_sample(self, job_id: str, count: int, by: str) -> list[tuple[int, str]]:
        """Takes the newest finished cards as samples; (attempt, chip id) of each. Exhausted NO_SAMPLES when there are too few."""

        def draw(tx: Tx) -> list[attempts.Attempt]:
            job_no = jobs.get(tx, job_id).job_no
            stacked = attempts.in_states(tx, {AttemptState.STACKED}, job_no=job_no)
            if len(stacked) < count:
                raise Exhausted("NO_SAMPLES", f"job {job_id} has {len(stacked)} finished cards, not {count}")
            return [attempts.sample_drawn(tx, a.attempt_id, by) for a in stacked[-count:]]

        drawn = await self._ledger.write(draw)
        for attempt in drawn:
            await self._line.line_back(attempt.job_id, attempt.line_no)
        return [(a.attempt_id, a.chip_id or "") for a in drawn]

    async def _line_waits(self, job_id: str, line_no: int) -> bool:
        return await self._ledger.aread(lambda conn: lines.state(conn, job_id, line_no)) is LineState.READY
