"""Gives waiting lines to stations that have credits.

Order: instant jobs (priority 0) before all bulk; then by priority; then by due date, jobs without one last; equal jobs take
turns, the one submitted first beginning. A station never has more lines out than it granted credits for. Stations take turns
too, so that a short queue is shared out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count, groupby

from engine.dispatch.breaker import Breaker
from engine.dispatch.queues import JobInfo, LineQueue
from keys.errors import Conflict, InvalidInput, NotFound

_NEVER_DUE = 1 << 63
ALL_BUSY = "every fitting station is busy"


@dataclass(frozen=True, slots=True)
class StationInfo:
    """What a station can make. Empty `profiles` means every profile whose chip type it takes."""

    station_id: str
    profiles: frozenset[str]
    chip_types: frozenset[str]
    heads: int = 1


@dataclass(frozen=True, slots=True)
class Assignment:
    """One line for one station."""

    station_id: str
    job_id: str
    line_no: int


@dataclass(slots=True)
class _Station:
    info: StationInfo
    credits: int = 0
    order: int = field(default=0)


class Dispatcher:
    """Pure: `assign` is given the time, and nothing here waits, reads or writes. Not thread-safe; one owner."""

    def __init__(self, breaker: Breaker | None = None) -> None:
        self.breaker = breaker or Breaker()
        self._jobs: dict[str, LineQueue] = {}
        self._stations: dict[str, _Station] = {}
        self._submitted = count()
        self._turns = count()
        # When a job last got a line: among equals the one that waited longest is next.
        self._last_turn: dict[str, int] = {}

    # ---- jobs

    def add_job(self, info: JobInfo) -> None:
        """Raises Conflict JOB_EXISTS, InvalidInput PRIORITY."""
        if info.job_id in self._jobs:
            raise Conflict("JOB_EXISTS", f"the dispatcher has job {info.job_id} already")
        self._jobs[info.job_id] = LineQueue(info, next(self._submitted))
        self._last_turn[info.job_id] = -1

    def _job(self, job_id: str) -> LineQueue:
        if job_id not in self._jobs:
            raise NotFound("JOB_UNKNOWN", f"the dispatcher has no job {job_id}")
        return self._jobs[job_id]

    def remove(self, job_id: str) -> None:
        """Forgets a job; one it does not know is forgotten already."""
        self._jobs.pop(job_id, None)
        self._last_turn.pop(job_id, None)

    def pause(self, job_id: str) -> None:
        """Nothing of the job is given out until it resumes. Raises NotFound JOB_UNKNOWN."""
        self._job(job_id).paused = True

    def resume(self, job_id: str) -> None:
        """Raises NotFound JOB_UNKNOWN."""
        self._job(job_id).paused = False

    def cancel(self, job_id: str) -> None:
        """Drops every waiting line; those at stations are the ledger's to bring to an end."""
        self.remove(job_id)

    def has_job(self, job_id: str) -> bool:
        """Whether the job is known here."""
        return job_id in self._jobs

    # ---- lines

    def lines_ready(self, job_id: str, line_nos: Iterable[int]) -> None:
        """Lines that want a card; those waiting or out already are ignored. Raises NotFound JOB_UNKNOWN."""
        self._job(job_id).add(line_nos)

    def wants_lines(self, job_id: str, low_water: int) -> bool:
        """Whether fewer than `low_water` lines of the job wait here: time to read more from the ledger."""
        queue = self._jobs.get(job_id)
        return queue is not None and not queue.paused and len(queue) < low_water

    def line_back(self, job_id: str, line_no: int, not_before_us: int = 0) -> None:
        """A line given out wants another try: before all fresh ones, but not before `not_before_us`. Unknown jobs are ignored:
        they were cancelled meanwhile.
        """
        queue = self._jobs.get(job_id)
        if queue is not None:
            queue.back(line_no, not_before_us)

    def line_done(self, job_id: str, line_no: int) -> None:
        """A line given out needs no station any more."""
        queue = self._jobs.get(job_id)
        if queue is not None:
            queue.done(line_no)

    # ---- stations

    def station_on(self, info: StationInfo) -> None:
        """A station connected, or connected again: it begins without credits."""
        known = self._stations.get(info.station_id)
        self._stations[info.station_id] = _Station(info, 0, next(self._turns) if known is None else known.order)

    def station_off(self, station_id: str) -> None:
        """A station is gone with its credits; what it has in hand is the ledger's to bring to an end."""
        self._stations.pop(station_id, None)

    def credit(self, station_id: str, more: int) -> None:
        """The station can take `more` lines. Raises NotFound STATION_UNKNOWN, InvalidInput CREDIT."""
        if station_id not in self._stations:
            raise NotFound("STATION_UNKNOWN", f"station {station_id} is not connected")
        if more < 0:
            raise InvalidInput("CREDIT", f"station {station_id} granted {more} credits: they cannot be taken back")
        self._stations[station_id].credits += more

    def credits(self, station_id: str) -> int:
        """Lines the station can still take; 0 for one that is not connected."""
        station = self._stations.get(station_id)
        return 0 if station is None else station.credits

    # ---- who gets what

    def assign(self, now_us: int) -> list[Assignment]:
        """Gives out as many lines as credits and waiting lines allow, and takes the credits. `now_us` is Unix time or any
        steady clock, the same as in `line_back`.
        """
        free = [station for station in self._stations.values() if station.credits and self.breaker.stopped(station.info.station_id) is None]
        if not free:
            return []
        for queue in self._jobs.values():
            queue.wake(now_us)
        given: list[Assignment] = []
        for _, equals in groupby(sorted(self._jobs.values(), key=_rank_and_order), key=_rank):
            self._assign_equals(list(equals), free, given)
        return given

    def _assign_equals(self, equals: list[LineQueue], free: list[_Station], given: list[Assignment]) -> None:
        progress = True
        while progress:
            progress = False
            for station in sorted(free, key=lambda one: one.order):
                if station.credits == 0:
                    continue
                fitting = [queue for queue in equals if queue.can_take() and _fits(station.info, queue.info)]
                if not fitting:
                    continue
                queue = min(fitting, key=lambda one: (self._last_turn[one.info.job_id], one.order))
                turn = next(self._turns)
                self._last_turn[queue.info.job_id] = turn
                station.order = turn
                station.credits -= 1
                given.append(Assignment(station.info.station_id, queue.info.job_id, queue.take()))
                progress = True

    def waiting_for(self, job_id: str) -> str:
        """Why nothing of a job is given out, in plain words for its operator; empty when something can be or nothing waits."""
        queue = self._jobs.get(job_id)
        if queue is None or queue.out or not len(queue):
            return ""
        if queue.paused:
            return "the job is paused"
        fitting = [name for name, station in self._stations.items() if _fits(station.info, queue.info)]
        if not fitting:
            return f"no connected station takes chip type {queue.info.chip_type} and profile {queue.info.profile}"
        stopped = {name: self.breaker.stopped(name) for name in fitting}
        if all(stopped.values()):
            return "; ".join(f"station {name} is stopped: {reason}" for name, reason in stopped.items())
        idle = any(self._stations[name].credits for name in fitting if stopped[name] is None)
        return "" if idle else "every fitting station is busy"


def _rank(queue: LineQueue) -> tuple[int, int]:
    return queue.info.priority, _NEVER_DUE if queue.info.due_us is None else queue.info.due_us


def _rank_and_order(queue: LineQueue) -> tuple[tuple[int, int], int]:
    return _rank(queue), queue.order


def _fits(station: StationInfo, job: JobInfo) -> bool:
    return job.chip_type in station.chip_types and (not station.profiles or job.profile in station.profiles)
