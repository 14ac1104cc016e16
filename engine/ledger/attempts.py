"""Everything that can be asked of, or done to, an attempt; the parts live in attempt_rows, attempt_steps, attempt_ends and
chips.
"""

from engine.ledger.attempt_ends import (
    blank_rejected,
    destroyed,
    expire_leases,
    recalled,
    release,
    sample_drawn,
    scrap,
    stacked,
    tear_overdue,
)
from engine.ledger.attempt_rows import (
    Attempt,
    by_chip,
    by_id,
    by_line,
    by_token,
    in_states,
    open_attempts,
    serials_of,
)
from engine.ledger.attempt_steps import encoded, finish, good, held, intent, present, printed, psn_for, reserve, verified
from engine.ledger.chips import QUARANTINE_AFTER, Sighting, Verdict, chip_seen, chip_tries, cryptogram_failed
from engine.ledger.states import AttemptState, Bin, ScrapReason

__all__ = [
    "QUARANTINE_AFTER",
    "Attempt",
    "AttemptState",
    "Bin",
    "ScrapReason",
    "Sighting",
    "Verdict",
    "blank_rejected",
    "by_chip",
    "by_id",
    "by_line",
    "by_token",
    "chip_seen",
    "chip_tries",
    "cryptogram_failed",
    "destroyed",
    "encoded",
    "expire_leases",
    "finish",
    "good",
    "held",
    "in_states",
    "intent",
    "open_attempts",
    "present",
    "printed",
    "psn_for",
    "recalled",
    "release",
    "reserve",
    "sample_drawn",
    "scrap",
    "serials_of",
    "stacked",
    "tear_overdue",
    "verified",
]
