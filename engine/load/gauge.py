"""What the generator itself costs, and whether it kept up: its CPU, and by how much its event loop came late."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from engine.load.result import Spread

_TICK_S: Final = 0.005
# Above these a generator measures itself rather than the server.
CORE_SHARE: Final = 0.85
LAG_S: Final = 0.01


class Gauge:
    """Runs beside the load; `start` begins a window."""

    def __init__(self) -> None:
        self._lags: list[float] = []
        self._cpu = 0.0
        self._began = 0.0

    def start(self) -> None:
        """From now on."""
        self._lags = []
        self._cpu = time.process_time()
        self._began = time.monotonic()

    def cpu_s(self) -> float:
        """CPU seconds of this process in the window."""
        return time.process_time() - self._cpu

    def core_share(self) -> float:
        """The share of one core it used."""
        return self.cpu_s() / max(1e-9, time.monotonic() - self._began)

    def lag(self) -> Spread:
        """By how much the loop came late."""
        return spread(self._lags)

    def doubts(self) -> list[str]:
        """Why the figures of the window are not to be trusted, in plain words."""
        found = []
        share, late = self.core_share(), self.lag().p99 or 0.0
        if share > CORE_SHARE:
            found.append(f"the generator used {share:.0%} of a core: it is the bottleneck, not the server")
        if late > LAG_S:
            found.append(f"the generator's event loop came {late * 1e3:.0f} ms late (p99): what stations saw is partly its own delay")
        return found

    async def run(self) -> None:
        """Watches the loop until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self._lags.append(max(0.0, loop.time() - due))


def spread(samples: list[float]) -> Spread:
    """Quantiles of samples, the nearest rank."""
    if not samples:
        return Spread()
    ordered = sorted(samples)
    last = len(ordered) - 1
    return Spread(ordered[round(0.5 * last)], ordered[round(0.99 * last)], ordered[last])
