"""The states of jobs, lines and attempts, and which may follow which. Facts only; the functions that move things are elsewhere."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """A job, from the upload of its order file to its end."""

    STAGING = "STAGING"
    READY = "READY"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"


# FAILED is for jobs no card was begun for. COMPLETE opens again only when a finished card is taken out as a sample.
JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.STAGING: frozenset({JobState.READY, JobState.CANCELLING, JobState.FAILED}),
    JobState.READY: frozenset({JobState.RUNNING, JobState.CANCELLING, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.PAUSED, JobState.CANCELLING, JobState.COMPLETE}),
    JobState.PAUSED: frozenset({JobState.RUNNING, JobState.CANCELLING, JobState.COMPLETE}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.CANCELLED: frozenset(),
    JobState.COMPLETE: frozenset(),
    JobState.FAILED: frozenset(),
}
JOB_ENDED = frozenset({JobState.CANCELLED, JobState.COMPLETE, JobState.FAILED})


class LineState(StrEnum):
    """An order line. READY: wants a card. HELD: an attempt has it in hand. WAITING: its remake waits until a scrapped piece,
    whose keys it would repeat, is recorded as destroyed. GOOD and CANCELLED are ends.
    """

    READY = "READY"
    HELD = "HELD"
    WAITING = "WAITING"
    GOOD = "GOOD"
    CANCELLED = "CANCELLED"


class AttemptState(StrEnum):
    """One try to make one line into a card on one blank."""

    RESERVED = "RESERVED"
    PRESENTED = "PRESENTED"
    INTENT = "INTENT"
    ENCODED = "ENCODED"
    VERIFIED = "VERIFIED"
    PRINTED = "PRINTED"
    GOOD = "GOOD"
    HELD = "HELD"
    STACKED = "STACKED"
    RELEASED = "RELEASED"
    BLANK_REJECTED = "BLANK_REJECTED"
    SCRAP_PENDING = "SCRAP_PENDING"
    DESTROYED = "DESTROYED"


# No state-changing byte has left the engine yet.
BEFORE_INTENT = frozenset({AttemptState.RESERVED, AttemptState.PRESENTED})
# The chip is being made; past its time it is torn.
ON_CHIP = frozenset({AttemptState.INTENT, AttemptState.ENCODED, AttemptState.VERIFIED, AttemptState.PRINTED})
# Good by every proof, but nobody has seen the piece fall into the good bin.
UNSEEN = frozenset({AttemptState.GOOD, AttemptState.HELD})
OPEN = BEFORE_INTENT | ON_CHIP | UNSEEN
# The token no longer owns its line.
ENDED = frozenset({AttemptState.RELEASED, AttemptState.BLANK_REJECTED, AttemptState.SCRAP_PENDING, AttemptState.DESTROYED})


class ScrapReason(StrEnum):
    """Why a piece past INTENT is not a card. SAMPLE and RECALLED take finished cards back out of the good bin."""

    TORN = "torn"
    REFUSED = "refused"
    VERIFY_FAILED = "verify-failed"
    PRINT_FAILED = "print-failed"
    LEASE_LOST = "lease-lost"
    SAMPLE = "sample"
    RECALLED = "recalled"


class Bin(StrEnum):
    """Where a station drops pieces."""

    GOOD = "good"
    REJECT = "reject"
    RETURNED = "returned"
    SAMPLE = "sample"
