"""Chips that die, lie, or are not what they seem: nothing of the kind ever becomes a good card, and every piece is accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from citycard.v1 import stock_pb2
from citycard.v1.stock_pb2_grpc import StockServiceStub

from engine.virtual.hopper import Hopper

if TYPE_CHECKING:
    from conftest import Works

# SELECT, GET DATA and INITIALIZE UPDATE of the lease; the next APDU is the first that changes the chip.
BEFORE_INTENT = 3


def chip(serial: int) -> str:
    return f"0A01{serial:016X}"


def close_books(works: Works, job_id: str, *stations: str) -> dict[str, Any]:
    """Stops the stations, counts them, and returns the report; every count must agree."""
    for name in stations:
        assert works.plant.stop(name) == 0, works.log(name)
    differences = {name: works.count(name) for name in stations}
    report = works.report(job_id)
    assert differences == {name: [] for name in stations}, report["reconciliation"]
    assert report["reconciliation"]["agrees"], report["reconciliation"]
    return report


def scrap(works: Works) -> dict[str, dict[str, Any]]:
    """Scrapped pieces by chip id."""
    answer = works.ask(lambda c: StockServiceStub(c).ListScrap(stock_pb2.ListScrapRequest(), timeout=10))
    return {s["chip_id"]: s for s in json.loads(answer.scrap_json)["scrap"]}


def bin_of(works: Works, station: str, name: str) -> list[str]:
    hopper = Hopper(works.plant.station_data(station) / "hopper")
    try:
        return hopper.bins.contents(name)
    finally:
        hopper.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_chip_may_die_at_every_apdu(works: Works, orders: Callable[..., Path], when: Literal["before", "after"]) -> None:
    """Chip n of the magazine dies at its n-th APDU, with a good chip behind it for the remake. Up to INITIALIZE UPDATE the blank is
    rejected; from the first byte that changes the chip on it is scrap, torn; every line is made all the same."""
    indexes = range(170)  # more than a card has APDUs: the last ones never die
    deadly = {n: chip(1 + 2 * n) for n in indexes}
    faults = {"chips": {chip_id: {"die": {"at": n, "when": when}} for n, chip_id in deadly.items()}}
    works.add_station("deadly", 2 * len(indexes), faults=faults)
    job = works.submit(orders(len(indexes)))
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE", 300)

    report = close_books(works, job.job_id, "deadly")
    rejected = set(bin_of(works, "deadly", "reject"))
    good = set(bin_of(works, "deadly", "good"))
    died = [n for n in indexes if deadly[n] in rejected]
    assert died == list(range(len(died))), "deaths are the first indexes, without a gap"
    assert 100 < len(died) < len(indexes)
    assert {deadly[n] for n in indexes[len(died) :]} - good == {deadly[n] for n in indexes if deadly[n] not in rejected | good}
    scrapped = scrap(works)
    assert set(scrapped) == {deadly[n] for n in died if n >= BEFORE_INTENT}
    assert {s["reason"] for s in scrapped.values()} == {"torn"}
    assert {s["state"] for s in scrapped.values()} == {"SCRAP_PENDING"}
    assert (done.good, done.scrapped, done.blanks_rejected) == (len(indexes), len(died) - BEFORE_INTENT, BEFORE_INTENT)
    assert report["counts"]["good"] == len(indexes)


@pytest.mark.parametrize("lie", ["internal-authenticate", "initialize-for-load", "generate-ac", "read-record", "external-authenticate"])
def test_a_chip_whose_applet_answers_wrongly_is_never_good(works: Works, orders: Callable[..., Path], lie: str) -> None:
    works.add_station("liar", 6, faults={"chips": {chip(1): {"lies": [lie]}}})
    job = works.submit(orders(3))
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    close_books(works, job.job_id, "liar")
    assert (done.good, done.scrapped) == (3, 1)
    found = scrap(works)[chip(1)]
    assert found["reason"] in ("verify-failed", "refused")
    assert found["detail"]
    assert bin_of(works, "liar", "reject") == [chip(1)]
    assert chip(1) not in {row["chip_id"] for row in works.results(job.job_id)}


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"wrong_transport_keys": True}, "CARD_CRYPTOGRAM"),
        ({"already_personalized": True}, "CHIP_OTHER_KEYS"),
        ({"locked_key_set": True}, "CHIP_LOCKED"),
        ({"garbage": [{"at": 2, "kind": "random"}]}, ""),
        ({"garbage": [{"at": 2, "kind": "length"}]}, ""),
    ],
    ids=["wrong-keys", "personalized", "locked", "random", "length"],
)
def test_a_blank_that_is_none_is_rejected_before_anything_changes_it(
    works: Works, orders: Callable[..., Path], fault: dict[str, Any], word: str
) -> None:
    works.add_station("picky", 5, faults={"chips": {chip(1): fault}})
    job = works.submit(orders(2))
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    report = close_books(works, job.job_id, "picky")
    assert (done.good, done.scrapped, done.blanks_rejected) == (2, 0, 1)
    assert bin_of(works, "picky", "reject") == [chip(1)]
    assert word in "".join(report["failures"])


def test_a_hidden_blank_is_seen(works: Works, orders: Callable[..., Path]) -> None:
    works.add_station("honest", 8)
    works.plant.stop("honest")
    hopper = Hopper(works.plant.station_data("honest") / "hopper")
    hopper.hide_blank()
    hopper.close()
    works.start_station("honest")
    job = works.submit(orders(3))
    works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    works.plant.stop("honest")
    differences = works.count("honest")
    assert len(differences) == 1
    assert "1 fewer" in differences[0]
    assert not works.report(job.job_id)["reconciliation"]["agrees"]


def test_a_station_that_fails_again_and_again_is_stopped_with_a_plain_reason(works: Works, orders: Callable[..., Path]) -> None:
    works.add_station("broken", 30, faults={"default": {"lies": ["generate-ac"]}})
    job = works.submit(orders(10))
    stuck = works.wait(job.job_id, lambda j: j.scrapped >= 5 and j.in_flight == 0)
    assert "stopped" in stuck.waiting_for
    assert "in a row failed" in stuck.waiting_for
    assert stuck.scrapped == 5
    works.add_station("sound", 20)
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    assert (done.good, done.scrapped) == (10, 5)
    close_books(works, job.job_id, "broken", "sound")
