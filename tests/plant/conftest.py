"""A small plant for tests: real server and station processes, driven through the same wire as everything else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from citycard.v1 import jobs_pb2, station_pb2, stock_pb2
from citycard.v1.jobs_pb2_grpc import JobServiceStub
from citycard.v1.station_pb2_grpc import StationServiceStub
from citycard.v1.stock_pb2_grpc import StockServiceStub

from engine.cli import client
from engine.cli.job import new_key, submit_file
from engine.cli.plant import Plant
from engine.orders.synthetic import order_file
from engine.virtual.hopper import Hopper, read_counts

PROFILE = "zhengzhou-citizen-card"
LOT = "0A01"
# For `faults`: contacts that take a tenth of a second for a card. What a test does to a running job then meets it running.
UNHURRIED = {"speed": {"bits_per_s": 1_000_000}}


class Works:
    """A plant and what tests do with it."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self._next_serial = 1

    @property
    def address(self) -> str:
        return self.plant.address

    def ask(self, call: Callable[[grpc.aio.Channel], Any]) -> Any:
        return client.ask(self.address, call)

    def up(self) -> None:
        self.plant.make_keys(PROFILE)
        self.plant.start_server()

    def restart_server(self) -> None:
        self.plant.start_server(port=int(self.address.rpartition(":")[2]))

    def add_station(self, name: str, blanks: int, *, faults: dict[str, Any] | None = None, issued: int | None = None) -> None:
        """Receives and issues blanks, and starts a station with them in its feeder."""
        count = blanks if issued is None else issued
        receive = stock_pb2.ReceiveStockRequest(lot=LOT, chip_type="ZZC01", count=count, by="test")
        self.ask(lambda c: StockServiceStub(c).ReceiveStock(receive, timeout=10))
        issue = stock_pb2.IssueStockRequest(lot=LOT, station_id=name, count=count, by="test")
        self.ask(lambda c: StockServiceStub(c).IssueStock(issue, timeout=10))
        hopper = Hopper(self.plant.station_data(name) / "hopper")
        hopper.feeder.load(bytes.fromhex(LOT), range(self._next_serial, self._next_serial + blanks))
        hopper.close()
        self._next_serial += blanks
        self.start_station(name, faults=faults)

    def start_station(self, name: str, *extra: str, faults: dict[str, Any] | None = None) -> None:
        if faults is not None:
            file = self.plant.data / f"{name}-faults.json"
            file.write_text(json.dumps(faults))
            extra = (*extra, "--faults", str(file))
        self.plant.start_station(name, *extra)

    def submit(self, path: Path, *, instant: bool = False, start: bool = True) -> jobs_pb2.Job:
        async def work(channel: grpc.aio.Channel) -> jobs_pb2.Job:
            return await submit_file(
                channel,
                path,
                profile=PROFILE,
                instant=instant,
                priority=5,
                due_us=0,
                key=new_key(),
                by="test",
                encoding="",
                start=start,
            )

        return client.run(self.address, work)

    def job(self, job_id: str) -> jobs_pb2.Job:
        return self.ask(lambda c: JobServiceStub(c).GetJob(jobs_pb2.GetJobRequest(job_id=job_id), timeout=10)).job

    def wait(self, job_id: str, until: Callable[[jobs_pb2.Job], bool], seconds: float = 120.0) -> jobs_pb2.Job:
        """Polls until the condition holds; fails with the job's state when the time is over. A server that is down is waited for."""
        deadline = time.monotonic() + seconds
        job = jobs_pb2.Job()
        while time.monotonic() < deadline:
            try:
                job = self.job(job_id)
            except client.CitycardError:
                time.sleep(0.05)
                continue
            if until(job):
                return job
            time.sleep(0.05)
        raise AssertionError(f"not reached in {seconds} s: {job}")

    def all_connected(self, *names: str) -> None:
        """Waits until the server has all these stations on the line."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            answer = self.ask(lambda c: StationServiceStub(c).ListStations(station_pb2.ListStationsRequest(), timeout=10))
            if {s["station"] for s in json.loads(answer.stations_json)["stations"]} >= set(names):
                return
            time.sleep(0.05)
        raise AssertionError(f"not all of {names} connected")

    def count(self, name: str) -> list[str]:
        """Books what the station's own sensors counted; the differences the ledger sees."""
        seen = read_counts(self.plant.station_data(name) / "hopper")
        request = stock_pb2.CountStockRequest(
            station_id=name,
            feeder_remaining=seen["remaining"],
            good=seen["good"],
            reject=seen["reject"],
            returned=seen["returned"],
            in_heads=seen["in_heads"],
            by="test",
        )
        return list(self.ask(lambda c: StockServiceStub(c).CountStock(request, timeout=10)).differences)

    def report(self, job_id: str) -> dict[str, Any]:
        request = jobs_pb2.GetReportRequest(job_id=job_id)
        return dict(json.loads(self.ask(lambda c: JobServiceStub(c).GetReport(request, timeout=10)).report_json))

    def results(self, job_id: str) -> list[dict[str, str]]:
        async def work(channel: grpc.aio.Channel) -> bytes:
            stub = JobServiceStub(channel)
            return b"".join([m.chunk async for m in stub.GetResults(jobs_pb2.GetResultsRequest(job_id=job_id))])

        head, *rows = [line.split(",") for line in client.run(self.address, work).decode().splitlines()]
        return [dict(zip(head, row, strict=True)) for row in rows]

    def log(self, name: str) -> str:
        return self.plant.log_file(name).read_text()


@pytest.fixture
def works(tmp_path: Path) -> Iterator[Works]:
    with Plant(tmp_path / "plant") as plant:
        made = Works(plant)
        made.up()
        yield made


@pytest.fixture
def orders(tmp_path: Path) -> Callable[..., Path]:
    """Makes an order file of good synthetic rows."""

    def make(rows: int, *, first: int = 0) -> Path:
        path = tmp_path / f"orders-{first}-{rows}.csv"
        path.write_bytes(b"".join(order_file(rows, first=first)))
        return path

    return make
