"""Fits what a plan is made of from jobs that really ran: how long chips, printers, cycles and gaps took, what failed, what broke down.

Every quantity is fitted over all stations of a profile and again for each station (chips also for each reader and lot), so that a plan
can take the whole plant's or one station's. Only attempts that their station timed count, since half of a cycle would pass for a quick
one; gaps count only while work waited, the station worked and its feeder had blanks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.capacity.distribution import Distribution
from engine.capacity.evidence.history import UNKNOWN, History, Job, Outcome, read
from engine.capacity.evidence.spans import Spans, Times
from engine.capacity.profile import Measurement
from keys.errors import Precondition

Mask = npt.NDArray[np.bool_]
_US: Final = 1e6
SECONDS: Final = "s"
BLANK_REJECTED: Final = Outcome.BLANK_REJECTED.label
# Shares are given for these even where nothing of the kind happened: none in so many is a measurement.
_ALWAYS: Final = ("torn", "refused", "verify-failed", "print-failed", BLANK_REJECTED)


@dataclass(frozen=True)
class Fitted:
    """`jobs`: those fitted from; `notes`: what could not be fitted and why, in plain words."""

    measurements: list[Measurement]
    jobs: list[str]
    notes: list[str]


def from_ledger(path: Path, jobs: Sequence[str] = ()) -> list[Measurement]:
    """`fit`, for who wants the measurements alone."""
    return fit(path, jobs).measurements


def fit(path: Path, jobs: Sequence[str] = ()) -> Fitted:
    """Fits from the jobs named, or from every job of the ledger that its stations timed; also beside a running server.

    Raises as `history.read`, and Precondition NO_TIMINGS when none of the jobs was timed.
    """
    return fit_history(read(path, jobs), jobs)


def fit_history(history: History, jobs: Sequence[str] = ()) -> Fitted:
    """See `fit`."""
    wanted = [history.job(job_id) for job_id in jobs] or list(history.jobs.values())
    timed, notes = [], []
    for job in wanted:
        own = history.attempts.job_no == job.job_no
        if (history.attempts.chip_us[own] > 0).any():
            timed.append(job)
        elif own.any() or jobs:
            why = "it was made before stations timed their commands, or by stations that do not" if own.any() else "no card of it was begun"
            notes.append(f"job {job.job_id} says nothing of times: {why}")
    if not timed:
        raise Precondition("NO_TIMINGS", "; ".join(notes) or "the ledger holds no job that was begun: make cards first")
    found = list(_of_stations(history))
    for profile in sorted({job.profile for job in timed}):
        found += _of_profile(history, [job for job in timed if job.profile == profile], profile)
    found += _gaps(history, timed)
    names = sorted({m.quantity for m in found})
    notes += [f"no {quantity}: {why}" for quantity, why in _MAY_LACK.items() if quantity not in names]
    return Fitted(found, [job.job_id for job in timed], notes)


_MAY_LACK: Final = {
    "gap_seconds": "no head went from one card to the next while work waited for it",
    "repair_seconds": "no station broke down and came back",
    "uptime_seconds": "no station broke down",
}


# -- cards -------------------------------------------------------------------------------------------------------------


def _of_profile(history: History, jobs: Sequence[Job], profile: str) -> Iterator[Measurement]:
    rows, names = history.attempts, history.names
    own = np.isin(rows.job_no, [job.job_no for job in jobs])
    timed = own & (rows.timed > 0)
    good = timed & (rows.outcome == Outcome.GOOD) & (rows.chip_us > 0) & (rows.stacked_us > rows.reserved_us)
    cycle = rows.stacked_us - rows.reserved_us
    handling = np.maximum(0, cycle - rows.chip_us - rows.print_us)
    everywhere: list[tuple[dict[str, str], Mask]] = [({}, np.ones(len(rows), np.bool_))]
    by_station = _parts("station", names.stations, rows.station)
    for extra, part in everywhere + by_station:
        labels = {"profile": profile, **extra}
        yield from _seconds("print_seconds", rows.print_us, good & part, labels)
        yield from _seconds("handling_seconds", handling, good & part, labels)
        for outcome in (Outcome.GOOD, Outcome.SCRAPPED, Outcome.BLANK_REJECTED, Outcome.RELEASED):
            ended = timed & part & (rows.outcome == outcome) & (cycle > 0) & (rows.stacked_us > 0)
            yield from _seconds("cycle_seconds", cycle, ended & (good | (outcome != Outcome.GOOD)), labels | {"outcome": outcome.label})
        yield from _failures(history, own & part, labels, always=not extra)
    by_lot = _parts("lot", names.lots, rows.lot)
    for extra, part in by_lot:
        yield from _failures(history, own & part, {"profile": profile, **extra}, always=False)
    for transport, through in _parts("transport", names.transports, rows.transport):
        for extra, part in everywhere + by_station + _by_reader(history) + by_lot:
            yield from _seconds("chip_seconds", rows.chip_us, good & through & part, {"profile": profile, **transport, **extra})


def _failures(history: History, part: Mask, labels: dict[str, str], *, always: bool) -> Iterator[Measurement]:
    """Shares of the pieces that were drawn from a feeder and came to an end as a card or as waste."""
    rows = history.attempts
    ended = part & np.isin(rows.outcome, (Outcome.GOOD, Outcome.SCRAPPED, Outcome.BLANK_REJECTED))
    trials = int(ended.sum())
    if not trials:
        return
    events = dict.fromkeys(_ALWAYS if always else (), 0)
    for code, count in zip(*np.unique(rows.reason[ended & (rows.outcome == Outcome.SCRAPPED)], return_counts=True), strict=True):
        if code != UNKNOWN:
            events[history.names.reasons[code]] = int(count)
    rejected = int((ended & (rows.outcome == Outcome.BLANK_REJECTED)).sum())
    if rejected or always:
        events[BLANK_REJECTED] = rejected
    for reason, number in events.items():
        yield Measurement("failure_share", "share", labels | {"reason": reason}, events=number, trials=trials)


def _parts(label: str, names: Sequence[str], codes: npt.NDArray[np.int64]) -> list[tuple[dict[str, str], Mask]]:
    return [({label: name}, codes == code) for code, name in enumerate(names)]


def _by_reader(history: History) -> list[tuple[dict[str, str], Mask]]:
    """Readers are told apart by station too: two stations may call theirs the same."""
    rows, names = history.attempts, history.names
    pairs = sorted(set(zip(rows.station.tolist(), rows.reader.tolist(), strict=True)))
    return [
        ({"station": names.stations[station], "reader": names.readers[reader]}, (rows.station == station) & (rows.reader == reader))
        for station, reader in pairs
        if reader != UNKNOWN
    ]


def _seconds(quantity: str, microseconds: npt.NDArray[np.int64], mask: Mask, labels: dict[str, str]) -> Iterator[Measurement]:
    if mask.any():
        yield Measurement(quantity, SECONDS, labels, Distribution.of(microseconds[mask] / _US))


# -- gaps --------------------------------------------------------------------------------------------------------------


def _gaps(history: History, jobs: Sequence[Job]) -> Iterator[Measurement]:
    rows = history.attempts
    counted = np.isin(rows.job_no, [job.job_no for job in jobs])
    waiting = {job_no: history.waiting(job) for job_no, job in history.jobs.items()}
    every: list[npt.NDArray[np.float64]] = []
    for station, name in enumerate(history.names.stations):
        begins, ends = _between(history, station, counted)
        made = {history.jobs[number].profile for number in np.unique(rows.job_no[rows.station == station]).tolist()}
        work = Spans.of(span for number, spans in waiting.items() if history.jobs[number].profile in made for span in spans.pairs())
        kept = work.covers(begins, ends)
        if name in history.presence:
            kept &= Spans.of((s.begin_us, s.end_us) for s in history.presence[name].stretches).covers(begins, ends)
        if (stocked := history.stocked(station)) is not None:
            kept &= stocked.covers(begins, ends)
        if kept.any():
            every.append((ends - begins)[kept] / _US)
            yield Measurement("gap_seconds", SECONDS, {"station": name}, Distribution.of(every[-1]))
    if every:
        yield Measurement("gap_seconds", SECONDS, {}, Distribution.of(np.concatenate(every)))


def _between(history: History, station: int, counted: Mask) -> tuple[Times, Times]:
    """(stacked, next lease) of every head of a station. A head is known by its reader; where an attempt's is not known, the times around
    it are left out, since any head may have had it.
    """
    rows = history.attempts
    own = np.flatnonzero(rows.station == station)
    presence = history.presence.get(history.names.stations[station])
    readers = rows.reader[own] if presence is None or presence.heads > 1 else np.zeros(len(own), np.int64)
    hidden = own[readers == UNKNOWN]
    ends = np.maximum(np.maximum(rows.stacked_us, rows.returned_us), rows.reserved_us + 1)
    unknown = Spans.of(zip(rows.reserved_us[hidden].tolist(), ends[hidden].tolist(), strict=True))
    found: list[tuple[Times, Times]] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for reader in np.unique(readers[readers != UNKNOWN]):
        head = own[readers == reader]
        begin, end = rows.stacked_us[head[:-1]], rows.reserved_us[head[1:]]
        kept = (begin > 0) & (begin <= end) & counted[head[1:]] & ~unknown.touch(begin, end)
        found.append((begin[kept], end[kept]))
    return np.concatenate([begin for begin, _ in found]), np.concatenate([end for _, end in found])


# -- stations ----------------------------------------------------------------------------------------------------------


def _of_stations(history: History) -> Iterator[Measurement]:
    """Repair and uptime, of each station and of all of them."""
    repairs: dict[str, list[float]] = {}
    lengths: list[int] = []
    total = 0
    for name, presence in sorted(history.presence.items()):
        own: dict[str, list[float]] = {}
        for cause, microseconds in presence.repairs():
            own.setdefault(cause, []).append(microseconds / _US)
            repairs.setdefault(cause, []).append(microseconds / _US)
        for cause, seconds in own.items():
            yield Measurement("repair_seconds", SECONDS, {"station": name, "cause": cause}, Distribution.of(seconds))
        stretches, at_work = presence.uptime()
        yield from _uptime(stretches, at_work, {"station": name})
        lengths += stretches
        total += at_work
    for cause, seconds in sorted(repairs.items()):
        yield Measurement("repair_seconds", SECONDS, {"cause": cause}, Distribution.of(seconds))
    if repairs:
        yield Measurement("repair_seconds", SECONDS, {}, Distribution.of([s for seconds in repairs.values() for s in seconds]))
    yield from _uptime(lengths, total, {})


def _uptime(lengths: Sequence[int], total_us: int, labels: dict[str, str]) -> Iterator[Measurement]:
    """The shape is that of the stretches that ended in a failure, the mean all time at work over failures: stretches that go on, or
    ended in a planned way, count as time without failure.
    """
    if lengths and total_us:
        seen = Distribution.of([length / _US for length in lengths])
        mean = total_us / _US / len(lengths)
        yield Measurement("uptime_seconds", SECONDS, labels, seen.scaled(mean / seen.mean) if seen.mean else Distribution.constant(mean))
