"""Where cards are prepared: the order line decrypted, the chip proven fresh, serials drawn, the image built, INTENT written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from engine.ledger import attempts, jobs, lines
from engine.ledger.attempts import Attempt
from engine.ledger.tx import Tx
from engine.orders.pii import JobSeal
from engine.orders.records import decode_records
from engine.personalize.columns import Column
from engine.production.card import CardInMaking, identity_of
from engine.production.context import Context, attempt_columns
from engine.production.keygate import keys_to_blame
from engine.production.stationlink import Run
from keys.errors import Conflict, Corrupt, Denied, Precondition

# A chip whose cryptogram was wrong this often is never tried again: it may lock, or is somebody else's.
CRYPTOGRAM_TRIES: Final = attempts.QUARANTINE_AFTER


@dataclass(frozen=True)
class _Facts:
    """Of a line and a chip: the sealed record, failed cryptograms, the next PSN, the job's wrapped data key where it is needed."""

    blob: bytes
    tries: int
    psn: int
    wrapped: bytes | None


class CardRoom:
    """Holds the data keys of jobs under way, and nothing of any card."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seals: dict[str, JobSeal] = {}

    def forget_job(self, job_id: str) -> None:
        """The job ended, or its personal data is destroyed: its key leaves memory."""
        seal = self._seals.pop(job_id, None)
        if seal is not None:
            seal.close()

    def forget_jobs(self) -> None:
        """Every job's key leaves memory."""
        for job_id in list(self._seals):
            self.forget_job(job_id)

    async def prepare(self, run: Run, atr: bytes, cplc: bytes, response: bytes) -> CardInMaking:
        """From a chip that was presented to a durable INTENT; the card, ready for its personalization.

        Denied and Corrupt speak of the chip: it does not prove its keys or is no blank of this profile. Conflict: it was used before.
        Precondition: the lease is over or the job stopped. Before anything but a return, nothing was done to the chip.
        """
        attempt = run.attempt
        token = attempt.token
        kvn = int(self._context.profile(run.profile).profile.channel.transport.kvn, 16)
        claim = identity_of(response, kvn)
        facts = self._facts(attempt, run.profile, claim.chip_id)
        if facts.tries >= CRYPTOGRAM_TRIES:
            raise Denied("CHIP_QUARANTINED", f"chip {claim.chip_id} failed to prove its keys {CRYPTOGRAM_TRIES} times")
        order, digits = self._open(attempt, facts.blob)
        compiled = self._context.compiled_for(run.profile, digits)
        profile = compiled.loaded.profile
        card = self._context.card(compiled, token)
        try:
            try:
                identity = card.open(attempt.host_challenge, response)
            except Denied as error:
                if keys_to_blame(error):
                    raise
                await self._context.ledger.write(lambda tx: attempts.cryptogram_failed(tx, token, claim.chip_id))
                raise
            serials = {pool.name: self._context.serials.draw(pool.name) for pool in profile.serials}
            columns = attempt_columns(profile, order, serials, facts.psn, identity.serial)
            digest = card.prepare(columns)

            def begin(tx: Tx) -> attempts.Sighting:
                """PRESENTED and INTENT in one transaction; for a chip that is not fresh the sighting alone is recorded."""
                sighting = attempts.chip_seen(tx, identity.chip_id, attempt.station_id)
                if sighting.usable:
                    attempts.intent(
                        tx,
                        token,
                        chip_id=identity.chip_id,
                        host_challenge=attempt.host_challenge,
                        initialize_update_response=response,
                        kvn=identity.kvn,
                        profile_hash=compiled.loaded.sha256,
                        image_digest=digest,
                        serials=serials,
                        psn=facts.psn,
                        max_chip_us=profile.chip.max_chip_time_s * 1_000_000,
                        presented=(atr, cplc),
                    )
                return sighting

            _require_fresh(identity.chip_id, await self._context.ledger.write(begin))
        except BaseException:
            card.close()
            raise
        return card

    def _facts(self, attempt: Attempt, profile: str, chip_id: str) -> _Facts:
        """What one read of the ledger says about a line and the chip presented for it; the job's data key is at hand afterwards."""
        applications = self._context.profile(profile).profile.applications
        remake = next((a.remake_psn for a in applications if a.remake_psn), "next")

        def look(conn: Connection) -> _Facts:
            return _Facts(
                blob=lines.get_blob(conn, attempt.job_id, attempt.line_no),
                tries=attempts.chip_tries(conn, chip_id),
                psn=attempts.psn_for(conn, attempt.job_id, attempt.line_no, remake),
                wrapped=None if attempt.job_id in self._seals else jobs.get(conn, attempt.job_id).pii_key_wrapped,
            )

        # a few rows by key: a thread of its own would cost more than the read
        facts = self._context.ledger.read(look)
        if attempt.job_id not in self._seals:
            if facts.wrapped is None:
                raise Precondition("DATA_DESTROYED", f"the personal data of job {attempt.job_id} was destroyed")
            with self._context.custody.unwrap_data_key(facts.wrapped) as key:
                self._seals[attempt.job_id] = JobSeal(key.reveal(), attempt.job_id)
        return facts

    def _open(self, attempt: Attempt, blob: bytes) -> tuple[dict[str, Column], int]:
        """The order line's columns, decrypted just in time, and the length of its PAN."""
        columns = decode_records([self._seals[attempt.job_id].open_row(attempt.line_no, blob)])
        return dict(columns), len(columns["pan"][0])

    async def rebuild(self, run: Run) -> CardInMaking:
        """The card of an attempt past INTENT, from the ledger's facts alone."""
        attempt = run.attempt
        facts = self._facts(attempt, run.profile, attempt.chip_id or "")
        order, digits = self._open(attempt, facts.blob)
        compiled = self._context.compiled_for(run.profile, digits)
        if compiled.loaded.sha256 != attempt.profile_hash:
            raise Corrupt("PROFILE_CHANGED", f"profile {run.profile} changed since this card was begun")
        serials = await self._context.ledger.aread(lambda conn: attempts.serials_of(conn, attempt.attempt_id))
        card = self._context.card(compiled, attempt.token)
        response = attempt.initialize_update_response or b""
        identity = identity_of(response, int(compiled.loaded.profile.channel.transport.kvn, 16))
        columns = attempt_columns(compiled.loaded.profile, order, serials, attempt.psn or 0, identity.serial)
        run.card = card  # from here on the line closes it, whatever comes
        card.rebuild(attempt.host_challenge, response, columns, attempt.image_digest or b"")
        return card


def _require_fresh(chip_id: str, sighting: attempts.Sighting) -> None:
    if not sighting.usable:
        raise Conflict("CHIP_USED", f"chip {chip_id} is not a fresh blank: {sighting.verdict}")
