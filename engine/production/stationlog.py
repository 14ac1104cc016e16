"""Writes into the ledger when stations come, go, are stopped and are reset. Nobody waits for it: no card depends on what it writes."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

import structlog

from engine.ledger import events
from engine.ledger.events import Gone, StationEvent
from engine.ledger.store import Ledger
from engine.production.stationlink import StationHello
from keys.errors import CitycardError

log = structlog.get_logger("line")


class StationLog:
    """The events of all stations of one server, in the order they happened."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def connected(self, hello: StationHello) -> None:
        """A stream began, and what lay in the heads is settled."""
        told = {
            "heads": hello.heads,
            "transport": hello.transport,
            "chip_types": list(hello.chip_types),
            "profiles": list(hello.profiles),
        }
        self._write(hello.station_id, StationEvent.CONNECTED, "", told)

    def disconnected(self, station_id: str, why: Gone) -> None:
        """A stream ended."""
        self._write(station_id, StationEvent.DISCONNECTED, why.value, "")

    def stopped(self, station_id: str, cause: str, words: str) -> None:
        """The breaker stopped it: `cause` is what it found guilty, a short fixed word."""
        self._write(station_id, StationEvent.STOPPED, cause, words)

    def reset(self, station_id: str, by: str) -> None:
        """An operator lets it work again."""
        self._write(station_id, StationEvent.RESET, "", by)

    def _write(self, station_id: str, event: StationEvent, cause: str, detail: str | Mapping[str, object]) -> None:
        try:
            written = self._ledger.transact(lambda tx: events.note(tx, station_id, event, cause=cause, detail=detail))
        except CitycardError as error:  # the ledger is closed: the server is at its end
            log.warning("station event not written", station=station_id, station_event=event.value, reason=error.reason)
        else:
            written.add_done_callback(lambda done: _complain(done, station_id, event))


def _complain(done: Future[None], station_id: str, event: StationEvent) -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:
        reason = error.reason if isinstance(error, CitycardError) else type(error).__name__
        log.warning("station event not written", station=station_id, station_event=event.value, reason=reason)
