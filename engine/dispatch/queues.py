"""The lines of one job that wait for a station: remakes first, then in the order they were given."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from keys.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class JobInfo:
    """What the dispatcher must know of a job. `priority` 0 is instant, 1 (first) to 9 (last) bulk; `due_us` is Unix time."""

    job_id: str
    priority: int
    due_us: int | None
    profile: str
    chip_type: str


class LineQueue:
    """Each line is in it once at most, and not again while it is out at a station."""

    def __init__(self, info: JobInfo, order: int) -> None:
        if not 0 <= info.priority <= 9:
            raise InvalidInput("PRIORITY", f"job {info.job_id}: priority {info.priority} is not 0 (instant) to 9")
        self.info = info
        self.order = order
        self.paused = False
        # whether the dispatcher has it among the jobs whose turn may come
        self.in_turns = False
        self._fresh: deque[int] = deque()
        self._back: deque[int] = deque()
        self._later: list[tuple[int, int]] = []
        self._known: set[int] = set()
        self._out: set[int] = set()

    def __len__(self) -> int:
        """Lines waiting here, those held back for a while included."""
        return len(self._known)

    @property
    def out(self) -> int:
        """Lines given to stations and neither back nor done."""
        return len(self._out)

    def add(self, lines: Iterable[int]) -> None:
        """Lines that want a card. Those known already are left where they are."""
        for line in lines:
            if line not in self._known and line not in self._out:
                self._known.add(line)
                self._fresh.append(line)

    def back(self, line: int, not_before_us: int) -> None:
        """A line comes back for another try: before all fresh ones, but not before the given time."""
        self._out.discard(line)
        if line in self._known:
            return
        self._known.add(line)
        if not_before_us > 0:
            heapq.heappush(self._later, (not_before_us, line))
        else:
            self._back.append(line)

    def done(self, line: int) -> None:
        """The line needs no station any more."""
        self._out.discard(line)

    def wake(self, now_us: int) -> bool:
        """Lines whose time has come join those that are back; whether there are more to come."""
        while self._later and self._later[0][0] <= now_us:
            self._back.append(heapq.heappop(self._later)[1])
        return bool(self._later)

    def can_take(self) -> bool:
        """Whether a line can be given out now."""
        return not self.paused and bool(self._back or self._fresh)

    def take(self) -> int:
        """The next line; only after `can_take`."""
        line = self._back.popleft() if self._back else self._fresh.popleft()
        self._known.discard(line)
        self._out.add(line)
        return line
