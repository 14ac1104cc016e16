"""Whose turn it is at stations that can do the same: the sharing rule between jobs.

In an operator's words: every job gets a share of the leases, whatever its size. A step of priority is worth double, so that a job of
priority 4 gets two cards for each one of a job of priority 5, and 256 to one is the most. Among jobs of one priority that wait here, the
one that is due first gets every second lease; the others are shared out over all of them evenly. Nobody waits for ever.

It is self-clocked fair queueing: a job's next lease is due, in virtual time, one over its weight after its last one, and the job whose
lease is due first is next; the job submitted first among equals. A job that comes, or comes back, counts from the present virtual time:
it catches nothing up that it did not wait for, and nobody has to wait until it is level. Log time a lease in the number of jobs.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort

from engine.dispatch.queues import LineQueue

LAST_PRIORITY = 9


class Turns:
    """The jobs that have a line to give out, and their order."""

    def __init__(self) -> None:
        self._now = 0.0
        # (when its next lease is due, order of submission, job): those that left are dropped when they come to the top
        self._heap: list[tuple[float, int, LineQueue]] = []
        self._in_heap: set[str] = set()
        self._next: dict[str, float] = {}
        self._waiting: dict[str, LineQueue] = {}
        # by priority: how many wait, and the dues of those that have one
        self._numbers = [0] * (LAST_PRIORITY + 1)
        self._dues: list[list[tuple[int, int]]] = [[] for _ in range(LAST_PRIORITY + 1)]

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def join(self, queue: LineQueue) -> None:
        """The job has lines to give out from now on."""
        job_id, priority = queue.info.job_id, queue.info.priority
        if job_id in self._waiting:
            return
        self._waiting[job_id] = queue
        self._numbers[priority] += 1
        if queue.info.due_us is not None:
            insort(self._dues[priority], (queue.info.due_us, queue.order))
        if job_id not in self._in_heap:
            self._push(queue)

    def _push(self, queue: LineQueue) -> None:
        job_id = queue.info.job_id
        self._in_heap.add(job_id)
        due = max(self._now + 1 / self._weight(queue), self._next.get(job_id, 0.0))
        heapq.heappush(self._heap, (due, queue.order, queue))

    def leave(self, queue: LineQueue) -> None:
        """The job has none for the time being."""
        priority = queue.info.priority
        if self._waiting.pop(queue.info.job_id, None) is None:
            return
        self._numbers[priority] -= 1
        if queue.info.due_us is not None:
            dues = self._dues[priority]
            del dues[bisect_left(dues, (queue.info.due_us, queue.order))]

    def forget(self, queue: LineQueue) -> None:
        """The job is gone for good."""
        self.leave(queue)
        self._next.pop(queue.info.job_id, None)

    def next(self) -> LineQueue | None:
        """The job whose turn it is, which is thereby used; None when nobody waits."""
        while self._heap:
            at, order, queue = self._heap[0]
            job_id = queue.info.job_id
            if self._waiting.get(job_id) is not queue:
                heapq.heappop(self._heap)
                self._in_heap.discard(job_id)
                if job_id in self._waiting:  # the job was removed and came back while its old entry lay here
                    self._push(self._waiting[job_id])
                continue
            self._now = at
            after = self._next[job_id] = at + 1 / self._weight(queue)
            heapq.heapreplace(self._heap, (after, order, queue))
            return queue
        return None

    def _weight(self, queue: LineQueue) -> float:
        priority, due_us = queue.info.priority, queue.info.due_us
        number, dues = self._numbers[priority], self._dues[priority]
        weight = float(1 << (LAST_PRIORITY - priority))
        if not dues or number == 1:
            return weight
        # half of what the `number` jobs of this priority get together is for the one due first, half is for all of them
        return weight * ((number + 1) / 2 if due_us is not None and dues[0] == (due_us, queue.order) else 0.5)

    def shares(self) -> dict[str, float]:
        """The share of leases each waiting job gets while nothing changes; they sum to one."""
        weights = {job_id: self._weight(queue) for job_id, queue in self._waiting.items()}
        total = sum(weights.values())
        return {job_id: weight / total for job_id, weight in weights.items()}
