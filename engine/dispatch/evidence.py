"""Who looks guilty of failed cards: what was seen lately, and how much likelier one explanation is than the others.

The last cards are remembered: station, reader, chip lot, job, profile, and how each ended. An explanation says that the
cards of one suspect fail at a rate of their own, of which nothing is known (uniform from 0 to 1), and all others at the background rate (a
beta distribution). What was seen makes each explanation more or less likely (Bayes); they are compared with one another and with
"nothing in particular". Suspects that had the same cards come out equally likely: they cannot be told apart.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from enum import StrEnum
from math import exp, lgamma
from typing import Final, NamedTuple, TypeAlias

# Cards remembered of each reader, and of all together. So few that a suspect is judged by what it does now.
OF_READER: Final = 10
OF_ALL: Final = 20
# Assumptions, not measurements: that one card in fifty fails for no reason in particular, and that before anything is seen one given
# suspect is to blame for a failure with odds of one to fifty.
BACKGROUND: Final = (1.0, 49.0)
PRIOR_ODDS: Final = 0.02
# An explanation that holds with this probability is taken for the truth.
SURE: Final = 0.95


class Kind(StrEnum):
    """What can be to blame, from the narrowest to the widest."""

    READER = "reader"
    STATION = "station"
    LOT = "lot"
    JOB = "job"
    PROFILE = "profile"
    ALL = "all"

    # an enumeration's own hash is a Python call, and suspects are looked up several times a card
    __hash__ = str.__hash__


class Suspect(NamedTuple):
    """One thing that may be to blame; a reader's name is of its station."""

    kind: Kind
    name: str
    station: str = ""


class Seen(NamedTuple):
    """How a card ended, and where. `failure` is a short fixed word, None for a good card; what is not known is empty."""

    station: str
    reader: str = ""
    lot: str = ""
    job: str = ""
    profile: str = ""
    failure: str | None = None

    def suspects(self) -> tuple[Suspect, ...]:
        """Everything this card's end speaks of."""
        named = (
            (Suspect(Kind.READER, self.reader, self.station), self.reader),
            (Suspect(Kind.STATION, self.station), self.station),
            (Suspect(Kind.LOT, self.lot), self.lot),
            (Suspect(Kind.JOB, self.job), self.job),
            (Suspect(Kind.PROFILE, self.profile), self.profile),
        )
        return (*(suspect for suspect, name in named if name), EVERYTHING)


EVERYTHING: Final = Suspect(Kind.ALL, "")
_Remembered: TypeAlias = tuple[tuple[Suspect, ...], str | None]


@dataclass(slots=True)
class Tally:
    """Cards of a suspect: all of them, and the failed ones by kind."""

    cards: int = 0
    failed: Counter[str] | None = None

    def of(self, failures: tuple[str, ...] | None) -> tuple[int, int]:
        """(failed in one of these ways or, for None, in any; good or failed so)."""
        every = self.failed.total() if self.failed else 0
        if failures is None or not self.failed:
            return every, self.cards
        some = sum(self.failed[one] for one in failures)
        return some, self.cards - every + some


@dataclass(frozen=True, slots=True)
class Finding:
    """A suspect, how probably it is to blame, and its cards: `failed` of `cards`, beside `others_failed` of `others`."""

    suspect: Suspect
    probability: float
    failures: tuple[str, ...]
    failed: int
    cards: int
    others_failed: int
    others: int


class Evidence:
    """What the last cards say: `memory` of each reader, or, `together`, of all. A few microseconds a card."""

    def __init__(self, memory: int, *, together: bool = False) -> None:
        self._memory = memory
        self._together = together
        self._seen: dict[tuple[str, str], deque[_Remembered]] = {}
        self._tallies: dict[Suspect, Tally] = {}

    def add(self, seen: Seen, suspects: tuple[Suspect, ...]) -> None:
        """Remembers a card's end, and forgets the oldest. `suspects` are its own."""
        memory = self._seen.setdefault(("", "") if self._together else (seen.station, seen.reader), deque())
        if len(memory) == self._memory:
            self._count(*memory.popleft(), -1)
        memory.append((suspects, seen.failure))
        self._count(suspects, seen.failure, 1)

    def _count(self, suspects: tuple[Suspect, ...], failure: str | None, step: int) -> None:
        for suspect in suspects:
            tally = self._tallies.get(suspect)
            if tally is None:
                tally = self._tallies[suspect] = Tally()
            tally.cards += step
            if failure is not None:
                tally.failed = Counter() if tally.failed is None else tally.failed
                tally.failed[failure] += step
            if not tally.cards:
                del self._tallies[suspect]

    def forget(self, suspect: Suspect) -> None:
        """What was seen of a suspect says nothing any more: it was mended, or stopped."""
        for place, memory in list(self._seen.items()):
            kept = deque(one for one in memory if suspect not in one[0])
            if len(kept) == len(memory):
                continue
            for suspects, failure in memory:
                if suspect in suspects:
                    self._count(suspects, failure, -1)
            if kept:
                self._seen[place] = kept
            else:
                del self._seen[place]

    def cards(self, suspect: Suspect) -> int:
        """How many cards of a suspect are remembered."""
        tally = self._tallies.get(suspect)
        return 0 if tally is None else tally.cards

    def failed(self, suspect: Suspect, failures: tuple[str, ...]) -> int:
        """How many of them failed in one of these ways."""
        tally = self._tallies.get(suspect)
        return 0 if tally is None else tally.of(failures)[0]

    def number(self, kind: Kind, of: Suspect) -> int:
        """Among how many stations, lots, jobs … the failed cards of a suspect are."""
        failed = (suspects for memory in self._seen.values() for suspects, failure in memory if failure is not None)
        return len({suspect for suspects in failed if of in suspects for suspect in suspects if suspect.kind is kind})

    def judge(self, among: tuple[Suspect, ...], failures: tuple[str, ...] | None) -> list[Finding]:
        """Explanations of failures of these kinds (None: all kinds) by the suspects of a card that just failed, the likeliest first.

        Their probabilities and that of "nothing in particular" sum to one.
        """
        total = self._tallies[EVERYTHING]
        all_failed, all_cards = total.of(failures)
        named = failures or tuple(word for word, number in (total.failed or Counter()).most_common() if number)
        nothing = _fits(all_failed, all_cards, BACKGROUND)
        odds: list[tuple[float, Suspect, int, int]] = []
        for suspect in among:
            failed, cards = self._tallies[suspect].of(failures)
            likelihood = _fits(failed, cards, (1.0, 1.0)) + _fits(all_failed - failed, all_cards - cards, BACKGROUND)
            odds.append((PRIOR_ODDS * exp(min(likelihood - nothing, 500.0)), suspect, failed, cards))
        every = 1.0 + sum(one[0] for one in odds)
        found = [
            Finding(suspect, weight / every, named, failed, cards, all_failed - failed, all_cards - cards)
            for weight, suspect, failed, cards in odds
        ]
        return sorted(found, key=lambda one: -one.probability)


def _fits(failed: int, cards: int, rate: tuple[float, float]) -> float:
    """Log likelihood of so many failures where the rate of failing is drawn from a beta distribution."""
    a, b = rate
    return _log_beta(failed + a, cards - failed + b) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
