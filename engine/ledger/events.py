"""When stations came, went, were stopped and were let work again: what repair times and uptimes are fitted from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import bindparam, insert, select

from engine.ledger import schema
from engine.ledger.tx import Source, Tx, conn_of


class StationEvent(StrEnum):
    """CONNECTED and DISCONNECTED frame a stream; between them a station may be STOPPED by the breaker and RESET by an operator."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    STOPPED = "stopped"
    RESET = "reset"


class Gone(StrEnum):
    """Why a station disconnected: it was told to leave, its stream broke, or the server stopped."""

    LEFT = "left"
    LOST = "lost"
    SERVER = "server-stops"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `at_us` is Unix microseconds. `cause`: a `Gone`, or what the breaker found guilty; `detail` is for people, and
    for CONNECTED a JSON object with `heads`, `transport`, `profiles` and `chip_types`.
    """

    at_us: int
    station_id: str
    event: StationEvent
    cause: str
    detail: str

    def connected_with(self) -> dict[str, Any]:
        """What the station said of itself when it connected; empty for other events."""
        return json.loads(self.detail) if self.event is StationEvent.CONNECTED else {}


_columns = schema.station_events.c
_insert = insert(schema.station_events)
_all = select(_columns.at_us, _columns.station_id, _columns.event, _columns.cause, _columns.detail).order_by(
    _columns.station_id, _columns.event_id
)
_of_stations = _all.where(_columns.station_id.in_(bindparam("stations", expanding=True)))


def note(tx: Tx, station_id: str, event: StationEvent, *, cause: str = "", detail: str | Mapping[str, object] = "") -> None:
    """Records an event at the transaction's time. `cause` is a short fixed word, at most 32 characters; neither holds personal data."""
    told = detail if isinstance(detail, str) else json.dumps(dict(detail), ensure_ascii=False, sort_keys=True)
    row = {"at_us": tx.now_us, "station_id": station_id, "event": event.value, "cause": cause[:32], "detail": told}
    tx.conn.execute(_insert, row)


def events(source: Source, stations: Iterable[str] | None = None) -> list[Event]:
    """Events in order, station by station; of some stations, or of all."""
    conn = conn_of(source)
    rows = conn.execute(_all) if stations is None else conn.execute(_of_stations, {"stations": sorted(stations)})
    return [Event(r.at_us, r.station_id, StationEvent(r.event), r.cause, r.detail) for r in rows]
