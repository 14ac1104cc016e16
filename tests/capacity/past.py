"""A past of one's own making: a real ledger in which stations came, worked at given times, failed and went."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from engine.ledger import attempts, events, jobs, lines, serials, stock
from engine.ledger.events import StationEvent
from engine.ledger.store import Ledger
from engine.ledger.timings import Timings, record

SECOND = 1_000_000
START = 1_800_000_000 * SECOND
PROFILE = "zhengzhou-citizen-card"
# TA1 = 96, T=1
ATR = bytes.fromhex("3B95968131FE45") + b"chips" + b"\x00"
# commands of the lease and of every segment of that profile
COUNTS = (3, 64, 62, 3, 3, 3, 3, 1)


@dataclass
class _Clock:
    wall: int = START

    def boottime_us(self) -> int:
        return 5 * SECOND

    def wall_us(self) -> int:
        return self.wall


@dataclass(frozen=True)
class Made:
    """One attempt: seconds from the start of the past to its lease, and from there to the piece in its bin."""

    at: float
    cycle: float
    line: int
    station: str = "S1"
    reader: str = "R1"
    job: str = "J1"
    lot: str = "0001"
    chip: float = 1.0
    print_: float = 0.25
    # "good", "torn", a reason of a rejected blank in capitals, or "released"
    end: str = "good"
    # microseconds of every command; default: `chip` shared out evenly
    apdus: Sequence[int] = ()
    timed: bool = True


@dataclass
class Past:
    """Say what happened, then `tell` it to the ledger in the order of time."""

    path: Path
    _plan: list[tuple[float, int, Callable[[Any], object]]] = field(default_factory=list)
    _number: Any = field(default_factory=count)
    _chips: Any = field(default_factory=lambda: count(1))

    def at(self, seconds: float, work: Callable[[Any], object]) -> None:
        heapq.heappush(self._plan, (seconds, next(self._number), work))

    def job(self, at: float, count: int, job_id: str = "J1", *, priority: int = 5) -> None:
        def work(tx):
            kind = "bulk" if priority else "instant"
            request = {"profile": PROFILE, "profile_hash": "AB" * 32, "kind": kind, "due_us": None, "submitted_by": "o"}
            jobs.create(tx, job_id=job_id, idempotency_key=job_id, priority=priority, pii_key_wrapped=b"k", options={}, **request)
            lines.add_batch(tx, job_id, [(n, b"p%015d" % n, b"c%015d" % n, b"record") for n in range(1, count + 1)])
            serials.define_pool(tx, "city", 1, 10_000)
            jobs.set_state(tx, job_id, "READY")
            jobs.set_state(tx, job_id, "RUNNING")

        self.at(at, work)

    def state(self, at: float, state: str, job_id: str = "J1") -> None:
        self.at(at, lambda tx: jobs.set_state(tx, job_id, state))

    def station(self, at: float, name: str = "S1", heads: int = 1) -> None:
        told = {"heads": heads, "transport": "pcsc", "profiles": [], "chip_types": ["ZZC01"]}
        self.at(at, lambda tx: events.note(tx, name, StationEvent.CONNECTED, detail=told))

    def event(self, at: float, event: StationEvent, cause: str = "", name: str = "S1") -> None:
        self.at(at, lambda tx: events.note(tx, name, event, cause=cause))

    def blanks(self, at: float, number: int, name: str = "S1") -> None:
        def work(tx):
            stock.receive(tx, "0001", "ZZC01", number, "keeper")
            stock.issue(tx, "0001", name, number, "keeper")

        self.at(at, work)

    def made(self, *every: Made) -> None:
        for one in every:
            held: list[attempts.Attempt] = []
            self.at(one.at, lambda tx, o=one, h=held: h.append(attempts.reserve(tx, o.job, o.line, o.station, 30 * SECOND, b"challeng")))
            self.at(one.at + one.cycle, lambda tx, o=one, h=held: self._end(tx, h[0], o))

    def _end(self, tx: Any, attempt: attempts.Attempt, one: Made) -> None:
        token, bin_name = attempt.token, "good"
        if one.end in ("good", "torn"):
            self._begin(tx, attempt, one)
        if one.end == "torn":
            attempts.scrap(tx, token, "torn")
            bin_name = "reject"
        elif one.end == "good":
            attempts.encoded(tx, token)
            attempts.verified(tx, token, {})
            attempts.printed(tx, token)
            attempts.good(tx, token)
        elif one.end == "released":
            attempts.release(tx, token, "paused")
            bin_name = "returned"
        else:
            attempts.blank_rejected(tx, token, one.end)
            bin_name = "reject"
        attempts.stacked(tx, token, bin_name)
        if one.timed:
            record(tx, attempt.attempt_id, self._timings(one))

    def _begin(self, tx: Any, attempt: attempts.Attempt, one: Made) -> None:
        number = next(self._chips)
        chip = f"{one.lot}{number:016X}"
        answer = {"initialize_update_response": b"r" * 29}
        attempts.present(tx, attempt.token, chip_id=chip, atr=ATR, cplc=b"c" * 42, **answer)
        facts = {"host_challenge": b"challeng", "kvn": 1, "profile_hash": "AB" * 32, "image_digest": b"d" * 32, "max_chip_us": SECOND}
        psn = attempt.attempt_no - 1
        attempts.intent(tx, attempt.token, chip_id=chip, serials={"city": number}, psn=psn, **answer, **facts)

    @staticmethod
    def _timings(one: Made) -> Timings:
        timings = Timings(reader=one.reader, transport="pcsc", feed_us=1000, print_us=int(one.print_ * SECOND), eject_us=2000)
        if one.end in ("good", "torn"):
            total = sum(COUNTS)
            apdus = list(one.apdus) or [int(one.chip * SECOND / total)] * total
            at = 0
            for number in COUNTS:
                timings.played(apdus[at : at + number])
                at += number
        return timings

    def tell(self) -> Path:
        clock = _Clock()
        with Ledger.open(self.path, clock) as ledger:
            while self._plan:
                moment = self._plan[0][0]
                clock.wall = START + round(moment * SECOND)
                now = []
                while self._plan and self._plan[0][0] == moment:
                    now.append(heapq.heappop(self._plan)[2])
                ledger.run(lambda tx, work=now: [one(tx) for one in work])
        return self.path
