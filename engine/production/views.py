"""Jobs as people and programs see them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JobView:
    """A job as people and programs see it."""

    job_id: str
    profile: str
    kind: str
    priority: int
    due_us: int | None
    state: str
    created_us: int
    started_us: int | None
    ended_us: int | None
    lines: int
    accepted: int
    rejected: int
    good: int
    in_flight: int
    scrapped: int
    blanks_rejected: int
    cancelled: int
    remaining: int
    waiting_for: str
    encoding: str
    # of all leases, 0 to 1: what it would get now
    share: float = 0.0
    # Unix time in microseconds at which it should be done, to the second, and the range of nine in ten; None: nothing to say
    finish_us: int | None = None
    finish_early_us: int | None = None
    finish_late_us: int | None = None
