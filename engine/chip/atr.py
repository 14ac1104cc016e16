"""The answer to reset: which protocols a chip offers, and how fast it lets a reader talk to it (ISO/IEC 7816-3 clause 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keys.errors import Corrupt

# Clock rate conversion F and highest clock in kHz by the high half of TA1, rate adjustment D by its low half (tables 7 and 8).
_F: Final = {
    0: (372, 4000),
    1: (372, 5000),
    2: (558, 6000),
    3: (744, 8000),
    4: (1116, 12000),
    5: (1488, 16000),
    6: (1860, 20000),
    9: (512, 5000),
    10: (768, 7500),
    11: (1024, 10000),
    12: (1536, 15000),
    13: (2048, 20000),
}
_D: Final = {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 6: 32, 7: 64, 8: 12, 9: 20}
_DEFAULT_TA1: Final = 0x11
_T1: Final = 1
_CONVENTIONS: Final = (0x3B, 0x3F)
# a TD that speaks of no protocol but of the chip as a whole
_GLOBAL: Final = 15


@dataclass(frozen=True, slots=True)
class AnswerToReset:
    """`protocols` as offered, the first one preferred; F, D and the highest clock come from TA1, or are the defaults where it is absent."""

    protocols: tuple[int, ...]
    f: int
    d: int
    max_clock_khz: int

    @property
    def etu_per_byte(self) -> int:
        """Elementary time units that one byte takes at least: start, eight bits, parity, and the least guard time of T=1, where that is
        offered, or of T=0 (clauses 7.2, 10.2 and 11.2).
        """
        return 11 if _T1 in self.protocols else 12

    def bits_per_s(self, clock_khz: float) -> float:
        """The rate the chip allows at a reader's clock, which it never lets exceed `max_clock_khz`."""
        return min(clock_khz, self.max_clock_khz) * 1000.0 * self.d / self.f


def parse(atr: bytes) -> AnswerToReset:
    """Reads the interface bytes; Corrupt ATR_INVALID for bytes that are no answer to reset."""
    if len(atr) < 2 or atr[0] not in _CONVENTIONS:
        raise Corrupt("ATR_INVALID", f"{len(atr)} bytes that begin with no convention of ISO/IEC 7816-3")
    ta1 = _DEFAULT_TA1
    protocols: list[int] = []
    follow, at = atr[1] >> 4, 2
    for level in range(1, len(atr)):
        present = [bool(follow >> bit & 1) for bit in range(4)]
        if at + sum(present) > len(atr):
            raise Corrupt("ATR_INVALID", f"an answer to reset of {len(atr)} bytes ends within its interface bytes")
        if level == 1 and present[0]:
            ta1 = atr[at]
        at += sum(present)
        if not present[3]:
            break
        follow, protocol = atr[at - 1] >> 4, atr[at - 1] & 0x0F
        if protocol not in (*protocols, _GLOBAL):
            protocols.append(protocol)
    if ta1 >> 4 not in _F or ta1 & 0x0F not in _D:
        ta1 = _DEFAULT_TA1
    f, max_clock = _F[ta1 >> 4]
    return AnswerToReset(tuple(protocols) or (0,), f, _D[ta1 & 0x0F], max_clock)
