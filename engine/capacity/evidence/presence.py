"""From the events of stations: when each could work, and what kept it from working in between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from engine.capacity.evidence.spans import FOREVER
from engine.ledger.events import Event, Gone, StationEvent

# the server died without a word: the station connected again though its stream had never ended
SERVER_LOST: Final = "server-lost"
# a station that was told to leave, or whose server went, did not fail
_NO_FAULT: Final = frozenset({Gone.LEFT.value, Gone.SERVER.value, SERVER_LOST})


@dataclass(frozen=True, slots=True)
class Stretch:
    """A station worked from `begin_us` until `end_us`. `cause`: what ended it; empty while it goes on."""

    begin_us: int
    end_us: int
    cause: str

    @property
    def failed(self) -> bool:
        """Whether the station broke down at its end."""
        return bool(self.cause) and self.cause not in _NO_FAULT


@dataclass(frozen=True, slots=True)
class Presence:
    """One station: what it said of itself when it last connected, and its stretches in order."""

    station_id: str
    heads: int
    transport: str
    profiles: tuple[str, ...]
    stretches: tuple[Stretch, ...]

    def repairs(self) -> list[tuple[str, int]]:
        """(cause, microseconds) of every standstill that is over."""
        pairs = zip(self.stretches, self.stretches[1:], strict=False)
        return [(before.cause, after.begin_us - before.end_us) for before, after in pairs if before.failed]

    def uptime(self) -> tuple[list[int], int]:
        """Microseconds of every stretch of work that a failure ended, and all time at work: stretches that ended otherwise only say
        that no failure came for so long.
        """
        lengths: list[int] = []
        now = total = 0
        for stretch in self.stretches:
            length = 0 if stretch.end_us == FOREVER else stretch.end_us - stretch.begin_us
            now += length
            total += length
            if stretch.failed:
                lengths.append(now)
                now = 0
        return lengths, total


def presences(events: Sequence[Event], last_seen: dict[str, Sequence[int]], until_us: int = FOREVER) -> dict[str, Presence]:
    """Every station's presence, by name. `events` as the ledger gives them, station by station.

    `last_seen`: sorted times at which a card of the station moved, which tell when a server that died was last alive.
    """
    return {name: _presence(name, list(own), last_seen.get(name, ()), until_us) for name, own in groupby(events, lambda e: e.station_id)}


def _presence(station_id: str, events: list[Event], seen: Iterable[int], until_us: int) -> Presence:
    told: dict[str, Any] = {}
    stretches: list[Stretch] = []
    began: int | None = None
    connected = stopped = False
    moments = list(seen)

    def end(at_us: int, cause: str) -> None:
        nonlocal began
        if began is not None:
            stretches.append(Stretch(began, max(began, at_us), cause))
        began = None

    for event in events:
        if event.event is StationEvent.CONNECTED:
            if connected:
                end(max((m for m in moments if began is not None and began <= m < event.at_us), default=began or 0), SERVER_LOST)
                stopped = False  # what the breaker knew went with the server
            told = event.connected_with()
            connected = True
            began = None if stopped else event.at_us
        elif event.event is StationEvent.DISCONNECTED:
            end(event.at_us, event.cause)
            connected = False
            stopped = stopped and event.cause != Gone.SERVER
        elif event.event is StationEvent.STOPPED:
            end(event.at_us, event.cause or StationEvent.STOPPED.value)
            stopped = True
        else:
            stopped = False
            if connected and began is None:
                began = event.at_us
    end(until_us, "")
    heads = int(told.get("heads", 1))
    return Presence(station_id, heads, str(told.get("transport", "")), tuple(told.get("profiles", ())), tuple(stretches))
