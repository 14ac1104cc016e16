"""Figures of an earlier profile beside new ones: only of the same machine, which a profile names once for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from engine.capacity.machine import Machine
from engine.capacity.measure.probe import NOT_MEASURED
from engine.capacity.profile import CapacityProfile, Measurement
from keys.errors import InvalidInput


def check(earlier: CapacityProfile, here: Machine) -> None:
    """InvalidInput CAPACITY_MERGE when the earlier profile is of another machine, or of other kernels."""
    differences = earlier.warnings(here)
    if differences:
        raise InvalidInput("CAPACITY_MERGE", f"the two profiles do not go together: {'; '.join(differences)}")


def merged(earlier: Sequence[Measurement], new: Sequence[Measurement], not_asked: Sequence[Measurement] = ()) -> list[Measurement]:
    """The new measurements, and the earlier ones of everything that was not measured again. What is missing stands last: what failed
    now always, what failed earlier or was not asked for only where the quantity is missing altogether.
    """
    again = {_key(m) for m in new}
    real = [m for m in (*new, *(m for m in earlier if _key(m) not in again)) if m.quantity != NOT_MEASURED]
    have = {m.quantity for m in real}
    lacking = [m for m in new if m.quantity == NOT_MEASURED]
    for one in (*earlier, *not_asked):
        if one.quantity == NOT_MEASURED and one.labels["quantity"] not in have | {m.labels["quantity"] for m in lacking}:
            lacking.append(one)
    return [*real, *lacking]


def _key(measurement: Measurement) -> tuple[str, tuple[tuple[str, str], ...]]:
    return measurement.quantity, tuple(sorted(measurement.labels.items()))
