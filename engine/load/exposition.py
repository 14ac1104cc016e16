"""Two readings of a server's metrics, and what happened between them: rates, and quantiles from the buckets of histograms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Reading:
    """Samples by name and, where a histogram has buckets, by upper end. Labels other than `le` are summed over."""

    values: Mapping[str, float]
    buckets: Mapping[str, Mapping[float, float]]

    @classmethod
    def of(cls, text: str) -> Reading:
        """Reads Prometheus's text format."""
        values: dict[str, float] = {}
        buckets: dict[str, dict[float, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if "le" in sample.labels:
                    ends = buckets.setdefault(family.name, {})
                    end = float(sample.labels["le"])
                    ends[end] = ends.get(end, 0.0) + sample.value
                else:
                    values[sample.name] = values.get(sample.name, 0.0) + sample.value
        return cls(values, buckets)


@dataclass(frozen=True)
class Change:
    """What happened between two readings, in seconds of the server's own work and in counts. None: the server does not say."""

    before: Reading
    after: Reading

    def count(self, name: str) -> float | None:
        """By how much a counter grew."""
        if name not in self.after.values:
            return None
        return self.after.values[name] - self.before.values.get(name, 0.0)

    def last(self, name: str) -> float | None:
        """The later value of a gauge."""
        return self.after.values.get(name)

    def quantile(self, name: str, share: float) -> float | None:
        """Of the observations between the readings, the value below which `share` of them lie, interpolated in its bucket on a
        logarithmic scale; None without observations.
        """
        ends = self._grown(name)
        total = ends[-1][1] if ends else 0.0
        if total <= 0.0:
            return None
        wanted = share * total
        low, below = 0.0, 0.0
        for end, count in ends:
            if count >= wanted and count > below:
                if end == float("inf"):
                    return low
                part = (wanted - below) / (count - below)
                return float(low * (end / low) ** part) if low > 0.0 else end * part
            low, below = end, count
        return low

    def most(self, name: str) -> float | None:
        """The upper end of the last bucket that grew; the largest end known when that has none."""
        ends = self._grown(name)
        if not ends or ends[-1][1] <= 0.0:
            return None
        top = next(end for end, count in ends if count >= ends[-1][1])
        return top if top != float("inf") else ends[-2][0]

    def _grown(self, name: str) -> list[tuple[float, float]]:
        before = self.before.buckets.get(name, {})
        return sorted((end, count - before.get(end, 0.0)) for end, count in self.after.buckets.get(name, {}).items())
