"""Jobs whose lines may be leased: their ready lines, read ahead from the ledger, and the reservation of each that is given out."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Final

import structlog

from engine.dispatch.dispatcher import Assignment, Dispatcher
from engine.dispatch.queues import JobInfo
from engine.ledger import attempts, jobs, lines
from engine.ledger.attempts import Attempt
from engine.production.context import Context
from keys.errors import CitycardError

log = structlog.get_logger("line")

LOW_WATER: Final = 64
REFILL: Final = 512


class Leasing:
    """Between the ledger's ready lines and the dispatcher. Knows jobs, no stations and no cards."""

    def __init__(self, context: Context, dispatcher: Dispatcher) -> None:
        self._context = context
        self._ledger = context.ledger
        self._dispatch = dispatcher
        self._last_line: dict[str, int] = {}
        self._profile_of: dict[str, str] = {}
        # jobs whose ready lines were all read; from then on lines come back one by one
        self._read_out: set[str] = set()
        self._stuck: dict[str, str] = {}
        self._reading = asyncio.Lock()

    def __contains__(self, job_id: object) -> bool:
        """Whether lines of the job can be leased here."""
        return job_id in self._last_line

    def __len__(self) -> int:
        return len(self._last_line)

    def open(self, job: jobs.JobRow) -> None:
        """A job may be worked on from now on: its ready lines are read from the first on. Precondition PROFILE_CHANGED."""
        profile = self._context.profile_of(job.profile, job.profile_hash).profile
        if self._dispatch.has_job(job.job_id):
            self._dispatch.resume(job.job_id)
        else:
            self._dispatch.add_job(JobInfo(job.job_id, job.priority, job.due_us, job.profile, profile.chip.chip_type))
        self._stuck.pop(job.job_id, None)
        self._last_line[job.job_id] = 0
        self._read_out.discard(job.job_id)
        self._profile_of[job.job_id] = job.profile

    def pause(self, job_id: str, why: str = "") -> None:
        """Nothing more of it is given out; `why` in plain words where it is not a person's wish."""
        if self._dispatch.has_job(job_id):
            self._dispatch.pause(job_id)
            if why:
                self._stuck[job_id] = why

    def close(self, job_id: str) -> None:
        """The job is gone for good, or came to its end."""
        self._dispatch.remove(job_id)
        self._last_line.pop(job_id, None)

    def why_stuck(self, job_id: str) -> str:
        """Why the job was paused, in plain words; empty where nobody but a person did it."""
        return self._stuck.get(job_id, "")

    def line_back(self, job_id: str, line_no: int) -> None:
        """A line that was given out wants another try."""
        if job_id in self._last_line:
            self._dispatch.line_back(job_id, line_no)

    async def assign(self) -> list[Assignment]:
        """Whatever can be given out now."""
        if self._reading.locked() or any(self._wants_more(job_id) for job_id in self._last_line):
            async with self._reading:
                await self._read_ahead()
        return self._dispatch.assign(self._ledger.clock.boottime_us())

    def _wants_more(self, job_id: str) -> bool:
        return job_id not in self._read_out and self._dispatch.wants_lines(job_id, LOW_WATER)

    async def _read_ahead(self) -> None:
        for job_id in list(self._last_line):
            while job_id in self._last_line and self._wants_more(job_id):
                after = self._last_line[job_id]
                found = await self._ledger.aread(partial(lines.ready, job_id=job_id, after_line=after, limit=REFILL))
                # the job may have stopped, or begun again, meanwhile
                if self._last_line.get(job_id) != after:
                    continue
                if len(found) < REFILL:
                    self._read_out.add(job_id)
                if found:
                    self._last_line[job_id] = found[-1]
                    self._dispatch.lines_ready(job_id, found)

    async def reserve(self, assignment: Assignment, patience_s: float) -> tuple[Attempt, str] | None:
        """The attempt, durably RESERVED, and the name of its profile; None where the ledger knows better than to lease the line.

        The reservation may wait `patience_s` for others to share its commit.
        """
        name = self._profile_of[assignment.job_id]
        challenge = os.urandom(8)
        lease_us = self._context.profile(name).profile.chip.lease_s * 1_000_000
        job_id, line_no, station_id = assignment.job_id, assignment.line_no, assignment.station_id
        try:
            attempt = await self._ledger.write(
                lambda tx: attempts.reserve(tx, job_id, line_no, station_id, lease_us=lease_us, host_challenge=challenge),
                patience_s=patience_s,
            )
        except CitycardError as error:
            log.warning("line not leased", job=job_id, line=line_no, reason=error.reason)
            self._dispatch.line_done(job_id, line_no)
            return None
        return attempt, name
