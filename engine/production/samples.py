"""The test of a quality sample: the card rebuilt from the ledger, the chip proven to be the sample, then its PIN and purse used.

Nothing is sent for a chip that was not drawn, and nothing of the card itself, its PIN above all, before the chip has proven under the
issuer's keys that it is the sample. A test counts only when it came to its end: passed or failed, it is in the ledger by then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from engine.chip.sw import describe
from engine.ledger import jobs, samples
from engine.ledger.attempts import Attempt
from engine.ledger.samples import Check
from engine.personalize import sampling
from engine.personalize.sampling import Probe
from engine.personalize.segment import SW_OK, Answer, Segment, from_slab
from engine.production.card import CardInMaking
from engine.production.cardroom import CardRoom
from engine.production.context import Context
from engine.production.stationlink import Run
from keys.errors import CitycardError, Denied, InvalidInput


@dataclass(frozen=True)
class Outcome:
    """What a finished test found."""

    attempt: Attempt
    passed: bool
    checks: tuple[Check, ...]


class Samples:
    """Tests of drawn samples."""

    def __init__(self, context: Context) -> None:
        self._context = context

    @asynccontextmanager
    async def testing(self, *, chip_id: str, attempt_id: int, by: str) -> AsyncIterator[SampleTest]:
        """One test; leaving it wipes the card's keys.

        Refused before anything is sent: Precondition NOT_A_SAMPLE, PII_DESTROYED; NotFound CHIP_UNKNOWN, ATTEMPT_UNKNOWN; Corrupt
        PROFILE_CHANGED, IMAGE_CHANGED; InvalidInput SAMPLE_WHICH, SAMPLE_BY.
        """
        if not by.strip():
            raise InvalidInput("SAMPLE_BY", "the test of a sample needs the name of who does it")
        ledger = self._context.ledger
        attempt = await ledger.aread(lambda conn: samples.find(conn, chip_id=chip_id, attempt_id=attempt_id))
        job = await ledger.aread(lambda conn: jobs.get(conn, attempt.job_id))
        # a room of its own: the job's data key is in memory for this test only
        room = CardRoom(self._context)
        try:
            card = await room.rebuild(Run(attempt, job.profile, attempt.station_id))
        finally:
            room.forget_job(attempt.job_id)
        try:
            yield SampleTest(self._context, card, attempt, by)
        finally:
            card.close()


class SampleTest:
    """The conversation with one sample: `first`, then `played` with each segment's answers until it gives the outcome."""

    def __init__(self, context: Context, card: CardInMaking, attempt: Attempt, by: str) -> None:
        self._ledger = context.ledger
        self._card = card
        self._attempt = attempt
        self._by = by
        self._talk: Generator[list[Probe], list[Answer], None] | None = None
        self._probes: list[Probe] = []
        self._passed: Final[set[str]] = set()
        self._failed: Final[dict[str, str]] = {}
        self._sequence = 1

    def first(self) -> Segment:
        """Who is this chip? Asked under the issuer's keys."""
        return self._card.reopen()

    async def played(self, slab: bytes) -> Segment | Outcome:
        """Judges the answers; the next segment, or the outcome once it is in the ledger.

        Denied NOT_THE_SAMPLE: another chip lies in the reader; nothing was tested. Precondition NOT_A_SAMPLE: destroyed meanwhile.
        """
        if self._talk is None:
            self._identify(slab)
            when = bytes.fromhex(datetime.now().astimezone().strftime("%Y%m%d%H%M%S"))
            self._talk = sampling.conversation(self._card.compiled, self._card.material(), when)
            self._probes = next(self._talk, [])
            return self._emit() if self._probes else await self._end("")
        stopped, answers = self._judge(slab)
        if stopped:
            return await self._end(stopped)
        try:
            self._probes = self._talk.send(answers)
        except StopIteration:
            return await self._end("")
        return self._emit()

    def _identify(self, slab: bytes) -> None:
        try:
            self._card.identify(slab)
        except CitycardError as error:
            what = f"the chip in the reader does not prove to be sample {self._attempt.chip_id}: {error.message}; nothing was tested"
            raise Denied("NOT_THE_SAMPLE", what) from None

    def _emit(self) -> Segment:
        self._sequence += 1
        return Segment.of(self._sequence, [probe.command for probe in self._probes], journal_answers=False)

    def _judge(self, slab: bytes) -> tuple[str, list[Answer]]:
        """Why the test stops here ("" when it goes on), and the answers."""
        raw = from_slab(slab)
        answers: list[Answer] = []
        for index, probe in enumerate(self._probes):
            response = raw[index] if index < len(raw) else b""
            word = int.from_bytes(response[-2:], "big")
            if len(response) < 2 or word != SW_OK:
                said = f"answered {describe(word)}" if len(response) >= 2 else "was not answered"
                # the header alone: the data may be the PIN
                return self._refused(probe, f"command {probe.command[:4].hex().upper()} {said}"), answers
            answers.append(Answer(response[:-2], SW_OK))
            for subject, check in probe.checks:
                try:
                    check(response[:-2])
                    self._passed.add(subject)
                except Denied as error:
                    self._failed.setdefault(subject, error.message)
            if self._failed:
                return next(iter(self._failed.values())), answers
        return "", answers

    def _refused(self, probe: Probe, why: str) -> str:
        for subject, _ in probe.checks[:1]:
            self._failed.setdefault(subject, why)
        return why

    async def _end(self, stopped: str) -> Outcome:
        """Everything that was to be tested, and what came of it; written down before anybody is told."""
        checks = tuple(self._check(subject, stopped) for subject in sampling.subjects(self._card.compiled))
        passed = not stopped and all(check.ok for check in checks)
        number = self._attempt.attempt_id
        await self._ledger.write(lambda tx: samples.tested(tx, number, self._by, passed=passed, checks=checks))
        return Outcome(self._attempt, passed, checks)

    def _check(self, subject: str, stopped: str) -> Check:
        if subject in self._failed:
            return Check(subject, ok=False, message=self._failed[subject])
        if subject in self._passed:
            return Check(subject, ok=True)
        return Check(subject, ok=False, message=f"not tested: {stopped or 'the profile says nothing of it'}")
