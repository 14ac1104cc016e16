"""Single draws from distributions, made a thousand at a time: one by one numpy would cost more than the simulation."""

from __future__ import annotations

from typing import Final

import numpy as np

from engine.capacity.distribution import Distribution

_AT_ONCE: Final = 1024


class Draws:
    """Reproducible for a given generator and order of calls."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._uniform: list[float] = []
        # the distribution is kept with its draws, so that its id cannot become another's
        self._kept: dict[int, tuple[Distribution, list[float]]] = {}

    def one(self, distribution: Distribution) -> float:
        """A draw, never negative."""
        kept = self._kept.get(id(distribution))
        if kept is None:
            kept = self._kept[id(distribution)] = (distribution, [])
        if not kept[1]:
            constant = distribution.quantiles[0] == distribution.quantiles[-1]
            drawn = [distribution.mean] * _AT_ONCE if constant else distribution.sample(self._rng, _AT_ONCE).tolist()
            kept[1].extend(max(0.0, value) for value in drawn)
        return kept[1].pop()

    def uniform(self) -> float:
        """Between 0 and 1."""
        if not self._uniform:
            self._uniform = self._rng.random(_AT_ONCE).tolist()
        return self._uniform.pop()
