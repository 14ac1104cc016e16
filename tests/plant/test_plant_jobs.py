"""Jobs as operators steer them: pause, cancel, instant before bulk, twice the same, drained servers, stations that fell asleep."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from citycard.v1 import jobs_pb2, station_pb2, stock_pb2
from citycard.v1.jobs_pb2_grpc import JobServiceStub
from citycard.v1.station_pb2_grpc import StationServiceStub
from citycard.v1.stock_pb2_grpc import StockServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.cli import client
from engine.cli.job import submit_file
from keys.errors import CitycardError
from tests.plant.conftest import UNHURRIED, Works


def steer(works: Works, verb: str, job_id: str) -> jobs_pb2.Job:
    request = getattr(jobs_pb2, f"{verb}JobRequest")(job_id=job_id)
    return works.ask(lambda c: getattr(JobServiceStub(c), f"{verb}Job")(request, timeout=10)).job


def settled(works: Works, job_id: str, *stations: str) -> None:
    for name in stations:
        assert works.plant.stop(name) == 0, works.log(name)
    assert {name: works.count(name) for name in stations} == {name: [] for name in stations}
    assert works.report(job_id)["reconciliation"]["agrees"]


def test_pause_strands_no_card_and_resume_finishes_all(works: Works, orders: Callable[..., Path]) -> None:
    works.add_station("one", 60, faults=UNHURRIED)
    job = works.submit(orders(40))
    works.wait(job.job_id, lambda j: j.good >= 5)
    steer(works, "Pause", job.job_id)
    still = works.wait(job.job_id, lambda j: j.state == "PAUSED" and j.in_flight == 0)
    assert "paused" in still.waiting_for
    time.sleep(0.5)
    assert works.job(job.job_id).good == still.good < 40
    steer(works, "Resume", job.job_id)
    works.wait(job.job_id, lambda j: j.state == "COMPLETE" and j.good == 40)
    settled(works, job.job_id, "one")


def test_cancel_lets_cards_in_hand_end_and_begins_no_other(works: Works, orders: Callable[..., Path]) -> None:
    works.add_station("one", 80, faults=UNHURRIED)
    works.add_station("two", 80, faults=UNHURRIED)
    job = works.submit(orders(100))
    works.wait(job.job_id, lambda j: j.good >= 5)
    steer(works, "Cancel", job.job_id)
    done = works.wait(job.job_id, lambda j: j.state == "CANCELLED")
    assert done.in_flight == 0
    assert done.good + done.cancelled == 100
    assert 0 < done.good < 100
    settled(works, job.job_id, "one", "two")


def test_an_instant_order_goes_before_bulk(works: Works, orders: Callable[..., Path]) -> None:
    works.add_station("counter", 90, faults=UNHURRIED)
    bulk = works.submit(orders(60))
    works.wait(bulk.job_id, lambda j: j.good >= 3)
    instant = works.submit(orders(1, first=5000), instant=True)
    works.wait(instant.job_id, lambda j: j.state == "COMPLETE")
    assert works.job(bulk.job_id).good < 50
    works.wait(bulk.job_id, lambda j: j.state == "COMPLETE")
    settled(works, bulk.job_id, "counter")


def test_the_same_submission_twice_is_one_job(works: Works, orders: Callable[..., Path]) -> None:
    path = orders(3)

    async def work(channel: grpc.aio.Channel, priority: int = 5) -> jobs_pb2.Job:
        return await submit_file(
            channel,
            path,
            profile="zhengzhou-citizen-card",
            instant=False,
            priority=priority,
            due_us=0,
            key="once",
            by="t",
            encoding="",
            start=True,
        )

    first = client.run(works.address, work)
    second = client.run(works.address, work)
    assert first.job_id == second.job_id
    assert len(works.ask(lambda c: JobServiceStub(c).ListJobs(jobs_pb2.ListJobsRequest(), timeout=10)).jobs) == 1
    with pytest.raises(CitycardError) as caught:
        client.run(works.address, lambda c: work(c, priority=3))
    assert caught.value.reason == "IDEMPOTENCY_MISMATCH"


def test_a_drained_server_finishes_cards_in_hand_and_a_new_one_goes_on(works: Works, orders: Callable[..., Path]) -> None:
    works.add_station("one", 60, faults=UNHURRIED)
    works.add_station("two", 60, faults=UNHURRIED)
    job = works.submit(orders(60))
    works.wait(job.job_id, lambda j: j.good >= 10)
    assert works.plant.stop("server") == 0
    assert '"stopped"' in works.log("server")
    works.restart_server()
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    assert (done.good, done.scrapped, done.blanks_rejected) == (60, 0, 0)
    settled(works, job.job_id, "one", "two")


def test_a_station_asleep_past_its_lease_writes_nothing_stale(works: Works, orders: Callable[..., Path], tmp_path: Path) -> None:
    """A station frozen with a card in hand comes back after the server gave its stream up; whatever it then says is settled once."""
    works.add_station("sleeper", 60, faults=UNHURRIED)
    works.add_station("awake", 60, faults=UNHURRIED)
    works.all_connected("sleeper", "awake")
    job = works.submit(orders(50))
    works.wait(job.job_id, lambda j: j.good >= 5)
    sleeper = works.plant.pid("sleeper")
    os.kill(sleeper, signal.SIGSTOP)
    time.sleep(1.0)
    works.plant.kill("server")
    works.restart_server()
    works.wait(job.job_id, lambda j: j.remaining <= 1)
    os.kill(sleeper, signal.SIGCONT)
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    assert done.good == 50
    settled(works, job.job_id, "sleeper", "awake")


def test_health_and_reflection_answer(works: Works) -> None:
    check = works.ask(lambda c: health_pb2_grpc.HealthStub(c).Check(health_pb2.HealthCheckRequest(), timeout=5))
    assert check.status == health_pb2.HealthCheckResponse.SERVING


def test_a_second_station_of_the_same_name_is_refused(works: Works) -> None:
    works.add_station("twin", 5)
    deadline = time.monotonic() + 10
    while "connected" not in works.log("twin") and time.monotonic() < deadline:
        time.sleep(0.05)

    async def impostor(channel: grpc.aio.Channel) -> None:
        hello = station_pb2.ConnectRequest(hello=station_pb2.Hello(station_id="twin", chip_types=["ZZC01"], heads=1))
        async for _ in StationServiceStub(channel).Connect(iter([hello]), timeout=5):
            pass

    with pytest.raises(CitycardError) as caught:
        client.run(works.address, impostor)
    assert caught.value.reason == "STATION_TWICE"


def test_sample_and_destruction(works: Works, orders: Callable[..., Path]) -> None:
    """A finished card becomes a sample, its line is made again, and scrap needs two different people."""
    works.add_station("one", 10)
    job = works.submit(orders(3))
    works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    draw = stock_pb2.DrawSampleRequest(job_id=job.job_id, count=1, by="qa")
    drawn = works.ask(lambda c: StockServiceStub(c).DrawSample(draw, timeout=10))
    works.wait(job.job_id, lambda j: j.state == "COMPLETE" and j.good == 3)
    assert drawn.chip_ids[0] not in {row["chip_id"] for row in works.results(job.job_id)}
    remade = [row for row in works.results(job.job_id) if row["attempt"] == "2"]
    assert [row["psn"] for row in remade] == ["01"]
    alone = stock_pb2.DestroyScrapRequest(all=True, first_name="Li", second_name=" li ")
    with pytest.raises(CitycardError) as caught:
        works.ask(lambda c: StockServiceStub(c).DestroyScrap(alone, timeout=10))
    assert caught.value.reason == "DUAL_CONTROL"
    both = stock_pb2.DestroyScrapRequest(all=True, first_name="Li", second_name="Wang")
    assert works.ask(lambda c: StockServiceStub(c).DestroyScrap(both, timeout=10)).destroyed == 1
    settled(works, job.job_id, "one")


def test_an_empty_feeder_is_said_in_plain_words(works: Works, orders: Callable[..., Path]) -> None:
    works.add_station("short", 2)
    job = works.submit(orders(4))
    stuck = works.wait(job.job_id, lambda j: j.good == 2 and bool(j.waiting_for))
    assert "feeders are empty" in stuck.waiting_for
    works.add_station("full", 5)
    works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    settled(works, job.job_id, "short", "full")
