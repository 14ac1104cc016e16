"""APDU times through a reader.

A true card is never personalized by a measurement, nor even asked for a challenge: INITIALIZE UPDATE counts as a try, and a chip locks
after a few. So a real reader gets SELECT and GET DATA only, which change nothing; how long a card of a profile takes there is fitted from
cards that were really made. Whole cards are timed with virtual chips, and labelled so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from engine.capacity.distribution import Distribution
from engine.capacity.profile import Measurement
from engine.chip.transport import Transport

LEAST_CARDS: Final = 5
_MOST_CARDS: Final = 200
_MOST_APDUS: Final = 500
# CPLC, card data, key information template (GPCS H.2, H.3, 11.3.3.1): free reading
GET_DATA: Final = (bytes.fromhex("80CA9F7F00"), bytes.fromhex("80CA006600"), bytes.fromhex("80CA00E000"))


def chip_seconds(make: Callable[[], float], labels: dict[str, str], seconds: float) -> list[Measurement]:
    """`chip_seconds`, s per card: `make` makes one card and gives the sum of its APDU times. The first, which warms up, is not counted."""
    make()
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < LEAST_CARDS or (time.perf_counter() < until and len(taken) < _MOST_CARDS):
        taken.append(make())
    return [Measurement("chip_seconds", "s", labels, Distribution.of(taken))]


def apdu_seconds(transport: Transport, isd_aid: bytes, seconds: float) -> list[Measurement]:
    """`apdu_seconds`, s per APDU, of a card that is left as it was: SELECT of its security domain, and GET DATA.

    An APDU that is refused is timed all the same. Raises Unavailable CHIP_GONE, READER_GONE, READER_BUSY.
    """
    commands = [("select", bytes((0x00, 0xA4, 0x04, 0x00, len(isd_aid))) + isd_aid + b"\x00"), *(("get-data", apdu) for apdu in GET_DATA)]
    taken: dict[str, list[float]] = {name: [] for name, _ in commands}
    until = time.perf_counter() + seconds
    transport.connect()
    try:
        rounds = 0
        while rounds == 0 or (time.perf_counter() < until and rounds < _MOST_APDUS):
            _timed(transport, commands, taken)
            rounds += 1
    finally:
        transport.disconnect()
    labels = {"transport": "pcsc", "reader": transport.name}
    return [Measurement("apdu_seconds", "s", {**labels, "command": name}, Distribution.of(each)) for name, each in taken.items()]


def _timed(transport: Transport, commands: Sequence[tuple[str, bytes]], taken: dict[str, list[float]]) -> None:
    for name, apdu in commands:
        start = time.perf_counter()
        transport.transmit(apdu)
        taken[name].append(time.perf_counter() - start)
