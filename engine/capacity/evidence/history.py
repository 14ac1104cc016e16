"""What a ledger tells of the past: every attempt as columns, when jobs ran and stations worked, what blanks stations had.

Read in one snapshot, beside a running server, and never written. Times are Unix microseconds.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Select, func, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from engine.capacity.evidence.presence import Presence, presences
from engine.capacity.evidence.spans import Spans, Times
from engine.ledger import schema
from engine.ledger.errors import translate
from engine.ledger.events import events
from engine.ledger.sqlite import looks_like_sqlite, reader_engine
from engine.ledger.stock import Move
from keys.errors import Corrupt, NotFound, Precondition

Codes = npt.NDArray[np.int64]
UNKNOWN: Final = -1
_RUNNING: Final = "RUNNING"
# Finished cards that were taken out of the good bin: well made, whatever became of them.
_TAKEN_OUT: Final = ("sample", "recalled")
_LOT_DIGITS: Final = 4


class Outcome(IntEnum):
    """How an attempt ended; OPEN: not yet."""

    OPEN = 0
    GOOD = 1
    SCRAPPED = 2
    BLANK_REJECTED = 3
    RELEASED = 4

    @property
    def label(self) -> str:
        """As capacity profiles spell it."""
        return self.name.lower().replace("_", "-")


_ENDS: Final = {
    "STACKED": Outcome.GOOD,
    "SCRAP_PENDING": Outcome.SCRAPPED,
    "DESTROYED": Outcome.SCRAPPED,
    "BLANK_REJECTED": Outcome.BLANK_REJECTED,
    "RELEASED": Outcome.RELEASED,
}


@dataclass(frozen=True)
class Names:
    """Texts that stand as numbers in the columns; `UNKNOWN` is none."""

    stations: list[str]
    readers: list[str]
    transports: list[str]
    lots: list[str]
    reasons: list[str]


@dataclass(frozen=True)
class Attempts:
    """Columns, oldest attempt first. 0 in `returned_us` and `stacked_us`: not so far. `chip_us` is 0 where nothing was timed.

    `returned_us`: when the line wanted a card again. `timed`: whether the station measured anything of it.
    """

    job_no: Codes
    station: Codes
    outcome: Codes
    reason: Codes
    lot: Codes
    reader: Codes
    transport: Codes
    reserved_us: Times
    returned_us: Times
    stacked_us: Times
    piece: Codes
    timed: Codes
    chip_us: Times
    feed_us: Times
    print_us: Times
    eject_us: Times
    waited_us: Times

    def __len__(self) -> int:
        return len(self.job_no)


@dataclass(frozen=True)
class Job:
    """A job as its books tell it. `running`: when it gave out lines; `completed_us`: when it first was complete, if it was."""

    job_no: int
    job_id: str
    profile: str
    kind: str
    priority: int
    options: dict[str, Any]
    lines: int
    running: Spans
    completed_us: int | None


@dataclass(frozen=True)
class StockMove:
    """Blanks that came to a station, or left it by hand (negative)."""

    at_us: int
    station_id: str
    count: int


@dataclass(frozen=True)
class History:
    """Everything read. `jobs` by number; `presence` by station name; `until_us` is the last moment the ledger knows of.

    `taken` and `drawn`: lines of a job and blanks of a station that attempts older than the first column had taken by then.
    """

    names: Names
    attempts: Attempts
    taken: dict[int, int]
    drawn: dict[str, int]
    jobs: dict[int, Job]
    presence: dict[str, Presence]
    moves: list[StockMove]
    until_us: int

    def job(self, job_id: str) -> Job:
        """NotFound JOB_UNKNOWN."""
        for job in self.jobs.values():
            if job.job_id == job_id:
                return job
        raise NotFound("JOB_UNKNOWN", f"there is no job {job_id}")

    def waiting(self, job: Job) -> Spans:
        """When the job had at least one line that a station could have been given."""
        own = self.attempts.job_no == job.job_no
        returned = self.attempts.returned_us[own & (self.attempts.returned_us > 0)]
        taken = self.attempts.reserved_us[own]
        begin = int(job.running.begins[0]) if job.running else 0
        times = np.concatenate([[begin], taken, returned]).astype(np.int64)
        changes = np.concatenate([[job.lines - self.taken.get(job.job_no, 0)], np.full(len(taken), -1), np.full(len(returned), 1)]).astype(
            np.int64
        )
        lines = Spans.positive(times, changes, self.until_us)
        return Spans.of(piece for begin, end in job.running.pairs() for piece in lines.within(begin, end).pairs())

    def stocked(self, station: int) -> Spans | None:
        """When a station had blanks in its feeder; None where no stock was ever issued to it, so that nobody knows."""
        name = self.names.stations[station]
        moves = [move for move in self.moves if move.station_id == name]
        if not moves:
            return None
        drawn = self.attempts.reserved_us[(self.attempts.station == station) & (self.attempts.piece > 0)]
        times = np.concatenate([[moves[0].at_us], [move.at_us for move in moves], drawn]).astype(np.int64)
        changes = np.concatenate([[-self.drawn.get(name, 0)], [move.count for move in moves], np.full(len(drawn), -1)]).astype(np.int64)
        return Spans.positive(times, changes, self.until_us)


def read(path: Path, jobs: Sequence[str] = ()) -> History:
    """Reads a ledger: all of it, or the time in which these jobs were made, with everything else that went on then.

    Raises NotFound LEDGER_MISSING | JOB_UNKNOWN, Precondition LEDGER_OLDER, Corrupt LEDGER_CORRUPT, and what storage raises.
    """
    with snapshot(path) as conn:
        return _read(conn, jobs)


@contextmanager
def snapshot(path: Path) -> Iterator[Connection]:
    """A reader's connection on one state of the ledger. Raises as `read`."""
    if not path.is_file():
        raise NotFound("LEDGER_MISSING", f"there is no ledger {path}")
    if not looks_like_sqlite(path):
        raise Corrupt("LEDGER_CORRUPT", f"{path.name} is not a ledger: its first bytes are not those of an SQLite database")
    engine = reader_engine(path)
    try:
        with engine.connect() as conn, conn.begin():
            if not inspect(conn).has_table("timings"):
                older = f"{path.name} is of a version that timed nothing: start this version's server on it once, and make cards"
                raise Precondition("LEDGER_OLDER", older)
            yield conn
    except (SQLAlchemyError, sqlite3.Error) as error:
        known = translate(error)
        if known is None:
            raise
        raise known from None
    finally:
        engine.dispose()


class _Interned:
    """Texts as numbers."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._codes: dict[str, int] = {}

    def __call__(self, name: str | None) -> int:
        if not name:
            return UNKNOWN
        code = self._codes.get(name)
        if code is None:
            code = self._codes[name] = len(self.names)
            self.names.append(name)
        return code


_WIDTH: Final = len(Attempts.__dataclass_fields__)


def _read(conn: Connection, wanted: Sequence[str]) -> History:
    numbers = {row.job_id: row.job_no for row in conn.execute(select(schema.jobs.c.job_id, schema.jobs.c.job_no))}
    for job_id in wanted:
        if job_id not in numbers:
            raise NotFound("JOB_UNKNOWN", f"there is no job {job_id}")
    columns = schema.attempts.c
    statement = _attempt_rows()
    taken: dict[int, int] = {}
    drawn: dict[str, int] = {}
    if wanted:
        first, last = _window(conn, [numbers[job_id] for job_id in wanted])
        statement = statement.where(columns.attempt_id.between(first, last))
        taken, drawn = _older(conn, first)
    names = Names([], [], [], [], [])
    attempts = _columns(conn.execution_options(yield_per=5000).execute(statement), names)
    told = events(conn)
    until = max([int(attempts.reserved_us.max(initial=0)), int(attempts.stacked_us.max(initial=0)), *(event.at_us for event in told)])
    jobs = _jobs(conn, until)
    return History(names, attempts, taken, drawn, jobs, presences(told, _last_seen(attempts, names), until), _moves(conn), until)


def _window(conn: Connection, wanted: Sequence[int]) -> tuple[int, int]:
    """First and last attempt of the time in which these jobs were made: from the first that was not over when the first job began, for
    it may have lain in a head, or have taken a line of another job, after that.
    """
    c, jobs = schema.attempts.c, schema.jobs.c
    last = conn.execute(select(func.max(c.attempt_id)).where(c.job_no.in_(wanted))).scalar() or 0
    began = conn.execute(select(func.min(jobs.started_us)).where(jobs.job_no.in_(wanted))).scalar() or 0
    over = func.coalesce(c.stacked_us, c.ended_us, began)
    first = conn.execute(select(func.min(c.attempt_id)).where(over >= began)).scalar() or 0
    return first, last


def _older(conn: Connection, first: int) -> tuple[dict[int, int], dict[str, int]]:
    """Lines by job and blanks by station that attempts before the first one read have taken for good."""
    c = schema.attempts.c
    lines = select(c.job_no, func.count() - func.count(c.ended_us)).where(c.attempt_id < first).group_by(c.job_no)
    blanks = select(c.station_id, func.sum(c.piece)).where(c.attempt_id < first).group_by(c.station_id)
    return {row[0]: int(row[1]) for row in conn.execute(lines)}, {row[0]: int(row[1]) for row in conn.execute(blanks)}


def _attempt_rows() -> Select[Any]:
    a, t = schema.attempts.c, schema.timings.c
    return (
        select(a.job_no, a.station_id, a.state, a.reason, a.chip_id, a.reserved_us, a.ended_us, a.stacked_us, a.piece)
        .add_columns(t.reader, t.transport, t.apdu_us, t.feed_us, t.print_us, t.eject_us, t.waited_us)
        .select_from(schema.attempts.outerjoin(schema.timings, t.attempt_id == a.attempt_id))
        .order_by(a.attempt_id)
    )


def _columns(rows: Iterable[Sequence[Any]], names: Names) -> Attempts:
    interned = [_Interned() for _ in range(5)]
    station, reader, transport, lot, reason = interned
    table = array("q")
    for row in rows:
        job_no, station_id, state, why, chip_id, reserved, ended, stacked, piece = row[:9]
        where, how, apdu_us, feed, printed, eject, waited = row[9:]
        outcome = _ENDS.get(state, Outcome.OPEN)
        if outcome is Outcome.SCRAPPED and why in _TAKEN_OUT:
            outcome = Outcome.GOOD
        chip = int(np.frombuffer(apdu_us, "<u4").sum(dtype=np.int64)) if apdu_us else 0
        table.extend((job_no, station(station_id), outcome, reason(why), lot((chip_id or "")[:_LOT_DIGITS]), reader(where), transport(how)))
        table.extend((reserved, ended or 0, stacked or 0, piece, how is not None, chip, feed or 0, printed or 0, eject or 0, waited or 0))
    for target, source in zip((names.stations, names.readers, names.transports, names.lots, names.reasons), interned, strict=True):
        target.extend(source.names)
    return Attempts(*np.frombuffer(table, np.int64).reshape(-1, _WIDTH).T)


def _last_seen(attempts: Attempts, names: Names) -> dict[str, Sequence[int]]:
    moved = np.maximum(attempts.reserved_us, attempts.stacked_us)
    return {name: np.sort(moved[attempts.station == code]).tolist() for code, name in enumerate(names.stations)}


def _jobs(conn: Connection, until_us: int) -> dict[int, Job]:
    counted = select(schema.lines.c.job_no, func.count()).group_by(schema.lines.c.job_no)
    lines: dict[int, int] = {row[0]: row[1] for row in conn.execute(counted)}
    leaf = schema.audit_leaves.c.leaf
    # the audit chain is where every state a job ever had is kept with its time
    kept = select(leaf).where(func.instr(leaf, '"kind":"job.state"') > 0).order_by(schema.audit_leaves.c.leaf_index)
    moves = [json.loads(text) for text in conn.execute(kept).scalars()]
    by_job = {name: list(group) for name, group in groupby(sorted(moves, key=lambda m: str(m["subject"])), lambda m: m["subject"])}
    c = schema.jobs.c
    found = {}
    for row in conn.execute(select(c.job_no, c.job_id, c.profile, c.kind, c.priority, c.options).order_by(c.job_no)):
        states = [(int(m["at_us"]), str(m["facts"]["after"])) for m in by_job.get(row.job_id, ())]
        ends = [at for at, _ in states[1:]] + [until_us]
        running = Spans.of((at, end) for (at, state), end in zip(states, ends, strict=False) if state == _RUNNING)
        completed = next((at for at, state in states if state == "COMPLETE"), None)
        options = json.loads(row.options)
        count = lines.get(row.job_no, 0)
        found[row.job_no] = Job(row.job_no, row.job_id, row.profile, row.kind, row.priority, options, count, running, completed)
    return found


def _moves(conn: Connection) -> list[StockMove]:
    sign = {Move.ISSUE: 1, Move.BLANK: -1, Move.SETUP: -1, Move.SPOILED: -1}
    c = schema.stock_moves.c
    rows = conn.execute(select(c.at_us, c.station_id, c.kind, c["count"]).where(c.station_id.is_not(None)).order_by(c.move_id))
    return [StockMove(at, name, sign[Move(kind)] * number) for at, name, kind, number in rows if Move(kind) in sign]
