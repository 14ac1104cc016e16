"""The ledger's file and the doors into it: one writer with group commit, a small pool of readers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import SQLAlchemyError

from engine.ledger.clock import Clock, SystemClock
from engine.ledger.errors import translate
from engine.ledger.migrate import migrate
from engine.ledger.recovery import recover
from engine.ledger.schema import ledger_numbers
from engine.ledger.sqlite import driver, looks_like_sqlite, reader_engine, writer_engine
from engine.ledger.tx import Tx
from engine.ledger.writer import Writer
from keys.errors import Corrupt, Unavailable

T = TypeVar("T")

_READ_THREADS = 4


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Storage failures leave as errors of citycard's tree; everything else passes."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        known = translate(error)
        if known is None:
            raise
        raise known from None


class Ledger:
    """One open ledger. Thread-safe. Whoever opens it must hold the exclusive lock of its folder: two ledgers on one file would
    void each other's leases.
    """

    def __init__(self, path: Path, clock: Clock, epoch: int, engines: tuple[Engine, Engine]) -> None:
        self.path = path
        self.clock = clock
        self.epoch = epoch
        self._writing, self._reading = engines
        self._writer = Writer(self._writing, clock, epoch)
        self._threads = ThreadPoolExecutor(_READ_THREADS, thread_name_prefix="ledger-reader")
        self._idle: list[Connection] = []
        self._closed = False

    @classmethod
    def open(cls, path: Path, clock: Clock | None = None) -> Ledger:
        """Creates or migrates the file, raises the lease epoch, and puts back in the queue whatever was reserved but never begun.

        Raises Unsupported LEDGER_NEWER, Corrupt LEDGER_CORRUPT | LEDGER_FOREIGN | AUDIT_TRUNCATED, Exhausted DISK_FULL,
        Unavailable LEDGER_READ_ONLY | LEDGER_BUSY | LEDGER_IO.
        """
        clock = clock or SystemClock()
        try:
            path.touch(mode=0o600)
            readable = looks_like_sqlite(path)
        except OSError as error:
            raise Unavailable("LEDGER_READ_ONLY", f"the ledger {path.name} cannot be opened: {error.strerror}") from None
        if not readable:
            raise Corrupt("LEDGER_CORRUPT", f"{path.name} is not a ledger: its first bytes are not those of an SQLite database")
        engines = writer_engine(path), reader_engine(path)
        try:
            with _storage_errors():
                with engines[0].connect() as conn, conn.begin():
                    migrate(conn)
                    epoch = conn.execute(select(ledger_numbers.c.value).where(ledger_numbers.c.name == "epoch")).scalar_one()
                ledger = cls(path, clock, epoch + 1, engines)
        except BaseException:
            for engine in engines:
                engine.dispose()
            raise
        try:
            ledger.run(recover)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def transact(self, function: Callable[[Tx], T]) -> Future[T]:
        """Queues a function for the writer. The future completes when its changes are on disk, or with the error that undid
        them.
        """
        return self._writer.submit(function)

    def watch(self, observer: Callable[[int, float], None]) -> None:
        """`observer` hears of every committed group: how many functions, how many seconds. It is called on the writer's thread."""
        self._writer.observer = observer

    def run(self, function: Callable[[Tx], T]) -> T:
        """`transact`, and waits. Never call it from inside another function of the writer."""
        if self._writer.on_own_thread():
            raise RuntimeError("a function of the ledger's writer must not wait for the writer")
        return self.transact(function).result()

    async def write(self, function: Callable[[Tx], T], *, patience_s: float = 0.0) -> T:
        """`submit`, and waits. A cancelled waiter does not undo what has already begun."""
        return await self._writer.submit_from_loop(function, patience_s)

    def submit(self, function: Callable[[Tx], T], *, patience_s: float = 0.0) -> asyncio.Future[T]:
        """`transact`, for asyncio: the running loop's own future.

        A write that is in no hurry may wait up to `patience_s` seconds for others to share its commit, and so its fsync. Writes become
        durable in the order in which they were queued, whatever their patience.
        """
        return self._writer.submit_from_loop(function, patience_s)

    def read(self, function: Callable[[Connection], T]) -> T:
        """Runs a function on a reader's snapshot, in the calling thread. It sees every acknowledged write."""
        with _storage_errors(), self._reader() as conn:
            return function(conn)

    @contextmanager
    def _reader(self) -> Iterator[Connection]:
        """A connection inside a reading transaction. Connections are kept, as many as ever read at once: opening one costs more than
        reading a few rows.
        """
        try:
            conn = self._idle.pop()
        except IndexError:
            conn = self._reading.connect()
        db = driver(conn)
        try:
            db.execute("BEGIN")
            yield conn
        finally:
            db.rollback()
            if conn.in_transaction():
                conn.rollback()
            self._idle.append(conn)
            if self._closed:
                self._let_go()

    def _let_go(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    async def aread(self, function: Callable[[Connection], T]) -> T:
        """`read`, on a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.read, function)

    def close(self) -> None:
        """Finishes queued writes and closes the file. May be called twice."""
        self._writer.close()
        self._threads.shutdown(wait=True)
        self._closed = True
        self._let_go()
        self._reading.dispose()
        self._writing.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
