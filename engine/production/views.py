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
