"""A station came back: for every card the ledger has open there, what the ledger says is held against what lies in the heads.

Before INTENT the blank goes back. After it the card in hand is finished where that is provably safe, and scrapped where it is not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from engine.ledger import attempts, jobs
from engine.ledger.attempts import Attempt
from engine.ledger.states import ScrapReason
from engine.ledger.tx import Tx
from engine.production.card import CardInMaking
from engine.production.cardroom import CardRoom
from engine.production.context import Context
from engine.production.keygate import OUT_OF_REACH, ZEROIZED, KeyGate
from engine.production.stationlink import FoundPiece, Link, Run
from keys.errors import CitycardError, Corrupt

# the first segment a card is sent
PERSONALIZATION: Final = 1


class Finisher(Protocol):
    """Who finishes a card that was printed."""

    async def printed(self, token: int, *, ok: bool, detail: str) -> None: ...


class Hands(Protocol):
    """What the line does for a settlement."""

    keys: KeyGate
    draining: bool

    @property
    def judging(self) -> Finisher: ...

    def under_way(self, run: Run) -> None: ...
    async def release(self, run: Run, token: int, why: str, detail: str = "", *, eject: bool = True) -> None: ...
    async def scrap(self, run: Run, token: int, reason: ScrapReason, detail: str, *, eject: bool = True) -> None: ...
    def stacked(self, token: int, bin_name: str) -> Awaitable[None]: ...
    async def note_piece(self, token: int, bin_name: str) -> None: ...
    async def quietly(self, function: Callable[[Tx], object]) -> bool: ...


class Settlement:
    """Decides what becomes of found and missing pieces; the line carries it out."""

    def __init__(self, line: Hands, context: Context, cards: CardRoom) -> None:
        self._line = line
        self._ledger = context.ledger
        self._cards = cards

    async def settle(self, link: Link, attempt: Attempt, piece: FoundPiece | None) -> None:
        """One open attempt of a station that came back: what the ledger says, what the station holds."""
        token = attempt.token
        job = await self._ledger.aread(lambda conn: jobs.get(conn, attempt.job_id))
        run = Run(attempt, job.profile, attempt.station_id)
        if attempt.state in ("RESERVED", "PRESENTED"):
            await self._line.release(run, token, "station-back", eject=piece is not None and piece.step != "ejected")
            if piece is not None and piece.step == "ejected":
                await self._line.note_piece(token, piece.bin)
        elif attempt.state in ("GOOD", "HELD"):
            if piece is None:
                await self._line.quietly(lambda tx: attempts.held(tx, token))
            elif piece.step == "ejected":
                await self._line.stacked(token, piece.bin)
            elif not _is_chip_of(attempt, piece):
                # nobody knows where the good card is: it is held, and what lies here instead is not delivered
                await self._line.quietly(lambda tx: attempts.held(tx, token))
                link.eject(0, "reject", "not the card its journal speaks of", piece.head)
            else:
                self._line.under_way(run)
                link.eject(token, "good", "")
        elif piece is None or piece.step == "ejected":
            await self._line.scrap(run, token, ScrapReason.TORN, "the piece left the head before it was finished", eject=False)
            if piece is not None:
                await self._line.note_piece(token, piece.bin)
        else:
            self._line.under_way(run)
            await self._continue(link, run, piece)

    async def _continue(self, link: Link, run: Run, piece: FoundPiece) -> None:
        """Goes on with a card in a head after the engine or the station restarted, where that is safe; else scraps it."""
        attempt = run.attempt
        token = attempt.token
        try:
            if not _is_chip_of(attempt, piece):
                raise Corrupt("CHIP_CHANGED", "another chip lies in the head than the one this attempt was given to")
            if attempt.state in ("VERIFIED", "PRINTED"):
                await self._finish_print(link, run, piece)
                return
            card = await self._rebuilt(run)
            if attempt.state == "INTENT":
                if piece.sequence != PERSONALIZATION or piece.step != "played":
                    raise Corrupt("TORN", "the personalization was cut off and its answers are not known")
                card.personalization_again(piece.responses)
                await self._ledger.write(lambda tx: attempts.encoded(tx, token))
            run.encoded = True
            link.segment(token, card.reopen())
        except CitycardError as error:
            if error.reason not in OUT_OF_REACH:  # else the server stops: the next one finds the card as it is
                await self._line.scrap(run, token, scrap_reason(error), error.message)

    async def _rebuilt(self, run: Run) -> CardInMaking:
        """The card; a station whose cards' keys are out of reach waits here until they are back."""
        while True:
            try:
                return await self._cards.rebuild(run)
            except CitycardError as error:
                if run.card is not None:
                    run.card.close()
                if not await self._line.keys.passed(error, lambda: not self._line.draining):
                    raise

    async def _finish_print(self, link: Link, run: Run, piece: FoundPiece) -> None:
        if run.attempt.state == "PRINTED" or piece.step == "printed":
            await self._line.judging.printed(run.attempt.token, ok=True, detail="")
        elif piece.step == "printing":
            await self._line.scrap(run, run.attempt.token, ScrapReason.PRINT_FAILED, "printing was cut off: the face may be half printed")
        else:
            link.print_card(run.attempt.token)

    async def unknown_piece(self, link: Link, piece: FoundPiece) -> None:
        """A piece whose attempt is over, or that nobody leased: out of the head, to the bin its record asks for."""
        if piece.step == "ejected":
            if piece.token:
                await self._line.note_piece(piece.token, piece.bin)
            return
        attempt = None
        if piece.token:
            attempt = await self._ledger.aread(lambda conn: attempts.by_token(conn, piece.token))
        untouched = attempt is None or attempt.state == "RELEASED"
        same = attempt is not None and _is_chip_of(attempt, piece)
        if attempt is not None and attempt.state in ("STACKED", "GOOD"):
            link.eject(piece.token, "good" if same else "reject", "" if same else "not the card its journal speaks of", piece.head)
            return
        reason = "blank found in the head" if untouched else "the card was given up while the station was away"
        link.eject(piece.token, "returned" if untouched else "reject", reason, piece.head)


def _is_chip_of(attempt: Attempt, piece: FoundPiece) -> bool:
    """Whether the chip in the head is the attempt's. A station that did not restart never let go of it, and does not ask again."""
    return not piece.kdd or piece.kdd.hex().upper() == attempt.chip_id


def scrap_reason(error: CitycardError) -> ScrapReason:
    """The ledger's word for why a card past INTENT failed."""
    if error.reason in ("VERIFY_FAILED", "CARD_CRYPTOGRAM", "CHIP_CHANGED"):
        return ScrapReason.VERIFY_FAILED
    torn = error.reason in ("TORN", "ANSWERS_MISSING", "ANSWER_SHORT", "IMAGE_CHANGED", "PROFILE_CHANGED", ZEROIZED)
    return ScrapReason.TORN if torn else ScrapReason.REFUSED
