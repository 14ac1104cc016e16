"""Which of several measurements a plan takes."""

from __future__ import annotations

import pytest

from engine.capacity.distribution import Distribution
from engine.capacity.machine import Machine
from engine.capacity.profile import FORMAT, CapacityProfile, Measurement
from engine.capacity.simulation.model import measured, measurement, virtual

CARD = "zhengzhou-citizen-card"


def profile(*found: tuple[str, dict[str, str], float, int]) -> CapacityProfile:
    made = [Measurement(quantity, "s", labels, Distribution.of([mean] * n)) for quantity, labels, mean, n in found]
    return CapacityProfile(FORMAT, "2026-01-01T00:00:00+00:00", Machine.here(), made)


@pytest.mark.parametrize("labels", [{"transport": "in-process"}, {"transport": "recorded"}, {"transport": "pcsc", "chip": "virtual"}])
def test_real_chips_go_before_virtual_ones(labels: dict[str, str]) -> None:
    both = profile(
        ("chip_seconds", {"profile": CARD, **labels}, 0.02, 5000), ("chip_seconds", {"profile": CARD, "transport": "pcsc"}, 9.0, 12)
    )
    taken = measurement(both, "chip_seconds", CARD)
    assert taken is not None
    assert taken.distribution is not None
    assert taken.distribution.mean == pytest.approx(9.0)
    assert not virtual(taken)
    only = measurement(profile(("chip_seconds", {"profile": CARD, **labels}, 0.02, 5000)), "chip_seconds", CARD)
    assert only is not None
    assert virtual(only)


def test_a_busy_server_goes_before_an_idle_one() -> None:
    found = profile(*(("server_cpu_seconds", {"profile": CARD, "stations": str(n)}, n / 1000, 3) for n in (1, 200, 50)))
    taken = measured(found, "server_cpu_seconds", CARD)
    assert taken is not None
    assert taken.mean == pytest.approx(0.2)


def test_a_station_has_its_own_and_else_the_pool() -> None:
    found = profile(
        ("handling_seconds", {"profile": CARD}, 1.0, 100), ("handling_seconds", {"profile": CARD, "station": "window-1"}, 3.0, 40)
    )
    means = [taken.mean for name in ("window-1", "window-2", "") if (taken := measured(found, "handling_seconds", CARD, name)) is not None]
    assert means == pytest.approx([3.0, 1.0, 1.0])
    assert measured(found, "print_seconds", CARD) is None
