"""What a plan says: one frozen object for the terminal, for `--json` and for the HTML report.

A list "per replication" has one entry for each replication, in the order of their seeds. A list "per day" runs over `days`.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

import msgspec

StageKind = Literal["stations", "chip", "printer", "hsm", "engine", "staff", "counter", "blanks", "orders"]


class Bands(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Quantiles over the replications, each per day."""

    p5: list[float]
    p25: list[float]
    p50: list[float]
    p75: list[float]
    p95: list[float]


class Quantiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number of each replication, summed up."""

    p50: float
    p80: float
    p95: float


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A resource. `utilization`: the share (0 to 1) of what it could do while people are there that it did, the median over
    replications, from the start to the P50 finish; `daily` the same per day (0 where nobody works). `limits` is the share of work
    that waited for this stage and no other; `capacity` says in words what it can do.
    """

    name: str
    kind: StageKind
    utilization: float
    limits: float
    capacity: str
    daily: list[float]


class InstantQueue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Instant issuance at one group of counters, or (`name` "all") at all of them. Waits are from arrival until a station begins,
    in seconds, over all customers and replications; `within` is the share served within so many minutes, `worst_office` the P95 wait
    of the office that waits longest, `utilization` the share of opening time in which stations are busy. `unserved` counts customers
    per year still waiting when the offices close.
    """

    name: str
    offices: int
    stations: int
    customers_per_day: float
    wait_p50: float
    wait_p95: float
    wait_max: float
    within: dict[str, float]
    worst_office: float
    utilization: float
    unserved: float


class Blanks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pieces of plastic until the work is done. `needed` = good + scrapped + rejected."""

    needed: Quantiles
    scrapped: Quantiles
    rejected: Quantiles
    in_stock_at_start: int
    delivered_per_week: float
    short_days: Quantiles


class Marginal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one more of something gives: days earlier at the median, with the 90 % range of the mean of paired replications. `real`
    is False where that range holds 0, or where the gain is below what the simulation can tell from none.
    """

    what: str
    field: str
    days_saved: float
    low: float
    high: float
    real: bool
    wait_p95_saved: float = 0.0


class SweepPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One value of a sweep; dates None where that share of replications does not finish within the horizon."""

    value: float
    p50: date | None
    p80: date | None
    p95: date | None
    bottleneck: str
    utilization: float
    wait_p95: float


class Sweep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`field` is the path in the scenario that was varied."""

    field: str
    points: list[SweepPoint]


class Deadline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The chance (share of replications) that all is done by a date, that day included, and how far off the others are."""

    by: date
    chance: float
    good_by_then: Quantiles
    late_days_p95: float | None


class PlanResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plan. Dates None where that share of replications does not finish within `horizon_days`. `summary` are the lines of the
    scenario for people (name, value); `sources` says of each figure where it is from: measured, said in the scenario, assumed.
    """

    name: str
    scenario_file: str
    profile_file: str
    machine: str
    commit: str
    seed: int
    replications: int
    seconds: float
    start: date
    horizon_days: int
    total: int
    summary: list[tuple[str, str]]
    sources: list[tuple[str, str, str]]
    warnings: list[str]
    past_errors: list[str]
    finish: list[date | None]
    p50: date | None
    p80: date | None
    p95: date | None
    days: list[date]
    closed: list[date]
    good: Bands
    stages: list[Stage]
    instant: list[InstantQueue]
    blanks: Blanks
    marginal: list[Marginal]
    sweeps: list[Sweep]
    deadline: Deadline | None = None

    @property
    def bottleneck(self) -> Stage | None:
        """The stage that limits most; None for a plan of counters only."""
        return self.stages[0] if self.stages else None
