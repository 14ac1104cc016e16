"""The one thread that writes. It takes everything that waits, runs each function inside one transaction, commits once (one fsync for
all), and only then completes the futures: what was acknowledged is on disk.

A function that raises undoes only itself: in a group each runs under a savepoint. A commit that fails fails everybody in the group.
After an input/output error the writer stops for good: what the disk holds is then known only after recovery, which happens when the
ledger is opened again.

The transaction is the driver's; SQLAlchemy's connection is the same one and joins it where a function asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from engine.ledger.chain import AuditChain
from engine.ledger.clock import Clock
from engine.ledger.errors import translate
from engine.ledger.sqlite import BEGIN, driver, empty_wal
from engine.ledger.tx import Tx
from keys.errors import CitycardError, Unavailable

T = TypeVar("T")

# No more is added to a group of so many: bounds how long its first waits for its last.
MAX_GROUP = 256


class _Work:
    """A function that waits to be run, who waits for it, and what came of it."""

    __slots__ = ("error", "function", "loop", "result", "waiter")

    def __init__(
        self, function: Callable[[Tx], Any], waiter: Future[Any] | asyncio.Future[Any], loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self.function = function
        self.waiter = waiter
        self.loop = loop
        self.result: Any = None
        self.error: BaseException | None = None

    def wanted(self) -> bool:
        """False for one that was cancelled before it began."""
        return self.waiter.set_running_or_notify_cancel() if isinstance(self.waiter, Future) else not self.waiter.cancelled()

    def complete(self) -> None:
        """Tells the waiter; on its own event loop's thread where it has one."""
        if self.waiter.cancelled():
            return
        if self.error is None:
            self.waiter.set_result(self.result)
        else:
            self.waiter.set_exception(translate(self.error) or self.error)


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
            self._db = driver(self._conn)
        except BaseException:
            self._conn.close()
            raise
        self._queue: queue.SimpleQueue[list[_Work] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        # What waits for others to share its commit; when, and by which event loop's clock, the most impatient of it is handed over.
        self._patient: list[_Work] = []
        self._due = 0.0
        self._due_on: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._stopped_by: CitycardError | None = None
        self._wal_to_empty = False
        self.observer: Callable[[int, float], None] | None = None
        self._thread = threading.Thread(target=self._loop, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[Tx], T]) -> Future[T]:
        """Queues one function. Raises Unavailable LEDGER_CLOSED after `close`."""
        future: Future[T] = Future()
        with self._gate:
            self._take(_Work(function, future))
            self._hand_over()
        return future

    def submit_from_loop(self, function: Callable[[Tx], T], patience_s: float) -> asyncio.Future[T]:
        """Queues one function for the running event loop, which may wait so many seconds for others to share its commit.

        Raises Unavailable LEDGER_CLOSED after `close`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._gate:
            self._take(_Work(function, future, loop))
            due = loop.time() + patience_s
            if patience_s <= 0:
                self._hand_over()
            elif len(self._patient) == 1 or due < self._due or loop is not self._due_on:
                self._due, self._due_on = due, loop
                loop.call_at(due, self._lost_patience, due)
        return future

    def _take(self, work: _Work) -> None:
        if self._closed:
            raise Unavailable("LEDGER_CLOSED", "the ledger is closed")
        self._patient.append(work)

    def _hand_over(self) -> None:
        """Everything that waits goes to the writer's thread at once: it is woken one time, and commits one time."""
        works, self._patient = self._patient, []
        self._queue.put(works)

    def _lost_patience(self, due: float) -> None:
        with self._gate:
            # What this timer was set for may have gone with somebody who could not wait.
            if self._patient and self._due == due:
                self._hand_over()

    def on_own_thread(self) -> bool:
        """True inside a function the writer runs: waiting there for another one would wait for ever."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Finishes what is queued, then lets go of the file. May be called twice."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._hand_over()
                self._queue.put(None)
        self._thread.join()
        self._conn.close()

    def _loop(self) -> None:
        last = False
        while not last:
            group, last = self._gather()
            if group:
                self._commit(group)
            if self._wal_to_empty:
                self._empty_wal()
            _complete(group)

    def _gather(self) -> tuple[list[_Work], bool]:
        """Everything that is handed over by now; True where the ledger is to be closed after it."""
        group: list[_Work] = []
        works = self._queue.get()
        while works is not None:
            group += [work for work in works if work.wanted()]
            if len(group) >= MAX_GROUP:
                return group, False
            try:
                works = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Work]) -> None:
        if self._stopped_by is not None:
            _fail(group, self._stopped_by)
            return
        start = self._chain.mark()
        began = time.perf_counter()
        try:
            self._db.execute(BEGIN)
            truncate = self._run_alone(group[0]) if len(group) == 1 else self._run_each(group)
            self._chain.flush(self._db)
            self._db.commit()
        except BaseException as error:  # noqa: BLE001 - every waiting future must hear of it, and the thread must live on
            self._chain.rewind(start)
            _fail(group, error.__cause__ if isinstance(error, _GroupLost) and error.__cause__ is not None else error)
            self._stop_if_unknown(error)
        else:
            self._chain.committed()
            self._wal_to_empty |= truncate
            if self.observer is not None:
                self.observer(sum(work.error is None for work in group), time.perf_counter() - began)
        finally:
            self._leave()

    def _leave(self) -> None:
        """Tells SQLAlchemy, where a function made it join, that the transaction is over."""
        if self._conn.in_transaction():
            # Nothing is open any more, or the writer has just stopped because nothing can be closed.
            with contextlib.suppress(SQLAlchemyError):
                self._conn.rollback()

    def _run_alone(self, work: _Work) -> bool:
        """Runs the only function of a group: an error undoes the transaction, which then has nothing in it."""
        mark = self._chain.mark()
        truncate = self._call(work)
        if work.error is not None:
            self._chain.rewind(mark)
            if not self._db.in_transaction:
                raise _GroupLost from work.error
            self._db.rollback()
        return truncate

    def _run_each(self, group: list[_Work]) -> bool:
        """Runs every function under a savepoint of its own. True where one asked for an empty write-ahead log."""
        truncate = False
        for work in group:
            mark = self._chain.mark()
            self._db.execute("SAVEPOINT work")
            truncate |= self._call(work)
            if work.error is not None:
                self._chain.rewind(mark)
                if not self._db.in_transaction:
                    raise _GroupLost from work.error
                self._db.execute("ROLLBACK TO work")
            self._db.execute("RELEASE work")
        return truncate

    def _call(self, work: _Work) -> bool:
        clock = self._clock
        tx = Tx(self._conn, self._db, self._chain, now_us=clock.wall_us(), boottime_us=clock.boottime_us(), epoch=self._epoch)
        try:
            work.result = work.function(tx)
        except BaseException as error:  # noqa: BLE001 - it is its waiter's, and the thread must live on
            work.error = error
            return False
        return tx.truncate_wal

    def _stop_if_unknown(self, error: BaseException) -> None:
        """After a failed group: makes sure nothing of it is left open, and stops where nobody can say what is on disk."""
        storage = translate(error)
        unknown = storage is not None and storage.reason in ("LEDGER_IO", "LEDGER_CORRUPT")
        if self._db.in_transaction:
            try:
                self._db.rollback()
            except sqlite3.Error:
                unknown = True
        if unknown:
            self._stopped_by = Unavailable(
                "LEDGER_STOPPED", "the ledger stopped writing after its disk failed: mend the disk and start the server again"
            )

    def _empty_wal(self) -> None:
        try:
            self._wal_to_empty = not empty_wal(self._db)
        except Exception as error:  # noqa: BLE001 - the commit stands; emptying is tried again after the next one
            self._stop_if_unknown(error)


def _fail(group: list[_Work], error: BaseException) -> None:
    """Everybody of the group gets an error of their own; a function that failed by itself keeps its own."""
    for work in group:
        if work.error is None or translate(work.error) is not None:
            work.error = translate(error) or (type(error)(error.reason, error.message) if isinstance(error, CitycardError) else error)


def _complete(group: list[_Work]) -> None:
    """Tells everybody; each event loop is woken once for all of its own."""
    loops: dict[asyncio.AbstractEventLoop, list[_Work]] = {}
    for work in group:
        if work.loop is None:
            work.complete()
        else:
            loops.setdefault(work.loop, []).append(work)
    for loop, works in loops.items():
        try:
            loop.call_soon_threadsafe(_complete_on_loop, works)
        except RuntimeError:
            # A loop that is closed has nobody waiting any more.
            if not loop.is_closed():
                raise


def _complete_on_loop(works: list[_Work]) -> None:
    for work in works:
        work.complete()
