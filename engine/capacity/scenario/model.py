"""What a planner asks: how much is to be made, by whom, when they work, and with what. One field here is one key of the TOML file.

A number that is known only roughly is a `Range`: every replication draws its own value between `low` and `high`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Final

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WORKDAYS: Final = WEEKDAYS[:5]
HORIZON_DAYS: Final = 1096
DAY_MINUTES: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Range:
    """Between `low` and `high`; a plain number where they are equal."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    def __str__(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Orders:
    """`backlog`: ordered before the start. `per_day` come on days when somebody works, until `total` are ordered; `instant_share` of them
    at the counters. Factors: seven from Monday, twelve from January.
    """

    profile: str
    total: int
    backlog: int
    per_day: float = 0.0
    instant_share: float = 0.0
    weekday_factors: tuple[float, ...] = (1.0,) * 7
    month_factors: tuple[float, ...] = (1.0,) * 12


@dataclass(frozen=True, slots=True)
class Shift:
    """Minutes of the day; `end` beyond 24 hours for a shift over midnight, which belongs to the day it begins."""

    name: str
    begin: int
    end: int
    days: frozenset[str] = frozenset(WORKDAYS)

    @property
    def seconds(self) -> float:
        return (self.end - self.begin) * 60.0


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one card's parts where the scenario says them; None: as measured. `like`: a station whose measured times to take."""

    chip_seconds: Range | None = None
    print_seconds: Range | None = None
    handling_seconds: Range | None = None
    gap_seconds: Range | None = None
    like: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """`count` equal stations with `heads` each; `printers` 0: one for every head. `shifts` empty: all. `profiles` empty: every one."""

    name: str
    count: int
    heads: int = 1
    printers: int = 0
    profiles: frozenset[str] = frozenset()
    shifts: frozenset[str] = frozenset()
    lot: str = ""
    times: Times = Times()


@dataclass(frozen=True, slots=True)
class Counter:
    """`offices` with `stations` each, open from minute to minute; `customers_per_day` at each office, spread evenly over a range; None:
    the instant share of the orders, equally at all offices. `talk_seconds`: a station's time with a customer beside making the card.
    """

    name: str
    offices: int
    stations: int
    open: int
    close: int
    days: frozenset[str] = frozenset(WORKDAYS)
    customers_per_day: Range | None = None
    talk_seconds: Range = Range(0.0, 0.0)
    times: Times = Times()


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Every station of every group stands still `hours` every `every_days` working days, by turns."""

    every_days: int
    hours: float


@dataclass(frozen=True, slots=True)
class Blanks:
    """`per_week` arrive on `weekday`, or the next working day; `late_share` of the deliveries come `late_days` later. 0 a week: `stock` is
    all there is. None of both given: blanks are no limit.
    """

    stock: int
    per_week: int = 0
    weekday: str = "mon"
    late_share: float = 0.0
    late_days: Range = Range(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Failures:
    """Shares of attempts, and a station's stops; None: as measured."""

    blank_rejected: Range | None = None
    scrap: Range | None = None
    uptime_hours: Range | None = None
    repair_minutes: Range | None = None


@dataclass(frozen=True, slots=True)
class Hsm:
    """`count` tokens with `calls_per_second` each; None: as fast as the token measured is with one card at a time."""

    calls_per_card: float
    calls_per_second: Range | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Engine:
    """`nodes` with `cores` each. `cpu_ms_per_card` None: as measured."""

    nodes: int = 1
    cores: int = 1
    cpu_ms_per_card: Range | None = None


@dataclass(frozen=True, slots=True)
class Staff:
    """At most `people` x `stations_per_person` stations of all groups work in a shift."""

    people: int
    stations_per_person: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole scenario; `file` names where it was read."""

    name: str
    start: date
    orders: Orders
    shifts: tuple[Shift, ...] = ()
    groups: tuple[Group, ...] = ()
    counters: tuple[Counter, ...] = ()
    title: str = ""
    country: str = ""
    closed: tuple[date, ...] = ()
    maintenance: Maintenance | None = None
    blanks: Blanks | None = None
    failures: Failures = field(default=Failures())
    hsm: Hsm | None = None
    engine: Engine | None = None
    staff: Staff | None = None
    horizon_days: int = HORIZON_DAYS
    file: str = ""
