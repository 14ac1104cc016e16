"""What a finished job had to work with: everything a simulation needs to make it again, and what really came of it.

All times are Unix microseconds, all intervals half-open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.capacity.evidence.history import Codes, History, Job, Outcome, read
from engine.capacity.evidence.spans import Spans
from keys.errors import Precondition

Interval = tuple[int, int]
_US: Final = 1e6


@dataclass(frozen=True)
class JobRun:
    """A job in the time looked at. `lines`: those that wanted a card when that time began, or when the job was started in it;
    `running`: when it gave out lines.
    """

    job_id: str
    profile: str
    kind: str
    priority: int
    options: Mapping[str, Any]
    lines: int
    running: tuple[Interval, ...]


@dataclass(frozen=True)
class StationRun:
    """A station in that time. `working`: connected and not stopped. `profiles`: what it said it makes, none for everything.

    `blanks`: in its feeder at the beginning, None where no stock was ever issued to it; `refills`: (time, blanks) issued meanwhile.
    `in_hand`: for each card that lay in a head when that time began, microseconds since its lease.
    """

    station_id: str
    heads: int
    transport: str
    profiles: tuple[str, ...]
    working: tuple[Interval, ...]
    blanks: int | None
    refills: tuple[tuple[int, int], ...]
    in_hand: tuple[int, ...] = ()


@dataclass(frozen=True)
class JobInputs:
    """`begin_us` is when the job first gave out lines, `end_us` when its last piece was seen and it was complete for the first time.

    `attempts`: how many of the job's attempts ended how, by `Outcome` label; `other_attempts` those of other jobs meanwhile.
    """

    job: JobRun
    others: tuple[JobRun, ...]
    stations: tuple[StationRun, ...]
    begin_us: int
    end_us: int
    attempts: Mapping[str, int]
    other_attempts: Mapping[str, int]

    @property
    def measured_s(self) -> float:
        """From the first line given out to the last piece seen."""
        return (self.end_us - self.begin_us) / _US


def job_inputs(path: Path, job_id: str) -> JobInputs:
    """Reads them from a ledger, also beside a running server.

    Raises as `history.read`, and Precondition JOB_STATE for a job that is not complete, NO_STATION_EVENTS for one made before the
    ledger noted when stations came and went.
    """
    return inputs_of(read(path, [job_id]), job_id)


def inputs_of(history: History, job_id: str) -> JobInputs:
    """See `job_inputs`."""
    job = history.job(job_id)
    if job.completed_us is None or not job.running:
        raise Precondition("JOB_STATE", f"job {job_id} is not complete: only what is finished can be compared with a prediction")
    begin, end = int(job.running.begins[0]), job.completed_us
    stations = tuple(run for name in sorted(history.presence) if (run := _station(history, name, begin, end)) is not None)
    if not stations:
        silent = f"the ledger does not say which stations worked while job {job_id} was made: it was made by an older version"
        raise Precondition("NO_STATION_EVENTS", silent)
    rows = history.attempts
    inside = (rows.reserved_us < end) & ((rows.stacked_us == 0) | (rows.stacked_us > begin))
    own = rows.job_no == job.job_no
    others = tuple(_job(history, other, begin, end) for other in history.jobs.values() if other is not job)
    return JobInputs(
        job=_job(history, job, begin, end),
        others=tuple(run for run in others if run.running and run.lines),
        stations=stations,
        begin_us=begin,
        end_us=end,
        attempts=_outcomes(rows.outcome[own & inside]),
        other_attempts=_outcomes(rows.outcome[~own & inside]),
    )


def _job(history: History, job: Job, begin: int, end: int) -> JobRun:
    rows = history.attempts
    own = rows.job_no == job.job_no
    taken = history.taken.get(job.job_no, 0) + int((own & (rows.reserved_us < begin)).sum())
    returned = int((own & (rows.returned_us > 0) & (rows.returned_us < begin)).sum())
    running = job.running.within(begin, end)
    return JobRun(job.job_id, job.profile, job.kind, job.priority, job.options, job.lines - taken + returned, tuple(running.pairs()))


def _station(history: History, name: str, begin: int, end: int) -> StationRun | None:
    presence = history.presence[name]
    working = Spans.of((s.begin_us, s.end_us) for s in presence.stretches).within(begin, end)
    if not working:
        return None
    moves = [move for move in history.moves if move.station_id == name]
    drawn = history.drawn.get(name, 0)
    in_hand: list[int] = []
    if name in history.names.stations:
        rows = history.attempts
        before = (rows.station == history.names.stations.index(name)) & (rows.piece > 0) & (rows.reserved_us < begin)
        drawn += int(before.sum())
        in_hand = (begin - rows.reserved_us[before & ((rows.stacked_us == 0) | (rows.stacked_us > begin))]).tolist()
    blanks = max(0, sum(move.count for move in moves if move.at_us < begin) - drawn) if moves else None
    refills = tuple((move.at_us, move.count) for move in moves if begin <= move.at_us < end)
    return StationRun(name, presence.heads, presence.transport, presence.profiles, tuple(working.pairs()), blanks, refills, tuple(in_hand))


def _outcomes(codes: Codes) -> dict[str, int]:
    return {Outcome(code).label: number for code, number in sorted(Counter(codes.tolist()).items())}
