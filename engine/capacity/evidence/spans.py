"""Times during which something was so: a station worked, a job had lines to give, a feeder had blanks. Half-open, in microseconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
FOREVER: Final = 2**62


@dataclass(frozen=True)
class Spans:
    """`begins` and `ends` of spans in order, none touching the next."""

    begins: Times
    ends: Times

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]]) -> Spans:
        """Spans that may overlap, in any order; empty ones fall out."""
        joined: list[list[int]] = []
        for begin, end in sorted(span for span in spans if span[1] > span[0]):
            if joined and begin <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], end)
            else:
                joined.append([begin, end])
        table = np.array(joined, np.int64).reshape(-1, 2)
        return cls(table[:, 0], table[:, 1])

    @classmethod
    def positive(cls, times: Times, changes: Times, until: int = FOREVER) -> Spans:
        """When a count that begins at 0 and changes at `times` (any order) is above 0; what happens at one moment counts as one change."""
        order = np.argsort(times, kind="stable")
        moments, first = np.unique(times[order], return_index=True)
        if not len(moments):
            return cls.of(())
        levels = np.add.reduceat(changes[order], first).cumsum()
        ends = np.append(moments[1:], max(until, int(moments[-1])))
        above = levels > 0
        return cls.of(zip(moments[above].tolist(), ends[above].tolist(), strict=True))

    def __bool__(self) -> bool:
        return bool(len(self.begins))

    def covers(self, begins: Times, ends: Times) -> npt.NDArray[np.bool_]:
        """For each [begin, end): whether it lies in one span whole. An empty one counts as the moment it stands for."""
        at = np.searchsorted(self.begins, begins, side="right") - 1
        if not len(self.begins):
            return np.zeros(len(begins), np.bool_)
        inside: npt.NDArray[np.bool_] = (at >= 0) & (ends <= self.ends[at])
        return inside

    def touch(self, begins: Times, ends: Times) -> npt.NDArray[np.bool_]:
        """For each [begin, end): whether any of it lies in a span."""
        if not len(self.begins):
            return np.zeros(len(begins), np.bool_)
        following = np.searchsorted(self.ends, begins, side="right")
        met: npt.NDArray[np.bool_] = self.begins[np.minimum(following, len(self.begins) - 1)] < ends
        return met & (following < len(self.begins))

    def within(self, begin: int, end: int) -> Spans:
        """What of them lies in [begin, end)."""
        return Spans.of((max(int(b), begin), min(int(e), end)) for b, e in zip(self.begins, self.ends, strict=True))

    def either(self, other: Spans) -> Spans:
        """The times of both."""
        return Spans.of([*self.pairs(), *other.pairs()])

    def pairs(self) -> list[tuple[int, int]]:
        """(begin, end) of each."""
        return list(zip(self.begins.tolist(), self.ends.tolist(), strict=True))

    @property
    def total_us(self) -> int:
        """Their lengths added up."""
        return int((self.ends - self.begins).sum())
