"""The server under many stations, server and stations together on two cores: 200 stations of 1,000 cards an hour, and how far it goes.

`python -m bench.load --json` prints one JSON object. The ramp raises the number of stations until the 99th percentile from a challenge's
arrival to its segment sent is above the limit twice in a row.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from bench.context import context
from engine.cli.plant import Plant
from engine.load.result import LoadResult
from engine.load.run import drive
from engine.load.settings import Settings

PROFILE: Final = "zhengzhou-citizen-card"
RATE: Final = 1000.0
LIMIT_S: Final = 0.02
CORES: Final = 2


def measure(stations: int, seconds: float, ramp: tuple[int, ...], ramp_seconds: float, place: Path) -> dict[str, Any]:
    """The steady run, and the ramp after it on the same server; both as `citycard load --json` prints them."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with Plant(place) as plant:
        plant.make_keys(PROFILE)
        address = plant.start_server()

        def run(steps: tuple[int, ...], duration_s: float, name: str) -> LoadResult:
            settings = Settings(steps, rate=RATE, chip_s=0.0, duration_s=duration_s, p99_limit_s=LIMIT_S, name=name)
            return asyncio.run(drive(address, settings, _say))

        steady = run((stations,), seconds, "steady")
        climbed = run(ramp, ramp_seconds, "ramp")
    return {"context": context(), "cores": CORES, "rate": RATE, "steady": steady.as_dict(), "ramp": climbed.as_dict()}


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _line(window: dict[str, Any]) -> str:
    stream = {name: 1e3 * (window["server_stream_s"][name] or 0.0) for name in ("p50", "p99")}
    cpu = 1e3 * (window["server_cpu_per_card_s"] or 0.0)
    return (
        f"{window['stations']} stations: {window['cards_per_second']:.1f} cards/s, p50 {stream['p50']:.1f} ms, p99 {stream['p99']:.1f} ms, "
        f"server {cpu:.1f} ms CPU a card"
    )


def main() -> int:
    """Prints the runs; 1 when the books of one do not agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="20 seconds and three steps only")
    args = parser.parse_args()
    steps = (100, 200, 300) if args.quick else tuple(range(100, 801, 50))
    with tempfile.TemporaryDirectory(prefix="citycard-bench-") as place:
        found = measure(200, 20.0 if args.quick else 60.0, steps, 10.0 if args.quick else 15.0, Path(place))
    if args.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        for window in (*found["steady"]["windows"], *found["ramp"]["windows"]):
            sys.stdout.write(_line(window) + "\n")
    return int(not (found["steady"]["books"]["reconciled"] and found["ramp"]["books"]["reconciled"]))


if __name__ == "__main__":
    sys.exit(main())
