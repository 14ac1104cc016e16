"""Tests of quality samples as the ledger keeps them, and the way of an older ledger to them."""

from __future__ import annotations

import json

import pytest
from alembic import command
from sqlalchemy import select

from engine.ledger import attempts, migrate, samples, schema
from engine.ledger.samples import Check
from engine.ledger.sqlite import writer_engine
from engine.ledger.store import Ledger
from keys.errors import InvalidInput, NotFound, Precondition

GOOD = [Check("pin", ok=True), Check("purse/tac", ok=True)]
BAD = [Check("pin", ok=True), Check("purse/tac", ok=False, message="TAC: not what it should be")]


@pytest.fixture
def sample(world):
    world.start()
    return world.do(attempts.sample_drawn, world.card(1).attempt_id, "Li Wei")


def test_every_test_of_a_sample_is_kept(world, sample):
    world.do(samples.tested, sample.attempt_id, "Li Wei", passed=False, checks=BAD)
    world.do(samples.tested, sample.attempt_id, "Wang Fang", passed=True, checks=GOOD)
    world.reopen()
    world.do(attempts.destroyed, sample.attempt_id, "Li", "Wang")
    found = world.see(samples.of_job, sample.job_no)
    assert [(t.passed, t.by, t.chip_id, list(t.checks)) for t in found] == [
        (False, "Li Wei", sample.chip_id, BAD),
        (True, "Wang Fang", sample.chip_id, GOOD),
    ]
    assert world.see(samples.of_job, sample.job_no + 1) == []
    leaves = [json.loads(text) for text in world.see(lambda conn: conn.execute(select(schema.audit_leaves.c.leaf)).scalars().all())]
    assert [(x["subject"], x["facts"]["passed"], x["facts"]["checks"]) for x in leaves if x["kind"] == "sample.tested"] == [
        (str(sample.attempt_id), False, ["pin: ok", "purse/tac: TAC: not what it should be"]),
        (str(sample.attempt_id), True, ["pin: ok", "purse/tac: ok"]),
    ]


def test_a_sample_is_found_by_chip_or_attempt_and_nothing_else_is(world, sample, refused):
    assert world.see(samples.find, chip_id=sample.chip_id) == world.see(samples.find, attempt_id=sample.attempt_id) == sample
    good = world.card(2)
    torn = world.do(attempts.scrap, world.advance(world.reserve(3), attempts.AttemptState.ENCODED).token, "torn")
    for other in (good, torn):
        refused(lambda a=other: world.see(samples.find, chip_id=a.chip_id), Precondition, "NOT_A_SAMPLE")
        refused(lambda a=other: world.do(samples.tested, a.attempt_id, "qa", passed=True, checks=GOOD), Precondition, "NOT_A_SAMPLE")
    refused(lambda: world.see(samples.find, chip_id="00" * 10), NotFound, "CHIP_UNKNOWN")
    refused(lambda: world.see(samples.find, attempt_id=99), NotFound, "ATTEMPT_UNKNOWN")
    refused(lambda: world.see(samples.find), InvalidInput, "SAMPLE_WHICH")
    refused(lambda: world.see(samples.find, chip_id="00" * 10, attempt_id=1), InvalidInput, "SAMPLE_WHICH")
    refused(lambda: world.do(samples.tested, sample.attempt_id, " ", passed=True, checks=GOOD), InvalidInput, "SAMPLE_BY")
    world.do(attempts.destroyed, sample.attempt_id, "Li", "Wang")
    refused(lambda: world.see(samples.find, chip_id=sample.chip_id), Precondition, "NOT_A_SAMPLE")


def test_a_ledger_of_the_first_schema_is_brought_up_to_date(tmp_path):
    path = tmp_path / "old.db"
    engine = writer_engine(path)
    with engine.connect() as conn, conn.begin():
        command.upgrade(migrate._config(conn), "0001")
    engine.dispose()
    with Ledger.open(path) as ledger:
        assert ledger.read(lambda conn: samples.of_job(conn, 1)) == []
