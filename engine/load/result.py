"""What a load run found out: one window for each number of stations, the books, and what it cost to produce the load itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Quantiles of a duration in seconds; None where nothing was observed."""

    p50: float | None = None
    p99: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Window:
    """A steady stretch of the run: warm-up left out. Figures of the server are None where it does not tell them.

    `server_stream_s` is measured by the server, from a challenge's arrival to its segment sent, and read from buckets;
    `station_stream_s` is what stations saw, exactly, and `streams` its samples. `lag_s` is by how much the generator's own event
    loop came late. `doubts` say why figures are not to be trusted; empty for a good window.
    """

    stations: int
    heads: int
    connected: int
    seconds: float
    good: int
    scrapped: int
    rejected: int
    cards_per_second: float
    cards_per_hour_and_station: float
    server_stream_s: Spread
    station_stream_s: Spread
    station_answer_s: Spread
    server_cpu_per_card_s: float | None
    server_core_share: float | None
    server_memory_bytes: float | None
    server_lag_s: Spread
    ledger_transitions_per_second: float | None
    ledger_commit_s: Spread
    generator_cpu_per_card_s: float
    generator_core_share: float
    lag_s: Spread
    streams: list[float] = field(repr=False, default_factory=list)
    doubts: list[str] = field(default_factory=list)

    @property
    def stream_p99_s(self) -> float | None:
        """The p99 that a limit is held against: the server's own, else what stations saw."""
        return self.server_stream_s.p99 if self.server_stream_s.p99 is not None else self.station_stream_s.p99


@dataclass(frozen=True)
class Books:
    """Pieces of the whole run, as stations counted them, and what the server says of its jobs."""

    jobs: list[str]
    job_states: list[str]
    lines: int
    issued: int
    drawn: int
    good: int
    rejected: int
    returned: int
    left: int
    differences: list[str]

    @property
    def reconciled(self) -> bool:
        """Every piece that was drawn lies in a bin, and the ledger says the same of every station."""
        return not self.differences and self.drawn == self.good + self.rejected + self.returned


@dataclass(frozen=True)
class LoadResult:
    """One run. `limit_stations` is the first number of stations whose p99 was above the limit, `held` the window with the highest
    rate that held it; both only with a limit.
    """

    profile: str
    protocol: str
    readers: int
    chip_s: float
    print_s: float
    time_scale: float
    windows: list[Window]
    books: Books
    p99_limit_s: float | None = None
    stopped_stations: dict[str, str] = field(default_factory=dict)

    @property
    def limit_stations(self) -> int | None:
        if self.p99_limit_s is None:
            return None
        return next((w.stations for w in self.windows if (w.stream_p99_s or 0.0) > self.p99_limit_s), None)

    @property
    def held(self) -> Window | None:
        if self.p99_limit_s is None:
            return None
        good = [w for w in self.windows if w.stream_p99_s is not None and w.stream_p99_s <= self.p99_limit_s]
        return max(good, key=lambda w: w.cards_per_second, default=None)

    def as_dict(self) -> dict[str, Any]:
        """The run as JSON: everything but the single samples."""
        found = asdict(self)
        for window in found["windows"]:
            del window["streams"]
        found["books"]["reconciled"] = self.books.reconciled
        held = self.held
        found["limit_stations"] = self.limit_stations
        found["held"] = None if held is None else {"stations": held.stations, "cards_per_second": held.cards_per_second}
        return found
