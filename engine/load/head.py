"""One head of a virtual station: what it does on each of the server's messages, and when.

The chip's answers are computed at once; what a chip, a printer or an operator would take is then waited for, really, before they are
sent. A chip's time is spread over its commands by the bytes they move.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from citycard.v1 import station_pb2 as pb

from engine.load.chips import Chip
from engine.personalize.segment import to_slab

_GONE: Final = "CHIP_GONE"
_CPLC: Final = 1


@dataclass(frozen=True)
class Times:
    """Seconds as they are waited: a chip's work on one card with its relative spread, printing, and the pace of cards, if any.

    `card_bytes` are those of all commands and answers of a card, over which the chip's time is spread.
    """

    chip_s: float = 0.0
    spread: float = 0.0
    print_s: float = 0.0
    pace_s: float | None = None
    card_bytes: int = 1


@dataclass
class Tally:
    """What the heads of a run saw. Seconds of streams are from a chip's challenge sent to its segment received."""

    streams: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    good: int = 0
    scrapped: int = 0
    rejected: int = 0
    returned: int = 0
    leased: int = 0


class Feeder(Protocol):
    """Where a head takes its blanks from and drops its pieces."""

    def take(self) -> Chip | None:
        """The next blank; None when the feeder is empty."""

    def drop(self, bin_name: str) -> None:
        """A piece fell into a bin."""


class Head:
    """A state machine without tasks: messages come in by `on`, answers leave by `send` when they are due."""

    def __init__(
        self,
        index: int,
        reader: str,
        feeder: Feeder,
        times: Times,
        rng: random.Random,
        tally: Tally,
        send: Callable[[pb.ConnectRequest], None],
        fail: float,
    ) -> None:
        self.index = index
        self.token = 0
        self.asked = False
        self.stopping = False
        self._reader = reader
        self._feeder = feeder
        self._times = times
        self._rng = rng
        self.tally = tally
        self._send = send
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._chip: Chip | None = None
        self._chip_s = 0.0
        self.moved = 0
        self._dies_at = 0
        self._due = 0.0
        self._sent_at = 0.0
        self._asked_at = 0.0
        self._waited = 0.0
        self._fresh = False
        self.on_end: Callable[[str], None] = lambda _: None

    @property
    def idle(self) -> bool:
        """Whether no piece is in the head."""
        return self.token == 0

    def begin(self, delay_s: float) -> None:
        """Asks for the first card after a delay."""
        self._due = self._loop.time() + delay_s
        self._loop.call_at(self._due, self._ask)

    def _ask(self) -> None:
        if not self.stopping:
            self.asked = True
            self._send(pb.ConnectRequest(credit=pb.Credit(count=1)))

    # -- the server's messages -----------------------------------------------------------------------------------------

    def lease(self, lease: pb.Lease) -> None:
        """A blank is taken and answers the lease's commands; from a feeder that is empty comes none."""
        now = self._loop.time()
        self.asked = False
        self.token = lease.token
        self._waited = 0.0
        self.tally.leased += 1
        chip = self._feeder.take()
        if chip is None:
            self._sent_at = now
            self._send(pb.ConnectRequest(not_presented=pb.NotPresented(token=lease.token, reason="no-blank", detail="the feeder is empty")))
            return
        self._chip = chip
        if self._times.spread:
            self._chip_s = self._times.chip_s * max(0.1, self._rng.gauss(1.0, self._times.spread))
        else:
            self._chip_s = self._times.chip_s
        self.moved = 0
        self._fresh = True
        atr = chip.power_on()
        answers = chip.play(lease.commands)
        apdu_us = self._chip_times(lease.commands, answers)
        feed_s = max(0.0, self._due - now)
        torn = self._fail > 0.0 and self._rng.random() < self._fail
        self._dies_at = self._rng.randrange(self.moved + 1, self._times.card_bytes) if torn else 0
        presented = pb.Presented(
            token=lease.token,
            atr=atr,
            cplc=answers[_CPLC][:-2],
            initialize_update_response=answers[-1][:-2],
            apdu_us=apdu_us,
            feed_us=int(feed_s * 1e6),
            reader=self._reader,
        )
        self._later(now + feed_s + sum(apdu_us) / 1e6, pb.ConnectRequest(presented=presented))

    def segment(self, segment: pb.Segment) -> None:
        """The chip plays a segment; one that is to be torn dies in the midst of it."""
        now = self._got()
        if self._fresh:
            self.tally.streams.append(now - self._sent_at)
            self._fresh = False
        chip = self._chip
        if chip is None:
            return
        before = self.moved
        answers = chip.play(segment.commands)
        apdu_us = self._chip_times(segment.commands, answers)
        stopped = ""
        if before < self._dies_at <= self.moved:
            left = max(0, min(len(answers) - 1, int(len(answers) * (self._dies_at - before) / (self.moved - before))))
            del answers[left:], apdu_us[left:]
            stopped = _GONE
        played = pb.SegmentPlayed(
            token=segment.token, sequence=segment.sequence, responses=to_slab(answers), apdu_us=apdu_us, stopped=stopped
        )
        self._later(now + sum(apdu_us) / 1e6, pb.ConnectRequest(segment_played=played))

    def print_card(self) -> None:
        """The face is printed."""
        now, seconds = self._got(), self._times.print_s
        self._later(now + seconds, pb.ConnectRequest(printed=pb.Printed(token=self.token, ok=True, print_us=int(seconds * 1e6))))

    def eject(self, bin_name: str) -> None:
        """The piece falls, and the next card is asked for; its blank is fed when its time has come."""
        now = self._got()
        if self._chip is not None:
            self._feeder.drop(bin_name)
            self._count(bin_name)
        self.on_end(bin_name)
        pace = self._times.pace_s
        self._due = now if pace is None else max(now, self._due + pace)
        self.asked = not self.stopping
        stacked = pb.Stacked(token=self.token, bin=bin_name, waited_us=int(self._waited * 1e6), credit=int(self.asked))
        self._send(pb.ConnectRequest(stacked=stacked))
        self.token = 0
        self._chip = None

    def _count(self, bin_name: str) -> None:
        tally = self.tally
        tally.good += bin_name == "good"
        tally.returned += bin_name == "returned"
        if bin_name == "reject":
            tally.scrapped += not self._fresh
            tally.rejected += self._fresh

    # -- time ----------------------------------------------------------------------------------------------------------

    def _got(self) -> float:
        """Now; what was waited for the server is noted."""
        now = self._loop.time()
        waited = now - self._sent_at
        self._waited += waited
        self.tally.answers.append(waited)
        return now

    def _chip_times(self, slab: bytes, answers: list[bytes]) -> list[int]:
        """Microseconds of each command, by the bytes it moves."""
        a_byte = self._chip_s * 1e6 / self._times.card_bytes
        times, at = [], 0
        for answer in answers:
            size = slab[at] << 8 | slab[at + 1]
            moved = size + len(answer)
            self.moved += moved
            times.append(int(a_byte * moved))
            at += 2 + size
        return times

    def _later(self, when: float, message: pb.ConnectRequest) -> None:
        if when <= self._loop.time():
            self._leave(message)
        else:
            self._loop.call_at(when, self._leave, message)

    def _leave(self, message: pb.ConnectRequest) -> None:
        self._sent_at = self._loop.time()
        self._send(message)
