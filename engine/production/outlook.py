"""When running jobs will be done: the pace of the cards just made, and what every running job still wants."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from engine.capacity.forecast import Finish, Waiting, finishes
from engine.dispatch.turns import LAST_PRIORITY
from engine.ledger import jobs
from engine.ledger.states import AttemptState, JobState
from engine.ledger.store import Ledger
from engine.production.line import Line

# counting a large job takes a while, and what others want need not be known to the card
STALE_S: Final = 5.0


class Outlook:
    """Asked by whoever shows a job; keeps what the other jobs want for a few seconds."""

    def __init__(self, ledger: Ledger, line: Line) -> None:
        self._ledger = ledger
        self._line = line
        self._wants: dict[str, Waiting] = {}
        self._until = 0.0

    async def finish(self, job: jobs.JobRow, counts: jobs.Counts) -> Finish | None:
        """Of a running job whose lines are being given out; None while too few cards were made to say."""
        now = time.monotonic()
        pace = self._line.outcomes.pace.pace(now, self._line.in_flight())
        if pace is None or job.state is not JobState.RUNNING or not counts.remaining:
            return None
        if now > self._until:
            self._wants = await self._others()
            self._until = time.monotonic() + max(STALE_S, 10 * (time.monotonic() - now))
        wants = self._wants | {job.job_id: _waiting(job, counts)}
        good = counts.attempts.get(AttemptState.STACKED, 0) + counts.attempts.get(AttemptState.GOOD, 0)
        lost = sum(counts.scrapped.values()) + sum(counts.blanks_rejected.values())
        return finishes(pace, wants, remake_share=lost / max(1, good))[job.job_id]

    async def _others(self) -> dict[str, Waiting]:
        found = {}
        for other in await self._ledger.aread(jobs.list_jobs):
            if other.state is JobState.RUNNING and self._line.has_job(other.job_id):
                job_id = other.job_id
                found[job_id] = _waiting(other, await self._ledger.aread(partial(jobs.counts, job_id=job_id)))
        return found


def _waiting(job: jobs.JobRow, counts: jobs.Counts) -> Waiting:
    """Instant jobs go first; among the others a step of priority is worth double, as the dispatcher has it."""
    return Waiting(counts.remaining, 0 if job.priority == 0 else 1, float(1 << (LAST_PRIORITY - job.priority)))
