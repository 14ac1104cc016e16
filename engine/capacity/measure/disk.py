"""Commits of a real ledger on one disk: the eight transitions of a card, many cards' at once in one commit, each with its fsync."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from engine.capacity.distribution import Distribution
from engine.capacity.measure.probe import LEAST_ROUNDS, shares
from engine.capacity.profile import Measurement
from engine.ledger import attempts, jobs, lines, serials
from engine.ledger.attempts import Attempt
from engine.ledger.store import Ledger
from engine.ledger.tx import Tx

BATCHES: Final = (1, 8, 64, 256)
_NAME: Final = "measure"
_HASH: Final = "00" * 32
_CHALLENGE: Final = bytes(8)
_ANSWER: Final = bytes(29)
_HOUR_US: Final = 3_600_000_000
# about the size of a sealed line
_RECORD: Final = bytes(320)
_MOST_ROUNDS: Final = 400
_HELD_S: Final = 30.0


def ledger_commit_seconds(directory: Path, seconds: float, batches: Sequence[int] = BATCHES) -> list[Measurement]:
    """`ledger_commit_seconds`, s, from transitions queued together to all of them on the disk of `directory`, by their number.

    The ledger is a temporary one in a directory of its own there, which is removed. Raises what the ledger raises; OSError.
    """
    found = []
    for batch in batches:
        with ExitStack() as stack:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix=".capacity-", dir=directory))
            ledger = stack.enter_context(Ledger.open(Path(place) / "ledger.sqlite"))
            line = _Line(ledger, batch)
            taken: list[float] = []
            until = time.perf_counter() + shares(seconds, batches)
            while len(taken) < LEAST_ROUNDS or (time.perf_counter() < until and len(taken) < _MOST_ROUNDS):
                taken += line.cards()
            found.append(Measurement("ledger_commit_seconds", "s", {"batch": str(batch)}, Distribution.of(taken)))
    return found


class _Line:
    """`batch` stations that work in step, so that all of them wait for the same commit."""

    def __init__(self, ledger: Ledger, batch: int) -> None:
        self.ledger = ledger
        self.batch = batch
        self.made = 0
        ledger.run(lambda tx: serials.define_pool(tx, _NAME, 1, 10_000_000))

    def cards(self) -> list[float]:
        """One card at each of the stations; seconds of each of its commits, one per transition."""
        numbers = range(self.made + 1, self.made + self.batch + 1)
        self.made += self.batch
        job = f"MEASURE{self.made}"
        self.ledger.run(partial(_started, job=job, numbers=numbers))
        one, taken = _together(self.ledger, [partial(_reserve, job=job, line=number) for number in numbers])
        seconds = [taken]
        for step in (_present, _intent, _encoded, _verified, _printed, _good, _stacked):
            one, taken = _together(self.ledger, [partial(step, attempt=attempt) for attempt in one])
            seconds.append(taken)
        return seconds


def _together(ledger: Ledger, steps: Sequence[Callable[[Tx], Attempt]]) -> tuple[list[Attempt], float]:
    """Holds the writer until all steps wait, as they do behind another commit, then lets it take them in one; what they gave, and the
    seconds until the last was on disk.
    """
    entered, gate = threading.Event(), threading.Event()

    def hold(_: Tx) -> None:
        entered.set()
        gate.wait(_HELD_S)

    held = ledger.transact(hold)
    entered.wait(_HELD_S)
    futures = [ledger.transact(step) for step in steps]
    start = time.perf_counter()
    gate.set()
    done = [future.result() for future in futures]
    taken = time.perf_counter() - start
    held.result()
    return done, taken


def _started(tx: Tx, job: str, numbers: Sequence[int]) -> None:
    """A running job of its own for these lines: lines are added while a job is staged only."""
    values: dict[str, Any] = {
        "idempotency_key": job,
        "profile": _NAME,
        "profile_hash": _HASH,
        "priority": 5,
        "kind": "bulk",
        "due_us": None,
        "submitted_by": _NAME,
        "pii_key_wrapped": b"none",
        "options": {},
    }
    jobs.create(tx, job_id=job, **values)
    lines.add_batch(tx, job, [(number, b"person%010d" % number, b"card--%010d" % number, _RECORD) for number in numbers])
    jobs.set_state(tx, job, "READY")
    jobs.set_state(tx, job, "RUNNING")


def _reserve(tx: Tx, job: str, line: int) -> Attempt:
    return attempts.reserve(tx, job, line, f"station-{line}", _HOUR_US, _CHALLENGE)


def _present(tx: Tx, attempt: Attempt) -> Attempt:
    chip = f"{attempt.line_no:020X}"
    return attempts.present(tx, attempt.token, chip_id=chip, atr=b"\x3b\x00", cplc=bytes(42), initialize_update_response=_ANSWER)


def _intent(tx: Tx, attempt: Attempt) -> Attempt:
    facts: dict[str, Any] = {
        "chip_id": attempt.chip_id,
        "host_challenge": _CHALLENGE,
        "initialize_update_response": _ANSWER,
        "kvn": 1,
        "profile_hash": _HASH,
        "image_digest": bytes(32),
        "serials": {_NAME: attempt.line_no},
        "psn": 0,
        "max_chip_us": _HOUR_US,
    }
    return attempts.intent(tx, attempt.token, **facts)


def _encoded(tx: Tx, attempt: Attempt) -> Attempt:
    return attempts.encoded(tx, attempt.token)


def _verified(tx: Tx, attempt: Attempt) -> Attempt:
    return attempts.verified(tx, attempt.token, {"key": "proven-by-use"})


def _printed(tx: Tx, attempt: Attempt) -> Attempt:
    return attempts.printed(tx, attempt.token)


def _good(tx: Tx, attempt: Attempt) -> Attempt:
    return attempts.good(tx, attempt.token)


def _stacked(tx: Tx, attempt: Attempt) -> Attempt:
    return attempts.stacked(tx, attempt.token, "good")
