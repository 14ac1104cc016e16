"""The metrics of a server: buckets that a quantile can be read from, names that stay, and nothing about a person in them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from engine.production.metrics import BUCKETS, Metrics, Seconds


def samples(metrics):
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for f in text_string_to_metric_families(metrics.text().decode())
        for s in f.samples
    }


def test_buckets_run_from_a_tenth_of_a_millisecond_to_ten_seconds_in_steps_of_a_tenth():
    assert BUCKETS[0] == 1e-4
    assert 10.0 <= BUCKETS[-1] < 11.0
    assert all(1.09 < after / before < 1.11 for before, after in pairwise(BUCKETS))


@given(st.lists(st.floats(min_value=0, max_value=20), min_size=1, max_size=40))
def test_every_duration_lies_between_its_bucket_and_the_one_before(durations):
    seconds = Seconds("x_seconds", "of x")
    for duration in durations:
        seconds.observe(duration)
    (family,) = seconds.collect()
    buckets = [s.value for s in family.samples if s.name == "x_seconds_bucket"]
    assert buckets == [sum(d <= end for d in durations) for end in BUCKETS] + [len(durations)]
    assert next(s.value for s in family.samples if s.name == "x_seconds_sum") == sum(durations)


def test_names_and_labels_are_those_that_others_read():
    metrics = Metrics()
    metrics.levels(lambda: {"citycard_stations": ("stations connected", 3)})
    metrics.segment.observe(0.004)
    metrics.answer.observe(0.002, "printed")
    metrics.card("good")
    metrics.card("torn")
    metrics.committed(5, 0.001)
    metrics.lag.observe(0.0)
    found = samples(metrics)
    assert found["citycard_segment_seconds_count", ()] == 1
    assert found["citycard_answer_seconds_count", (("kind", "printed"),)] == 1
    assert found["citycard_cards_total", (("outcome", "good"),)] == 1
    assert found["citycard_cards_total", (("outcome", "torn"),)] == 1
    assert found["citycard_ledger_transitions_total", ()] == 5
    assert found["citycard_ledger_commit_seconds_count", ()] == 1
    assert found["citycard_event_loop_lag_seconds_count", ()] == 1
    assert found["citycard_stations", ()] == 3
    assert found["process_cpu_seconds_total", ()] > 0
    assert found["process_resident_memory_bytes", ()] > 0
    assert {name for _, labels in found for name, _ in labels} == {"le", "kind", "outcome"}


def test_two_servers_of_one_process_count_for_themselves():
    one, other = Metrics(), Metrics()
    one.card("good")
    assert ("citycard_cards_total", (("outcome", "good"),)) not in samples(other)
