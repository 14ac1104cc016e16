"""The one thread that writes. It takes everything that waits, runs each function under a savepoint inside one transaction,
commits once (one fsync for all), and only then completes the futures: what was acknowledged is on disk.

A function that raises undoes only itself. A commit that fails fails everybody in the group. After an input/output error the
writer stops for good: what the disk holds is then known only after recovery, which happens when the ledger is opened again.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from engine.ledger.chain import AuditChain
from engine.ledger.clock import Clock
from engine.ledger.errors import translate
from engine.ledger.sqlite import driver, empty_wal
from engine.ledger.tx import Tx
from keys.errors import CitycardError, Unavailable

T = TypeVar("T")

# Bounds how long the first of a group waits for the last.
MAX_GROUP = 256


@dataclass(slots=True)
class _Work:
    function: Callable[[Tx], Any]
    future: Future[Any]
    result: Any = None
    error: BaseException | None = None


class _GroupLost(Exception):
    """SQLite rolled the whole transaction back under a failing statement."""


class Writer:
    """Owns the writing connection and the end of the audit chain."""

    def __init__(self, engine: Engine, clock: Clock, epoch: int) -> None:
        self._clock = clock
        self._epoch = epoch
        self._conn: Connection = engine.connect()
        try:
            with self._conn.begin():
                self._chain = AuditChain.load(self._conn)
            self._driver = driver(self._conn)
        except BaseException:
            self._conn.close()
            raise
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._stopped_by: CitycardError | None = None
        self._wal_to_empty = False
        self._thread = threading.Thread(target=self._loop, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[Tx], T]) -> Future[T]:
        """Queues one function. Raises Unavailable LEDGER_CLOSED after `close`."""
        future: Future[T] = Future()
        with self._gate:
            if self._closed:
                raise Unavailable("LEDGER_CLOSED", "the ledger is closed")
            self._queue.put(_Work(function, future))
        return future

    def on_own_thread(self) -> bool:
        """True inside a function the writer runs: waiting there for another one would wait for ever."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Finishes what is queued, then lets go of the file. May be called twice."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()
        self._conn.close()

    def _loop(self) -> None:
        last = False
        while not last:
            group: list[_Work] = []
            work = self._queue.get()
            while work is not None:
                if work.future.set_running_or_notify_cancel():
                    group.append(work)
                if len(group) >= MAX_GROUP:
                    break
                try:
                    work = self._queue.get_nowait()
                except queue.Empty:
                    break
            else:
                last = True
            if group:
                self._commit(group)
            if self._wal_to_empty:
                self._empty_wal()
            for done in group:
                _complete(done)

    def _commit(self, group: list[_Work]) -> None:
        if self._stopped_by is not None:
            _fail(group, self._stopped_by)
            return
        start = self._chain.mark()
        truncate = False
        try:
            with self._conn.begin():
                for work in group:
                    truncate |= self._run(work)
                self._chain.flush(self._conn)
        except BaseException as error:  # noqa: BLE001 - every waiting future must hear of it, and the thread must live on
            self._chain.rewind(start)
            _fail(group, error.__cause__ if isinstance(error, _GroupLost) and error.__cause__ is not None else error)
            self._stop_if_unknown(error)
        else:
            self._chain.committed()
            self._wal_to_empty |= truncate

    def _run(self, work: _Work) -> bool:
        """Runs one function under its savepoint. True where it asked for an empty write-ahead log."""
        mark = self._chain.mark()
        clock = self._clock
        self._driver.execute("SAVEPOINT work")
        tx = Tx(self._conn, self._chain, now_us=clock.wall_us(), boottime_us=clock.boottime_us(), epoch=self._epoch)
        try:
            work.result = work.function(tx)
        except BaseException as error:
            work.error = error
            self._chain.rewind(mark)
            if not self._driver.in_transaction:
                raise _GroupLost from error
            self._driver.execute("ROLLBACK TO work")
        self._driver.execute("RELEASE work")
        return tx.truncate_wal and work.error is None

    def _stop_if_unknown(self, error: BaseException) -> None:
        """After a failed group: makes sure nothing of it is left open, and stops where nobody can say what is on disk."""
        storage = translate(error)
        unknown = storage is not None and storage.reason in ("LEDGER_IO", "LEDGER_CORRUPT")
        if self._driver.in_transaction:
            # A COMMIT that fails leaves the transaction open, and SQLAlchemy takes it for ended.
            try:
                self._driver.rollback()
            except sqlite3.Error:
                unknown = True
        if unknown:
            self._stopped_by = Unavailable(
                "LEDGER_STOPPED", "the ledger stopped writing after its disk failed: mend the disk and start the server again"
            )

    def _empty_wal(self) -> None:
        try:
            self._wal_to_empty = not empty_wal(self._driver)
        except Exception as error:  # noqa: BLE001 - the commit stands; emptying is tried again after the next one
            self._stop_if_unknown(error)


def _fail(group: list[_Work], error: BaseException) -> None:
    """Everybody of the group gets an error of their own; a function that failed by itself keeps its own."""
    for work in group:
        if work.error is None or translate(work.error) is not None:
            work.error = translate(error) or (type(error)(error.reason, error.message) if isinstance(error, CitycardError) else error)


def _complete(work: _Work) -> None:
    if work.error is None:
        work.future.set_result(work.result)
    else:
        work.future.set_exception(translate(work.error) or work.error)
