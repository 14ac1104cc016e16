"""From the answers of a card's segments to GOOD: every answer checked, every step in the ledger, and only then the next message."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, Protocol

import structlog

from engine.ledger import attempts
from engine.ledger.attempts import Attempt
from engine.ledger.states import ScrapReason
from engine.ledger.store import Ledger
from engine.personalize.verification import grade_counts
from engine.production.card import CardInMaking
from engine.production.keygate import OUT_OF_REACH, KeyGate
from engine.production.outcomes import Outcomes
from engine.production.settlement import scrap_reason
from engine.production.stationlink import Link, Run
from keys.errors import CitycardError, Corrupt

log = structlog.get_logger("line")


class Hands(Protocol):
    """What the line does for a card that is judged."""

    keys: KeyGate

    def run(self, token: int) -> Run | None: ...
    def link_of(self, run: Run) -> Link: ...
    def patience_s(self) -> float: ...
    def prints(self, run: Run) -> bool: ...
    def wanted(self, run: Run) -> bool: ...
    async def scrap(self, run: Run, token: int, reason: ScrapReason, detail: str) -> None: ...
    async def stray(self, token: int) -> None: ...


class Judging:
    """Judges answers at once, where it can, and says what is left to be waited for. Holds no cards: the line does."""

    def __init__(self, line: Hands, ledger: Ledger, outcomes: Outcomes) -> None:
        self._line = line
        self._ledger = ledger
        self._outcomes = outcomes

    def played(self, token: int, sequence: int, slab: bytes, stopped: str) -> Coroutine[Any, Any, None] | None:
        """Answers to a segment: checks all of them, and sends what comes next. What is left to be waited for, where something is."""
        run = self._line.run(token)
        if run is None or run.card is None or run.card.segment is None or run.card.segment.sequence != sequence:
            return self._line.stray(token)
        if run.over:
            return None
        if run.judged == sequence:
            log.warning("answers came twice", station=run.station_id, token=token, segment=sequence)
            return None
        run.judged = sequence
        if run.step is not None and not run.step.done():
            return self._judge(run, run.card, token, slab, stopped)
        try:
            done = self._advance(run, run.card, token, slab, stopped)
        except CitycardError as error:
            return self._judge(run, run.card, token, slab, stopped, error)
        return self._judge(run, run.card, token, slab, stopped, done=True) if done else None

    async def _judge(
        self, run: Run, card: CardInMaking, token: int, slab: bytes, stopped: str, error: CitycardError | None = None, *, done: bool = False
    ) -> None:
        """The rest of `played`: waits for the ledger, for keys that went away, and for the end of the card. `error` was found already."""
        async with run.lock:
            while not done:
                try:
                    if error is not None:
                        raise error
                    if run.step is not None:
                        await asyncio.wait((run.step,))
                    done = self._advance(run, card, token, slab, stopped)
                    break
                except CitycardError as found:
                    # a card that is made inside a token needs it to the end: while it is gone the card waits
                    if not await self._line.keys.passed(found, partial(self._line.wanted, run)):
                        await self._failed(run, token, stopped, found)
                        return
                    error = None
                if card.proving:  # a proof that was cut off begins anew
                    self._line.link_of(run).segment(token, card.reopen())
                    return
            if done:
                await self._proven(run, card, token, stopped)

    async def _failed(self, run: Run, token: int, stopped: str, error: CitycardError) -> None:
        if self._line.wanted(run) or error.reason not in OUT_OF_REACH:  # else the ledger keeps it as it is
            reason = ScrapReason.TORN if stopped == "CHIP_GONE" or self._line.keys.zeroized else scrap_reason(error)
            await self._line.scrap(run, token, reason, error.message)

    def _advance(self, run: Run, card: CardInMaking, token: int, slab: bytes, stopped: str) -> bool:
        """Judges the answers to one segment; the next one leaves. True where every applet has proven itself."""
        if stopped in ("CHIP_GONE", "READER_GONE"):
            raise Corrupt("TORN", f"the chip stopped answering in segment {card.sequence} ({stopped})")
        link = self._line.link_of(run)
        if run.step is not None:
            run.step.result()
            run.step = None
        if card.proving:
            following = card.next_proof(slab)
        else:
            if not run.encoded:
                card.accept_personalization(slab)
                # The proof may begin before this is durable. A server that dies first finds INTENT, and the station's journal has the
                # answers to be judged again; nothing of the proof changes the chip. The next step waits for it.
                run.step = self._ledger.submit(lambda tx: attempts.encoded(tx, token), patience_s=self._line.patience_s())
                run.step.add_done_callback(_heard)
                run.encoded = True
            following = card.first_proof(slab)
        if following is None:
            card.close()
            run.proven = True
            return True
        link.segment(token, following)
        return False

    async def _proven(self, run: Run, card: CardInMaking, token: int, stopped: str) -> None:
        """Every proof is there: on to the printer, or, where there is none, good at once."""
        grades = grade_counts(card.compiled)
        link, prints = self._line.link_of(run), self._line.prints(run)
        try:
            if prints:
                await self._ledger.write(lambda tx: attempts.verified(tx, token, proofs=grades), patience_s=self._line.patience_s())
            else:
                await self._ledger.write(lambda tx: attempts.finish(tx, token, grades), patience_s=self._line.patience_s())
        except CitycardError as error:
            await self._failed(run, token, stopped, error)
            return
        if prints:
            link.print_card(token)
        else:
            self._good(run, token, link)

    async def printed(self, token: int, *, ok: bool, detail: str) -> None:
        """The face is on: the card is good, and only now may it fall into the good bin."""
        run = self._line.run(token)
        if run is None:
            await self._line.stray(token)
            return
        if run.over:
            return
        if not ok:
            await self._line.scrap(run, token, ScrapReason.PRINT_FAILED, detail)
            return
        try:
            await self._ledger.write(lambda tx: attempts.finish(tx, token), patience_s=self._line.patience_s())
        except CitycardError as error:
            log.warning("late success refused", token=token, reason=error.reason)
            await self._line.stray(token)
            return
        self._good(run, token, self._line.link_of(run))

    def _good(self, run: Run, token: int, link: Link) -> None:
        """GOOD is durable."""
        self._outcomes.note(run, None)
        link.eject(token, "good", "")


def _heard(step: asyncio.Future[Attempt]) -> None:
    """Whoever takes the card's next step asks for the error; where nobody does, its station has gone."""
    if not step.cancelled():
        step.exception()
