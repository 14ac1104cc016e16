"""What a running server measures of itself, for Prometheus: how long answers take, how many cards ended how, what the ledger does.

One registry per server, because tests run several in a process. No label ever holds a person's data, a key or a card's number.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from math import ceil, log
from typing import Final

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

# Upper ends of the buckets in seconds, each 1.1 times the one before: a quantile read between two of them is off by less than 10%.
_FIRST: Final = 1e-4
_LAST: Final = 10.0
_RATIO: Final = 1.1
BUCKETS: Final = tuple(_FIRST * _RATIO**step for step in range(ceil(log(_LAST / _FIRST, _RATIO)) + 1))
_ENDS: Final = (*(f"{end:.4g}" for end in BUCKETS), "+Inf")
LAG_S: Final = 0.1


class Seconds(Collector):
    """A histogram of durations, by one label or none. `observe` costs less than a microsecond; each series has one writing thread."""

    def __init__(self, name: str, what: str, label: str = "") -> None:
        self._name, self._what, self._label = name, what, label
        self._series: dict[str, tuple[list[int], list[float]]] = {}
        if not label:
            self._counts("")

    def _counts(self, value: str) -> tuple[list[int], list[float]]:
        return self._series.setdefault(value, ([0] * len(_ENDS), [0.0]))

    def observe(self, seconds: float, value: str = "") -> None:
        """Counts one duration; `value` is the label's."""
        found = self._series.get(value)
        counts, total = self._counts(value) if found is None else found
        counts[bisect_left(BUCKETS, seconds)] += 1
        total[0] += seconds

    def collect(self) -> Iterator[Metric]:
        """The series as Prometheus wants them: buckets counted up from below."""
        family = HistogramMetricFamily(self._name, self._what, labels=[self._label] if self._label else [])
        for value, (counts, total) in sorted(self._series.items()):
            running, buckets = 0, []
            for end, count in zip(_ENDS, list(counts), strict=True):
                running += count
                buckets.append((end, float(running)))
            family.add_metric([value] if self._label else [], buckets, total[0])
        yield family


class _Levels(Collector):
    """Gauges that are asked for when somebody reads them."""

    def __init__(self, ask: Callable[[], Mapping[str, tuple[str, float]]]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        for name, (what, value) in self._ask().items():
            yield GaugeMetricFamily(name, what, value=value)


class Metrics:
    """Every metric of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.segment = self._seconds("citycard_segment_seconds", "from a chip's challenge arriving at the server to its segment sent")
        self.answer = self._seconds("citycard_answer_seconds", "from a station's message arriving to its answer sent", "kind")
        self.commit = self._seconds("citycard_ledger_commit_seconds", "of a commit of the ledger, with its fsync")
        self.lag = self._seconds("citycard_event_loop_lag_seconds", "by which the event loop woke up late")
        self._cards = Counter("citycard_cards", "cards and blanks that ended, by how", ["outcome"], registry=self.registry)
        self._transitions = Counter(
            "citycard_ledger_transitions", "functions the ledger's writer ran and committed", registry=self.registry
        )

    def _seconds(self, name: str, what: str, label: str = "") -> Seconds:
        made = Seconds(name, f"seconds {what}", label)
        self.registry.register(made)
        return made

    def card(self, outcome: str) -> None:
        """A card or a blank came to its end; `outcome` is `good` or the short fixed word of a failure."""
        self._cards.labels(outcome).inc()

    def committed(self, transitions: int, seconds: float) -> None:
        """The ledger's writer committed a group; called on its thread."""
        self._transitions.inc(transitions)
        self.commit.observe(seconds)

    def levels(self, ask: Callable[[], Mapping[str, tuple[str, float]]]) -> None:
        """Gauges by name, each with its help text and value, asked for at every reading."""
        self.registry.register(_Levels(ask))

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self.registry)

    async def watch_loop(self) -> None:
        """Measures how late the event loop wakes; runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_S
            await asyncio.sleep(LAG_S)
            self.lag.observe(max(0.0, loop.time() - due))
