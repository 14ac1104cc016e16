"""The job desk: everything that can be asked of a job, in terms of ledger, intake and line."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from engine.ledger import jobs, lines, serials
from engine.ledger.states import JOB_ENDED, AttemptState, JobState, LineState
from engine.ledger.tx import Tx
from engine.personalize.witness import prove_derivations
from engine.production import reports
from engine.production.context import Context
from engine.production.line import Line
from engine.production.outlook import Outlook
from engine.production.uploads import Uploads
from engine.production.views import JobView
from keys.errors import CitycardError, InvalidInput, Precondition

log = structlog.get_logger("jobs")

WATCH_S: Final = 0.25
DEFAULT_PRIORITY: Final = 5
# a forecast beyond a hundred years is none: it must fit the wire all the same
_FAR_S: Final = 100 * 365 * 86_400.0
_WAITS_FOR: Final = {
    JobState.STAGING: "an order file that can be taken in: none has arrived yet",
    JobState.PAUSED: "the operator: the job is paused",
}


class JobDesk:
    """Job operations; each returns the job as it is afterwards."""

    def __init__(self, context: Context, line: Line, data: Path) -> None:
        self._context = context
        self._ledger = context.ledger
        self._line = line
        self.uploads = Uploads(context, line.keys, data / "uploads")
        self._outlook = Outlook(context.ledger, line)
        self._stuck: dict[str, str] = {}

    async def recover(self) -> None:
        """After a start of the server: running jobs run again; what no upload can go on with is removed."""
        await self.uploads.recover()
        await self.go_on()

    async def go_on(self) -> None:
        """Running jobs that are not worked on are, where nothing forbids it any more: the keys are open, or back."""
        for job in await self._ledger.aread(jobs.list_jobs):
            if job.state is JobState.RUNNING and not self._line.has_job(job.job_id):
                try:
                    self._context.profile_of(job.profile, job.profile_hash)
                    await self._prove(job)
                    await self._line.job_running(job)
                    self._stuck.pop(job.job_id, None)
                except CitycardError as error:
                    # one job that cannot go on must not keep every other one from being made
                    self._stuck[job.job_id] = error.message
                    log.error("job cannot go on", job=job.job_id, reason=error.reason, detail=error.message)

    async def create(
        self,
        *,
        idempotency_key: str,
        profile: str,
        kind: str,
        priority: int,
        due_us: int | None,
        submitted_by: str,
        file_name: str,
    ) -> tuple[JobView, bool]:
        """Makes a job, or returns the one made with this key before."""
        if not idempotency_key:
            raise InvalidInput("IDEMPOTENCY_KEY_MISSING", "a job needs an idempotency key, so that submitting twice makes one job")
        loaded = self._context.current_profile(profile)
        pools = {pool.name: pool for pool in loaded.profile.serials}
        psn = next((a.remake_psn for a in loaded.profile.applications if a.remake_psn), "next")
        job_id = f"J{secrets.token_hex(4).upper()}"
        data_key = bytearray(os.urandom(32))
        try:
            wrapped = self._context.custody.wrap_data_key(data_key)
        finally:
            data_key[:] = bytes(32)

        def make(tx: Tx) -> jobs.JobRow:
            for name, pool in pools.items():
                serials.define_pool(tx, name, pool.first, pool.last)
            return jobs.create(
                tx,
                job_id=job_id,
                idempotency_key=idempotency_key,
                profile=profile,
                profile_hash=loaded.sha256,
                priority=0 if kind == "instant" else priority or DEFAULT_PRIORITY,
                kind=kind,
                due_us=due_us,
                submitted_by=submitted_by,
                pii_key_wrapped=wrapped,
                options={"remake_psn": psn, "file_name": file_name},
            )

        job = await self._ledger.write(make)
        return await self.view(job.job_id), job.job_id != job_id

    # -- steering ------------------------------------------------------------------------------------------------------

    async def start(self, job_id: str) -> JobView:
        """READY to RUNNING."""
        job = await self._job(job_id)
        self._context.profile_of(job.profile, job.profile_hash)
        if job.state is JobState.READY:
            counts = await self._ledger.aread(lambda conn: jobs.counts(conn, job_id))
            if counts.accepted == 0:
                raise Precondition("JOB_EMPTY", f"no line of job {job_id} was accepted: see its rejects, mend the file, submit it again")
        await self._prove(job)
        change = await self._ledger.write(lambda tx: jobs.set_state(tx, job_id, JobState.RUNNING))
        if change.job.state is JobState.RUNNING:
            self._stuck.pop(job_id, None)
            await self._line.job_running(change.job)
        return await self.view(job_id)

    async def _prove(self, job: jobs.JobRow) -> None:
        """The derivation witness: no job runs on keys that a second way of making them does not confirm. Corrupt DERIVATION_WITNESS."""
        compiled = self._context.compiled_for(job.profile, 19)
        await asyncio.to_thread(prove_derivations, compiled, self._context.custody)

    async def pause(self, job_id: str) -> JobView:
        """No new INTENT; what was leased goes back; cards being made are finished."""
        change = await self._ledger.write(lambda tx: jobs.set_state(tx, job_id, JobState.PAUSED))
        await self._line.job_stopped(job_id, change.released, gone=False)
        return await self.view(job_id)

    async def resume(self, job_id: str) -> JobView:
        """PAUSED to RUNNING."""
        job = await self._job(job_id)
        if job.state is not JobState.PAUSED:
            raise Precondition("JOB_STATE", f"job {job_id} is {job.state}, not paused")
        return await self.start(job_id)

    async def cancel(self, job_id: str, reason: str) -> JobView:
        """CANCELLING, and CANCELLED once nothing is in flight."""
        change = await self._ledger.write(lambda tx: jobs.set_state(tx, job_id, JobState.CANCELLING, reason))
        await self.uploads.drop_stale()
        await self._line.job_stopped(job_id, change.released, gone=True)
        return await self.view(job_id)

    async def destroy_data(self, job_id: str) -> JobView:
        """Destroys the personal data of an ended job; counts and audit remain."""
        await self._ledger.write(lambda tx: jobs.destroy_pii(tx, job_id))
        self._line.forget_job(job_id)
        return await self.view(job_id)

    # -- looking -------------------------------------------------------------------------------------------------------

    async def view(self, job_id: str) -> JobView:
        """One job with its counts; NotFound JOB_UNKNOWN."""
        job = await self._job(job_id)
        counts = await self._ledger.aread(lambda conn: jobs.counts(conn, job_id))
        waiting_for = self._waiting_for(job, counts)
        finish = None if waiting_for else await self._outlook.finish(job, counts)
        return JobView(
            job_id=job.job_id,
            profile=job.profile,
            kind=job.kind,
            priority=job.priority,
            due_us=job.due_us,
            state=job.state.value,
            created_us=job.created_us,
            started_us=job.started_us,
            ended_us=job.ended_us,
            lines=counts.accepted + counts.rejected_lines,
            accepted=counts.accepted,
            rejected=counts.rejected_lines,
            good=counts.attempts.get(AttemptState.STACKED, 0) + counts.attempts.get(AttemptState.GOOD, 0),
            in_flight=counts.in_flight,
            scrapped=sum(counts.scrapped.values()),
            blanks_rejected=sum(counts.blanks_rejected.values()),
            cancelled=counts.lines.get(LineState.CANCELLED, 0),
            remaining=counts.remaining,
            waiting_for=waiting_for,
            encoding=str(job.options.get("encoding", "")),
            share=self._line.shares().get(job_id, 0.0),
            finish_us=None if finish is None else _from_now(finish.middle_s),
            finish_early_us=None if finish is None else _from_now(finish.early_s),
            finish_late_us=None if finish is None else _from_now(finish.late_s),
        )

    def _waiting_for(self, job: jobs.JobRow, counts: jobs.Counts) -> str:
        """Why nothing moves, in plain words; empty while something does."""
        if job.state is not JobState.RUNNING or not counts.remaining:
            return self._waits_for_people(job)
        if self._line.trouble or counts.in_flight:  # in trouble cards in hand wait too, or are the last
            return self._line.trouble
        if job.job_id in self._stuck:
            return self._stuck[job.job_id]
        waiting = counts.lines.get(LineState.WAITING, 0)
        if waiting == counts.remaining:
            return f"scrapped pieces of {waiting} lines must be recorded as destroyed before they can be made again"
        return self._line.why_idle(job.job_id)

    def _waits_for_people(self, job: jobs.JobRow) -> str:
        if job.state is JobState.STAGING and (size := self.uploads.arrived(job.job_id)):
            return f"the rest of its order file, of which {size:,} bytes are here: `citycard job submit FILE --resume {job.job_id}`"
        why = f", because of {job.state_reason}" if job.state is JobState.PAUSED and job.state_reason else ""
        return _WAITS_FOR.get(job.state, "") + why

    async def all_jobs(self) -> list[JobView]:
        """All jobs, oldest first."""
        return [await self.view(job.job_id) for job in await self._ledger.aread(jobs.list_jobs)]

    async def watch(self, job_id: str) -> AsyncIterator[JobView]:
        """The job now, and again whenever it changed, until it has ended."""
        last = None
        while True:
            began = time.monotonic()
            view = await self.view(job_id)
            # counting a job of a million lines takes a while: watching it must not become the server's main work
            pause = max(WATCH_S, 10 * (time.monotonic() - began))
            if view != last:
                yield view
                last = view
            if view.state in JOB_ENDED:
                return
            await asyncio.sleep(pause)

    async def report(self, job_id: str) -> dict[str, Any]:
        """The job's books as one JSON object."""
        view = await self.view(job_id)
        job = await self._job(job_id)
        compiled = self._context.compiled_for(job.profile, 19)
        return await self._ledger.aread(lambda conn: reports.build(conn, job, view, compiled))

    async def rejects(self, job_id: str, page: int) -> AsyncIterator[list[dict[str, Any]]]:
        """Rejected lines in pages, one entry per line and rule."""
        await self._job(job_id)
        after = 0
        while True:
            found = await self._ledger.aread(partial(lines.rejects, job_id=job_id, after=after, limit=page))
            if not found:
                return
            after = found[-1].reject_id
            yield [{"line": r.line, "field": r.field, "rule": r.rule, "message": r.message} for r in found]

    async def results(self, job_id: str, chunk: int) -> AsyncIterator[bytes]:
        """The issuer's return file as CSV bytes."""
        job = await self._job(job_id)
        buffer = bytearray(reports.RESULTS_HEADING)
        after = -1
        while True:
            found = await self._ledger.aread(partial(lines.results, job_id=job_id, after_line=after, limit=1000))
            if not found:
                break
            after = found[-1].line_no
            buffer += await asyncio.to_thread(reports.result_rows, found, self._context.custody, job)
            while len(buffer) > chunk:
                yield bytes(buffer[:chunk])
                del buffer[:chunk]
        yield bytes(buffer)

    async def _job(self, job_id: str) -> jobs.JobRow:
        return await self._ledger.aread(lambda conn: jobs.get(conn, job_id))


def _from_now(seconds: float) -> int:
    """Unix microseconds, in whole seconds: a forecast is no better, and who watches is not told of every change."""
    return round(time.time() + min(seconds, _FAR_S)) * 1_000_000
