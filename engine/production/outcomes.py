"""What the breaker is told of every card's end, and what its verdict stops: a station, a lot of chips, or a job.

The dispatcher stops leasing at once; the ledger, its audit chain and the station hear of it right after. Owns no cards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Protocol

import structlog

from engine.capacity.forecast import PaceKeeper
from engine.dispatch.breaker import Verdict
from engine.dispatch.dispatcher import Dispatcher
from engine.dispatch.evidence import Kind, Seen
from engine.ledger import jobs, lots
from engine.ledger.attempts import Attempt
from engine.ledger.states import JobState
from engine.ledger.store import Ledger
from engine.ledger.tx import Tx
from engine.production.metrics import Metrics
from engine.production.stationlink import Link, Run
from engine.production.stationlog import StationLog
from keys.errors import CitycardError, Precondition

log = structlog.get_logger("line")

# A chip's diversification data begins with its lot; INITIALIZE UPDATE answers with it.
_LOT_LEN = 2


class JobStopped(Protocol):
    """How the line is told that a job is paused."""

    def __call__(self, job_id: str, released: Sequence[Attempt], *, gone: bool) -> Awaitable[None]: ...


class Outcomes:
    """Between the line and the breaker. `link_to` gives the way to a connected station."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        link_to: Callable[[str], Link | None],
        metrics: Metrics,
        stations: StationLog,
        ledger: Ledger,
        job_stopped: JobStopped,
    ) -> None:
        self._dispatch = dispatcher
        self._breaker = dispatcher.breaker
        self._link_to = link_to
        self._metrics = metrics
        self._stations = stations
        self._ledger = ledger
        self._job_stopped = job_stopped
        self._pausing: set[asyncio.Task[None]] = set()
        # when good cards were made, in seconds of the monotonic clock: what forecasts go by
        self.pace = PaceKeeper()
        for lot, at_us in ledger.read(lots.stopped).items():
            since = datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="seconds")
            self._breaker.stop_lot(lot, f"lot {lot} is stopped since {since}: the audit chain says why")

    def admit(self, run: Run, initialize_update_response: bytes) -> None:
        """A chip was presented: notes its lot. Precondition LOT_STOPPED where that is not to be used; the blank goes back untouched."""
        run.lot = initialize_update_response[:_LOT_LEN].hex().upper()
        why = self._breaker.lot_stopped(run.lot)
        if why is not None:
            self._carry_out(self._breaker.lot_refused(run.station_id, run.lot))
            raise Precondition("LOT_STOPPED", why)

    def note(self, run: Run, failure: str | None, reason: str = "") -> None:
        """A card ended: None is a good one, else a short fixed word. `reason` is the code of the error behind it, where there is one."""
        self._metrics.card(failure or "good")
        if failure is None:
            self.pace.card(time.monotonic())
        kind = reason.lower().replace("_", "-") or failure
        reader = "" if run.timings is None else run.timings.reader
        seen = Seen(run.station_id, reader, run.lot, run.attempt.job_id, run.profile, kind)
        self._carry_out(self._breaker.note(seen))

    def _carry_out(self, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        name, words = verdict.name, verdict.words
        log.error("stopped", what=verdict.kind.value, name=name, cause=verdict.cause, reason=words)
        if verdict.kind is Kind.STATION:
            link = self._link_to(name)
            if link is not None:
                link.hold(words, resume=False)
            self._stations.stopped(name, verdict.cause, words)
            self._write(lambda tx: tx.audit("station.stopped", name, cause=verdict.cause, why=words))
        elif verdict.kind is Kind.LOT:
            self._write(lambda tx: lots.stop(tx, name, words))
        else:
            if self._dispatch.has_job(name):
                self._dispatch.pause(name)
            task = asyncio.get_running_loop().create_task(self._pause(name, words))
            self._pausing.add(task)
            task.add_done_callback(self._pausing.discard)

    async def _pause(self, job_id: str, words: str) -> None:
        try:
            change = await self._ledger.write(lambda tx: jobs.set_state(tx, job_id, JobState.PAUSED, words))
            await self._job_stopped(job_id, change.released, gone=False)
        except CitycardError as error:  # it was cancelled meanwhile, or the ledger cannot be written: then nothing is leased anyway
            log.warning("job not paused", job=job_id, reason=error.reason, detail=error.message)

    def _write(self, function: Callable[[Tx], None]) -> None:
        """Nobody waits for it: what is stopped is stopped already."""
        try:
            self._ledger.transact(function).add_done_callback(_complain)
        except CitycardError as error:  # the ledger is closed: the server is at its end
            log.warning("verdict not written", reason=error.reason)

    def stopped(self, station_id: str) -> str | None:
        """Why a station gets no work, in plain words; None while it may work."""
        return self._breaker.stopped(station_id)

    def reset(self, station_id: str) -> None:
        """An operator mended what stopped a station."""
        self._breaker.reset(station_id)

    def stopped_lots(self) -> dict[str, str]:
        """Lots of chips that are not used, and why."""
        return self._breaker.stopped_lots()

    async def reset_lot(self, lot: str, by: str) -> None:
        """An operator cleared up what stopped a lot. Raises NotFound LOT_NOT_STOPPED, InvalidInput STOCK_BY."""
        await self._ledger.write(lambda tx: lots.reset(tx, lot, by))
        self._breaker.reset_lot(lot)


def _complain(done: Future[None]) -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:
        log.warning("verdict not written", reason=error.reason if isinstance(error, CitycardError) else type(error).__name__)
