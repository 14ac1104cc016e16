"""Quality samples: what only a sample can prove is said to be proven when one has passed, and not a moment earlier."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from citycard.v1 import jobs_pb2, stock_pb2
from citycard.v1.jobs_pb2_grpc import JobServiceStub
from citycard.v1.stock_pb2_grpc import StockServiceStub

from engine.chip.transport import Transport, chip_gone
from engine.cli import bench, client
from engine.cli.report import print_report
from engine.ledger import audit
from engine.virtual.factory import open_chip
from engine.virtual.pcscd_rig import PcscdRig
from keys.errors import CitycardError

if TYPE_CHECKING:
    from conftest import Works

LOAD, PURCHASE, TAC = (f"transport/des/{name}" for name in ("load", "purchase", "tac"))
SUBJECTS = ["pin", LOAD, PURCHASE, TAC]
VERIFY, CREDIT, DEBIT, BALANCE, INITIALIZE = 0x20, 0x52, 0x54, 0x5C, 0x50


def chip(serial: int) -> str:
    return f"0A01{serial:016X}"


def draw(works: Works, job_id: str, count: int = 1) -> list[str]:
    request = stock_pb2.DrawSampleRequest(job_id=job_id, count=count, by="qa")
    return list(works.ask(lambda c: StockServiceStub(c).DrawSample(request, timeout=10)).chip_ids)


def finished(works: Works, orders: Callable[..., Path], rows: int = 2, **station: Any) -> str:
    works.add_station("one", 10, **station)
    job = works.submit(orders(rows))
    works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    return job.job_id


def chips_of(works: Works) -> Path:
    return works.plant.station_data("one") / "hopper" / "chips"


def cli(works: Works, *arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "engine.cli.main", *arguments, "--server", works.address, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment})
    return done.returncode, json.loads(done.stdout)


def try_sample(works: Works, chip_id: str, transport: Transport) -> stock_pb2.SampleResult:
    return client.run(works.address, lambda channel: bench.test_sample(channel, transport, chip_id, "qa"))


class Meddler:
    """A reader that spoils the answers to one command, or keeps them to itself, and remembers every command."""

    def __init__(self, inner: Transport, spoil: Callable[[bytes, bytes], bytes] = lambda _, answer: answer) -> None:
        self.name = "meddler"
        self.heard: list[bytes] = []
        self._inner = inner
        self._spoil = spoil

    def connect(self) -> bytes:
        return self._inner.connect()

    def transmit(self, apdu: bytes) -> bytes:
        self.heard.append(apdu)
        answer = self._spoil(apdu, self._inner.transmit(apdu))
        if not answer:
            raise chip_gone(self.name, "nothing came back")
        return answer

    def disconnect(self) -> None:
        self._inner.disconnect()


def flip(ins: int, at: int, *, p1: int | None = None) -> Callable[[bytes, bytes], bytes]:
    def spoil(apdu: bytes, answer: bytes) -> bytes:
        if apdu[1] != ins or p1 not in (None, apdu[2]):
            return answer
        return answer[:at] + bytes([answer[at] ^ 1]) + answer[at + 1 :]

    return spoil


def instead(ins: int, answer: bytes, *, p1: int | None = None) -> Callable[[bytes, bytes], bytes]:
    return lambda apdu, right: answer if apdu[1] == ins and p1 in (None, apdu[2]) else right


def test_a_key_is_proven_by_sample_once_a_sample_has_passed(
    works: Works, orders: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = finished(works, orders)
    other = works.submit(orders(1, first=700)).job_id
    before = works.report(job_id)["key_proofs"]
    assert (before["keys"][PURCHASE], before["keys"][TAC], before["pin"]) == ("sample-due",) * 3
    assert before["keys"][LOAD] == "proven-by-use"
    assert before["summary"]["sample-due"] == 2
    assert "proven-by-sample" not in before["summary"]

    print_report(works.report(job_id))
    told = capsys.readouterr().out
    assert "2 sample-due" in told
    assert "offline PIN: sample-due" in told
    assert f"citycard sample draw {job_id}" in told

    (drawn,) = draw(works, job_id)
    assert works.report(job_id)["key_proofs"] == before
    status, result = cli(works, "sample", "test", drawn, "--chips", str(chips_of(works)))
    assert (status, result["passed"], result["chip_id"], result["job_id"]) == (0, True, drawn, job_id)
    assert result["checks"] == [{"key": subject, "ok": True, "message": ""} for subject in SUBJECTS]

    after = works.report(job_id)
    proofs = after["key_proofs"]
    assert (proofs["keys"][PURCHASE], proofs["keys"][TAC], proofs["pin"]) == ("proven-by-sample",) * 3
    assert proofs["keys"][LOAD] == "proven-by-use"
    print_report(after)
    told = capsys.readouterr().out
    assert "sample-due" not in told
    assert "2 proven-by-sample" in told
    assert "sample tests: 1 passed, 0 FAILED" in told
    assert [(t["chip_id"], t["passed"], t["failures"]) for t in after["sample_tests"]] == [(drawn, True, {})]
    assert works.report(other)["key_proofs"]["pin"] == "sample-due", "another job's sample proves nothing here"

    # a passed sample stays proven when the piece is gone, and after that it can be tested no more
    works.wait(job_id, lambda j: j.state == "COMPLETE")
    both = stock_pb2.DestroyScrapRequest(all=True, first_name="Li", second_name="Wang")
    assert works.ask(lambda c: StockServiceStub(c).DestroyScrap(both, timeout=10)).destroyed == 1
    assert works.report(job_id)["key_proofs"] == proofs
    status, refused = cli(works, "sample", "test", drawn, "--chips", str(chips_of(works)))
    assert (status, refused["error"]["reason"]) == (1, "NOT_A_SAMPLE")
    works.wait(other, lambda j: j.state == "COMPLETE")
    works.plant.stop("one")
    works.plant.stop("server")
    ledger = works.plant.server_data / "ledger.sqlite"
    audit.verify(ledger)
    with closing(sqlite3.connect(ledger)) as file:
        leaves = [json.loads(text) for (text,) in file.execute("SELECT leaf FROM audit_leaves")]
    (leaf,) = [x for x in leaves if x["kind"] == "sample.tested"]
    assert leaf["facts"]["passed"] is True
    assert leaf["facts"]["checks"] == [f"{subject}: ok" for subject in SUBJECTS]


@pytest.mark.parametrize(
    ("lie", "wrong", "right"),
    [("credit-for-load", TAC, [LOAD]), ("debit-for-purchase", PURCHASE, [LOAD]), ("get-balance", LOAD, [])],
)
def test_a_chip_that_lies_to_the_bench_fails_and_is_reported(
    works: Works, orders: Callable[..., Path], capsys: pytest.CaptureFixture[str], lie: str, wrong: str, right: list[str]
) -> None:
    """Production cannot see these: the chip behaves until its purse is used."""
    job_id = finished(works, orders, rows=1, faults={"default": {"lies": [lie]}})
    (drawn,) = draw(works, job_id)
    status, result = cli(works, "sample", "test", drawn, "--chips", str(chips_of(works)))
    checks = {c["key"]: c for c in result["checks"]}
    assert (status, result["passed"]) == (1, False)
    assert "is not what its data and keys should give" in checks[wrong]["message"]
    assert all(checks[subject]["ok"] for subject in ("pin", *right))
    report = works.report(job_id)
    assert (report["key_proofs"]["keys"][PURCHASE], report["key_proofs"]["pin"]) == ("sample-failed", "sample-due")
    (test,) = report["sample_tests"]
    assert (test["passed"], test["chip_id"]) == (False, drawn)
    print_report(report)
    assert f"chip {drawn}: {wrong}: " in capsys.readouterr().out
    assert wrong in test["failures"]


def test_every_answer_of_the_test_is_judged(works: Works, orders: Callable[..., Path]) -> None:
    """One good sample in a reader that spoils one answer after another; at the end the same piece passes untouched."""
    job_id = finished(works, orders, rows=1)
    (drawn,) = draw(works, job_id)

    def trial(spoil: Callable[[bytes, bytes], bytes]) -> dict[str, stock_pb2.SampleCheck]:
        meddler = Meddler(bench.contact(drawn, chips_of(works), ""), spoil)
        result = try_sample(works, drawn, meddler)
        assert not result.passed
        return {c.subject: c for c in result.checks}

    for spoil, wrong in (
        (flip(DEBIT, 0), TAC),
        (flip(DEBIT, 7), PURCHASE),
        (flip(CREDIT, 3), TAC),
        (flip(INITIALIZE, 15, p1=0), LOAD),
        (flip(INITIALIZE, 3, p1=0), LOAD),
        (instead(INITIALIZE, b"\x90\x00", p1=0), LOAD),
        (instead(INITIALIZE, b"\x90\x00", p1=1), PURCHASE),
        (instead(CREDIT, b"\x93\x02"), LOAD),
        (instead(DEBIT, b"\x93\x02"), PURCHASE),
        (instead(VERIFY, b"\x63\xc2"), "pin"),
        (instead(VERIFY, b"\x00\x90\x00"), "pin"),
        (instead(DEBIT, b""), PURCHASE),
        (instead(BALANCE, b"\x00\x00\x00\x00\x90\x00"), LOAD),
    ):
        found = trial(spoil)
        assert not found[wrong].ok, (wrong, found)
        assert found[wrong].message
        assert not found[wrong].message.startswith("not tested")
    refused = trial(instead(VERIFY, b"\x63\xc2"))
    assert "2 tries left" in refused["pin"].message
    assert all(refused[s].message.startswith("not tested") for s in (LOAD, PURCHASE, TAC))

    assert works.report(job_id)["key_proofs"]["pin"] == "sample-failed"
    assert try_sample(works, drawn, bench.contact(drawn, chips_of(works), "")).passed
    report = works.report(job_id)
    assert report["key_proofs"]["pin"] == "proven-by-sample"
    assert [t["passed"] for t in report["sample_tests"]] == [False] * 14 + [True]


def test_a_sample_in_a_pcsc_reader(works: Works, orders: Callable[..., Path]) -> None:
    job_id = finished(works, orders, rows=1)
    (drawn,) = draw(works, job_id)
    with PcscdRig() as rig:
        rig.insert(open_chip(chips_of(works), drawn))
        status, result = cli(works, "sample", "test", drawn, "--reader", rig.readers[0], **rig.environment)
    assert (status, result["passed"]) == (0, True)
    assert works.report(job_id)["key_proofs"]["keys"][TAC] == "proven-by-sample"


def test_what_is_no_drawn_sample_is_not_touched(works: Works, orders: Callable[..., Path]) -> None:
    job_id = finished(works, orders)
    (drawn,) = draw(works, job_id)
    works.wait(job_id, lambda j: j.state == "COMPLETE")
    good = [row["chip_id"] for row in works.results(job_id)]
    for chip_id, reason in ((good[0], "NOT_A_SAMPLE"), (chip(999), "CHIP_UNKNOWN")):
        meddler = Meddler(bench.contact(drawn, chips_of(works), ""))
        with pytest.raises(CitycardError) as caught:
            try_sample(works, chip_id, meddler)
        assert (caught.value.reason, meddler.heard) == (reason, [])

    # the name of a sample, but another chip in the reader: it is asked who it is, and hears nothing of the card
    for lies_there in (good[0], chip(10)):
        meddler = Meddler(bench.contact(lies_there, chips_of(works), ""))
        with pytest.raises(CitycardError) as caught:
            try_sample(works, drawn, meddler)
        assert caught.value.reason == "NOT_THE_SAMPLE"
        assert [apdu[1] for apdu in meddler.heard] == [0xA4, INITIALIZE]
    assert works.report(job_id)["sample_tests"] == []

    # neither place nor both
    for where in ([], ["--chips", str(chips_of(works)), "--reader", "some reader"]):
        status, error = cli(works, "sample", "test", drawn, *where)
        assert (status, error["error"]["reason"]) == (1, "SAMPLE_WHERE")


def test_without_the_holders_data_no_sample_is_tested(works: Works, orders: Callable[..., Path]) -> None:
    job_id = finished(works, orders)
    (drawn,) = draw(works, job_id)
    works.wait(job_id, lambda j: j.state == "COMPLETE")
    request = jobs_pb2.DestroyPersonalDataRequest(job_id=job_id)
    works.ask(lambda c: JobServiceStub(c).DestroyPersonalData(request, timeout=10))
    meddler = Meddler(bench.contact(drawn, chips_of(works), ""))
    with pytest.raises(CitycardError) as caught:
        try_sample(works, drawn, meddler)
    assert caught.value.reason == "PII_DESTROYED"
    assert meddler.heard == []
    assert works.report(job_id)["key_proofs"]["pin"] == "sample-due"
