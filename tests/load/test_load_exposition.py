"""Figures from two readings of a server's metrics: against histograms whose contents are known."""

from __future__ import annotations

import numpy as np
import pytest

from engine.load.exposition import Change, Reading
from engine.load.gauge import spread
from engine.production.metrics import Metrics

NAME = "citycard_segment_seconds"


def reading(metrics: Metrics) -> Reading:
    return Reading.of(metrics.text().decode())


def test_quantiles_between_readings_are_those_of_the_samples_between_them():
    """What was observed before the first reading does not count; a bucket's ends differ by a tenth, and so may a quantile."""
    metrics = Metrics()
    for _ in range(500):
        metrics.segment.observe(5.0)
    before = reading(metrics)
    samples = np.random.default_rng(7).lognormal(-5.5, 0.7, 4000)
    for sample in samples:
        metrics.segment.observe(float(sample))
    change = Change(before, reading(metrics))
    for part in (0.5, 0.9, 0.99):
        assert change.quantile(NAME, part) == pytest.approx(float(np.quantile(samples, part)), rel=0.06)
    assert samples.max() <= change.most(NAME) <= samples.max() * 1.1001


def test_counters_and_gauges():
    metrics = Metrics()
    metrics.committed(5, 0.001)
    before = reading(metrics)
    metrics.committed(7, 0.001)
    metrics.committed(2, 0.001)
    change = Change(before, reading(metrics))
    assert change.count("citycard_ledger_transitions_total") == 9
    assert change.last("process_resident_memory_bytes") > 1 << 20
    assert change.count("no_such_thing_total") is None


def test_nothing_observed_is_no_figure():
    metrics = Metrics()
    change = Change(reading(metrics), reading(metrics))
    assert change.quantile(NAME, 0.99) is None
    assert change.most(NAME) is None
    assert Change(Reading.of(""), Reading.of("")).quantile(NAME, 0.5) is None


def test_an_observation_beyond_all_buckets_is_the_last_end_known():
    metrics = Metrics()
    before = reading(metrics)
    metrics.segment.observe(3600.0)
    change = Change(before, reading(metrics))
    assert 10.0 <= change.quantile(NAME, 0.99) <= 11.1
    assert 10.0 <= change.most(NAME) <= 11.1


def test_spread_of_samples():
    assert spread([]).p50 is None
    found = spread([float(n) for n in range(101)])
    assert (found.p50, found.p99, found.most) == (50.0, 99.0, 100.0)
