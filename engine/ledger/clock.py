"""The two clocks of the ledger, injectable: one that nobody can set, for leases; one that people read, for records."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Both in integer microseconds. Only `boottime_us` decides anything; `wall_us` is written into records and never compared."""

    def boottime_us(self) -> int:
        """Time since boot, suspended time included: neither an operator nor NTP can turn it back."""
        ...

    def wall_us(self) -> int:
        """Unix time, UTC."""
        ...


class SystemClock:
    """CLOCK_BOOTTIME and CLOCK_REALTIME of the machine."""

    def boottime_us(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000

    def wall_us(self) -> int:
        return time.time_ns() // 1000
