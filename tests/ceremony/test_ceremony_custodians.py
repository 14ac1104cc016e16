"""Nobody ever holds enough: random histories of roles against an oracle that only looks at what was seen."""

import random
from collections import defaultdict

import pytest

from keys.ceremony.custodians import Division, Holdings
from keys.errors import Denied

HISTORIES = 100_000
STEPS = 12
PEOPLE = ["a", "b", "c", "d"]


def history(rng, holdings):
    """A few divisions of two keys; people see pieces and witness at random, and what is refused does not happen. What did happen."""
    divisions = [Division(f"k{rng.randrange(2)}", 1, scheme, rng.randrange(2, 5)) for scheme in ("xor", "slip39-1")]
    seen = []
    for _ in range(STEPS):
        division = rng.choice(divisions)
        person, witness, piece = rng.choice(PEOPLE), rng.choice(PEOPLE), str(rng.randrange(5))
        try:
            holdings.saw(division, person, piece, witness)
        except Denied:
            continue
        seen.append((division, person, piece, witness))
    return seen


def violations(seen):
    """From scratch: who could rebuild a key, and who was custodian and witness of one."""
    pieces, custodians, witnesses = defaultdict(set), defaultdict(set), defaultdict(set)
    for division, person, piece, witness in seen:
        pieces[division, person].add(piece)
        custodians[division[:2]].add(person)
        witnesses[division[:2]].add(witness)
    enough = [held for (division, _), held in pieces.items() if len(held) >= division.needed]
    both = [key for key in custodians if custodians[key] & witnesses[key]]
    return enough, both


def test_in_random_histories_nobody_ever_holds_enough():
    rng = random.Random(4)
    accepted = 0
    for _ in range(HISTORIES):
        seen = history(rng, Holdings())
        accepted += len(seen)
        assert violations(seen) == ([], [])
    assert accepted > HISTORIES, "the rules refuse nearly everything: these histories prove nothing"


def test_the_oracle_sees_what_the_rules_prevent():
    class Lax(Holdings):
        def require_may_see(self, division, person, piece):
            """Anybody may."""

        def require_witness(self, key_id, version, person):
            """Anybody may."""

    rng = random.Random(4)
    found = [violations(history(rng, Lax())) for _ in range(200)]
    assert any(enough for enough, _ in found)
    assert any(both for _, both in found)


DIVISION = Division("k", 1, "xor", 2)


def test_what_was_seen_once_is_held_for_ever():
    """Handing a component on does not take it back: who had the first never gets the second."""
    holdings = Holdings()
    holdings.saw(DIVISION, "a", "1", "w")
    holdings.saw(DIVISION, "b", "1", "w")
    for person in ("a", "b"):
        with pytest.raises(Denied) as refused:
            holdings.saw(DIVISION, person, "2", "w")
        assert refused.value.reason == "DUAL_CONTROL"
        holdings.saw(DIVISION, person, "1", "w")
    holdings.saw(DIVISION, "c", "2", "w")


def test_witness_and_custodian_are_two_people_for_ever():
    holdings = Holdings()
    with pytest.raises(Denied):
        holdings.saw(DIVISION, "w", "1", "w")
    holdings.saw(DIVISION, "a", "1", "w")
    for person, witness in (("w", "x"), ("b", "a")):
        with pytest.raises(Denied):
            holdings.saw(DIVISION, person, "2", witness)
    with pytest.raises(Denied):
        holdings.require_witness("k", 1, "a")
    holdings.require_witness("k", 2, "a")


def test_an_entered_component_is_found_in_the_division_it_was_handed_out_by():
    holdings = Holdings()
    made = Division("k", 1, "xor-c1", 2)
    holdings.saw(made, "a", "AAAAAA", "w")
    assert holdings.division_of("k", 1, 2, "AAAAAA") == made
    assert holdings.division_of("k", 1, 2, "BBBBBB") == DIVISION
    assert holdings.division_of("k", 1, 3, "AAAAAA") == Division("k", 1, "xor", 3)


def test_histories_come_from_records():
    entry = {"type": "component", "mode": "run", "key_id": "k", "version": 1, "scheme": "xor", "needed": 2, "witness": "w"}
    records = [
        [{"type": "opened"}, {**entry, "custodian": "a", "piece": "1"}],
        [{**entry, "mode": "rehearsal", "custodian": "b", "piece": "1"}],
    ]
    holdings = Holdings.of_records(records)
    with pytest.raises(Denied):
        holdings.saw(DIVISION, "a", "2", "w")
    holdings.saw(DIVISION, "b", "2", "w")
