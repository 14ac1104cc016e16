"""Statements run by the driver: values in the caller's order, and never a walk through a whole table."""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module

import pytest
from sqlalchemy import bindparam, insert, literal, select, update

import engine.ledger
from engine.ledger import attempt_rows, schema
from engine.ledger.prepared import Prepared
from engine.ledger.sqlite import driver
from engine.ledger.tx import db_of

_lines = schema.lines.c
_pools = schema.serial_pools.c
GROWING = ("attempts", "lines", "serials", "chips", "issued", "audit_leaves")


def test_values_go_where_their_names_are_whatever_the_order(world):
    one_way = Prepared(update(schema.serial_pools).where(_pools.pool == bindparam("key")).values(last=bindparam("new")), "key", "new")
    other_way = Prepared(update(schema.serial_pools).where(_pools.pool == bindparam("key")).values(last=bindparam("new")), "new", "key")
    world.start()
    assert world.ledger.run(lambda tx: one_way.run(tx.db, "city", 77).rowcount) == 1
    assert world.ledger.run(lambda tx: other_way.run(tx.db, 78, "nowhere").rowcount) == 0
    assert world.ledger.run(lambda tx: other_way.run(tx.db, 79, "city").rowcount) == 1
    last = Prepared(select(_pools.last).where(_pools.pool == bindparam("key")), "key")
    assert world.see(lambda conn: last.one(db_of(conn), "city")) == (79,)
    assert world.see(lambda conn: last.one(db_of(conn), "nowhere")) is None


def test_constants_and_values_used_twice_stay_in_their_places(world):
    world.start(count=6)
    world.reserve(2)
    between = Prepared(
        select(_lines.line_no, literal("x"))
        .where(
            _lines.job_no == bindparam("job"),
            _lines.state.in_([literal("READY"), literal("WAITING")]),
            _lines.line_no >= bindparam("first"),
            _lines.line_no <= bindparam("first") + bindparam("more"),
        )
        .order_by(_lines.line_no)
        .limit(bindparam("most")),
        "most",
        "first",
        "more",
        "job",
    )
    assert world.see(lambda conn: between.all(db_of(conn), 9, 1, 3, 1)) == [(1, "x"), (3, "x"), (4, "x")]
    assert world.see(lambda conn: between.all(db_of(conn), 2, 1, 3, 1)) == [(1, "x"), (3, "x")]
    nothing = Prepared(select(_pools.pool).where(_pools.pool == "city"))
    assert world.see(lambda conn: nothing.one(db_of(conn))) == ("city",)


def test_rows_by_the_thousand(world):
    add = Prepared(insert(schema.serial_pools), "last", "pool", "first")
    world.ledger.run(lambda tx: add.many(tx.db, ((9, f"p{number}", number) for number in range(1000))))
    count = world.see(lambda conn: driver(conn).execute("SELECT count(*), max(first), max(last) FROM serial_pools").fetchone())
    assert count == (1000, 999, 9)


@pytest.mark.parametrize("names", [(), ("key",), ("key", "new", "more"), ("key", "other"), ("key", "new", "new")])
def test_names_that_are_not_the_statements_are_refused(names):
    with pytest.raises(ValueError, match="asks for"):
        Prepared(update(schema.serial_pools).where(_pools.pool == bindparam("key")).values(last=bindparam("new")), *names)


def every_statement() -> dict[str, Prepared]:
    found = {}
    for module in pkgutil.iter_modules(engine.ledger.__path__):
        for name, value in vars(import_module(f"engine.ledger.{module.name}")).items():
            if isinstance(value, Prepared):
                found[f"{module.name}.{name}"] = value
    return found | {f"attempt_rows.change {names}": one for names, one in attempt_rows._updates.items()}


def test_no_statement_walks_through_a_table_that_grows(world):
    """Ten million finished cards must cost a new one nothing."""
    world.start()
    world.card()
    statements = every_statement()
    assert len(statements) > 25
    for name, statement in statements.items():
        nulls = [None] * statement.sql.count("?")
        plan = world.see(lambda conn, s=statement, n=nulls: [r[3] for r in driver(conn).execute(f"EXPLAIN QUERY PLAN {s.sql}", n)])
        walked = [step for step in plan if re.match(rf"SCAN ({'|'.join(GROWING)})\b", step)]
        assert not walked, name
        # All lines of a job are many too: only by number, or by state.
        assert not [step for step in plan if re.search(r"SEARCH lines .*\(job_no=\?\)", step)], name
