"""Nothing lost, nothing issued twice: server and stations are killed at random points of a real run, again and again."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.ledger import audit
from engine.virtual.hopper import Hopper

if TYPE_CHECKING:
    from conftest import Works

KILLS = 24
LINES = 260
STATIONS = ("north", "south", "west")


@pytest.mark.timeout(600)
def test_kill_nine_at_random_points_loses_no_line_and_doubles_no_card(works: Works, orders: Callable[..., Path]) -> None:
    rng = random.Random(20261123)
    for name in STATIONS:
        works.add_station(name, 200)
    job = works.submit(orders(LINES))
    kills = 0
    while kills < KILLS or works.job(job.job_id).state == "RUNNING":
        if kills >= KILLS:
            works.wait(job.job_id, lambda j: j.state == "COMPLETE", 180)
            break
        time.sleep(rng.uniform(0.1, 0.9))
        victim = rng.choice(("server", "server", *STATIONS))
        works.plant.kill(victim)
        kills += 1
        if victim == "server":
            time.sleep(rng.uniform(0, 0.3))
            works.restart_server()
        else:
            works.start_station(victim)
    done = works.job(job.job_id)
    assert (done.state, done.good, done.remaining) == ("COMPLETE", LINES, 0)
    works.all_connected(*STATIONS)  # one that was just started again must have come up before it can be told to stop
    for name in STATIONS:
        assert works.plant.stop(name) == 0, works.log(name)

    report = works.report(job.job_id)
    differences = {name: works.count(name) for name in STATIONS}
    assert differences == {name: [] for name in STATIONS}, report
    assert works.report(job.job_id)["reconciliation"]["agrees"], report
    rows = works.results(job.job_id)
    assert sorted(int(r["line"]) for r in rows) == list(range(2, LINES + 2))
    assert {r["outcome"] for r in rows} == {"good"}
    chips = [r["chip_id"] for r in rows]
    assert max(Counter(chips).values()) == 1

    # the second, independent count: what lies in the good bins is what the return file names, chip by chip
    in_bins: list[str] = []
    for name in STATIONS:
        hopper = Hopper(works.plant.station_data(name) / "hopper")
        in_bins += hopper.bins.contents("good")
        hopper.close()
    assert sorted(in_bins) == sorted(chips)
    works.plant.stop("server")
    assert audit.verify(works.plant.server_data / "ledger.sqlite").count > LINES
