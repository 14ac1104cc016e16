"""What a probe is, how its rounds are timed, and what becomes of one that cannot run: a sentence in the file, never a figure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from engine.capacity.profile import CapacityProfile, Measurement
from keys.errors import CitycardError

# A measurement without a distribution: what is not in the file, and why.
NOT_MEASURED: Final = "not_measured"
LEAST_ROUNDS: Final = 5
_MOST_ROUNDS: Final = 2000
# the least number of rounds may take so many times what was given, or so many seconds, but not for ever
_PATIENCE: Final = 4.0
_PATIENCE_S: Final = 2.0


@dataclass(frozen=True)
class Probe:
    """`quantity` is what it measures, `what` the same in words; `seconds` about what it takes, which `run` keeps to."""

    quantity: str
    what: str
    seconds: float
    run: Callable[[], list[Measurement]]


def missing(quantity: str, what: str, why: str) -> Measurement:
    """A quantity that could not be measured, in words."""
    return Measurement(NOT_MEASURED, "", {"quantity": quantity, "what": what, "why": " ".join(why.split())})


def missing_of(profile: CapacityProfile) -> list[tuple[str, str]]:
    """What a profile says it lacks: (what, why)."""
    return [(m.labels.get("what", ""), m.labels.get("why", "")) for m in profile.find(NOT_MEASURED)]


def run_all(probes: Iterable[Probe]) -> Iterator[tuple[Probe, list[Measurement]]]:
    """Runs one after the other, so that none disturbs another. A probe that raises an error of citycard's tree, or finds its disk or
    device refusing, leaves one NOT_MEASURED.
    """
    for probe in probes:
        try:
            found = probe.run()
        except CitycardError as error:
            found = [missing(probe.quantity, probe.what, error.message)]
        except OSError as error:
            found = [missing(probe.quantity, probe.what, f"{error.filename or 'the system'}: {error.strerror or type(error).__name__}")]
        yield probe, found


def rounds(work: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call of `work` for about `seconds`, after one call that is not counted. Where LEAST_ROUNDS do not fit they may take
    four times as long, or two seconds; then there are fewer.
    """
    work()
    began = time.perf_counter()
    patience = max(seconds * _PATIENCE, _PATIENCE_S)
    taken: list[float] = []
    while len(taken) < _MOST_ROUNDS:
        start = time.perf_counter()
        if taken and start - began > (seconds if len(taken) >= LEAST_ROUNDS else patience):
            break
        work()
        taken.append(time.perf_counter() - start)
    return taken


def shares(seconds: float, parts: Sequence[object]) -> float:
    """What each of the parts gets of a probe's time."""
    return seconds / max(1, len(parts))
