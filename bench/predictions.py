"""Predicted beside measured: jobs of different plants really made, each predicted from the jobs before it alone.

The server, its ledger and its secure channels are real, the stations come over gRPC, the chips are recorded ones that take the time they
are told. A first job gives the figures to predict from; it is no prediction itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.context import context
from engine.capacity.check import check
from engine.cli.plant import Plant
from engine.load.run import drive
from engine.load.settings import Kind, Settings
from engine.rpc.local import LEDGER_FILE

PROFILE: Final = "zhengzhou-citizen-card"


@dataclass(frozen=True)
class Run:
    """One job, or for `mixed` two: a tenth of the cards instant, the rest bulk. `chip_s` is really waited."""

    name: str
    stations: int
    readers: int
    cards: int
    chip_s: float = 3.0
    fail: float = 0.0
    kind: Kind = "bulk"


LEARNING: Final = Run("learning", 20, 1, 300, fail=0.03)
RUNS: Final = (
    Run("few stations", 4, 1, 80),
    Run("many stations", 150, 2, 2400),
    Run("with failures", 20, 2, 600, fail=0.06),
    Run("mixed priorities", 30, 2, 900, kind="mixed"),
)


def measure(learning: Run, runs: tuple[Run, ...], place: Path) -> list[dict[str, Any]]:
    """Makes the cards of all runs on one fresh server in `place`; one entry for each job but the learning one's."""
    found = []
    with Plant(place) as plant:
        plant.make_keys(PROFILE)
        address = plant.start_server()
        ledger = plant.server_data / LEDGER_FILE
        for number, run in enumerate((learning, *runs)):
            settings = Settings(
                (run.stations,),
                readers=run.readers,
                chip_s=run.chip_s,
                chip_spread=0.1,
                cards=run.cards,
                fail=run.fail,
                kind=run.kind,
                name=f"run{number}",
                seed=number,
            )
            made = asyncio.run(drive(address, settings))
            for job in made.books.jobs if number else ():
                checked = check(ledger, job, None)
                prediction = checked.prediction
                kind = checked.inputs.job.kind if run.kind == "mixed" else ""
                found.append(
                    {
                        "run": f"{run.name}, {kind}" if kind else run.name,
                        **asdict(run),
                        "lines": checked.inputs.job.lines,
                        "measured_s": prediction.measured_us / 1e6,
                        "predicted_s": prediction.p50_us / 1e6,
                        "early_s": prediction.p05_us / 1e6,
                        "late_s": prediction.p95_us / 1e6,
                        "error": prediction.error,
                        "in_sample": prediction.in_sample,
                        "books_agree": not made.books.differences,
                    }
                )
    return found


def main() -> int:
    """Prints the comparison, as a table or with --json; 1 when one is off by more than a tenth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    with tempfile.TemporaryDirectory(prefix="citycard-bench-") as place:
        found = measure(LEARNING, RUNS, Path(place))
    if as_json:
        sys.stdout.write(json.dumps({"context": context(), "runs": found}, indent=1) + "\n")
    else:
        for one in found:
            sys.stdout.write(
                f"{one['run']:<26} {one['stations']} x {one['readers']}, {one['lines']} lines: measured {one['measured_s']:.1f} s, "
                f"predicted {one['predicted_s']:.1f} s ({one['early_s']:.1f} to {one['late_s']:.1f}), {one['error']:+.1%}\n"
            )
    # a measurement is no test: figures that go into a file are written whatever they are
    return 0 if as_json else int(any(abs(one["error"]) > 0.1 for one in found))


if __name__ == "__main__":
    sys.exit(main())
