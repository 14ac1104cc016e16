"""What passes between the line and a station, without the wire: the way out, what a station says of itself, and a card under way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final, Protocol

from engine.ledger.attempts import Attempt
from engine.ledger.timings import Timings
from engine.personalize.segment import Segment
from engine.production.card import CardInMaking
from keys.errors import Corrupt

# Why a station could not present a chip -> the reason in the books, and what to tell an operator.
_NO_BLANK: Final = {
    "no-answer": ("CHIP_NO_ANSWER", "the chip does not answer"),
    "other-keys": ("CHIP_OTHER_KEYS", "the chip has no maker's keys of this version: personalized before, or of another maker"),
    "locked": ("CHIP_LOCKED", "the chip has locked its keys after too many wrong tries"),
    "garbage": ("CHIP_GARBAGE", "the chip's answers make no sense"),
}


def no_blank(reason: str, detail: str) -> Corrupt:
    """What a station's word for a chip that is no blank means."""
    code, words = _NO_BLANK.get(reason, _NO_BLANK["garbage"])
    return Corrupt(code, f"{words} ({detail})")


class Link(Protocol):
    """The way to one station. Calls queue a message and return. `gone`: nobody is at the other end any more."""

    gone: bool
    # the station ended the stream itself: it was told to leave
    left: bool

    def lease(self, token: int, commands: list[bytes], lease_ms: int) -> None: ...
    def segment(self, token: int, segment: Segment) -> None: ...
    def print_card(self, token: int) -> None: ...
    def eject(self, token: int, bin_name: str, reason: str, head: int = 0) -> None: ...
    def hold(self, reason: str, *, resume: bool) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class FoundPiece:
    """What a station found in a head when its stream began (see station.proto)."""

    token: int
    kdd: bytes
    step: str
    sequence: int
    responses: bytes
    bin: str
    head: int


@dataclass(frozen=True)
class StationHello:
    """Who connects, with what, and what lies in its heads."""

    station_id: str
    chip_types: tuple[str, ...]
    heads: int
    software: str
    transport: str
    found: list[FoundPiece]
    profiles: tuple[str, ...] = ()
    # whether there is a printer; without one a proven card is good at once
    prints: bool = True


def station_view(hello: StationHello, in_flight: int, stopped: str | None) -> dict[str, object]:
    """A connected station, for people."""
    return {
        "station": hello.station_id,
        "heads": hello.heads,
        "transport": hello.transport,
        "in_flight": in_flight,
        "stopped": stopped or "",
    }


@dataclass
class Run:
    """One attempt under way at a connected station."""

    attempt: Attempt
    profile: str
    station_id: str
    card: CardInMaking | None = None
    encoded: bool = False
    # the segment whose answers were judged last
    judged: int = 0
    # a step of the card that may not be durable yet; whoever takes the next one waits for it
    step: asyncio.Future[Attempt] | None = None
    proven: bool = False
    # the attempt comes to its end, or did: nothing that its station still says of the chip counts, and the piece has only to fall
    over: bool = False
    # of the chip, once it was presented
    lot: str = ""
    # None for a card taken over from before a restart: what the server did not hear of would be missing
    timings: Timings | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
