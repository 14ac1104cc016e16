"""Our kernels against other libraries, in one process on one core: first that the answers are equal, then who is how much faster.

    python -m bench.ratios              a table
    python -m bench.ratios --json       a JSON array of {operation, peer, ours, theirs, ratio, unit, cpu, kernel, batch, commit}
    python -m bench.ratios --quick      fewer rounds, and shorter ones

In every round each side runs once, one after the other, so that a noisy machine is noisy for all; figures are medians of the rounds.
A peer that takes a call per key gets fewer keys than a batch; rates are per second of its own count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from bench.context import context
from bench.operations import Case, all_cases

ROUNDS: Final = 11
QUICK_ROUNDS: Final = 7
ROUND_S: Final = 0.06
QUICK_ROUND_S: Final = 0.02


@dataclass(frozen=True)
class Ratio:
    """One comparison: operations per second on both sides."""

    operation: str
    peer: str
    ours: float
    theirs: float
    ratio: float
    unit: str
    cpu: str
    kernel: str
    batch: int
    commit: str


def verify(case: Case) -> None:
    """Runs every side once; ValueError unless all answers are equal."""
    ours = case.ours()
    for name, peer in case.peers.items():
        theirs = peer.work()
        for mine, other in zip(ours, theirs, strict=True):
            if not np.array_equal(mine[: peer.count], other[: peer.count]):
                raise ValueError(f"{case.operation}: our answers and those of {name} differ")


def seconds(case_round: float, sides: list[tuple[object, int]], rounds: int) -> list[float]:
    """Median seconds of one run of each side; a side is repeated within its round until the round is long enough to be measured."""
    repeats = []
    for work, _ in sides:
        began = time.perf_counter()
        work()  # type: ignore[operator]
        repeats.append(max(1, round(case_round / (time.perf_counter() - began))))
    measured: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for at, (work, _) in enumerate(sides):
            began = time.perf_counter()
            for _ in range(repeats[at]):
                work()  # type: ignore[operator]
            measured[at].append((time.perf_counter() - began) / repeats[at])
    return [statistics.median(times) for times in measured]


def measure(case: Case, *, rounds: int, round_s: float) -> list[Ratio]:
    """One case against each of its peers."""
    verify(case)
    names = list(case.peers)
    sides = [(case.ours, case.batch), *((case.peers[name].work, case.peers[name].count) for name in names)]
    times = seconds(round_s, list(sides), rounds)
    ours = case.batch / times[0]
    about = context()
    found = []
    for name, spent in zip(names, times[1:], strict=True):
        theirs = case.peers[name].count / spent
        found.append(
            Ratio(
                operation=case.operation,
                peer=name,
                ours=round(ours, 1),
                theirs=round(theirs, 1),
                ratio=round(ours / theirs, 2),
                unit=case.unit,
                cpu=about["cpu"],
                kernel=case.kernel,
                batch=case.batch,
                commit=about["commit"],
            )
        )
    return found


def table(found: list[Ratio]) -> str:
    lines = [f"{'operation':18} {'peer':14} {'ours/s':>16} {'theirs/s':>16} {'ratio':>10}  kernel, batch"]
    lines += [
        f"{item.operation:18} {item.peer:14} {item.ours:16,.0f} {item.theirs:16,.0f} {item.ratio:9,.1f}x  {item.kernel}, {item.batch:,}"
        for item in found
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ratios", description="Kernels against other libraries, one core.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", action="store_true", help="a JSON array instead of a table")
    parser.add_argument("--only", metavar="TEXT", default="", help="operations whose name contains TEXT")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found: list[Ratio] = []
    for case in all_cases():
        if arguments.only in case.operation:
            rounds, length = (QUICK_ROUNDS, QUICK_ROUND_S) if arguments.quick else (ROUNDS, ROUND_S)
            found += measure(case, rounds=rounds, round_s=length)
    sys.stdout.write((json.dumps([asdict(item) for item in found], indent=1) if arguments.json else table(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
