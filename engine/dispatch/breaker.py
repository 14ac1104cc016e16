"""Stops what eats blanks: a station, a lot of chips, or a job, whichever what was seen speaks against.

Every failed card is judged (see `evidence`). A suspect of which `limit` cards failed lately, and no fewer than half, is stopped where it is
surely the likeliest explanation: a reader or station stops its station, a lot is no longer used, a job (its profile, or everything) is
to be paused. Where several explain the failures together and a pause of the job covers all of them, the job is. Otherwise a station stops
once `limit` of its cards in a row have failed, and what was seen is said with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.dispatch.evidence import OF_ALL, OF_READER, SURE, Evidence, Finding, Kind, Seen, Suspect
from keys.errors import InvalidInput

_AT_STATION: Final = frozenset({Kind.READER, Kind.STATION})
_AT_JOB: Final = frozenset({Kind.LOT, Kind.JOB, Kind.PROFILE, Kind.ALL})
# Failures of a chip that is under other keys than expected.
_WRONG_KEYS: Final = frozenset({"card-cryptogram", "chip-other-keys", "chip-quarantined", "chip-locked"})
UNSURE: Final = "unsure"
LOT_STOPPED: Final = "lot-stopped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is stopped: `kind` is STATION, LOT or JOB. `cause` is the kind of what looks guilty, or UNSURE; `words` are for people."""

    kind: Kind
    name: str
    cause: str
    words: str


@dataclass(slots=True)
class _Station:
    in_a_row: Counter[str] = field(default_factory=Counter)
    ever: Counter[str] = field(default_factory=Counter)
    stopped: str | None = None


class Breaker:
    """Judges the ends of cards. What it stopped stays so until it is reset: a success afterwards (a card that was in the other head)
    does not start a station again, its reason still stands.
    """

    def __init__(self, limit: int = 5) -> None:
        if limit < 1:
            raise InvalidInput("BREAKER_LIMIT", "a breaker needs a limit of at least one failure")
        self.limit = limit
        self._stations: dict[str, _Station] = {}
        self._lots: dict[str, str] = {}
        # of each reader, for what is wrong in one place; of all together, for what goes wrong everywhere at once
        self._evidence = Evidence(OF_READER), Evidence(OF_ALL, together=True)

    def _station(self, station_id: str) -> _Station:
        return self._stations.setdefault(station_id, _Station())

    def note(self, seen: Seen) -> Verdict | None:
        """A card or blank came to its end. What is to be stopped because of it; None when nothing is, or it is stopped already."""
        station = self._station(seen.station)
        if seen.failure is not None:
            station.ever[seen.failure] += 1
            if seen.lot in self._lots:  # it was in a head when its lot was stopped
                return None
        suspects = seen.suspects()
        for evidence in self._evidence:
            evidence.add(seen, suspects)
        if seen.failure is None:
            station.in_a_row.clear()
            return None
        station.in_a_row[seen.failure] += 1
        # failures of one kind tell more than all of them together
        looks = ((evidence, failures) for failures in ((seen.failure,), None) for evidence in self._evidence)
        verdict = next((found for look in looks if (found := self._verdict(seen, suspects, *look)) is not None), None)
        if verdict is None and station.in_a_row.total() >= self.limit:
            findings = self._evidence[0].judge(suspects, (seen.failure,))
            verdict = Verdict(Kind.STATION, seen.station, UNSURE, _unsure(station, findings))
        return self._carried_out(verdict)

    def _verdict(self, seen: Seen, suspects: tuple[Suspect, ...], evidence: Evidence, failures: tuple[str, ...] | None) -> Verdict | None:
        guilty = self._guilty(evidence.judge(suspects, failures))
        kinds = {one.suspect.kind for one in guilty}
        if not kinds:
            return None
        if kinds <= _AT_STATION:
            # with one reader there is nothing to tell it from its station by
            found = min(guilty, key=lambda one: (-one.probability, one.suspect.kind is not Kind.STATION))
            return Verdict(Kind.STATION, seen.station, found.suspect.kind, _words(evidence, found))
        if kinds == {Kind.LOT}:
            return Verdict(Kind.LOT, seen.lot, Kind.LOT, _words(evidence, guilty[0]))
        if kinds <= _AT_JOB and seen.job:
            if len(guilty) == 1:
                return Verdict(Kind.JOB, seen.job, guilty[0].suspect.kind, _words(evidence, guilty[0]))
            return Verdict(Kind.JOB, seen.job, UNSURE, _either(evidence, guilty))
        return None

    def _guilty(self, findings: Sequence[Finding]) -> list[Finding]:
        """The fewest explanations that hold surely, taken together; none where there are no such. Equally good ones are all named."""
        sure = 0.0
        guilty: list[Finding] = []
        for one in findings:
            if sure >= SURE and one.probability < guilty[-1].probability:
                break
            if one.failed >= self.limit and 2 * one.failed >= one.cards:
                guilty.append(one)
                sure += one.probability
        return guilty if sure >= SURE else []

    def _carried_out(self, verdict: Verdict | None) -> Verdict | None:
        if verdict is None:
            return None
        if verdict.kind is Kind.STATION:
            station = self._station(verdict.name)
            if station.stopped is not None:
                return None
            station.stopped = verdict.words
        elif verdict.kind is Kind.LOT:
            self.stop_lot(verdict.name, verdict.words)
        else:
            # it is paused: when somebody resumes it, it begins with a clean record
            self._explained(Suspect(Kind.JOB, verdict.name))
        return verdict

    def _explained(self, suspect: Suspect) -> None:
        """Its failures are accounted for: they no longer speak against the stations that met them, or against anything else."""
        for evidence in self._evidence:
            evidence.forget(suspect)
        for station in self._stations.values():
            station.in_a_row.clear()

    # -- what is stopped -----------------------------------------------------------------------------------------------

    def stopped(self, station_id: str) -> str | None:
        """Why the station is stopped, in plain words; None while it is not."""
        station = self._stations.get(station_id)
        return None if station is None else station.stopped

    def reset(self, station_id: str) -> None:
        """An operator mended it. The counts by kind remain; what was seen there lately no longer counts."""
        station = self._station(station_id)
        station.stopped = None
        station.in_a_row.clear()
        for evidence in self._evidence:
            evidence.forget(Suspect(Kind.STATION, station_id))

    def counts(self, station_id: str) -> dict[str, int]:
        """All failures of the station so far, by kind."""
        station = self._stations.get(station_id)
        return {} if station is None else dict(station.ever)

    def stopped_lots(self) -> dict[str, str]:
        """Stopped lots of chips, and why, in plain words."""
        return dict(self._lots)

    def lot_stopped(self, lot: str) -> str | None:
        """Why blanks of a lot are not to be used, in plain words; None while they may be."""
        return self._lots.get(lot)

    def stop_lot(self, lot: str, words: str) -> None:
        """Blanks of the lot are not to be used until `reset_lot`. What was seen of it says nothing about anything else."""
        self._lots[lot] = words
        self._explained(Suspect(Kind.LOT, lot))

    def reset_lot(self, lot: str) -> bool:
        """The lot may be used again; whether it was stopped."""
        return self._lots.pop(lot, None) is not None

    def lot_refused(self, station_id: str, lot: str) -> Verdict | None:
        """A blank of a stopped lot came up and goes back unused. A feeder full of them stops its station after `limit` of them."""
        station = self._station(station_id)
        station.in_a_row[LOT_STOPPED] += 1
        if station.in_a_row[LOT_STOPPED] < self.limit:
            return None
        words = f"its feeder holds blanks of lot {lot}, which is stopped: put another lot in, or reset the lot; then reset the station"
        return self._carried_out(Verdict(Kind.STATION, station_id, Kind.LOT, words))


# -- words ------------------------------------------------------------------------------------------------------------


def _words(evidence: Evidence, found: Finding) -> str:
    suspect = found.suspect
    text = f"{_name(suspect)}: {_failed(found)}"
    beside = f"{found.others_failed} of {found.others}"
    match suspect.kind:
        case Kind.READER:
            others = evidence.cards(Suspect(Kind.STATION, suspect.station)) - found.cards
            mates = evidence.failed(Suspect(Kind.STATION, suspect.station), found.failures) - found.failed
            return f"{text}, the station's other readers {mates} of {others}: clean or replace the reader, then reset the station"
        case Kind.STATION:
            return f"{text}, other stations {beside}: mend the station, then reset it"
        case Kind.LOT:
            hint = "; wrong maker keys?" if _WRONG_KEYS.intersection(found.failures) else ""
            return f"{text} on {_many(evidence, Kind.STATION, suspect)}, other lots {beside}: quarantine the lot{hint}"
        case Kind.JOB | Kind.PROFILE:
            where = f"{_many(evidence, Kind.STATION, suspect)} and {_many(evidence, Kind.LOT, suspect)}"
            return f"{text} on {where}, others {beside}: look at the {suspect.kind}'s data and keys, then resume the job"
    spread = ", ".join(_many(evidence, kind, suspect) for kind in (Kind.STATION, Kind.LOT, Kind.JOB))
    return f"{text}, on {spread}: look at the keys and the server, then resume the jobs"


def _either(evidence: Evidence, guilty: Sequence[Finding]) -> str:
    first, *_ = guilty
    names = " or ".join(_name(one.suspect) for one in guilty)
    where = _many(evidence, Kind.STATION, first.suspect)
    return f"{names}: {_failed(first)} on {where}; which it is cannot be told yet: look into it, then resume the job"


def _unsure(station: _Station, findings: Sequence[Finding]) -> str:
    kinds = ", ".join(f"{number} x {name}" for name, number in station.in_a_row.most_common())
    text = f"{station.in_a_row.total()} cards in a row failed ({kinds}): mend the cause, then reset the station"
    seen = ", ".join(f"{_name(one.suspect)} {one.failed} of {one.cards}" for one in findings if 2 * one.failed >= one.cards)
    return f"{text} (failed lately: {seen}; which is to blame cannot be told)" if seen else text


def _many(evidence: Evidence, kind: Kind, of: Suspect) -> str:
    number = evidence.number(kind, of)
    return f"{number} {kind}" + ("" if number == 1 else "s")


def _failed(found: Finding) -> str:
    return f"{found.failed} of {found.cards} cards failed ({', '.join(found.failures)})"


def _name(suspect: Suspect) -> str:
    match suspect.kind:
        case Kind.READER:
            return f"reader {suspect.name} of {suspect.station}"
        case Kind.STATION:
            return f"station {suspect.name}"
        case Kind.ALL:
            return "the keys or the server"
    return f"{suspect.kind} {suspect.name}"
