"""Gives waiting lines to stations that have credits.

Instant jobs (priority 0) go before all bulk. Bulk jobs share the leases by priority and due date, as `turns` says; stations that can do
the same form a group, and the rule holds within each. A station never has more lines out than it granted credits for, and the one
that has waited longest is served first, so that a short queue is shared out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

from engine.dispatch.breaker import Breaker
from engine.dispatch.queues import JobInfo, LineQueue
from engine.dispatch.turns import Turns
from keys.errors import Conflict, InvalidInput, NotFound

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


@dataclass(slots=True, eq=False)
class _Group:
    """Stations that can do the same, and the turns of the jobs that fit them."""

    profiles: frozenset[str]
    chip_types: frozenset[str]
    instant: Turns = field(default_factory=Turns)
    bulk: Turns = field(default_factory=Turns)
    # stations with credits, the one that has waited longest first; those that left are dropped when they come up
    free: deque[_Station] = field(default_factory=deque)

    def fits(self, job: JobInfo) -> bool:
        return job.chip_type in self.chip_types and (not self.profiles or job.profile in self.profiles)

    def turns(self, job: JobInfo) -> Turns:
        return self.bulk if job.priority else self.instant


@dataclass(slots=True, eq=False)
class _Station:
    info: StationInfo
    group: _Group
    credits: int = 0
    free_since: int = 0
    queued: bool = False


class Dispatcher:
    """Pure: `assign` is given the time, and nothing here waits, reads or writes. Not thread-safe; one owner."""

    def __init__(self, breaker: Breaker | None = None) -> None:
        self.breaker = breaker or Breaker()
        self._jobs: dict[str, LineQueue] = {}
        self._stations: dict[str, _Station] = {}
        self._groups: dict[tuple[frozenset[str], frozenset[str]], _Group] = {}
        self._submitted = count()
        self._ticks = count()
        # jobs with lines that are held back for a while, and stations found stopped when it was their turn
        self._sleepers: set[str] = set()
        self._held: list[_Station] = []

    # ---- jobs

    def add_job(self, info: JobInfo) -> None:
        """Raises Conflict JOB_EXISTS, InvalidInput PRIORITY."""
        if info.job_id in self._jobs:
            raise Conflict("JOB_EXISTS", f"the dispatcher has job {info.job_id} already")
        self._jobs[info.job_id] = LineQueue(info, next(self._submitted))

    def _job(self, job_id: str) -> LineQueue:
        if job_id not in self._jobs:
            raise NotFound("JOB_UNKNOWN", f"the dispatcher has no job {job_id}")
        return self._jobs[job_id]

    def remove(self, job_id: str) -> None:
        """Forgets a job; one it does not know is forgotten already."""
        queue = self._jobs.pop(job_id, None)
        self._sleepers.discard(job_id)
        if queue is not None:
            for group in self._groups.values():
                group.turns(queue.info).forget(queue)

    def pause(self, job_id: str) -> None:
        """Nothing of the job is given out until it resumes. Raises NotFound JOB_UNKNOWN."""
        queue = self._job(job_id)
        queue.paused = True
        self._sync(queue)

    def resume(self, job_id: str) -> None:
        """Raises NotFound JOB_UNKNOWN."""
        queue = self._job(job_id)
        queue.paused = False
        self._sync(queue)

    def cancel(self, job_id: str) -> None:
        """Drops every waiting line; those at stations are the ledger's to bring to an end."""
        self.remove(job_id)

    def has_job(self, job_id: str) -> bool:
        """Whether the job is known here."""
        return job_id in self._jobs

    def _sync(self, queue: LineQueue) -> None:
        """Brings the job into the turns of the groups it fits when it has a line to give out, and out of them when it has none."""
        waits = queue.can_take()
        if waits == queue.in_turns:
            return
        queue.in_turns = waits
        for group in self._groups.values():
            if group.fits(queue.info):
                turns = group.turns(queue.info)
                (turns.join if waits else turns.leave)(queue)

    # ---- lines

    def lines_ready(self, job_id: str, line_nos: Iterable[int]) -> None:
        """Lines that want a card; those waiting or out already are ignored. Raises NotFound JOB_UNKNOWN."""
        queue = self._job(job_id)
        queue.add(line_nos)
        self._sync(queue)

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
            if not_before_us > 0:
                self._sleepers.add(job_id)
            self._sync(queue)

    def line_done(self, job_id: str, line_no: int) -> None:
        """A line given out needs no station any more."""
        queue = self._jobs.get(job_id)
        if queue is not None:
            queue.done(line_no)

    # ---- stations

    def station_on(self, info: StationInfo) -> None:
        """A station connected, or connected again: it begins without credits."""
        self._stations[info.station_id] = _Station(info, self._group_of(info))

    def _group_of(self, info: StationInfo) -> _Group:
        key = (info.profiles, info.chip_types)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(*key)
            for queue in self._jobs.values():
                if queue.in_turns and group.fits(queue.info):
                    group.turns(queue.info).join(queue)
        return group

    def station_off(self, station_id: str) -> None:
        """A station is gone with its credits; what it has in hand is the ledger's to bring to an end."""
        self._stations.pop(station_id, None)

    def credit(self, station_id: str, more: int) -> None:
        """The station can take `more` lines. Raises NotFound STATION_UNKNOWN, InvalidInput CREDIT."""
        if station_id not in self._stations:
            raise NotFound("STATION_UNKNOWN", f"station {station_id} is not connected")
        if more < 0:
            raise InvalidInput("CREDIT", f"station {station_id} granted {more} credits: they cannot be taken back")
        station = self._stations[station_id]
        station.credits += more
        self._queue_up(station)

    def _queue_up(self, station: _Station) -> None:
        if station.credits and not station.queued:
            station.queued = True
            station.free_since = next(self._ticks)
            station.group.free.append(station)

    def credits(self, station_id: str) -> int:
        """Lines the station can still take; 0 for one that is not connected."""
        station = self._stations.get(station_id)
        return 0 if station is None else station.credits

    # ---- who gets what

    def assign(self, now_us: int) -> list[Assignment]:
        """Gives out as many lines as credits and waiting lines allow, and takes the credits. `now_us` is Unix time or any
        steady clock, the same as in `line_back`.
        """
        self._wake(now_us)
        given: list[Assignment] = []
        groups = [group for group in self._groups.values() if group.free]
        while groups:
            # the station that has waited longest stands at the head of its group
            group = min(groups, key=lambda one: one.free[0].free_since) if len(groups) > 1 else groups[0]
            if not (group.instant or group.bulk):
                groups.remove(group)
                continue
            station = group.free.popleft()
            if self._may_work(station):
                queue = group.instant.next() or group.bulk.next()
                if queue is not None:
                    station.credits -= 1
                    given.append(Assignment(station.info.station_id, queue.info.job_id, queue.take()))
                    self._sync(queue)
                self._queue_up(station)
            if not group.free:
                groups.remove(group)
        return given

    def _wake(self, now_us: int) -> None:
        for job_id in list(self._sleepers):
            queue = self._jobs[job_id]
            if not queue.wake(now_us):
                self._sleepers.discard(job_id)
            self._sync(queue)
        held, self._held = self._held, []
        for station in held:
            if self._stations.get(station.info.station_id) is station:
                self._queue_up(station)

    def _may_work(self, station: _Station) -> bool:
        """Whether a station taken from the head of its group is still there and not stopped."""
        station.queued = False
        name = station.info.station_id
        if self._stations.get(name) is not station:
            return False
        if self.breaker.stopped(name) is not None:
            self._held.append(station)
            return False
        return True

    def shares(self) -> dict[str, float]:
        """For every job the share of all leases that it would get now: 0 while none of its lines waits, or instant jobs take them all.

        Stations count by their heads, stopped ones not at all. While no station can work, it is what they would get from one that
        takes every job.
        """
        heads: dict[_Group, int] = {}
        for name, station in self._stations.items():
            if self.breaker.stopped(name) is None and (station.group.instant or station.group.bulk):
                heads[station.group] = heads.get(station.group, 0) + station.info.heads
        found = dict.fromkeys(self._jobs, 0.0)
        if not heads:
            nobody = _Group(frozenset(), frozenset())
            for queue in self._jobs.values():
                if queue.in_turns:
                    nobody.turns(queue.info).join(queue)
            heads = {nobody: 1}
        total = sum(heads.values())
        for group, number in heads.items():
            for job_id, share in (group.instant or group.bulk).shares().items():
                found[job_id] += share * number / total
        return found

    def waiting_for(self, job_id: str) -> str:
        """Why nothing of a job is given out, in plain words for its operator; empty when something can be or nothing waits."""
        queue = self._jobs.get(job_id)
        if queue is None or queue.out or not len(queue):
            return ""
        if queue.paused:
            return "the job is paused"
        fitting = [name for name, station in self._stations.items() if station.group.fits(queue.info)]
        if not fitting:
            return f"no connected station takes chip type {queue.info.chip_type} and profile {queue.info.profile}"
        stopped = {name: self.breaker.stopped(name) for name in fitting}
        if all(stopped.values()):
            return "; ".join(f"station {name} is stopped: {reason}" for name, reason in stopped.items())
        idle = any(self._stations[name].credits for name in fitting if stopped[name] is None)
        return "" if idle else ALL_BUSY
