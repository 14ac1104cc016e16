"""How fast a station makes cards when it waits for nobody else: the cycle of its heads, and what sharing its printers costs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.capacity.distribution import Floats
from engine.capacity.simulation.inputs import Card, Inputs, Part
from engine.capacity.simulation.streams import stream

# attempts of the simulated station, those before them that do not count, and how many such stations at least
_CARDS: Final = 2000
_WARM: Final = 200
_STATIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Cycle:
    """Of one head, per replication: mean seconds of an attempt with the gap after it while nothing is waited for, and its variance;
    of the mean, the seconds at the chip, the printer, a core and the token.
    """

    mean: Floats
    variance: Floats
    chip: Floats
    printing: Floats
    cpu: Floats
    hsm: Floats


@dataclass(frozen=True, slots=True)
class Rate:
    """Attempts of one head: `slower` (per replication) is what waiting for a shared printer does to their rate, `spread` to the variance
    of their number.
    """

    slower: Floats
    spread: float = 1.0


def cycle(card: Card, inputs: Inputs) -> Cycle:
    """The mixture of good cards, scrap and rejected blanks."""
    cpu = card.cpu if inputs.cores is not None else np.zeros_like(card.cpu)
    hsm = np.zeros_like(cpu) if inputs.calls_per_s is None else card.calls / np.maximum(inputs.calls_per_s, 1e-9)
    good = 1.0 - card.scrap - card.blank
    worked = np.maximum(card.handling.mean, cpu + hsm)
    whole = _sum((card.chip, card.printing), worked, card.handling.variance)
    scrap = (card.scrap_cycle.mean, card.scrap_cycle.variance) if card.scrap_cycle else _sum((card.chip,), worked, card.handling.variance)
    blank = card.blank_cycle or card.handling
    kinds = ((good, *whole), (card.scrap, *scrap), (card.blank, blank.mean, blank.variance))
    mean = sum((share * seconds for share, seconds, _ in kinds), np.zeros_like(good))
    second = sum((share * (variance + seconds**2) for share, seconds, variance in kinds), np.zeros_like(good))
    to_chip = good + (0.0 if card.scrap_cycle else card.scrap)
    served = 1.0 - card.blank
    return Cycle(
        mean=mean + card.gap.mean,
        variance=np.maximum(0.0, second - mean**2) + card.gap.variance,
        chip=card.chip.mean * to_chip,
        printing=card.printing.mean * good,
        cpu=cpu * served,
        hsm=hsm * served,
    )


def _sum(parts: tuple[Part, ...], more: Floats, variance: Floats) -> tuple[Floats, Floats]:
    return sum((part.mean for part in parts), more), sum((part.variance for part in parts), variance)


def printer_rate(card: Card, alone: Cycle, heads: int, printers: int, seed: int) -> Rate:
    """What sharing printers costs: equal stations simulated beside each other, each with the numbers of one replication; the answer is a
    smooth curve through them, so that their noise does not count as uncertainty.
    """
    replications = len(alone.mean)
    if not 0 < printers < heads or not alone.printing.any():
        return Rate(np.ones(replications))
    of = np.tile(np.arange(replications), -(-_STATIONS // replications))
    took = _station(card, of, heads, printers, stream(seed, "printers", heads, printers))
    slower = alone.mean[of] * _CARDS / heads / took
    cycles = alone.mean[of]
    if np.ptp(cycles) > 1e-6 * cycles.mean():
        slower_fit = np.polynomial.Polynomial.fit(cycles, slower, 2)
        fitted = np.asarray(slower_fit(alone.mean))
    else:
        fitted = np.full(replications, slower.mean())
    residual = took * (fitted[of] / (cycles * _CARDS / heads)) - 1.0
    spread = float(residual.var() * _CARDS / (alone.variance[of] / cycles**2).mean()) if alone.variance.any() else 1.0
    return Rate(np.minimum(1.0, fitted), min(4.0, max(0.05, spread)))


def _station(card: Card, of: np.ndarray, heads: int, printers: int, rng: np.random.Generator) -> Floats:
    """Seconds that `_CARDS` attempts take at a station, for each column of `of`: the head that comes to the printers first is first."""
    column = np.arange(len(of))
    free = np.zeros((len(of), printers))
    ready, prints = np.zeros((len(of), heads)), np.zeros((len(of), heads), dtype=bool)
    for head in range(heads):
        ready[:, head], prints[:, head] = _to_printer(card, of, rng)
    warm = np.zeros(len(of))
    now = warm
    for step in range(_WARM + _CARDS):
        head = ready.argmin(axis=1)
        came, printing = ready[column, head], prints[column, head]
        printer = free.argmin(axis=1)
        printed = np.maximum(came, free[column, printer]) + card.printing.draw(rng, of)
        now = np.where(printing, printed, came)
        free[column, printer] = np.where(printing, printed, free[column, printer])
        more, prints[column, head] = _to_printer(card, of, rng)
        ready[column, head] = now + card.gap.draw(rng, of) + more
        if step == _WARM - 1:
            warm = ready.mean(axis=1)
    return np.asarray(ready.mean(axis=1) - warm)


def _to_printer(card: Card, of: np.ndarray, rng: np.random.Generator) -> tuple[Floats, np.ndarray]:
    """Seconds until an attempt comes to the printer or to its end, and which of both."""
    drawn = rng.random(len(of))
    blank, scrap = drawn < card.blank[of], (drawn >= card.blank[of]) & (drawn < (card.blank + card.scrap)[of])
    handling = card.handling.draw(rng, of)
    seconds = handling + card.chip.draw(rng, of)
    if card.scrap_cycle is not None:
        seconds = np.where(scrap, card.scrap_cycle.draw(rng, of), seconds)
    seconds = np.where(blank, handling if card.blank_cycle is None else card.blank_cycle.draw(rng, of), seconds)
    return seconds, ~(blank | scrap)
