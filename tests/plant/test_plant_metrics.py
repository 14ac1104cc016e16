"""A real server's metrics, by RPC and over HTTP: they say what really happened."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request

import pytest

from engine.cli.metrics import as_dict
from engine.cli.plant import Plant
from keys.errors import Unavailable
from tests.plant.conftest import PROFILE, Works

CARDS = 6


def citycard(plant, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli.main", *arguments, "--server", plant.address], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def value(metrics, name, sample=None, **labels):
    return next(s["value"] for s in metrics[name]["samples"] if s["name"] == (sample or name) and labels.items() <= s["labels"].items())


def test_the_metrics_of_a_job_that_ran(tmp_path, orders):
    port = free_port()
    with Plant(tmp_path / "plant") as plant:
        works = Works(plant)
        plant.make_keys(PROFILE)
        plant.start_server("--metrics", f"127.0.0.1:{port}")
        works.add_station("one", 10)
        job = works.submit(orders(CARDS))
        works.wait(job.job_id, lambda j: j.state == "COMPLETE")
        metrics = json.loads(citycard(plant, "metrics", "--json"))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            over_http = as_dict(page.read().decode())
        assert citycard(plant, "metrics").startswith("# HELP ")
    assert value(metrics, "citycard_cards", "citycard_cards_total", outcome="good") == CARDS
    assert value(metrics, "citycard_segment_seconds", "citycard_segment_seconds_count") == CARDS
    assert value(metrics, "citycard_answer_seconds", "citycard_answer_seconds_count", kind="presented") == CARDS
    assert value(metrics, "citycard_ledger_transitions", "citycard_ledger_transitions_total") >= 6 * CARDS
    assert value(metrics, "citycard_stations") == 1
    assert value(metrics, "citycard_stations_stopped") == 0
    assert over_http.keys() == metrics.keys()


def test_metrics_are_served_on_loopback_only_and_on_a_port_of_their_own(tmp_path):
    plant = Plant(tmp_path / "plant")
    plant.make_keys(PROFILE)
    with plant, socket.socket() as taken:
        with pytest.raises(Unavailable, match="only loopback is served"):
            plant.start_server("--metrics", "0.0.0.0:9100")
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable, match="cannot be bound"):
            plant.start_server("--metrics", f"127.0.0.1:{taken.getsockname()[1]}")
