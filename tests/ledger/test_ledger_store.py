"""The file, the writer and the readers."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, func, insert, select
from sqlalchemy.pool import StaticPool

from engine.ledger import audit, schema, serials
from engine.ledger.migrate import newest
from engine.ledger.sqlite import driver
from engine.ledger.store import Ledger
from keys.errors import Conflict, Corrupt, Exhausted, Unavailable, Unsupported


def pools(conn) -> int:
    return conn.execute(select(func.count()).select_from(schema.serial_pools)).scalar_one()


def test_a_new_ledger_is_private_and_holds_the_newest_schema(tmp_path):
    path = tmp_path / "new.db"
    with Ledger.open(path) as ledger:
        assert ledger.read(lambda conn: MigrationContext.configure(conn).get_current_revision()) == newest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_migrations_build_exactly_the_tables_the_code_uses(world):
    differences = world.see(lambda conn: compare_metadata(MigrationContext.configure(conn, opts={"compare_type": True}), schema.metadata))
    assert differences == []
    memory = sqlite3.connect(":memory:")
    schema.metadata.create_all(create_engine("sqlite://", creator=lambda: memory, poolclass=StaticPool))
    wanted = _objects(memory)
    memory.close()
    disk = sqlite3.connect(world.path)
    assert {name: sql for name, sql in _objects(disk).items() if name != "alembic_version"} == wanted
    disk.close()


def _objects(connection) -> dict[str, list[str]]:
    """Every table and index, partial conditions and WITHOUT ROWID included, as SQL without blanks and with its clauses in one order."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: sorted(re.split(r"[,()]", "".join(sql.split()).replace('"', ""))) for name, sql in rows}


def test_the_writer_connection_keeps_the_promised_pragmas(world):
    names = ("journal_mode", "synchronous", "secure_delete", "foreign_keys")
    found = world.ledger.run(lambda tx: [driver(tx.conn).execute(f"PRAGMA {name}").fetchone()[0] for name in names])
    assert found == ["wal", 2, 1, 1]


def test_epoch_rises_at_every_start(world):
    first = world.ledger.epoch
    world.reopen()
    world.reopen()
    assert world.ledger.epoch == first + 2


def test_newer_ledgers_are_refused_and_left_alone(world):
    world.close()
    with sqlite3.connect(world.path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    before = world.path.read_bytes()
    with pytest.raises(Unsupported) as caught:
        Ledger.open(world.path)
    assert caught.value.reason == "LEDGER_NEWER"
    assert world.path.read_bytes() == before


@pytest.mark.parametrize("content", [b"this is no database, it is text", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_file_is_corrupt(tmp_path, content):
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(Corrupt) as caught:
        Ledger.open(path)
    assert caught.value.reason == "LEDGER_CORRUPT"
    assert path.read_bytes() == content


def test_a_damaged_page_is_corrupt_when_it_is_read(world):
    world.start(count=200)
    world.close()
    content = bytearray(world.path.read_bytes())
    for page in range(1, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xa5" * 64
    world.path.write_bytes(content)
    with pytest.raises(Corrupt) as caught:
        Ledger.open(world.path, world.clock)
    assert caught.value.reason == "LEDGER_CORRUPT"


def test_somebody_elses_database_is_refused(tmp_path):
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE recipes (name TEXT)")
    raw.close()
    with pytest.raises(Corrupt) as caught:
        Ledger.open(path)
    assert caught.value.reason == "LEDGER_FOREIGN"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(Unavailable, match=r"ledger\.db cannot be opened"):
        Ledger.open(tmp_path / "nowhere" / "ledger.db")


def _hold_the_writer(ledger: Ledger) -> threading.Event:
    """Makes the writer wait, so that everything submitted meanwhile lands in one group."""
    gate, inside = threading.Event(), threading.Event()
    ledger.transact(lambda tx: (inside.set(), gate.wait(10)))
    assert inside.wait(10)
    return gate


def test_an_error_in_a_group_undoes_only_itself(world):
    def fails(tx):
        serials.define_pool(tx, "half", 1, 9)
        raise Conflict("TEST", "on purpose")

    before = world.see(audit.head).count
    gate = _hold_the_writer(world.ledger)
    futures = [world.ledger.transact(lambda tx, n=n: serials.define_pool(tx, f"p{n}", 1, 9)) for n in range(5)]
    futures.insert(2, world.ledger.transact(fails))
    gate.set()
    assert [type(future.exception(10)) for future in futures] == [type(None)] * 2 + [Conflict] + [type(None)] * 3
    assert world.see(pools) == 5
    # Five leaves: nothing is told of what was undone.
    assert world.see(audit.verify).count == before + 5


def test_a_failing_statement_does_not_poison_the_group(world):
    gate = _hold_the_writer(world.ledger)
    bad = world.ledger.transact(lambda tx: tx.conn.exec_driver_sql("INSERT INTO serial_pools VALUES ('x', NULL, 1)"))
    good = world.ledger.transact(lambda tx: serials.define_pool(tx, "good", 1, 9))
    gate.set()
    assert "NOT NULL" in str(bad.exception(10))
    assert good.exception(10) is None
    assert world.see(pools) == 1


def test_a_group_shares_one_commit(world):
    commits = []
    driver_connection = world.ledger.run(lambda tx: driver(tx.conn))
    driver_connection.set_trace_callback(lambda sql: commits.append(sql) if sql.startswith("COMMIT") else None)
    gate = _hold_the_writer(world.ledger)
    futures = [world.ledger.transact(lambda tx, n=n: serials.define_pool(tx, f"p{n}", 1, 9)) for n in range(50)]
    gate.set()
    for future in futures:
        future.result(10)
    # One for the function that held the writer, one for the fifty.
    assert len(commits) == 2


def test_a_failing_commit_fails_everybody_and_keeps_nothing(world):
    world.start()
    before = world.see(audit.head)

    def breaks_the_commit(tx):
        # A deferred constraint is checked by COMMIT alone.
        driver(tx.conn).execute("PRAGMA defer_foreign_keys=ON")
        tx.conn.exec_driver_sql("INSERT INTO issued VALUES (999, 1, x'00', x'00')")

    gate = _hold_the_writer(world.ledger)
    futures = [
        world.ledger.transact(lambda tx: serials.define_pool(tx, "innocent", 1, 9)),
        world.ledger.transact(breaks_the_commit),
        world.ledger.transact(lambda tx: serials.define_pool(tx, "late", 1, 9)),
    ]
    gate.set()
    assert all(future.exception(10) is not None for future in futures)
    assert world.see(pools) == 1
    assert world.see(audit.verify) == before
    world.do(serials.define_pool, "after", 1, 9)
    assert world.see(audit.verify).count == before.count + 1


def test_a_full_disk_fails_cleanly_and_heals(world):
    world.start()
    driver_connection = world.ledger.run(lambda tx: driver(tx.conn))
    pages = driver_connection.execute("PRAGMA page_count").fetchone()[0]
    driver_connection.execute(f"PRAGMA max_page_count={pages + 2}").fetchone()
    futures = [world.ledger.transact(lambda tx, n=n: serials.define_pool(tx, f"pool-{n}-{'x' * 40}", 1, 9)) for n in range(3000)]
    errors = [error for future in futures if (error := future.exception(20)) is not None]
    assert {error.reason for error in errors} == {"DISK_FULL"}
    acknowledged = len(futures) - len(errors)
    # Innocents in a group with it hear the same, and nothing of the group stays.
    gate = _hold_the_writer(world.ledger)
    futures = [world.ledger.transact(lambda tx, n=n: serials.define_pool(tx, f"g{n}-{'y' * 60}", 1, 9)) for n in range(150)]
    gate.set()
    assert {type(future.exception(10)) for future in futures} == {Exhausted}
    assert world.see(pools) == 1 + acknowledged
    world.see(audit.verify)
    driver_connection.execute("PRAGMA max_page_count=1000000").fetchone()
    world.do(serials.define_pool, "room again", 1, 9)
    assert world.see(pools) == 2 + acknowledged
    world.reopen()
    assert world.see(pools) == 2 + acknowledged


def test_a_cancelled_future_is_never_run(world):
    gate = _hold_the_writer(world.ledger)
    future = world.ledger.transact(lambda tx: serials.define_pool(tx, "never", 1, 9))
    assert future.cancel()
    gate.set()
    world.do(serials.define_pool, "other", 1, 9)
    assert world.see(pools) == 1


def test_waiting_inside_the_writer_is_an_error_not_a_deadlock(world):
    with pytest.raises(RuntimeError, match="must not wait"):
        world.ledger.run(lambda tx: world.ledger.run(lambda inner: None))


def test_a_closed_ledger_says_so(world):
    queued = [world.ledger.transact(lambda tx, n=n: serials.define_pool(tx, f"p{n}", 1, 9)) for n in range(20)]
    world.ledger.close()
    assert all(future.exception(1) is None for future in queued)
    with pytest.raises(Unavailable) as caught:
        world.ledger.transact(lambda tx: None)
    assert caught.value.reason == "LEDGER_CLOSED"
    world.ledger.close()


def test_readers_cannot_write(world):
    with pytest.raises(Unavailable) as caught:
        world.see(lambda conn: conn.exec_driver_sql("DELETE FROM audit_leaves"))
    assert caught.value.reason == "LEDGER_READ_ONLY"


def test_many_readers_see_every_acknowledged_write(world):
    with ThreadPoolExecutor(8) as threads:
        reading = [threads.submit(lambda: [world.see(pools) for _ in range(50)]) for _ in range(8)]
        for number in range(30):
            world.do(serials.define_pool, f"p{number}", 1, 9)
            assert world.see(pools) == number + 1
    # Each reader sees time go forward only.
    assert all(one.result() == sorted(one.result()) for one in reading)


async def test_asyncio_doors(world):
    await asyncio.gather(*(world.ledger.write(lambda tx, n=n: serials.define_pool(tx, f"p{n}", 1, 9)) for n in range(20)))
    assert await world.ledger.aread(pools) == 20
    with pytest.raises(Conflict):
        await world.ledger.write(lambda tx: serials.define_pool(tx, "p1", 2, 9))


def _count_commits(ledger: Ledger) -> list[str]:
    commits: list[str] = []
    ledger.run(lambda tx: tx.db.set_trace_callback(lambda sql: commits.append(sql) if sql.startswith("COMMIT") else None))
    commits.clear()
    return commits


async def test_a_patient_write_shares_the_commit_of_one_that_cannot_wait(world):
    commits = _count_commits(world.ledger)
    patient = [
        asyncio.create_task(world.ledger.write(lambda tx, n=n: serials.define_pool(tx, f"p{n}", 1, 9), patience_s=3600)) for n in range(5)
    ]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in patient)
    await world.ledger.write(lambda tx: serials.define_pool(tx, "now", 1, 9))
    await asyncio.wait_for(asyncio.gather(*patient), 10)
    assert len(commits) == 1
    assert await world.ledger.aread(pools) == 6


async def test_a_patient_write_needs_nobody_else(world):
    soon = world.ledger.write(lambda tx: serials.define_pool(tx, "soon", 1, 9), patience_s=0.02)
    late = world.ledger.write(lambda tx: serials.define_pool(tx, "late", 1, 9), patience_s=3600)
    # The one with less patience decides for both, whichever came first.
    await asyncio.wait_for(asyncio.gather(late, soon), 10)
    late = asyncio.create_task(world.ledger.write(lambda tx: serials.define_pool(tx, "later", 1, 9), patience_s=3600))
    await asyncio.sleep(0)
    # A thread without an event loop hands over what waits as well.
    await asyncio.to_thread(world.do, serials.define_pool, "thread", 1, 9)
    await asyncio.wait_for(late, 10)


async def test_closing_does_not_forget_what_waits_patiently(world):
    task = asyncio.create_task(world.ledger.write(lambda tx: serials.define_pool(tx, "p", 1, 9), patience_s=3600))
    await asyncio.sleep(0)
    await asyncio.to_thread(world.ledger.close)
    await asyncio.wait_for(task, 10)
    world.__post_init__()
    assert await world.ledger.aread(pools) == 1


async def test_a_group_wakes_the_event_loop_once(world):
    loop = asyncio.get_running_loop()
    woken: list[object] = []
    wake = loop.call_soon_threadsafe
    gate = _hold_the_writer(world.ledger)
    tasks = [asyncio.create_task(world.ledger.write(lambda tx, n=n: serials.define_pool(tx, f"p{n}", 1, 9))) for n in range(20)]
    await asyncio.sleep(0)
    loop.call_soon_threadsafe = lambda *args, **kwargs: (woken.append(args), wake(*args, **kwargs))[1]
    try:
        gate.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
    finally:
        loop.call_soon_threadsafe = wake
    assert len(woken) == 1


async def test_a_cancelled_write_that_has_not_begun_is_never_run(world):
    gate = _hold_the_writer(world.ledger)
    gone = asyncio.create_task(world.ledger.write(lambda tx: serials.define_pool(tx, "never", 1, 9)))
    kept = asyncio.create_task(world.ledger.write(lambda tx: serials.define_pool(tx, "kept", 1, 9)))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.wait_for(kept, 10)
    assert await world.ledger.aread(pools) == 1


def test_an_event_loop_that_is_gone_does_not_stop_the_writer(world):
    gate = _hold_the_writer(world.ledger)

    async def leave() -> None:
        task = asyncio.create_task(world.ledger.write(lambda tx: serials.define_pool(tx, "orphan", 1, 9)))
        patient = asyncio.create_task(world.ledger.write(lambda tx: serials.define_pool(tx, "patient", 1, 9), patience_s=3600))
        await asyncio.sleep(0)
        gate.set()
        # Completed while this loop does not run any more, or not at all: nobody asks.
        del task, patient

    asyncio.run(leave())

    async def another() -> None:
        await world.ledger.write(lambda tx: serials.define_pool(tx, "next loop", 1, 9), patience_s=0.01)

    asyncio.run(asyncio.wait_for(another(), 10))
    world.do(serials.define_pool, "after", 1, 9)
    assert {"after", "next loop"} <= set(world.see(lambda conn: conn.exec_driver_sql("SELECT pool FROM serial_pools").scalars()))


@pytest.mark.parametrize("company", [False, True], ids=["alone", "in a group"])
def test_core_and_driver_share_one_transaction(world, company):
    """What a function writes by either way is kept or undone together, and a reader sees one moment by both."""

    def both(tx, name):
        tx.conn.execute(insert(schema.serial_pools), {"pool": f"{name} core", "first": 1, "last": 2})
        tx.db.execute("INSERT INTO serial_pools VALUES (?, 1, 2)", (f"{name} driver",))

    def fails(tx):
        both(tx, "undone")
        raise Conflict("TEST", "on purpose")

    gate = _hold_the_writer(world.ledger) if company else None
    failed, kept = world.ledger.transact(fails), world.ledger.transact(lambda tx: both(tx, "kept"))
    if gate is not None:
        gate.set()
    assert isinstance(failed.exception(10), Conflict)
    kept.result(10)
    assert set(world.see(lambda conn: conn.exec_driver_sql("SELECT pool FROM serial_pools").scalars())) == {"kept core", "kept driver"}

    def look(conn):
        before = driver(conn).execute("SELECT count(*) FROM serial_pools").fetchone()[0]
        world.do(serials.define_pool, "meanwhile", 1, 9)
        return before, pools(conn), driver(conn).execute("SELECT count(*) FROM serial_pools").fetchone()[0]

    assert world.see(look) == (2, 2, 2)
    assert world.see(pools) == 3


def test_an_unaudited_change_is_impossible(world):
    """The leaf cannot be written: the change it tells of must not happen."""
    world.start()
    raw = sqlite3.connect(world.path)
    raw.execute("CREATE TRIGGER refuse BEFORE INSERT ON audit_leaves BEGIN SELECT RAISE(ABORT, 'audit storage is gone'); END")
    raw.commit()
    with pytest.raises(Exception, match="audit storage is gone"):
        world.reserve()
    assert world.line() == "READY"
    raw.execute("DROP TRIGGER refuse")
    raw.commit()
    raw.close()
    world.reserve()
    assert world.line() == "HELD"


def test_an_audit_leaf_above_its_limit_undoes_its_change(world):
    def too_long(tx):
        serials.define_pool(tx, "kept?", 1, 9)
        tx.audit("test", "x" * 20_000)

    with pytest.raises(Exception, match="at most 16384"):
        world.ledger.run(too_long)
    assert world.see(pools) == 0


def test_a_stopped_ledger_refuses_everything(world):
    """After an input/output error nobody knows what the disk holds: only opening again finds out."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC

    def break_commit(tx):
        tx._chain.flush = lambda conn: (_ for _ in ()).throw(error)

    with pytest.raises(Unavailable) as caught:
        world.ledger.run(break_commit)
    assert caught.value.reason == "LEDGER_IO"
    with pytest.raises(Unavailable) as caught:
        world.do(serials.define_pool, "p", 1, 9)
    assert caught.value.reason == "LEDGER_STOPPED"
    world.reopen()
    world.do(serials.define_pool, "p", 1, 9)
