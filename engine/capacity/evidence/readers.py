"""Which reader, or which lot of chips, is slower than the others, whether its bit rate or something else is to blame, and what it costs.

Compared are cards of one profile and, for readers, of one lot (for lots, in one reader), command by command: what a chip itself works
on a command is then in both times and falls out of their difference. What is left grows with the bytes of the command where the bit
rate is lower, and does not where every command takes longer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.chip.atr import AnswerToReset

Floats = npt.NDArray[np.float64]
# A reader is called slow when its chips take this much longer than at the reference ...
SLOWER: Final = 0.10
# ... when that costs at least this share of the cards it could make ...
COSTLY: Final = 0.02
# ... when the difference is this many times what the scatter of its cards explains ...
SIGMA: Final = 4.0
# ... and when at least so many cards of both were timed.
FEWEST: Final = 5
# All readers are called slow when the wire runs at less than this share of what the answer to reset allows at the usual lowest clock.
BELOW_PROMISE: Final = 0.5
CLOCK_KHZ: Final = 3571.0
# Lengths must differ by this many bytes for a rate to be told from them.
_SPREAD: Final = 32.0
# sd of a median over that of a mean, and of a normal distribution over its median absolute deviation
_MEDIAN_SD: Final = 1.2533 * 1.4826


@dataclass(frozen=True)
class Cards:
    """Cards made under the same conditions. `seconds` is (cards, commands); `bytes_` (commands,) with NaN where not known; `cycle_s`
    (cards,) from lease to stacked. `reads`: commands that only read, so that no writing of the chip is in their time.
    """

    name: str
    seconds: Floats
    bytes_: Floats
    reads: npt.NDArray[np.bool_]
    cycle_s: Floats
    atr: AnswerToReset | None = None

    @property
    def chip_s(self) -> Floats:
        """Seconds of each card's chip."""
        total: Floats = self.seconds.sum(axis=1)
        return total


@dataclass(frozen=True)
class Wire:
    """Time = `per_command_s` + bytes / rate, over the commands that only read; `bits_per_s` is None where their lengths tell nothing."""

    per_command_s: float
    bits_per_s: float | None


@dataclass(frozen=True)
class Slow:
    """`name` takes `seconds` more a card than `reference`, and loses `cards_per_hour` by it while nothing else holds it up.

    `by_bit_rate`: the difference grows with the bytes; `bits_per_s` and `others_bits_per_s` where they could be told.
    """

    name: str
    reference: str
    seconds: float
    cards_per_hour: float
    by_bit_rate: bool
    per_command_s: float
    bits_per_s: float | None
    others_bits_per_s: float | None


def wire_of(cards: Cards) -> Wire:
    """The line through the median times of the reading commands."""
    known = cards.reads & np.isfinite(cards.bytes_)
    medians = np.median(cards.seconds, axis=0)
    if known.sum() < 3 or np.ptp(cards.bytes_[known]) < _SPREAD:
        return Wire(float(np.median(medians)), None)
    slope, start = _line(cards.bytes_[known], medians[known])
    return Wire(max(0.0, start), _rate(cards, slope))


def _rate(cards: Cards, seconds_per_byte: float) -> float | None:
    etu = 11 if cards.atr is None else cards.atr.etu_per_byte
    return etu / seconds_per_byte if seconds_per_byte > 0 else None


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Slope and start of the line through the points; the median of all slopes, which single odd commands do not bend."""
    at, to = np.triu_indices(len(x), 1)
    run = x[to] - x[at]
    apart = np.abs(run) >= 1
    slope = float(np.median((y[to] - y[at])[apart] / run[apart]))
    return slope, float(np.median(y - slope * x))


def slower(groups: Sequence[Cards]) -> list[Slow]:
    """The ones that are slow, worst first. The reference is the median one, of two the quicker: half of a plant cannot be slow."""
    counted = sorted((g for g in groups if len(g.seconds) >= FEWEST), key=lambda g: float(np.median(g.chip_s)))
    if len(counted) < 2:
        return []
    reference = counted[(len(counted) - 1) // 2]
    found = [slow for group in counted if (slow := _compared(group, reference)) is not None]
    return sorted(found, key=lambda s: s.seconds, reverse=True)


def _compared(group: Cards, reference: Cards) -> Slow | None:
    own, others = float(np.median(group.chip_s)), float(np.median(reference.chip_s))
    more = own - others
    lost = cards_lost(float(np.median(group.cycle_s)), more)
    noise = np.hypot(_error(group.chip_s), _error(reference.chip_s))
    if group is reference or more < SLOWER * others or more < SIGMA * noise or lost < COSTLY * 3600.0 / float(np.median(group.cycle_s)):
        return None
    difference = np.median(group.seconds, axis=0) - np.median(reference.seconds, axis=0)
    known = np.isfinite(group.bytes_)
    slope, start = _line(group.bytes_[known], difference[known]) if known.any() and np.ptp(group.bytes_[known]) >= _SPREAD else (0.0, 0.0)
    wire = wire_of(reference).bits_per_s
    base = 0.0 if wire is None else (_rate(reference, 1.0) or 0.0) / wire
    by_rate = slope > 0 and slope * float(group.bytes_[known].sum()) >= more / 2.0
    return Slow(
        name=group.name,
        reference=reference.name,
        seconds=more,
        cards_per_hour=lost,
        by_bit_rate=by_rate,
        per_command_s=max(0.0, start),
        bits_per_s=_rate(group, base + slope) if by_rate else wire_of(group).bits_per_s,
        others_bits_per_s=wire,
    )


def cards_lost(cycle_s: float, more_s: float) -> float:
    """Cards an hour that one head would make more if its cycle were `more_s` shorter."""
    shorter = max(cycle_s - more_s, 1e-9)
    return 3600.0 / shorter - 3600.0 / cycle_s if cycle_s > 0 else 0.0


def _error(seconds: Floats) -> float:
    """Standard error of the median."""
    return float(_MEDIAN_SD * np.median(np.abs(seconds - np.median(seconds))) / np.sqrt(len(seconds)))


def below_promise(cards: Cards) -> tuple[float, float] | None:
    """(bits per second, those that the answer to reset allows) where a reader runs far below them; None where it does not."""
    rate = wire_of(cards).bits_per_s
    if cards.atr is None or rate is None or len(cards.seconds) < FEWEST:
        return None
    allowed = cards.atr.bits_per_s(CLOCK_KHZ)
    return (rate, allowed) if rate < BELOW_PROMISE * allowed else None


def by_unit(groups: Mapping[tuple[str, str], Cards]) -> dict[str, list[Cards]]:
    """Groups keyed (context, name), gathered by context: only cards of one context are compared."""
    found: dict[str, list[Cards]] = {}
    for (context, _), cards in sorted(groups.items()):
        found.setdefault(context, []).append(cards)
    return found
