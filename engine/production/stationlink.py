"""What passes between the line and a station, without the wire: the way out, what a station says of itself, and a card under way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from engine.ledger.attempts import Attempt
from engine.personalize.segment import Segment
from engine.production.card import CardInMaking


class Link(Protocol):
    """The way to one station. Calls queue a message and return."""

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


@dataclass
class Run:
    """One attempt under way at a connected station."""

    attempt: Attempt
    profile: str
    station_id: str
    card: CardInMaking | None = None
    encoded: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
