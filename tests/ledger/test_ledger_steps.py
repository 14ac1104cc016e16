"""Steps that are taken together leave the same attempt, line and audit leaves as steps that are taken one by one."""

from __future__ import annotations

import msgspec
import pytest

from engine.ledger import attempts, audit
from engine.ledger.attempts import AttemptState as S
from keys.errors import Conflict, Precondition

CHIP = "0A" * 10
SEEN = (b"\x3b\x00", b"cplc")
PROOFS = {"kcv-only": 3, "proven-by-use": 2}


def facts(attempt):
    """An attempt but for the random part of its token."""
    return msgspec.structs.replace(attempt, token=0)


def leaves(world):
    """The end of the audit chain, which depends on every byte of every leaf."""
    return world.see(audit.head)


def together(world, attempt, **changes):
    return world.intent(attempt, **({"chip_id": CHIP, "presented": SEEN} | changes))


def test_a_reservation_is_given_back_as_it_lies_in_the_ledger(world):
    world.start()
    given = world.reserve()
    assert given == world.attempt(given)


def test_presented_and_intent_in_one(make_world):
    one, two = make_world(), make_world()
    for world in (one, two):
        world.start()
    slow = one.intent(one.present(one.reserve(), CHIP))
    quick = together(two, two.reserve())
    assert facts(quick) == facts(slow) == facts(two.attempt(quick))
    assert leaves(two) == leaves(one)
    assert two.see(attempts.serials_of, quick.attempt_id) == one.see(attempts.serials_of, slow.attempt_id) == {"city": 1}


def test_presented_and_intent_in_one_refuse_what_each_refuses(world, refused):
    world.start()
    first = world.reserve()
    refused(lambda: together(world, first, host_challenge=b"otherone"), Precondition, "INTENT_DIFFERS")
    refused(lambda: together(world, first, profile_hash="CD" * 32), Precondition, "INTENT_DIFFERS")
    done = together(world, first)
    refused(lambda: together(world, done), Precondition, "WRONG_STATE")
    other = world.reserve(line=2)
    refused(lambda: together(world, other), Conflict, "CHIP_USED")
    refused(lambda: together(world, other, presented=(b"\x3b\x01", b"cplc")), Conflict, "CHIP_DIFFERS")
    world.clock.boot = other.lease_boot_us + 1
    refused(lambda: together(world, other, chip_id="0B" * 10), Precondition, "LEASE_EXPIRED")


@pytest.mark.parametrize("start", [S.ENCODED, S.VERIFIED, S.PRINTED])
def test_the_rest_of_the_way_to_good_in_one(make_world, start):
    one, two = make_world(), make_world()
    for world in (one, two):
        world.start()
    slow = one.advance(one.reserve(), start)
    quick = two.advance(two.reserve(), start)
    if start is S.ENCODED:
        slow = one.do(attempts.verified, slow.token, PROOFS)
    slow = one.advance(slow, S.GOOD)
    quick = two.do(attempts.finish, quick.token, PROOFS if start is S.ENCODED else None)
    assert facts(quick) == facts(slow) == facts(two.attempt(quick))
    assert leaves(two) == leaves(one)
    assert (two.line(), one.line()) == ("GOOD", "GOOD")


def test_no_step_is_jumped_without_its_facts(world, refused):
    world.start()
    encoded = world.advance(world.reserve(), S.ENCODED)
    refused(lambda: world.do(attempts.finish, encoded.token), Precondition, "WRONG_STATE")
    verified = world.advance(encoded, S.VERIFIED)
    refused(lambda: world.do(attempts.finish, verified.token, PROOFS), Precondition, "WRONG_STATE")
    intent = world.advance(world.reserve(line=2), S.INTENT)
    refused(lambda: world.do(attempts.finish, intent.token, PROOFS), Precondition, "WRONG_STATE")


def test_a_head_that_found_its_feeder_empty_drops_nothing(world):
    """It ends its lease as any other does; a blank that was never there must not be counted as returned."""
    world.start()
    empty, touched = world.reserve(), world.reserve(line=2)
    world.do(attempts.release, empty.token, "no-blank")
    world.do(attempts.stacked, empty.token, "returned")
    assert not world.attempt(empty).piece
    world.do(attempts.release, touched.token, "reader")
    world.do(attempts.stacked, touched.token, "returned")
    assert world.attempt(touched).piece
