"""Jobs and lines: made once, moved legally, counted, cancelled, and stripped of personal data."""

from __future__ import annotations

import pytest

from engine.ledger import attempts, audit, jobs, lines
from engine.ledger.attempts import AttemptState as S
from keys.errors import Conflict, InvalidInput, NotFound, Precondition


def test_the_same_request_twice_is_one_job(world, refused):
    first = world.stage()
    again = world.do(
        jobs.create,
        job_id="J2",
        idempotency_key="key-J1",
        profile="city",
        profile_hash="AB" * 32,
        priority=5,
        kind="bulk",
        due_us=None,
        submitted_by="operator",
        pii_key_wrapped=b"another sealed key",
        options={},
    )
    assert again.job_id == "J1"
    assert again.pii_key_wrapped == first.pii_key_wrapped
    assert [job.job_id for job in world.see(jobs.list_jobs)] == ["J1"]
    refused(lambda: world.stage("J3", idempotency_key="key-J1", priority=6), Conflict, "IDEMPOTENCY_MISMATCH")
    refused(lambda: world.stage("J3", idempotency_key="key-J1", options={"remake_psn": "same"}), Conflict, "IDEMPOTENCY_MISMATCH")
    refused(lambda: world.stage("J1", idempotency_key="fresh"), Conflict, "JOB_EXISTS")


@pytest.mark.parametrize(
    "change",
    [{"priority": 0}, {"priority": 10}, {"kind": "instant"}, {"kind": "other"}, {"pii_key_wrapped": b""}, {"idempotency_key": ""}],
    ids=str,
)
def test_impossible_requests_are_refused(world, refused, change):
    refused(lambda: world.stage(**change), InvalidInput, "JOB_REQUEST")


def test_unknown_jobs_are_named(world, refused):
    for call in (
        lambda: world.see(jobs.get, "J9"),
        lambda: world.see(jobs.counts, "J9"),
        lambda: world.see(lines.ready, "J9"),
        lambda: world.do(jobs.set_state, "J9", "READY"),
        lambda: world.do(lines.add_batch, "J9", []),
    ):
        refused(call, NotFound, "JOB_UNKNOWN")


def test_secrets_stay_out_of_repr(world):
    world.start()
    shown = repr(world.job()) + repr(world.advance(world.reserve(), S.INTENT))
    assert "sealed-key" not in shown
    assert "challeng" not in shown


def test_lines_come_in_once_and_go_out_in_order(world, refused):
    world.stage(count=50)
    assert world.see(lines.ready, "J1", 10, 5) == [11, 12, 13, 14, 15]
    assert world.see(lines.ready, "J1", 48) == [49, 50]
    assert world.see(lines.get_blob, "J1", 7) == b"record-7-of-J1"
    refused(lambda: world.see(lines.get_blob, "J1", 51), NotFound, "LINE_UNKNOWN")
    h = b"h" * 16
    refused(lambda: world.do(lines.add_batch, "J1", [(51, h, h, b""), (50, h, h, b"")]), Conflict, "LINE_EXISTS")
    assert world.see(jobs.counts, "J1").accepted == 50
    refused(lambda: world.do(lines.add_batch, "J1", [(52, h, b"short", b"")]), InvalidInput, "LINE_HASH")
    world.do(jobs.set_state, "J1", "READY")
    refused(lambda: world.do(lines.add_batch, "J1", [(53, h, h, b"")]), Precondition, "JOB_STATE")
    refused(lambda: world.do(lines.add_rejects, "J1", []), Precondition, "JOB_STATE")


def test_rejects_are_kept_by_line(world):
    world.stage()
    found = [
        {"line": 7, "field": "pan", "rule": "pan-luhn", "message": "wrong check digit"},
        {"line": 7, "field": "name", "rule": "name-character", "message": "a dot"},
        {"line": 9, "field": "pan", "rule": "pan-length", "message": "too short"},
    ]
    world.do(lines.add_rejects, "J1", found)
    page = world.see(lines.rejects, "J1", 0, 2)
    rest = world.see(lines.rejects, "J1", page[-1].reject_id)
    assert [(one.line, one.field, one.rule, one.message) for one in page + rest] == [tuple(one.values()) for one in found]
    assert world.see(jobs.counts, "J1").rejected_lines == 2


def test_options_learnt_while_staging(world, refused):
    world.stage()
    assert world.do(jobs.update_options, "J1", encoding="gb18030").options == {"encoding": "gb18030"}
    refused(lambda: world.do(jobs.update_options, "J1", remake_psn="same"), Precondition, "JOB_STATE")
    world.do(jobs.set_state, "J1", "READY")
    refused(lambda: world.do(jobs.update_options, "J1", encoding="utf-8"), Precondition, "JOB_STATE")


def test_counts_add_up(world):
    world.start(count=6)
    world.card(1)
    world.do(attempts.scrap, world.advance(world.reserve(2), S.ENCODED).token, "torn")
    world.do(attempts.blank_rejected, world.reserve(3).token, "no-answer")
    world.do(attempts.release, world.reserve(4).token, "no-blank")
    world.advance(world.reserve(5), S.INTENT)
    counts = world.see(jobs.counts, "J1")
    assert counts.lines == {"GOOD": 1, "READY": 4, "HELD": 1}
    assert counts.attempts == {"STACKED": 1, "SCRAP_PENDING": 1, "BLANK_REJECTED": 1, "RELEASED": 1, "INTENT": 1}
    assert (counts.scrapped, counts.blanks_rejected) == ({"torn": 1}, {"no-answer": 1})
    assert (counts.accepted, counts.in_flight, counts.remaining) == (6, 1, 5)


def test_results_tell_of_each_line_once(world):
    world.start(count=3)
    world.do(attempts.scrap, world.advance(world.reserve(1), S.ENCODED).token, "torn")
    card = world.card(1)
    results = world.see(lines.results, "J1")
    assert [one.line_no for one in results] == [1, 2, 3]
    first = results[0]
    assert (first.state, first.attempt_no, first.attempt_state, first.chip_id, first.psn) == ("GOOD", 2, "STACKED", card.chip_id, 1)
    assert (results[1].state, results[1].attempt_no, results[1].blob) == ("READY", None, b"record-2-of-J1")
    assert [one.line_no for one in world.see(lines.results, "J1", 1, 1)] == [2]


def test_a_job_completes_by_itself_when_its_last_piece_is_seen(world, refused):
    world.start(count=2)
    world.card(1)
    last = world.advance(world.reserve(2), S.GOOD)
    refused(lambda: world.do(jobs.complete, "J1"), Precondition, "JOB_STATE")
    world.do(attempts.stacked, last.token, "good")
    assert world.job().state == "COMPLETE"
    assert world.do(jobs.complete, "J1").ended_us == world.clock.wall


def test_a_paused_job_completes_too_and_an_empty_one_at_once(world):
    world.start(count=1)
    last = world.advance(world.reserve(), S.INTENT)
    world.do(jobs.set_state, "J1", "PAUSED")
    world.advance(last, S.STACKED)
    assert world.job().state == "COMPLETE"
    world.start("J2", count=0)
    assert world.job("J2").state == "COMPLETE"


def test_pause_releases_what_has_not_begun_and_resume_goes_on(world, refused):
    world.start(count=2)
    reserved = world.reserve(1)
    change = world.do(jobs.set_state, "J1", "PAUSED", "lunch")
    assert [one.token for one in change.released] == [reserved.token]
    assert (change.job.state_reason, world.line()) == ("lunch", "READY")
    refused(lambda: world.reserve(1), Precondition, "JOB_STATE")
    world.do(jobs.set_state, "J1", "RUNNING")
    world.card(1)


def test_cancel_lets_what_has_begun_run_to_its_end(world):
    world.start(count=5)
    done = world.card(1)
    begun, doomed, presented = (world.advance(world.reserve(n), s) for n, s in ((2, S.INTENT), (3, S.VERIFIED), (4, S.PRESENTED)))
    change = world.do(jobs.set_state, "J1", "CANCELLING", "wrong file")
    assert [one.attempt_id for one in change.released] == [presented.attempt_id]
    assert change.job.state == "CANCELLING"
    assert [world.line(n) for n in range(1, 6)] == ["GOOD", "HELD", "HELD", "CANCELLED", "CANCELLED"]
    world.do(attempts.scrap, doomed.token, "print-failed")
    assert world.line(3) == "CANCELLED"
    assert world.job().state == "CANCELLING"
    world.advance(begun, S.STACKED)
    assert world.job().state == "CANCELLED"
    assert world.job().state_reason == "wrong file"
    assert world.see(jobs.counts, "J1").in_flight == 0
    assert world.attempt(done).state is S.STACKED


def _hash(text: str) -> bytes:
    return text.encode().ljust(16, b".")


def test_issued_finds_people_and_cards_of_good_lines_only(world):
    world.start(count=3)
    world.card(1)
    world.advance(world.reserve(2), S.PRINTED)
    asked = [_hash(f"person {n}") for n in range(1, 2500)], [_hash(f"card {n}") for n in range(1, 2500)]
    people, cards = world.see(lines.issued, *asked)
    holder = (_hash("person 1"), _hash("card 1"))
    assert people == {holder[0]: holder}
    assert cards == {holder[1]: holder}
    assert world.see(lines.issued, [], []) == ({}, {})


# ---- personal data


def _everything_on_disk(world) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(world.path.parent.iterdir()))


def test_destroyed_personal_data_is_nowhere_on_disk(world, refused):
    world.start(count=200)
    world.stage("J2", count=3)
    for line in range(1, 4):
        world.card(line)
    refused(lambda: world.do(jobs.destroy_pii, "J1"), Precondition, "JOB_STATE")
    world.do(jobs.set_state, "J1", "CANCELLING")
    secrets = [b"sealed-key-of-J1", *(b"record-%d-of-J1" % n for n in range(1, 201))]
    before = _everything_on_disk(world)
    assert all(secret in before for secret in secrets)
    counts = world.see(jobs.counts, "J1")
    job = world.do(jobs.destroy_pii, "J1")
    after = _everything_on_disk(world)
    assert [secret for secret in secrets if secret in after] == []
    # Nobody else's data went with it, and what is to remain remains.
    assert b"record-3-of-J2" in after
    assert job.pii_key_wrapped is None
    assert job.pii_destroyed_us == world.clock.wall
    assert world.see(jobs.counts, "J1") == counts
    world.see(audit.verify)
    refused(lambda: world.see(lines.get_blob, "J1", 1), Precondition, "PII_DESTROYED")
    assert world.do(jobs.destroy_pii, "J1") == job
    # Good cards are still known by keyed hash, so that a second card for the same person is noticed.
    person = b"person 1".ljust(16, b".")
    assert person in world.see(lines.issued, [person], [])[0]


def test_a_reader_delays_the_emptying_of_the_log_but_not_for_ever(world):
    world.start(count=1)
    world.card()
    world.ledger.run(lambda tx: tx.conn.exec_driver_sql("PRAGMA busy_timeout=50"))
    with world.ledger._reading.connect() as reader, reader.begin():
        reader.exec_driver_sql("SELECT count(*) FROM lines").fetchall()
        world.do(jobs.destroy_pii, "J1")
        assert world.job().pii_key_wrapped is None
    world.stage("J2", count=1)
    assert b"record-1-of-J1" not in _everything_on_disk(world)
