"""What INTENT demands, what leases and clocks do, how chips are recognized, and how remakes come about."""

from __future__ import annotations

import pytest

from engine.ledger import attempts, jobs, lines, serials
from engine.ledger.attempts import AttemptState as S
from engine.ledger.attempts import Verdict
from engine.ledger.serials import SerialAllocator
from keys.errors import Conflict, Denied, Exhausted, InvalidInput, NotFound, Precondition

HOUR_US = 3_600_000_000
LEASE_US = 30_000_000
MAX_CHIP_US = 120_000_000

# ---- reserving


def test_reserving_needs_a_running_job_and_a_ready_line(world, refused):
    refused(world.reserve, NotFound, "JOB_UNKNOWN")
    world.stage()
    refused(world.reserve, Precondition, "JOB_STATE")
    world.do(jobs.set_state, "J1", "READY")
    refused(world.reserve, Precondition, "JOB_STATE")
    world.do(jobs.set_state, "J1", "RUNNING")
    refused(lambda: world.reserve(line=99), NotFound, "LINE_UNKNOWN")
    world.reserve()
    refused(world.reserve, Precondition, "LINE_STATE")
    refused(lambda: world.do(attempts.reserve, "J1", 2, "S1", 0, b"c"), InvalidInput, "LEASE")
    refused(lambda: world.do(attempts.reserve, "J1", 2, "S1", 1, b""), InvalidInput, "LEASE")


def test_the_database_itself_refuses_a_second_live_attempt(world):
    world.start()
    first = world.reserve()
    with pytest.raises(Exception, match="UNIQUE constraint failed"):
        world.ledger.run(
            lambda tx: tx.conn.exec_driver_sql(
                "INSERT INTO attempts (salt, job_no, line_no, attempt_no, station_id, state, epoch, lease_boot_us, host_challenge, piece,"
                f" reserved_us) VALUES (1, {first.job_no}, 1, 2, 'S2', 'RESERVED', 1, 1, x'00', 0, 1)"
            )
        )


# ---- INTENT


@pytest.mark.parametrize(
    "change",
    [
        {"chip_id": "AB" * 10},
        {"host_challenge": b"otherone"},
        {"initialize_update_response": b"x" * 29},
        {"profile_hash": "CD" * 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_intent_is_for_exactly_what_was_leased(world, refused, change):
    world.start()
    attempt = world.advance(world.reserve(), S.PRESENTED)
    refused(lambda: world.intent(attempt, **change), Precondition, "INTENT_DIFFERS")


def test_intent_stores_what_a_restarted_engine_needs(world):
    world.start()
    attempt = world.advance(world.reserve(), S.INTENT)
    world.reopen()
    found = world.see(attempts.by_token, attempt.token)
    assert found.state is S.INTENT
    assert (found.host_challenge, found.initialize_update_response, found.kvn, found.psn) == (b"challeng", b"r" * 29, 1, 0)
    assert (found.profile_hash, found.image_digest) == ("AB" * 32, b"d" * 32)
    assert world.see(attempts.serials_of, attempt.attempt_id) == {"city": 1}
    assert [one.attempt_id for one in world.see(attempts.open_attempts, "S1")] == [attempt.attempt_id]
    assert world.see(attempts.open_attempts, "S2") == []


@pytest.mark.parametrize("state", ["PAUSED", "CANCELLING"])
def test_no_intent_once_a_job_is_paused_or_cancelled(world, refused, state):
    world.start()
    presented = world.advance(world.reserve(1), S.PRESENTED)
    begun = world.advance(world.reserve(2), S.INTENT)
    change = world.do(jobs.set_state, "J1", state)
    assert [one.attempt_id for one in change.released] == [presented.attempt_id]
    refused(lambda: world.intent(presented), Precondition, "STALE_TOKEN")
    # What had begun runs to its end.
    world.advance(begun, S.STACKED)


def test_a_chip_is_used_once(world, refused):
    world.start()
    chip = "C0FFEE"
    first = world.advance(world.reserve(1), S.INTENT, chip)
    second = world.advance(world.reserve(2, station="S2"), S.PRESENTED, chip)
    refused(lambda: world.intent(second), Conflict, "CHIP_USED")
    world.do(attempts.scrap, first.token, "torn")
    refused(lambda: world.intent(second), Conflict, "CHIP_USED")
    world.do(attempts.destroyed, first.attempt_id, "A", "B")
    refused(lambda: world.intent(second), Conflict, "CHIP_USED")
    assert world.attempt(second).state is S.PRESENTED


def test_a_released_chip_may_be_used_again(world):
    world.start()
    first = world.advance(world.reserve(1), S.PRESENTED, "C0FFEE")
    world.do(attempts.release, first.token, "job-paused")
    assert world.card(2, chip="C0FFEE").state is S.STACKED


def test_serials_are_burned_for_ever(world, refused):
    world.start()
    first = world.advance(world.reserve(1), S.PRESENTED)
    world.intent(first, serials={"city": 77})
    world.do(attempts.scrap, first.token, "torn")
    again = world.advance(world.reserve(1), S.PRESENTED)
    refused(lambda: world.intent(again, serials={"city": 77}), Conflict, "SERIAL_USED")
    refused(lambda: world.intent(again, serials={"city": 10_001}), InvalidInput, "SERIAL_RANGE")
    refused(lambda: world.intent(again, serials={"tram": 1}), NotFound, "POOL_UNKNOWN")
    refused(lambda: world.intent(again, max_chip_us=0), InvalidInput, "MAX_CHIP_TIME")
    # A refused INTENT burned nothing.
    world.intent(again, serials={"city": 78})
    assert world.see(serials.high_water, "city") == 78


def test_the_allocator_never_repeats_a_number(world):
    world.start()
    allocator = SerialAllocator(world.ledger)
    drawn = [allocator.draw("city") for _ in range(5)]
    attempt = world.advance(world.reserve(), S.PRESENTED)
    world.intent(attempt, serials={"city": drawn[2]})
    assert drawn == [1, 2, 3, 4, 5]
    assert allocator.draw_each("city") == {"city": 6}
    world.reopen()
    assert SerialAllocator(world.ledger).draw("city") == 4
    world.do(serials.define_pool, "small", 8, 9)
    small = SerialAllocator(world.ledger)
    assert [small.draw("small"), small.draw("small")] == [8, 9]
    with pytest.raises(Exhausted) as caught:
        small.draw("small")
    assert caught.value.reason == "SERIALS_EXHAUSTED"


def test_pools_are_defined_once(world, refused):
    world.do(serials.define_pool, "p", 1, 9)
    world.do(serials.define_pool, "p", 1, 9)
    refused(lambda: world.do(serials.define_pool, "p", 1, 10), Conflict, "POOL_EXISTS")
    refused(lambda: world.do(serials.define_pool, "q", 9, 8), InvalidInput, "POOL_RANGE")
    refused(lambda: world.do(serials.define_pool, "q", -1, 8), InvalidInput, "POOL_RANGE")


# ---- leases and clocks


def test_a_lease_ends_by_the_lease_clock(world, refused):
    world.start()
    late, exact = world.reserve(1), world.reserve(2)
    world.clock.boot += LEASE_US
    exact = world.present(exact)
    world.clock.boot += 1
    refused(lambda: world.present(late), Precondition, "LEASE_EXPIRED")
    refused(lambda: world.intent(exact), Precondition, "LEASE_EXPIRED")


@pytest.mark.parametrize("jump", [HOUR_US, -HOUR_US, 400 * 24 * HOUR_US])
def test_the_wall_clock_decides_nothing(world, jump):
    world.start()
    attempt = world.reserve()
    world.clock.wall += jump
    attempt = world.advance(attempt, S.INTENT)
    assert world.do(attempts.expire_leases) == []
    assert world.do(attempts.tear_overdue) == []
    world.clock.wall -= 2 * jump
    assert world.advance(attempt, S.STACKED).state is S.STACKED
    world.reopen()
    assert world.attempt(attempt).state is S.STACKED


def test_before_intent_an_expired_lease_requeues_the_line_after_it_never(world):
    world.start()
    reserved, presented = world.reserve(1), world.advance(world.reserve(2), S.PRESENTED)
    begun = world.advance(world.reserve(3), S.INTENT)
    world.clock.boot += LEASE_US + 1
    expired = world.do(attempts.expire_leases)
    assert {one.attempt_id for one in expired} == {reserved.attempt_id, presented.attempt_id}
    assert {one.state for one in expired} == {S.RELEASED}
    assert [world.line(n) for n in (1, 2, 3)] == ["READY", "READY", "HELD"]
    assert world.attempt(begun).state is S.INTENT


def test_past_max_chip_time_an_attempt_is_torn(world, refused):
    world.start()
    on_chip = [world.advance(world.reserve(n), state) for n, state in enumerate((S.INTENT, S.ENCODED, S.VERIFIED, S.PRINTED), start=1)]
    done = world.advance(world.reserve(5), S.GOOD)
    world.clock.boot += MAX_CHIP_US
    assert world.do(attempts.tear_overdue) == []
    world.clock.boot += 1
    torn = world.do(attempts.tear_overdue)
    assert [one.attempt_id for one in torn] == [one.attempt_id for one in on_chip]
    assert {(one.state, one.reason) for one in torn} == {(S.SCRAP_PENDING, "torn")}
    assert [world.line(n) for n in range(1, 6)] == ["READY"] * 4 + ["GOOD"]
    # A success that comes late is a stale token, whatever it reports.
    refused(lambda: world.do(attempts.encoded, on_chip[0].token), Precondition, "STALE_TOKEN")
    refused(lambda: world.do(attempts.good, on_chip[3].token), Precondition, "STALE_TOKEN")
    assert world.attempt(done).state is S.GOOD


def test_a_restart_voids_leases_before_intent_and_gives_chips_their_time_again(world, refused):
    world.start()
    reserved, presented = world.reserve(1), world.advance(world.reserve(2), S.PRESENTED)
    begun = world.advance(world.reserve(3), S.INTENT)
    # The machine was rebooted as well: its lease clock begins anew, far below the old deadline.
    world.clock.boot = 10
    world.reopen()
    assert [world.attempt(one).state for one in (reserved, presented, begun)] == [S.RELEASED, S.RELEASED, S.INTENT]
    assert [world.line(n) for n in (1, 2, 3)] == ["READY", "READY", "HELD"]
    refused(lambda: world.present(reserved), Precondition, "STALE_TOKEN")
    world.clock.boot += MAX_CHIP_US
    assert world.do(attempts.tear_overdue) == []
    world.clock.boot += 1
    assert [one.attempt_id for one in world.do(attempts.tear_overdue)] == [begun.attempt_id]


def test_a_restart_finishes_a_cancel_that_waited_only_for_leases(world):
    world.start()
    begun = world.advance(world.reserve(1), S.INTENT)
    world.do(jobs.set_state, "J1", "CANCELLING", "wrong file")
    assert world.job().state == "CANCELLING"
    world.do(attempts.scrap, begun.token, "torn")
    assert world.job().state == "CANCELLED"
    assert [world.line(n) for n in range(1, 6)] == ["CANCELLED"] * 5


# ---- chips


def test_wrong_cryptograms_are_counted_durably_and_quarantine_at_two(world, refused):
    world.start()
    first = world.reserve(1)
    assert world.do(attempts.cryptogram_failed, first.token, "BAD0") == 1
    world.do(attempts.release, first.token, "cryptogram")
    world.reopen()
    again = world.reserve(1)
    assert world.do(attempts.chip_seen, "BAD0", "S1").verdict is Verdict.FRESH
    assert world.do(attempts.cryptogram_failed, again.token, "BAD0") == 2
    assert world.see(attempts.chip_tries, "BAD0") == 2
    assert world.do(attempts.chip_seen, "BAD0", "S1").verdict is Verdict.QUARANTINED
    refused(lambda: world.present(again, "BAD0"), Conflict, "CHIP_QUARANTINED")
    world.do(attempts.blank_rejected, again.token, "cryptogram")
    assert world.line() == "READY"
    assert world.see(attempts.chip_tries, "GOOD0") == 0


def test_one_identity_answers_one_way(world, refused):
    world.start()
    first = world.reserve(1)
    world.do(attempts.cryptogram_failed, first.token, "AA")
    answer = {"chip_id": "AA", "atr": b"\x3b\x01", "cplc": b"x", "initialize_update_response": b"r"}
    world.do(attempts.present, first.token, **answer)
    world.do(attempts.release, first.token, "x")
    for other in ({"atr": b"\x3b\x02"}, {"cplc": b"y"}):
        second = world.reserve(1)
        refused(lambda token=second.token, change=answer | other: world.do(attempts.present, token, **change), Conflict, "CHIP_DIFFERS")
        world.do(attempts.release, second.token, "x")
    third = world.reserve(1)
    world.do(attempts.present, third.token, **answer)


@pytest.mark.parametrize("spelling", ["", "ab", "0x12", "G0", "A" * 65, b"AB"])
def test_a_chip_has_one_spelling(world, refused, spelling):
    world.start()
    attempt = world.reserve()
    refused(lambda: world.present(attempt, spelling), InvalidInput, "CHIP_ID")
    refused(lambda: world.do(attempts.chip_seen, spelling, "S1"), InvalidInput, "CHIP_ID")


SEEN_ELSEWHERE = {
    S.PRESENTED: (Verdict.RELEASED_ELSEWHERE, S.RELEASED, True),
    S.INTENT: (Verdict.TORN_ELSEWHERE, S.SCRAP_PENDING, False),
    S.ENCODED: (Verdict.TORN_ELSEWHERE, S.SCRAP_PENDING, False),
    S.VERIFIED: (Verdict.TORN_ELSEWHERE, S.SCRAP_PENDING, False),
    S.PRINTED: (Verdict.TORN_ELSEWHERE, S.SCRAP_PENDING, False),
    S.GOOD: (Verdict.GOOD, S.GOOD, False),
    S.STACKED: (Verdict.GOOD, S.STACKED, False),
}


@pytest.mark.parametrize("state", list(SEEN_ELSEWHERE), ids=str)
def test_a_chip_seen_at_a_second_station(world, state):
    world.start()
    verdict, after, usable = SEEN_ELSEWHERE[state]
    first = world.advance(world.reserve(1), state, "AA")
    sighting = world.do(attempts.chip_seen, "AA", "S2")
    assert (sighting.verdict, sighting.usable) == (verdict, usable)
    assert sighting.attempt.attempt_id == first.attempt_id
    assert world.attempt(first).state is after
    if state in (S.PRESENTED, S.INTENT):
        assert world.line() == "READY"
    repeated = {Verdict.RELEASED_ELSEWHERE: Verdict.FRESH, Verdict.TORN_ELSEWHERE: Verdict.SCRAPPED}.get(verdict, verdict)
    assert world.do(attempts.chip_seen, "AA", "S2").verdict is repeated


def test_a_chip_seen_again_at_its_own_station(world):
    world.start()
    first = world.advance(world.reserve(1), S.INTENT, "AA")
    assert world.do(attempts.chip_seen, "AA", "S1") == attempts.Sighting(Verdict.HERE, world.attempt(first))
    world.do(attempts.scrap, first.token, "lease-lost")
    assert world.do(attempts.chip_seen, "AA", "S1").verdict is Verdict.SCRAPPED
    world.do(attempts.destroyed, first.attempt_id, "A", "B")
    assert world.do(attempts.chip_seen, "AA", "S1").verdict is Verdict.SCRAPPED
    second = world.advance(world.reserve(1), S.PRESENTED, "BB")
    world.do(attempts.blank_rejected, second.token, "refused")
    assert world.do(attempts.chip_seen, "BB", "S1").verdict is Verdict.REJECTED
    assert world.do(attempts.chip_seen, "CC", "S1").verdict is Verdict.FRESH
    assert [one.state for one in world.see(attempts.by_chip, "AA")] == [S.DESTROYED]


# ---- ends and remakes


@pytest.mark.parametrize("reason", ["torn", "refused", "verify-failed", "print-failed", "lease-lost"])
def test_scrap_makes_the_line_again_on_a_new_blank_with_the_next_psn(world, refused, reason):
    world.start()
    assert world.see(attempts.psn_for, "J1", 1) == 0
    first = world.advance(world.reserve(), S.ENCODED)
    assert world.do(attempts.scrap, first.token, reason, "what was seen").detail == "what was seen"
    assert world.see(attempts.psn_for, "J1", 1) == 1
    again = world.advance(world.reserve(), S.PRESENTED)
    assert again.attempt_no == 2
    refused(lambda: world.intent(again, psn=0), Conflict, "PSN_USED")
    world.advance(world.intent(again, psn=1), S.STACKED)
    assert world.line() == "GOOD"
    assert [one.state for one in world.see(attempts.by_line, "J1", 1)] == [S.SCRAP_PENDING, S.STACKED]


def test_a_released_attempt_uses_no_psn(world):
    world.start()
    world.do(attempts.release, world.advance(world.reserve(), S.PRESENTED).token, "x")
    assert world.see(attempts.psn_for, "J1", 1) == 0


def test_psns_run_out_in_words(world):
    world.start()
    attempt = world.advance(world.reserve(), S.PRESENTED)
    world.do(attempts.scrap, world.intent(attempt, psn=99).token, "torn")
    with pytest.raises(Exhausted):
        world.see(attempts.psn_for, "J1", 1)
    assert world.see(attempts.psn_for, "J1", 1, "same") == 99


def test_with_the_same_psn_a_remake_waits_for_the_recorded_destruction(world, refused):
    world.start(options={"remake_psn": "same"})
    first = world.advance(world.reserve(), S.ENCODED)
    world.do(attempts.scrap, first.token, "torn")
    assert world.line() == "WAITING"
    refused(world.reserve, Precondition, "LINE_STATE")
    world.do(attempts.destroyed, first.attempt_id, "Li Wei", "Zhang Min")
    assert world.line() == "READY"
    again = world.advance(world.reserve(), S.PRESENTED)
    world.intent(again, psn=world.see(attempts.psn_for, "J1", 1, "same"))


@pytest.mark.parametrize("reason", ["bored", "", "sample", "recalled"])
def test_scrap_reasons_are_fixed(world, refused, reason):
    world.start()
    attempt = world.advance(world.reserve(), S.INTENT)
    refused(lambda: world.do(attempts.scrap, attempt.token, reason), InvalidInput, "SCRAP_REASON")


@pytest.mark.parametrize("names", [("Li Wei", "Li Wei"), ("Li Wei", " li  wei "), ("Ｌi Wei", "Li Wei"), ("", "Li Wei"), ("Li Wei", " ")])
def test_destruction_takes_two_people(world, refused, names):
    world.start()
    attempt = world.advance(world.reserve(), S.INTENT)
    world.do(attempts.scrap, attempt.token, "torn")
    refused(lambda: world.do(attempts.destroyed, attempt.attempt_id, *names), Denied, "DUAL_CONTROL")
    gone = world.do(attempts.destroyed, attempt.attempt_id, "Li Wei", "Zhang Min")
    assert gone.destroyed_by == world.attempt(gone).destroyed_by == ["Li Wei", "Zhang Min"]


def test_a_good_card_not_acknowledged_is_held_until_it_is_seen(world):
    world.start()
    attempt = world.advance(world.reserve(), S.GOOD)
    world.do(attempts.held, attempt.token)
    assert world.line() == "HELD"
    world.reopen()
    assert world.attempt(attempt).state is S.HELD
    world.clock.boot += 100 * MAX_CHIP_US
    assert world.do(attempts.tear_overdue) == world.do(attempts.expire_leases) == []
    world.do(attempts.stacked, attempt.token, "good")
    assert world.line() == "GOOD"


def test_a_held_card_that_is_given_up_is_no_card_of_its_holder(world):
    world.start()
    attempt = world.advance(world.reserve(), S.GOOD)
    person = b"person 1".ljust(16, b".")
    assert person in world.see(lines.issued, [person], [])[0]
    world.do(attempts.held, attempt.token)
    world.do(attempts.scrap, attempt.token, "torn")
    assert world.see(lines.issued, [person], []) == ({}, {})
    assert world.line() == "READY"


def test_bins_are_remembered_and_not_rewritten(world, refused):
    world.start()
    attempt = world.card()
    refused(lambda: world.do(attempts.stacked, attempt.token, "reject"), Precondition, "WRONG_STATE")
    refused(lambda: world.do(attempts.stacked, attempt.token, "pocket"), InvalidInput, "BIN")
    torn = world.advance(world.reserve(2), S.INTENT)
    world.do(attempts.scrap, torn.token, "torn")
    assert world.do(attempts.stacked, torn.token, "reject").bin == "reject"
    assert world.attempt(torn).state is S.SCRAP_PENDING


def test_samples_are_made_again_even_for_a_complete_job(world, refused):
    world.start(count=1)
    attempt = world.card()
    assert world.job().state == "COMPLETE"
    sample = world.do(attempts.sample_drawn, attempt.attempt_id, "Li Wei")
    assert (sample.state, sample.reason) == (S.SCRAP_PENDING, "sample")
    assert (world.job().state, world.line()) == ("RUNNING", "READY")
    refused(lambda: world.do(attempts.sample_drawn, attempt.attempt_id, "Li Wei"), Precondition, "WRONG_STATE")
    world.card()
    assert (world.job().state, world.line()) == ("COMPLETE", "GOOD")
    refused(lambda: world.do(attempts.sample_drawn, 999, "Li Wei"), NotFound, "ATTEMPT_UNKNOWN")


def test_no_sample_of_a_line_that_cannot_be_made_again(world, refused):
    world.start(count=1)
    attempt = world.card()
    world.do(jobs.destroy_pii, "J1")
    refused(lambda: world.do(attempts.sample_drawn, attempt.attempt_id, "Li Wei"), Precondition, "PII_DESTROYED")


def test_finished_cards_of_a_cancelled_job_can_be_recalled(world, refused):
    world.start()
    attempt = world.card(1)
    refused(lambda: world.do(attempts.recalled, attempt.attempt_id, "Li Wei"), Precondition, "JOB_STATE")
    world.do(jobs.set_state, "J1", "CANCELLING")
    recalled = world.do(attempts.recalled, attempt.attempt_id, "Li Wei")
    assert (recalled.state, recalled.reason) == (S.SCRAP_PENDING, "recalled")
    assert world.line() == "CANCELLED"
    assert world.job().state == "CANCELLED"
