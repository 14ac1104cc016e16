"""Stops a station that fails again and again, before it eats a feeder of blanks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from keys.errors import InvalidInput


@dataclass(slots=True)
class _Record:
    in_a_row: Counter[str] = field(default_factory=Counter)
    ever: Counter[str] = field(default_factory=Counter)
    stopped: str | None = None


class Breaker:
    """Counts failures of each station by kind. `limit` failures without a success between them stop it until an operator resets
    it.

    A success while stopped (a card that was in the other head) does not start the station again: its reason still stands.
    """

    def __init__(self, limit: int = 5) -> None:
        if limit < 1:
            raise InvalidInput("BREAKER_LIMIT", "a breaker needs a limit of at least one failure")
        self.limit = limit
        self._stations: dict[str, _Record] = {}

    def _record(self, station_id: str) -> _Record:
        return self._stations.setdefault(station_id, _Record())

    def success(self, station_id: str) -> None:
        """A good card."""
        self._record(station_id).in_a_row.clear()

    def failure(self, station_id: str, kind: str) -> str | None:
        """A failed card or blank; `kind` is a short fixed word. Returns the reason when this failure stopped the station."""
        record = self._record(station_id)
        record.in_a_row[kind] += 1
        record.ever[kind] += 1
        if record.stopped is not None or record.in_a_row.total() < self.limit:
            return None
        kinds = ", ".join(f"{number} x {name}" for name, number in record.in_a_row.most_common())
        record.stopped = f"{record.in_a_row.total()} cards in a row failed ({kinds}): mend the cause, then reset the station"
        return record.stopped

    def stopped(self, station_id: str) -> str | None:
        """Why the station is stopped, in plain words; None while it is not."""
        record = self._stations.get(station_id)
        return None if record is None else record.stopped

    def reset(self, station_id: str) -> None:
        """An operator mended it. The counts by kind remain."""
        record = self._record(station_id)
        record.stopped = None
        record.in_a_row.clear()

    def counts(self, station_id: str) -> dict[str, int]:
        """All failures of the station so far, by kind."""
        record = self._stations.get(station_id)
        return {} if record is None else dict(record.ever)
