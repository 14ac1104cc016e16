"""What is known of chips: how they answered before, how often a cryptogram failed, and what one seen again means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import bindparam, insert, select, update

from engine.ledger import schema
from engine.ledger.attempt_ends import end_before_intent, end_in_scrap
from engine.ledger.attempt_rows import Attempt, by_chip, change, require
from engine.ledger.prepared import Prepared
from engine.ledger.states import BEFORE_INTENT, ON_CHIP, OPEN, UNSEEN, AttemptState, ScrapReason
from engine.ledger.tx import Source, Tx, db_of
from keys.errors import Conflict, InvalidInput

# A chip locks after a few wrong tries, so the second failure is the last one asked for.
QUARANTINE_AFTER = 2

_columns = schema.chips.c
_by_id = Prepared(
    select(_columns.atr, _columns.cplc, _columns.cryptogram_failures).where(_columns.chip_id == bindparam("chip_id")), "chip_id"
)
_insert = Prepared(insert(schema.chips), "chip_id", "atr", "cplc", "cryptogram_failures", "first_seen_us")
_set_identity = Prepared(
    update(schema.chips).where(_columns.chip_id == bindparam("key_chip_id")).values(atr=bindparam("new_atr"), cplc=bindparam("new_cplc")),
    "key_chip_id",
    "new_atr",
    "new_cplc",
)
_set_failures = Prepared(
    update(schema.chips).where(_columns.chip_id == bindparam("key_chip_id")).values(cryptogram_failures=bindparam("new_failures")),
    "key_chip_id",
    "new_failures",
)


class Verdict(StrEnum):
    """What a proven chip may be used for. The first three let the present attempt go on; the others end it."""

    FRESH = "fresh"
    # An earlier attempt that had not reached INTENT was released for this one.
    RELEASED_ELSEWHERE = "released-elsewhere"
    # The same station already has an attempt on this chip: it restarted, or its heads were swapped.
    HERE = "here"
    # An attempt past INTENT at another station is now torn; the chip is scrap.
    TORN_ELSEWHERE = "torn-elsewhere"
    GOOD = "good"
    SCRAPPED = "scrapped"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"


# What an earlier attempt in one of these states says of a chip; RELEASED and those before INTENT leave it usable.
_USED_UP = {
    **dict.fromkeys(ON_CHIP, Verdict.TORN_ELSEWHERE),
    **dict.fromkeys((*UNSEEN, AttemptState.STACKED), Verdict.GOOD),
    **dict.fromkeys((AttemptState.SCRAP_PENDING, AttemptState.DESTROYED), Verdict.SCRAPPED),
    AttemptState.BLANK_REJECTED: Verdict.REJECTED,
}


@dataclass(frozen=True, slots=True)
class Sighting:
    """A verdict, and the attempt it is about as it was before (None for a fresh or quarantined chip)."""

    verdict: Verdict
    attempt: Attempt | None = None

    @property
    def usable(self) -> bool:
        """Whether a new attempt may go on with this chip."""
        return self.verdict in (Verdict.FRESH, Verdict.RELEASED_ELSEWHERE)


def check_chip_id(chip_id: str) -> None:
    """Raises InvalidInput CHIP_ID unless `chip_id` is upper-case hex: one chip must have one spelling."""
    if not isinstance(chip_id, str) or not chip_id or len(chip_id) > 64 or set(chip_id) - set("0123456789ABCDEF"):
        raise InvalidInput("CHIP_ID", "a chip id is 1 to 64 upper-case hex digits (the KDD of INITIALIZE UPDATE)")


def sight(tx: Tx, chip_id: str, atr: bytes, cplc: bytes) -> None:
    """Records how a proven chip answers. Raises Conflict CHIP_DIFFERS where it answered otherwise before, CHIP_QUARANTINED."""
    check_chip_id(chip_id)
    row = _by_id.one(tx.db, chip_id)
    if row is None:
        _insert.run(tx.db, chip_id, atr, cplc, 0, tx.now_us)
        return
    known_atr, known_cplc, failures = row
    if failures >= QUARANTINE_AFTER:
        raise Conflict("CHIP_QUARANTINED", f"chip {chip_id} failed its cryptogram {failures} times and is in quarantine")
    if known_atr is None:
        _set_identity.run(tx.db, chip_id, atr, cplc)
    elif (known_atr, known_cplc) != (atr, cplc):
        raise Conflict("CHIP_DIFFERS", f"chip {chip_id} was seen before with another ATR or CPLC: two chips claim one identity")


def cryptogram_failed(tx: Tx, token: int, chip_claim: str) -> int:
    """Counts a wrong card cryptogram against the chip named by the claim; returns how many there were, in all runs of the engine.

    From two on the chip is in quarantine and the caller ends the attempt with `blank_rejected`.
    """
    check_chip_id(chip_claim)
    attempt = require(tx, token, AttemptState.RESERVED, AttemptState.PRESENTED)
    tries = chip_tries(tx, chip_claim) + 1
    if _set_failures.run(tx.db, chip_claim, tries).rowcount == 0:
        _insert.run(tx.db, chip_claim, None, None, tries, tx.now_us)
    if not attempt.piece:
        change(tx, attempt, piece=True)
    tx.audit("chip.cryptogram-failed", str(attempt.attempt_id), chip=chip_claim, tries=tries, station=attempt.station_id)
    return tries


def chip_tries(source: Source, chip_id: str) -> int:
    """How many wrong cryptograms were counted against this chip."""
    row = _by_id.one(db_of(source), chip_id)
    return 0 if row is None else int(row[2])


def chip_seen(tx: Tx, chip_id: str, station_id: str) -> Sighting:
    """What a chip that proved its identity means for the station that sees it; changes what must change because of it.

    At a second station it tears a first attempt past INTENT and releases an earlier one. GOOD, scrapped and rejected chips are
    refused. Ask before `present`: afterwards the asking attempt itself is found, as HERE.
    """
    check_chip_id(chip_id)
    if chip_tries(tx, chip_id) >= QUARANTINE_AFTER:
        return Sighting(Verdict.QUARANTINED)
    history = by_chip(tx, chip_id)
    for attempt in history:
        if attempt.state in OPEN and attempt.station_id == station_id:
            return Sighting(Verdict.HERE, attempt)
    for attempt in history:
        if attempt.state in ON_CHIP:
            end_in_scrap(tx, attempt, ScrapReason.TORN, f"chip seen at station {station_id}")
        if attempt.state in _USED_UP:
            return Sighting(_USED_UP[attempt.state], attempt)
    for attempt in history:
        if attempt.state in BEFORE_INTENT:
            end_before_intent(tx, attempt, AttemptState.RELEASED, "chip-seen-elsewhere", f"chip seen at station {station_id}")
            return Sighting(Verdict.RELEASED_ELSEWHERE, attempt)
    return Sighting(Verdict.FRESH)
