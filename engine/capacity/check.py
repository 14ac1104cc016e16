"""A finished job made again in simulation from what it had to work with: predicted beside measured, and the error kept.

What is given to the simulation are the job's inputs: its lines, other jobs, when stations were there. How long cards take and how often
they fail comes from a capacity profile, by rights one fitted before the job; one that has seen the job itself is marked as such.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from engine.capacity.evidence.fit import fit_history
from engine.capacity.evidence.history import History, Outcome, read, snapshot
from engine.capacity.evidence.pastjob import Interval, JobInputs, JobRun, StationRun, inputs_of
from engine.capacity.machine import Machine
from engine.capacity.profile import FORMAT, CapacityProfile
from engine.capacity.simulation.cards import JobLoad, StationModel, simulate
from engine.capacity.simulation.model import CardModel, PlantModel, card_model
from engine.ledger import predictions
from engine.ledger.predictions import Prediction
from keys.errors import Precondition

_US: Final = 1e6
# cards simulated in all: enough replications of small jobs, a bearable time for large ones
_CARDS: Final = 200_000
_FEWEST: Final = 5
_MOST: Final = 100
# a station's own times are taken once it has made so many cards; below that the pool of all tells more
_OWN: Final = 30
# draws until one lasts longer than a card has lain in its head
_TRIES: Final = 32


@dataclass(frozen=True)
class Checked:
    """`prediction` with what it rests on: jobs fitted from, warnings, and the simulated and real outcomes of attempts."""

    prediction: Prediction
    inputs: JobInputs
    jobs: list[str]
    replications: int
    warnings: list[str]
    failures: dict[str, float]


def check(path: Path, job_id: str, profile: CapacityProfile | None, *, seed: int = 1, keep: bool = True) -> Checked:
    """Compares, and stores the comparison in the ledger when `keep`. Without a profile the jobs that were over before this one began are
    fitted.

    Raises Precondition JOB_STATE | NO_STATION_EVENTS | NOTHING_BEFORE | NO_TIMINGS | NEVER_DONE, NotFound JOB_UNKNOWN | NOT_MEASURED |
    LEDGER_MISSING, and what storage raises.
    """
    inputs = inputs_of(read(path, [job_id]), job_id)
    used = profile or _before(read(path), inputs)
    count = min(_MOST, max(_FEWEST, _CARDS // max(1, inputs.job.lines + sum(other.lines for other in inputs.others))))
    durations, failures = predict(inputs, used, count, seed)
    p05, p50, p95 = (round(float(q) * _US) for q in np.quantile(durations, (0.05, 0.5, 0.95)))
    digest = hashlib.sha256(msgspec.json.encode(used)).hexdigest()
    measured = inputs.end_us - inputs.begin_us
    made = Prediction(job_id, time.time_ns() // 1000, digest, used.machine.host, p05, p50, p95, measured, job_id in used.jobs)
    if keep:
        predictions.store(path, made)
    return Checked(made, inputs, used.jobs, count, _warnings(used, inputs), failures)


def predict(inputs: JobInputs, profile: CapacityProfile, replications: int, seed: int) -> tuple[list[float], dict[str, float]]:
    """Seconds until the job is done in each replication, and the mean number of failed attempts (of all jobs) by reason.

    Raises NotFound NOT_MEASURED, Precondition NEVER_DONE.
    """
    jobs = [_load(job, inputs.begin_us) for job in (inputs.job, *inputs.others)]
    model = PlantModel(cards=_cards(inputs, profile))
    durations: list[float] = []
    failed: dict[str, float] = {}
    for number in range(replications):
        rng = np.random.default_rng((seed, number))
        stations = [_station(run, inputs, model, rng) for run in inputs.stations]
        made = simulate(jobs, stations, model, rng, wanted=inputs.job.job_id)
        if inputs.job.job_id not in made.finish:
            raise Precondition("NEVER_DONE", f"with the stations that were there, job {inputs.job.job_id} is never done in the simulation")
        durations.append(made.finish[inputs.job.job_id])
        for reason, events in made.failures.items():
            failed[reason] = failed.get(reason, 0.0) + events / replications
    return durations, failed


def past_errors(path: Path) -> list[str]:
    """One line for each prediction kept in a ledger, oldest first, and one that sums them up; empty when there is none."""
    with snapshot(path) as conn:
        kept = predictions.predictions(conn)
    lines = [
        f"job {one.job_id}: predicted {one.p50_us / _US:,.1f} s, measured {one.measured_us / _US:,.1f} s, {one.error:+.1%}"
        f"{', from a profile that had seen the job' if one.in_sample else ''}"
        for one in kept
    ]
    fair = [abs(one.error) for one in kept if not one.in_sample]
    if fair:
        lines.append(f"{len(fair)} fair predictions so far: off by {np.mean(fair):.1%} on average, by {max(fair):.1%} at worst")
    return lines


def _before(history: History, inputs: JobInputs) -> CapacityProfile:
    """What could be known when the job began."""
    rows = history.attempts
    over = (rows.outcome != Outcome.OPEN) & (np.maximum(rows.stacked_us, rows.reserved_us) <= inputs.begin_us)
    done = [j.job_id for j in history.jobs.values() if (own := rows.job_no == j.job_no).any() and over[own].all()]
    if not done:
        why = f"no job was over before {inputs.job.job_id} began, so there is nothing to predict it from"
        raise Precondition("NOTHING_BEFORE", f"{why}: give --profile FILE")
    fitted = fit_history(history, done)
    return CapacityProfile(
        format=FORMAT,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=Machine.here(),
        measurements=fitted.measurements,
        jobs=fitted.jobs,
    )


def _warnings(profile: CapacityProfile, inputs: JobInputs) -> list[str]:
    found = profile.warnings(Machine.here())
    if inputs.job.job_id in profile.jobs:
        found.append("the capacity profile was fitted from this very job: the error says nothing about predicting")
    return found


def _load(job: JobRun, begin_us: int) -> JobLoad:
    running = [_seconds(interval, begin_us) for interval in job.running]
    pauses = tuple((before[1], after[0]) for before, after in pairwise(running))
    # instant jobs are class 0 for the dispatcher, whatever their priority says
    priority = 0 if job.kind == "instant" else job.priority
    return JobLoad(job.job_id, job.profile, ((running[0][0], job.lines),), priority=priority, pauses=pauses)


def _station(run: StationRun, inputs: JobInputs, model: PlantModel, rng: np.random.Generator) -> StationModel:
    intervals = tuple(_seconds(interval, inputs.begin_us) for interval in run.working)
    # one still there at the end would have stayed: the simulation may take longer than the job did
    open_end = run.working[-1][1] >= inputs.end_us
    if open_end:
        intervals = (*intervals[:-1], (intervals[-1][0], float("inf")))
    return StationModel(
        run.station_id,
        run.heads,
        profiles=frozenset(run.profiles),
        intervals=intervals,
        busy=_busy(run, model, rng),
        blanks=float("inf") if run.blanks is None else run.blanks,
        refills=tuple((_seconds((at, at), inputs.begin_us)[0], blanks) for at, blanks in run.refills),
    )


def _busy(run: StationRun, model: PlantModel, rng: np.random.Generator) -> tuple[float, ...]:
    """Seconds that cards of before keep their heads: as long as such a card takes that has lain there so long already."""
    if not run.in_hand:
        return ()
    card = next(found for (station, _), found in model.cards.items() if station == run.station_id)
    size = (len(run.in_hand), _TRIES)
    cycles = card.chip.sample(rng, size) + card.printing.sample(rng, size) + card.handling.sample(rng, size)
    rest = cycles - np.asarray(run.in_hand)[:, None] / _US
    later = rest.argmax(axis=1, keepdims=True)
    first = np.where((rest > 0).any(axis=1, keepdims=True), (rest > 0).argmax(axis=1, keepdims=True), later)
    return tuple(np.maximum(0.0, np.take_along_axis(rest, first, axis=1)).ravel().tolist())


def _cards(inputs: JobInputs, profile: CapacityProfile) -> dict[tuple[str, str], CardModel]:
    """One model for each station and card profile; a station measured often enough has its own."""
    made = {}
    by_transport: dict[str, CapacityProfile] = {}
    for card in {job.profile for job in (inputs.job, *inputs.others)}:
        for run in inputs.stations:
            if run.profiles and card not in run.profiles:
                continue
            only = by_transport.get(run.transport)
            if only is None:
                only = by_transport[run.transport] = _of_transport(profile, run.transport)
            measured = only.find("chip_seconds", profile=card, station=run.station_id)
            own = any(m.distribution is not None and m.distribution.n >= _OWN for m in measured)
            made[run.station_id, card] = card_model(only, card, run.station_id if own else "")
    return made


def _of_transport(profile: CapacityProfile, transport: str) -> CapacityProfile:
    """What was measured through one transport, and what knows none; everything where nothing was measured through it."""
    kept = [m for m in profile.measurements if m.labels.get("transport", transport) == transport]
    if not any(m.quantity == "chip_seconds" for m in kept):
        return profile
    return msgspec.structs.replace(profile, measurements=kept)


def _seconds(interval: Interval, begin_us: int) -> tuple[float, float]:
    return (interval[0] - begin_us) / _US, (interval[1] - begin_us) / _US
