"""Who has ever held what: nobody may see, now or in any earlier ceremony, components enough to rebuild a key.

What a person has once seen is held for ever: handing a component on does not take it back. The data are the records themselves (entries
`component`), so that the rule needs no list of its own that could be forgotten. Components are told apart by their check value, shares by
their number. A key divided twice has two divisions, whose pieces say nothing together; a component that was entered and is of no known
division counts against its key as a whole, because it may come from anywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from keys.ceremony.record import Entry, read_record, verify_record
from keys.errors import Denied

RECORD_NAME: Final = "record.jsonl"


class Division(NamedTuple):
    """One way a key is divided: which key, by which scheme, and how many pieces rebuild it."""

    key_id: str
    version: int
    scheme: str
    needed: int


class Holdings:
    """Every piece that every person ever saw, and who witnessed."""

    def __init__(self) -> None:
        self._seen: defaultdict[Division, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._witnesses: defaultdict[tuple[str, int], set[str]] = defaultdict(set)

    @classmethod
    def of_records(cls, entries: Iterable[Iterable[Entry]]) -> Holdings:
        """What these records show, whether their ceremonies were finished or not."""
        holdings = cls()
        for record in entries:
            for entry in record:
                if entry["type"] == "component" and entry["mode"] == "run":
                    division = Division(entry["key_id"], entry["version"], entry["scheme"], entry["needed"])
                    holdings._seen[division][entry["custodian"]].add(entry["piece"])
                    holdings._witnesses[division[:2]].add(entry["witness"])
        return holdings

    @classmethod
    def of_directory(cls, ceremonies: Path) -> Holdings:
        """What the records in `ceremonies`/*/record.jsonl show. Raises as `verify_record`: a damaged history is no history."""
        contents = map(read_record, sorted(ceremonies.glob(f"*/{RECORD_NAME}")))
        wholes = (content[: content.rfind(b"\n") + 1] for content in contents)
        return cls.of_records(verify_record(whole, complete=False).entries for whole in wholes if whole)

    def division_of(self, key_id: str, version: int, needed: int, piece: str) -> Division:
        """The division an entered XOR component belongs to: where it was handed out here, else the one of all that came from outside."""
        for division, holders in self._seen.items():
            if division[:2] == (key_id, version) and division.needed == needed and any(piece in seen for seen in holders.values()):
                return division
        return Division(key_id, version, "xor", needed)

    def require_room(self, division: Division, person: str) -> None:
        """Raises Denied DUAL_CONTROL when one more new piece would let `person` rebuild the key."""
        if len(self._seen[division][person]) + 1 >= division.needed:
            what = f"{division.key_id} version {division.version}"
            raise Denied("DUAL_CONTROL", f"{person} has seen components of {what} before: one more is too many")

    def require_may_see(self, division: Division, person: str, piece: str) -> None:
        """Raises Denied DUAL_CONTROL when this very piece would let `person` rebuild the key; seeing a piece again changes nothing."""
        if person in self._witnesses[division[:2]]:
            what = f"{division.key_id} version {division.version}"
            raise Denied("DUAL_CONTROL", f"{person} was a witness for {what} and cannot be its custodian")
        if piece not in self._seen[division][person]:
            self.require_room(division, person)

    def require_witness(self, key_id: str, version: int, person: str) -> None:
        """Raises Denied DUAL_CONTROL when the witness has ever been a custodian of that key."""
        for division, holders in self._seen.items():
            if division[:2] == (key_id, version) and holders.get(person):
                raise Denied("DUAL_CONTROL", f"{person} was a custodian of {key_id} version {version} and cannot be its witness")

    def saw(self, division: Division, person: str, piece: str, witness: str) -> None:
        """Notes that `person` sees `piece`. Raises Denied DUAL_CONTROL, and then notes nothing."""
        self.require_witness(division.key_id, division.version, witness)
        if person == witness:
            raise Denied("DUAL_CONTROL", f"{person} cannot be custodian and witness at once")
        self.require_may_see(division, person, piece)
        self._seen[division][person].add(piece)
        self._witnesses[division[:2]].add(witness)
