"""A measured quantity as a distribution: 101 quantiles, the mean, and how many samples stand behind it."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import numpy as np
import numpy.typing as npt

from keys.errors import InvalidInput

Floats = npt.NDArray[np.float64]
# 0 %, 1 %, ... 100 %
POINTS: Final = 101
_GRID: Final = np.linspace(0.0, 1.0, POINTS)


class Distribution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`quantiles[i]` is the i-th percentile, `mean` the mean of the samples themselves, `n` their number."""

    n: Annotated[int, msgspec.Meta(ge=1)]
    mean: float
    quantiles: Annotated[list[float], msgspec.Meta(min_length=POINTS, max_length=POINTS)]

    @classmethod
    def of(cls, samples: npt.ArrayLike) -> Distribution:
        """Fits samples (at least one, all finite); InvalidInput NO_SAMPLES otherwise."""
        values = np.asarray(samples, dtype=np.float64).ravel()
        if values.size == 0 or not np.isfinite(values).all():
            raise InvalidInput("NO_SAMPLES", "a distribution needs at least one sample, and every sample finite")
        return cls(int(values.size), float(values.mean()), [float(q) for q in np.quantile(values, _GRID)])

    @classmethod
    def constant(cls, value: float) -> Distribution:
        """A quantity that does not vary, said rather than measured."""
        return cls(1, value, [value] * POINTS)

    def quantile(self, share: float) -> float:
        """The value below which `share` (0 to 1) of the samples lie."""
        return float(np.interp(share, _GRID, self.quantiles))

    @property
    def sd(self) -> float:
        """Standard deviation of what `sample` draws."""
        points = np.asarray(self.quantiles) * self._scale()
        a, b = points[:-1], points[1:]
        second = float(((a * a + a * b + b * b) / 3.0).mean())
        return float(np.sqrt(max(0.0, second - self.mean**2)))

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...]) -> Floats:
        """Draws from the quantiles, straight lines between them, scaled so that the mean is the measured one."""
        drawn: Floats = np.interp(rng.random(size), _GRID, self.quantiles) * self._scale()
        return drawn

    def scaled(self, factor: float) -> Distribution:
        """The same shape, `factor` times as large."""
        return Distribution(self.n, self.mean * factor, [q * factor for q in self.quantiles])

    def _scale(self) -> float:
        points = np.asarray(self.quantiles)
        drawn = float(((points[:-1] + points[1:]) / 2.0).mean())
        return self.mean / drawn if drawn else 1.0
