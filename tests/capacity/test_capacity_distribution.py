"""Distributions keep what was measured: mean, quantiles, and what is drawn from them."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capacity.distribution import POINTS, Distribution
from keys.errors import InvalidInput

FINITE = st.floats(0.001, 1000.0)


@given(st.lists(FINITE, min_size=1, max_size=200))
def test_quantiles_are_in_order_and_within_the_samples(samples: list[float]) -> None:
    made = Distribution.of(samples)
    assert made.n == len(samples)
    assert made.quantiles == sorted(made.quantiles)
    assert made.quantiles[0] == pytest.approx(min(samples))
    assert made.quantiles[-1] == pytest.approx(max(samples))
    assert msgspec.json.decode(msgspec.json.encode(made), type=Distribution) == made


@pytest.mark.parametrize("shape", ["lognormal", "exponential", "normal", "two modes"])
def test_what_is_drawn_has_the_mean_and_spread_measured(shape: str) -> None:
    rng = np.random.default_rng(7)
    samples = {
        "lognormal": rng.lognormal(1.0, 0.5, 4000),
        "exponential": rng.exponential(3.0, 4000),
        "normal": rng.normal(10.0, 1.0, 4000),
        "two modes": np.concatenate([rng.normal(5.0, 0.1, 3000), rng.normal(9.0, 0.1, 1000)]),
    }[shape]
    made = Distribution.of(samples)
    drawn = made.sample(np.random.default_rng(8), 200_000)
    assert drawn.mean() == pytest.approx(samples.mean(), rel=0.01)
    assert drawn.std() == pytest.approx(samples.std(), rel=0.08)
    assert made.sd == pytest.approx(drawn.std(), rel=0.02)
    assert np.median(drawn) == pytest.approx(np.median(samples), rel=0.05)


def test_a_constant_does_not_vary() -> None:
    made = Distribution.constant(6.0)
    assert set(made.sample(np.random.default_rng(1), 50).tolist()) == {6.0}
    assert made.sd == 0.0
    assert made.scaled(0.5).mean == 3.0
    assert made.quantile(0.9) == 6.0


@pytest.mark.parametrize("samples", [[], [float("nan")], [1.0, float("inf")]])
def test_no_samples_and_no_numbers_are_refused(samples: list[float]) -> None:
    with pytest.raises(InvalidInput, match="at least one sample"):
        Distribution.of(samples)


def test_the_same_seed_draws_the_same() -> None:
    made = Distribution.of(np.linspace(1, 9, 77))
    one, two = (made.sample(np.random.default_rng(3), (4, POINTS)) for _ in range(2))
    assert (one == two).all()
