"""A ledger on a clock the test turns, and short words for what an engine does to it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.ledger import attempts, audit, jobs, lines, serials, stock
from engine.ledger.attempts import Attempt, AttemptState
from engine.ledger.store import Ledger
from keys.errors import CitycardError

HOUR_US = 3_600_000_000
LEASE_US = 30_000_000
MAX_CHIP_US = 120_000_000
PROFILE_HASH = "AB" * 32


@dataclass
class TurnedClock:
    """Two clocks that move only when a test moves them."""

    boot: int = 5_000_000
    wall: int = 1_800_000_000_000_000

    def boottime_us(self) -> int:
        return self.boot

    def wall_us(self) -> int:
        return self.wall


@functools.cache
def empty_ledger() -> bytes:
    """A ledger as the migrations make it. Once for all the tests of a process, which would else migrate hundreds of times."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        Ledger.open(path, TurnedClock()).close()
        return path.read_bytes()


@dataclass
class World:
    """One ledger file, opened and reopened, with one running job of a few lines."""

    path: Path
    clock: TurnedClock = field(default_factory=TurnedClock)
    chip: int = 0
    serial: int = 0

    def __post_init__(self) -> None:
        if not self.path.exists():
            self.path.write_bytes(empty_ledger())
        self.ledger = Ledger.open(self.path, self.clock)

    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger.open(self.path, self.clock)

    def close(self) -> None:
        self.ledger.close()

    # Each word below is one acknowledged transaction.

    def do(self, function, *args, **kwargs):
        return self.ledger.run(lambda tx: function(tx, *args, **kwargs))

    def see(self, function, *args, **kwargs):
        return self.ledger.read(lambda conn: function(conn, *args, **kwargs))

    def stage(self, job_id: str = "J1", count: int = 5, **changes):
        request = {
            "idempotency_key": f"key-{job_id}",
            "profile": "city",
            "profile_hash": PROFILE_HASH,
            "priority": 5,
            "kind": "bulk",
            "due_us": None,
            "submitted_by": "operator",
            "pii_key_wrapped": b"sealed-key-of-" + job_id.encode(),
            "options": {},
        } | changes
        job = self.do(jobs.create, job_id=job_id, **request)
        rows = [(n, hash16(f"person {n}"), hash16(f"card {n}"), b"record-%d-of-%s" % (n, job_id.encode())) for n in range(1, count + 1)]
        self.do(lines.add_batch, job_id, rows)
        return job

    def start(self, job_id: str = "J1", count: int = 5, **changes) -> None:
        self.stage(job_id, count, **changes)
        self.do(jobs.set_state, job_id, "READY")
        self.do(jobs.set_state, job_id, "RUNNING")
        self.do(serials.define_pool, "city", 1, 10_000)

    def blanks(self, count: int, station: str = "S1") -> None:
        self.do(stock.receive, "LOT", "chip", count, "keeper")
        self.do(stock.issue, "LOT", station, count, "keeper")

    def reserve(self, line: int = 1, station: str = "S1", job_id: str = "J1") -> Attempt:
        return self.do(attempts.reserve, job_id, line, station, LEASE_US, b"challeng")

    def present(self, attempt: Attempt, chip: str | None = None) -> Attempt:
        if chip is None:
            self.chip += 1
            chip = f"{self.chip:020X}"
        answer = {"atr": b"\x3b\x00", "cplc": b"cplc", "initialize_update_response": b"r" * 29}
        return self.do(attempts.present, attempt.token, chip_id=chip, **answer)

    def intent(self, attempt: Attempt, **changes) -> Attempt:
        self.serial += 1
        facts = {
            "chip_id": attempt.chip_id,
            "host_challenge": b"challeng",
            "initialize_update_response": b"r" * 29,
            "kvn": 1,
            "profile_hash": PROFILE_HASH,
            "image_digest": b"d" * 32,
            "serials": {"city": self.serial},
            "psn": attempt.attempt_no - 1,
            "max_chip_us": MAX_CHIP_US,
        } | changes
        return self.do(attempts.intent, attempt.token, **facts)

    def advance(self, attempt: Attempt, state: AttemptState, chip: str | None = None) -> Attempt:
        """Along the good way up to `state`."""
        way = {
            AttemptState.PRESENTED: lambda one: self.present(one, chip),
            AttemptState.INTENT: self.intent,
            AttemptState.ENCODED: lambda one: self.do(attempts.encoded, one.token),
            AttemptState.VERIFIED: lambda one: self.do(attempts.verified, one.token, {"mk": "proven-by-use"}),
            AttemptState.PRINTED: lambda one: self.do(attempts.printed, one.token),
            AttemptState.GOOD: lambda one: self.do(attempts.good, one.token),
            AttemptState.STACKED: lambda one: self.do(attempts.stacked, one.token, "good"),
        }
        order = [AttemptState.RESERVED, *way]
        for step in order[order.index(attempt.state) + 1 : order.index(state) + 1]:
            attempt = way[step](attempt)
            assert attempt.state is step
        return attempt

    def card(self, line: int = 1, station: str = "S1", job_id: str = "J1", chip: str | None = None) -> Attempt:
        """One finished card."""
        return self.advance(self.reserve(line, station, job_id), AttemptState.STACKED, chip)

    def attempt(self, attempt: Attempt) -> Attempt:
        return self.see(attempts.by_id, attempt.attempt_id)

    def line(self, line: int = 1, job_id: str = "J1") -> str:
        return str(self.see(lines.state, job_id, line))

    def job(self, job_id: str = "J1") -> jobs.JobRow:
        return self.see(jobs.get, job_id)


def hash16(text: str) -> bytes:
    return text.encode().ljust(16, b".")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "ledger.db")
    yield made
    made.close()


@pytest.fixture
def make_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """For tests that need many ledgers."""
    made: list[World] = []

    def make() -> World:
        made.append(World(tmp_path_factory.mktemp("world") / "ledger.db"))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def refused(world: World):
    """`refused(call, Kind, REASON)`: the call raises exactly this error and leaves no trace in the ledger."""

    def check(call, kind: type[CitycardError], reason: str) -> None:
        before = world.see(audit.head)
        with pytest.raises(kind) as caught:
            call()
        assert caught.value.reason == reason
        assert world.see(audit.head) == before

    return check
