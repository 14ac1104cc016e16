"""Order files on their way in: begun, cut off, gone on with where they were, and at last read into the ledger.

An upload that was cut off is kept, sealed under its job's own key, until somebody goes on with it, the job is cancelled, or it is old.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import structlog

from engine.ledger import jobs, lines
from engine.ledger.states import JobState
from engine.ledger.tx import Tx
from engine.orders.spool import plain_size
from engine.production import intake
from engine.production.context import Context
from engine.production.keygate import KeyGate, keys_to_blame
from keys.errors import CitycardError, Conflict, NotFound, Precondition
from keys.secrets import SecretBytes

log = structlog.get_logger("jobs")

# What is kept is personal data, though sealed: it does not lie about for ever.
KEPT_S: Final = 7 * 24 * 3600


class Uploads:
    """The order files of staged jobs. At most one client at a time sends one."""

    def __init__(self, context: Context, keys: KeyGate, directory: Path) -> None:
        self._context = context
        self._ledger = context.ledger
        self._keys = keys
        self._directory = directory
        self._running: set[str] = set()

    async def recover(self) -> None:
        """After a start of the server: what no upload can go on with is removed."""
        for half in self._directory.glob("*.csv.spool"):
            half.unlink()
        await self.drop_stale()

    async def begin(self, job_id: str, encoding: str, offset: int = 0) -> intake.Upload:
        """Opens the upload of a staged job, anew or where what is kept ends. Conflict UPLOAD_RUNNING when another client is at it,
        Precondition UPLOAD_OFFSET | JOB_STATE, InvalidInput ENCODING_UNKNOWN.
        """
        known = intake.encoding_of(encoding)
        await self.drop_stale()
        key = await self._open(job_id)
        try:
            return await asyncio.to_thread(intake.begin, job_id, self._directory, known, key, offset)
        except BaseException:
            self._running.discard(job_id)
            key.close()
            raise

    async def kept(self, job_id: str) -> intake.Kept:
        """How much of a staged job's order file is here. Conflict UPLOAD_RUNNING while a client is sending it, Precondition JOB_STATE."""
        key = await self._open(job_id)
        try:
            return await asyncio.to_thread(intake.kept, job_id, self._directory, key)
        finally:
            self._running.discard(job_id)
            key.close()

    async def _open(self, job_id: str) -> SecretBytes:
        """Marks the upload as somebody's; the key its spool is under."""
        job = await self._job(job_id)
        if job.state is not JobState.STAGING or job.pii_key_wrapped is None:
            raise Precondition("JOB_STATE", f"job {job_id} is {job.state}: it already has its order file")
        if job_id in self._running:
            raise Conflict("UPLOAD_RUNNING", f"the order file of job {job_id} is being uploaded already")
        key = self._context.custody.unwrap_data_key(job.pii_key_wrapped)
        self._running.add(job_id)
        return key

    def check(self) -> None:
        """Raises ZEROIZED once the keys are: no upload outlives them, since it holds a key of its own."""
        if self._keys.trouble is not None and self._keys.zeroized:
            raise self._keys.trouble

    async def leave(self, upload: intake.Upload, *, keep: bool) -> None:
        """The client went away, or sending cannot go on. What arrived is kept for it to go on with, unless `keep` is false or the job is
        not staged any more.
        """
        kept = False
        try:
            if keep and (await self._job(upload.job_id)).state is JobState.STAGING:
                size = await asyncio.to_thread(intake.suspend, upload)
                log.info("upload cut off", job=upload.job_id, kept=size)
                kept = True
        except CitycardError as error:
            log.warning("cut-off upload not kept", job=upload.job_id, reason=error.reason)
        finally:
            if not kept:
                await asyncio.to_thread(intake.drop, upload)
            self._running.discard(upload.job_id)

    async def finish(self, upload: intake.Upload, sha256: bytes) -> None:
        """Checks the digest, then reads the whole file into the ledger: the job is READY. A file that is wrong as a whole leaves the job
        without lines.
        """
        job_id = upload.job_id
        keep = False
        try:
            await asyncio.to_thread(intake.finish, upload, sha256)
            # a server that was killed here before may have left some of the lines
            await self._ledger.write(lambda tx: lines.clear(tx, job_id))
            with self._context.custody.hmac_key("duplicates") as hash_key:
                taken = await asyncio.to_thread(intake.take_in, self._ledger, upload, hash_key)
        except CitycardError as error:
            await self._forget_lines(job_id, error.reason)
            # nothing is wrong with the file: its end is sent again when the keys are back
            keep = keys_to_blame(error)
            raise
        finally:
            self._running.discard(job_id)
            await asyncio.to_thread(intake.suspend if keep else intake.drop, upload)

        def ready(tx: Tx) -> None:
            jobs.update_options(tx, job_id, encoding=taken.encoding, notes=list(taken.notes))
            jobs.set_state(tx, job_id, JobState.READY)

        await self._ledger.write(ready)

    async def _forget_lines(self, job_id: str, reason: str) -> None:
        """What was read of a refused file goes. Where not even that can be written, it goes before the next try."""
        try:
            await self._ledger.write(lambda tx: _discard(tx, job_id, reason))
        except CitycardError as error:
            log.error("lines of a refused file not removed yet", job=job_id, reason=error.reason)

    async def drop_stale(self) -> None:
        """Removes cut-off uploads that nobody went on with for long, or whose job waits for no file any more."""
        now = time.time()
        for path in list(self._directory.glob("*.spool")):
            job_id = path.name.partition(".")[0]
            if job_id in self._running:
                continue
            try:
                staged = (await self._job(job_id)).state is JobState.STAGING
            except NotFound:
                staged = False
            try:
                if job_id not in self._running and (not staged or now - path.stat().st_mtime > KEPT_S):
                    path.unlink()
                    log.warning("cut-off upload removed", job=job_id)
            except FileNotFoundError:
                continue  # its upload began and ended meanwhile

    def arrived(self, job_id: str) -> int:
        """Bytes that are kept of a cut-off upload; 0 where there is none, or it is under way."""
        try:
            return 0 if job_id in self._running else plain_size(intake.spool_path(self._directory, job_id).stat().st_size)
        except OSError:
            return 0

    async def _job(self, job_id: str) -> jobs.JobRow:
        return await self._ledger.aread(lambda conn: jobs.get(conn, job_id))


def _discard(tx: Tx, job_id: str, reason: str) -> None:
    """Forgets what was read of a file that is wrong as a whole; the job stays, to be given the mended file."""
    lines.clear(tx, job_id)
    tx.audit("job.intake-refused", job_id, why=reason)
