"""When running jobs will be done, judged by the pace of the cards just made; pure arithmetic, the time is given.

The pace is the whole plant's: which job gets how much of it follows from the dispatcher's rule. The range tells what the scatter of the
cards just made lets expect; a station that stops tomorrow is not in it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

KEPT: Final = 600
# fewer cards than this say nothing yet
ENOUGH: Final = 20
_BINS: Final = 12
# one-sided normal quantile of 95 %: nine ranges in ten hold the true finish while the plant stays as it is
_Z: Final = 1.645
# a regular line scatters less than chance would; it is never believed to scatter less than this share of chance
_FLOOR: Final = 0.1
# the last card of a line that works in bursts may come at any time: a range of more than a factor of twelve each way says no more
_WIDEST: Final = 1.5
# no card for so many mean gaps: the line stands, and the standing counts
_STALL: Final = 10.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Cards a second, and the relative error of that rate (one standard deviation) with the variance-to-mean ratio behind it."""

    rate: float
    error: float
    dispersion: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a job still wants: cards not yet good, the class (0 is served before 1) and its weight within the class."""

    cards: int
    rank: int
    weight: float


@dataclass(frozen=True, slots=True)
class Finish:
    """Seconds from now: most likely, and the range in which nine of ten should fall."""

    middle_s: float
    early_s: float
    late_s: float


class PaceKeeper:
    """Remembers when the last cards became good. Times are seconds of one steady clock."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=KEPT)

    def card(self, now: float) -> None:
        """One more good card."""
        self._times.append(now)

    def pace(self, now: float, in_hand: int) -> Pace | None:
        """The pace of the last cards; None while there are too few. `in_hand` cards being made at once come in bursts at first."""
        times = list(self._times)
        if len(times) < max(ENOUGH, in_hand + 2) or times[-1] <= times[0]:
            return None
        gaps, span = len(times) - 1, times[-1] - times[0]
        if now - times[-1] > _STALL * span / gaps:
            span = now - times[0]
        dispersion = max(_FLOOR, _dispersion(times))
        # heads that began together finish together: up to one round of them more or less lies in the window by chance
        error = math.sqrt(dispersion / gaps + (in_hand / gaps) ** 2 / 12.0)
        return Pace(gaps / span, error, dispersion)


def finishes(pace: Pace, jobs: Mapping[str, Waiting], *, remake_share: float = 0.0) -> dict[str, Finish]:
    """When each job is done. `remake_share`: pieces lost for each good card; what is lost is made again."""
    middle = _fluid(pace.rate, jobs)
    found = {}
    for name, seconds in middle.items():
        cards = max(1, jobs[name].cards)
        spread = min(_WIDEST, math.sqrt(pace.error**2 + pace.dispersion / cards * (1.0 + remake_share)))
        found[name] = Finish(seconds, seconds * math.exp(-_Z * spread), seconds * math.exp(_Z * spread))
    return found


def _fluid(rate: float, jobs: Mapping[str, Waiting]) -> dict[str, float]:
    """Seconds to each job's end when the rate flows to the first class that has work, and within it by weight."""
    left = {name: float(job.cards) for name, job in jobs.items()}
    done = {name: 0.0 for name, cards in left.items() if cards <= 0}
    now = 0.0
    while open_jobs := [name for name in left if name not in done]:
        first = min(jobs[name].rank for name in open_jobs)
        served = [name for name in open_jobs if jobs[name].rank == first]
        total = sum(jobs[name].weight for name in served)
        flow = {name: rate * jobs[name].weight / total for name in served}
        step = min(left[name] / flow[name] for name in served)
        now += step
        for name in served:
            left[name] -= flow[name] * step
            if left[name] <= 1e-9 * jobs[name].cards:
                done[name] = now
    return done


def _dispersion(times: Sequence[float]) -> float:
    """Variance to mean of the cards in equal spans of time: 1 for pure chance, near 0 for a regular line."""
    first, width = times[0], (times[-1] - times[0]) / _BINS
    counts = [0] * _BINS
    for at in times[1:]:
        counts[min(_BINS - 1, int((at - first) / width))] += 1
    mean = sum(counts) / _BINS
    return sum((count - mean) ** 2 for count in counts) / (_BINS - 1) / mean
