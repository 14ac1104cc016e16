"""A bad lot and a bad job in a running plant: what is guilty is stopped and named, the rest goes on, and the books agree."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from citycard.v1 import jobs_pb2, station_pb2, stock_pb2
from citycard.v1.jobs_pb2_grpc import JobServiceStub
from citycard.v1.station_pb2_grpc import StationServiceStub
from citycard.v1.stock_pb2_grpc import StockServiceStub

from engine.rpc.local import LEDGER_FILE
from engine.virtual.hopper import Hopper
from keys.errors import CitycardError

if TYPE_CHECKING:
    from conftest import Works

BAD = "0B02"


def stations(works: Works) -> dict[str, Any]:
    answer = works.ask(lambda c: StationServiceStub(c).ListStations(station_pb2.ListStationsRequest(), timeout=10))
    return dict(json.loads(answer.stations_json))


def load_mixed(works: Works, name: str, pairs: int, first: int) -> None:
    """Blanks of a good lot and of the bad one by turns; those of the bad one have other keys than their maker says."""
    for lot in ("0A01", BAD):
        receive = stock_pb2.ReceiveStockRequest(lot=lot, chip_type="ZZC01", count=pairs, by="test")
        works.ask(lambda c, request=receive: StockServiceStub(c).ReceiveStock(request, timeout=10))
        issue = stock_pb2.IssueStockRequest(lot=lot, station_id=name, count=pairs, by="test")
        works.ask(lambda c, request=issue: StockServiceStub(c).IssueStock(request, timeout=10))
    serials = range(first, first + pairs)
    hopper = Hopper(works.plant.station_data(name) / "hopper")
    for serial in serials:
        hopper.feeder.load(bytes.fromhex("0A01"), [serial])
        hopper.feeder.load(bytes.fromhex(BAD), [serial])
    hopper.close()
    works.start_station(name, faults={"chips": {f"{BAD}{serial:016X}": {"wrong_transport_keys": True} for serial in serials}})


def reset_lot(works: Works, lot: str) -> None:
    works.ask(lambda c: StockServiceStub(c).ResetLot(stock_pb2.ResetLotRequest(lot=lot, by="test"), timeout=10))


def audited(works: Works, subject: str) -> list[str]:
    """What the audit chain says of a lot, once the server is down."""
    with sqlite3.connect(works.plant.server_data / LEDGER_FILE) as ledger:
        told = [json.loads(leaf) for (leaf,) in ledger.execute("SELECT leaf FROM audit_leaves ORDER BY leaf_index")]
    ledger.close()
    return [leaf["kind"] for leaf in told if leaf["subject"] == subject and leaf["kind"].startswith("lot.")]


def test_a_bad_lot_is_stopped_and_its_blanks_come_back_unused(works: Works, orders: Callable[..., Path]) -> None:
    for number, name in enumerate(("one", "two")):
        load_mixed(works, name, 30, 1 + 100 * number)
    works.all_connected("one", "two")
    job = works.submit(orders(24))
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    assert (done.good, done.scrapped) == (24, 0)
    # five speak against it; as many more as there are heads may have been under way
    assert 5 <= done.blanks_rejected <= 7
    shown = stations(works)
    assert [one["stopped"] for one in shown["stations"]] == ["", ""]
    [lot] = shown["stopped_lots"]
    assert lot["lot"] == BAD
    assert "cards failed (card-cryptogram) on 2 stations, other lots 0 of" in lot["stopped"]
    assert [works.plant.stop(name) for name in ("one", "two")] == [0, 0]
    assert [works.count(name) for name in ("one", "two")] == [[], []]
    assert works.report(job.job_id)["reconciliation"]["agrees"]

    works.plant.kill("server")
    works.restart_server()
    [still] = stations(works)["stopped_lots"]
    assert still["stopped"].startswith(f"lot {BAD} is stopped since ")
    reset_lot(works, BAD.lower())
    assert stations(works)["stopped_lots"] == []
    with pytest.raises(CitycardError) as caught:
        reset_lot(works, BAD)
    assert caught.value.reason == "LOT_NOT_STOPPED"
    works.plant.stop("server")
    assert audited(works, BAD) == ["lot.stopped", "lot.reset"]


def test_where_every_card_of_a_job_fails_the_job_is_paused_and_no_station_stops(works: Works, orders: Callable[..., Path]) -> None:
    names = ("one", "two", "three")
    for name in names:
        works.add_station(name, 30, faults={"default": {"lies": ["internal-authenticate"]}})
    works.all_connected(*names)
    job = works.submit(orders(20))
    paused = works.wait(job.job_id, lambda j: j.state == "PAUSED" and not j.in_flight)
    assert paused.good == 0
    assert 5 <= paused.scrapped < 12
    assert f"job {job.job_id}" in paused.waiting_for
    assert "cards failed (verify-failed) on" in paused.waiting_for
    assert [one["stopped"] for one in stations(works)["stations"]] == [""] * 3
    for name in names:
        works.plant.stop(name)
        works.start_station(name)
    works.ask(lambda c: JobServiceStub(c).ResumeJob(jobs_pb2.ResumeJobRequest(job_id=job.job_id), timeout=10))
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    assert done.good == 20
