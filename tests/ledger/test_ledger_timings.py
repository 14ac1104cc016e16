"""Timings of attempts and events of stations: written with what they belong to, read back as they were, and the way to them."""

from __future__ import annotations

import sqlite3

import pytest
from alembic import command
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, insert, select

from engine.ledger import attempts, events, migrate, schema
from engine.ledger.events import Gone, StationEvent
from engine.ledger.sqlite import writer_engine
from engine.ledger.store import Ledger
from engine.ledger.timings import Timings, record, unpack
from keys.errors import Corrupt, Precondition

SEGMENTS = ([41, 12, 320], [70, 141, 380, 62], [9])


def measured(*segments: list[int]) -> Timings:
    timings = Timings(reader="ACS ACR39U 00 00", transport="pcsc", feed_us=2_300, print_us=5, eject_us=350, waited_us=45_000)
    for segment in segments:
        timings.played(segment)
    return timings


def stack(tx, token: int, timings: Timings) -> None:
    record(tx, attempts.stacked(tx, token, "good").attempt_id, timings)


def rows(world):
    return world.see(lambda conn: conn.execute(select(schema.timings)).all())


def test_timings_become_durable_with_the_piece(world):
    world.start()
    good = world.advance(world.reserve(1), attempts.AttemptState.GOOD)
    world.do(stack, good.token, measured(*SEGMENTS))
    world.reopen()
    (row,) = rows(world)
    assert row[:7] == (good.attempt_id, "ACS ACR39U 00 00", "pcsc", 2_300, 5, 350, 45_000)
    assert [segment.tolist() for segment in unpack(row.counts, row.apdu_us)] == list(SEGMENTS)
    # little-endian whatever the machine: a ledger's file may move
    assert (row.counts, row.apdu_us[:8]) == (b"\x03\x00\x04\x00\x01\x00", b"\x29\x00\x00\x00\x0c\x00\x00\x00")
    world.do(stack, good.token, measured([1]))
    assert rows(world) == [row], "the second report of a piece changed what was measured"


def test_what_did_not_happen_is_not_timed(world):
    world.start()
    early = world.advance(world.reserve(1), attempts.AttemptState.VERIFIED)
    with pytest.raises(Precondition):
        world.do(stack, early.token, measured(*SEGMENTS))
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        world.do(record, 99, measured(*SEGMENTS))
    assert rows(world) == []


def test_a_station_cannot_fill_the_ledger_with_numbers(world):
    world.start()
    good = world.advance(world.reserve(1), attempts.AttemptState.GOOD)
    timings = measured([1] * 3_000, [2] * 3_000, [3] * 3_000)
    timings.reader, timings.feed_us = "r" * 1_000, 2**64 - 1
    world.do(stack, good.token, timings)
    (row,) = rows(world)
    assert [len(segment) for segment in unpack(row.counts, row.apdu_us)] == [3_000, 1_096, 0]
    assert (len(row.reader), row.feed_us) == (128, 2**63 - 1)


def test_only_what_was_said_counts_as_measured():
    assert not Timings(transport="pcsc").measured
    assert Timings(reader="r").measured
    assert measured([1]).measured


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=40), max_size=8))
def test_packed_timings_read_back(segments):
    timings = measured(*segments)
    counts = b"".join(count.to_bytes(2, "little") for count in timings.counts)
    assert [part.tolist() for part in unpack(counts, bytes(timings.apdu_us))] == segments


@settings(max_examples=200)
@given(st.binary(max_size=12), st.binary(max_size=40))
def test_damaged_timings_are_named(counts, apdu_us):
    try:
        parts = unpack(counts, apdu_us)
    except Corrupt as error:
        assert error.reason == "TIMINGS_INVALID"
    else:
        assert sum(map(len, parts)) * 4 == len(apdu_us)


def test_events_are_kept_in_order_by_station(world):
    told = {"heads": 2, "transport": "pcsc", "profiles": ["city"], "chip_types": ["ZZC01"]}
    world.do(events.note, "S2", StationEvent.CONNECTED, detail=told)
    world.clock.wall += 7
    world.do(events.note, "S1", StationEvent.STOPPED, cause="torn", detail="5 cards in a row failed")
    world.do(events.note, "S2", StationEvent.DISCONNECTED, cause=Gone.LOST.value)
    world.reopen()
    found = world.see(events.events)
    assert [(e.station_id, e.event, e.cause) for e in found] == [
        ("S1", StationEvent.STOPPED, "torn"),
        ("S2", StationEvent.CONNECTED, ""),
        ("S2", StationEvent.DISCONNECTED, "lost"),
    ]
    assert found[1].connected_with() == told
    assert found[0].connected_with() == {}
    assert found[2].at_us - found[1].at_us == 7
    assert world.see(events.events, ["S1"]) == found[:1]
    assert world.see(events.events, []) == []


def test_a_ledger_of_the_second_schema_is_brought_up_to_date(tmp_path):
    path = tmp_path / "old.db"
    engine = writer_engine(path)
    job = {"job_no": 1, "job_id": "J1", "idempotency_key": "k", "request_sha256": b"", "profile": "city", "profile_hash": "AB"}
    job |= {"priority": 5, "kind": "bulk", "submitted_by": "o", "options": "{}", "remake_waits": 0}
    job |= {"state": "RUNNING", "state_reason": "", "created_us": 1}
    attempt = {"attempt_id": 1, "salt": 3, "job_no": 1, "line_no": 1, "attempt_no": 1, "station_id": "S1", "state": "GOOD", "epoch": 1}
    attempt |= {"lease_boot_us": 9, "host_challenge": b"c", "piece": 1, "reserved_us": 5, "good_us": 8}
    with engine.connect() as conn, conn.begin():
        command.upgrade(migrate._config(conn), "0002")
        conn.execute(insert(schema.jobs), job)
        conn.execute(insert(schema.lines), {"job_no": 1, "line_no": 1, "state": "GOOD"})
        conn.execute(insert(schema.attempts), attempt)
    engine.dispose()
    with Ledger.open(path) as ledger:
        assert ledger.read(lambda conn: conn.execute(select(func.count()).select_from(schema.timings)).scalar_one()) == 0
        assert ledger.read(events.events) == []
        token = ledger.read(lambda conn: attempts.by_id(conn, 1)).token
        ledger.run(lambda tx: stack(tx, token, measured(*SEGMENTS)))
        assert ledger.read(lambda conn: conn.execute(select(schema.timings.c.attempt_id)).scalars().all()) == [1]
        assert ledger.read(lambda conn: attempts.by_id(conn, 1)).state is attempts.AttemptState.STACKED
