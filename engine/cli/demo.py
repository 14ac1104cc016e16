"""`citycard demo`: an order file becomes finished, verified, accounted-for cards on this machine, with real processes."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import sys
import time
from contextlib import ExitStack
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import grpc
import typer
from citycard.v1 import jobs_pb2, stock_pb2
from citycard.v1.jobs_pb2_grpc import JobServiceStub
from citycard.v1.stock_pb2_grpc import StockServiceStub
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engine.cli import client, output
from engine.cli.job import ENDED, Json, fetch_rejects, new_key, require_file, submit_file
from engine.cli.plant import Plant
from engine.cli.report import print_report
from engine.orders.parquet import is_parquet, row_count
from engine.profiles.model import load
from engine.rpc.local import LEDGER_FILE
from engine.virtual.hopper import read_counts
from engine.virtual.pcscd_rigs import PcscdRigs
from keys.errors import Unavailable

ORDERS: Final = Path("tests/data/orders-1000.csv")
LOT: Final = "DE40"
BY: Final = "demo"
POLL_S: Final = 0.5
# with a reason to wait and no card made for so long, a demo will not go on by itself
STALL_S: Final = 30.0


def demo(
    orders: Annotated[Path, typer.Option("--orders", help="Order file.")] = ORDERS,
    stations: Annotated[int, typer.Option("--stations", min=1, max=64, help="Station processes.")] = 4,
    profile: Annotated[str, typer.Option("--profile", help="Card profile.")] = "zhengzhou-citizen-card",
    custody: Annotated[
        Literal["software", "token"], typer.Option("--custody", help="Who holds the keys; token: a SoftHSM token made for this demo.")
    ] = "software",
    pcsc: Annotated[bool, typer.Option("--pcsc", help="Reach the chips through real pcscds, a reader for each station.")] = False,
    chip_speed: Annotated[
        int | None, typer.Option("--chip-speed", min=1, help="Chips as slow as real ones at so many bits per second; default: at once.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Fresh directory for everything; default: a new one under .demo.")] = None,
    time_limit: Annotated[float, typer.Option(help="Give up after this many seconds.")] = 3600.0,
    as_json: Json = False,
) -> None:
    """Make every card of an order file with virtual chips, and close the books. TEST keys only."""
    require_file(orders)
    # told to stop, the demo stops what it started
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    place = data or Path(".demo") / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    result = run_demo(
        orders, stations, profile, place, custody=custody, pcsc=pcsc, chip_speed=chip_speed, quiet=as_json, time_limit=time_limit
    )
    if as_json:
        output.emit_json(result)
    else:
        _print_summary(result, place)
    if not (result["reconciled"] and result["good"] == result["accepted"] and result["state"] == "COMPLETE"):
        raise typer.Exit(1)


def run_demo(
    orders: Path,
    stations: int,
    profile: str,
    place: Path,
    *,
    custody: Literal["software", "token"] = "software",
    pcsc: bool,
    chip_speed: int | None = None,
    quiet: bool,
    time_limit: float,
) -> dict[str, Any]:
    """The whole demo in the fresh directory `place`; the summary that --json prints. Unavailable DATA_NOT_FRESH."""
    began = time.monotonic()
    if pcsc and find_spec("smartcard") is None:
        raise Unavailable("PCSC_MISSING", "--pcsc needs pyscard, and the Debian packages swig, libpcsclite-dev, pcscd and vsmartcard-vpcd")
    if place.exists() and any(place.iterdir()):
        raise Unavailable("DATA_NOT_FRESH", f"{place} is not empty: a demo begins in a fresh directory")
    with ExitStack() as stack:
        rigs = stack.enter_context(PcscdRigs(stations)) if pcsc else None
        plant = stack.enter_context(Plant(place, custody))
        run = _Run(plant, orders, stations, profile, rigs, chip_speed, quiet=quiet)
        result = run.make(began + time_limit)
    result["audit"] = str(_export_audit(place))
    result["seconds"] = round(time.monotonic() - began, 2)
    return result


def blanks_for(records: int, stations: int) -> int:
    """Blanks for each feeder: stations pull, so one may draw more than its share; the spare ones stay in it and are counted."""
    return -(-records * 5 // (4 * stations)) + 10


def _records(orders: Path) -> int:
    """About how many records an order file has, and never fewer: what blanks are drawn for."""
    with orders.open("rb") as file:
        if is_parquet(file):
            return row_count(orders)
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


class _Run:
    """One demo on one plant."""

    def __init__(
        self, plant: Plant, orders: Path, stations: int, profile: str, rigs: PcscdRigs | None, chip_speed: int | None, *, quiet: bool
    ) -> None:
        self.plant = plant
        self.orders = orders
        self.names = [f"station-{i + 1}" for i in range(stations)]
        self.profile = profile
        self.chip_type = load(profile).profile.chip.chip_type
        self.rigs = rigs
        self.chip_speed = chip_speed
        self.quiet = quiet

    def say(self, text: str) -> None:
        if not self.quiet:
            output.say(text)

    def make(self, deadline: float) -> dict[str, Any]:
        """Keys, server, stock, stations, job, counts, report; the summary."""
        count = self.plant.make_keys(self.profile)
        address = self.plant.start_server()
        held = "sealed under a passphrase" if self.plant.token is None else "in a SoftHSM token, SM4 masters sealed under a key of it"
        self.say(f"server at {address} with {count} TEST master keys {held}, process {self.plant.pid('server')}")
        records = _records(self.orders)
        each = blanks_for(records, len(self.names))
        client.run(address, lambda channel: self._stock(channel, each))
        for i, name in enumerate(self.names):
            extra = ["--load", str(each), "--lot", LOT, "--first-serial", str(1 + i * each)]
            extra += ["--chip-type", self.chip_type]
            if self.rigs is not None:
                rig, slot = self.rigs.place(i)
                extra += ["--rig", f"{rig.home}:{slot}"]
            if self.chip_speed is not None:
                extra += ["--chip-speed", str(self.chip_speed)]
            self.plant.start_station(name, *extra)
        chips = f"through {len(self.rigs.rigs)} pcscd" if self.rigs else "in process"
        self.say(f"{len(self.names)} stations with {each} blanks each, chips {chips}")
        try:
            job, seconds = client.run(address, lambda channel: self._job(channel, deadline))
        finally:
            for name in self.names:
                self.plant.stop(name)
        summary = client.run(address, lambda channel: self._close_books(channel, job))
        summary["cards_per_second"] = round(summary["good"] / seconds, 1) if seconds else 0.0
        summary["production_seconds"] = round(seconds, 2)
        return summary

    async def _stock(self, channel: grpc.aio.Channel, each: int) -> None:
        stub = StockServiceStub(channel)
        total = each * len(self.names)
        receive = stock_pb2.ReceiveStockRequest(lot=LOT, chip_type=self.chip_type, count=total, by=BY)
        await stub.ReceiveStock(receive, timeout=client.DEADLINE_S)
        for name in self.names:
            issue = stock_pb2.IssueStockRequest(lot=LOT, station_id=name, count=each, by=BY)
            await stub.IssueStock(issue, timeout=client.DEADLINE_S)

    async def _job(self, channel: grpc.aio.Channel, deadline: float) -> tuple[jobs_pb2.Job, float]:
        job = await submit_file(
            channel,
            self.orders,
            profile=self.profile,
            instant=False,
            priority=5,
            due_us=0,
            key=new_key(),
            by=BY,
            encoding="",
            start=False,
        )
        self.say(f"job {job.job_id}: {job.accepted} of {job.lines} lines accepted ({job.encoding}), {job.rejected} rejected")
        if job.accepted == 0:
            return job, 0.0
        began = time.monotonic()
        stub = JobServiceStub(channel)
        await stub.StartJob(jobs_pb2.StartJobRequest(job_id=job.job_id), timeout=client.DEADLINE_S)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=output.console, disable=self.quiet, refresh_per_second=4) as progress:
            task = progress.add_task("cards", total=job.accepted)
            made, moved = 0, time.monotonic()
            while job.state not in ENDED:
                await asyncio.sleep(POLL_S)
                job = (await stub.GetJob(jobs_pb2.GetJobRequest(job_id=job.job_id), timeout=client.DEADLINE_S)).job
                progress.update(task, completed=job.good, description=f"good {job.good}  scrapped {job.scrapped}  in hand {job.in_flight}")
                if job.good != made or not job.waiting_for:
                    made, moved = job.good, time.monotonic()
                if time.monotonic() - moved > STALL_S:
                    raise Unavailable("STALLED", f"nothing moves any more: {job.waiting_for}")
                if time.monotonic() > deadline:
                    raise Unavailable("TIME_OVER", f"the time limit is over with {job.remaining} cards to make: {job.waiting_for}")
                if job.state not in ENDED and set(dead := self.plant.dead()) >= {*self.names}:
                    raise Unavailable("STATIONS_GONE", f"all stations ended; see {self.plant.log_file(dead[0])}")
        return job, time.monotonic() - began

    async def _close_books(self, channel: grpc.aio.Channel, job: jobs_pb2.Job) -> dict[str, Any]:
        """Counts what feeders and bins counted, and writes report, rejects and return file."""
        stub, data = JobServiceStub(channel), self.plant.data
        for name in self.names:
            seen = read_counts(self.plant.station_data(name) / "hopper")
            count = stock_pb2.CountStockRequest(
                station_id=name,
                feeder_remaining=seen["remaining"],
                good=seen["good"],
                reject=seen["reject"],
                returned=seen["returned"],
                in_heads=seen["in_heads"],
                by=BY,
            )
            await StockServiceStub(channel).CountStock(count, timeout=client.DEADLINE_S)
        request = jobs_pb2.GetReportRequest(job_id=job.job_id)
        report = json.loads((await stub.GetReport(request, timeout=client.DEADLINE_S)).report_json)
        rejects = await fetch_rejects(channel, job.job_id)
        results = [m.chunk async for m in stub.GetResults(jobs_pb2.GetResultsRequest(job_id=job.job_id))]
        await asyncio.to_thread(_write_files, data, report, rejects, b"".join(results))
        counts = report["counts"]
        return {
            "job_id": job.job_id,
            "state": report["state"],
            "lines": report["lines"],
            "accepted": report["accepted"],
            "rejected": report["rejected"],
            "good": counts["good"],
            "scrapped": counts["scrapped"],
            "blanks_rejected": counts["blanks_rejected"],
            "blanks_drawn": report["blanks_drawn"],
            "reconciled": report["reconciliation"]["agrees"],
            "differences": report["reconciliation"]["differences"],
            "rejects": rejects,
            "report_file": str(data / "report.json"),
            "rejects_file": str(data / "rejects.csv"),
            "results_file": str(data / "results.csv"),
            "custody": "token" if self.plant.token else "software",
            "transport": "pcsc" if self.rigs else "in-process",
        }


def _write_files(data: Path, report: dict[str, Any], rejects: list[dict[str, Any]], results: bytes) -> None:
    (data / "report.json").write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    (data / "results.csv").write_bytes(results)
    with (data / "rejects.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("line", "field", "rule", "message"))
        writer.writeheader()
        writer.writerows(rejects)


def _export_audit(place: Path) -> Path:
    """The audit chain as a file of its own, verified before anybody is told where it lies."""
    from engine.ledger import audit  # imported here: the database layer is slow to load, and every command loads this module
    from engine.ledger.sqlite import reader_engine

    target = place / "audit.jsonl"
    engine = reader_engine(place / "server" / LEDGER_FILE)
    try:
        with engine.connect() as conn:
            audit.export(conn, target)
    finally:
        engine.dispose()
    audit.verify_export(target)
    return target


def _print_summary(result: dict[str, Any], place: Path) -> None:
    report = json.loads(Path(result["report_file"]).read_text())
    output.say("")
    print_report(report)
    output.say("")
    output.pairs(
        [
            ("good", result["good"]),
            ("rejected lines", result["rejected"]),
            ("scrapped", result["scrapped"]),
            ("blanks drawn", result["blanks_drawn"]),
            ("cards per second", result["cards_per_second"]),
            ("report", result["report_file"]),
            ("rejects", result["rejects_file"]),
            ("return file", result["results_file"]),
            ("audit", result["audit"]),
            ("chips", place / "stations"),
        ]
    )
    if find_spec("smartcard") is None:
        output.say("left out: the PC/SC transport, because pyscard and the Debian packages it needs are not installed")
    ok = result["reconciled"] and result["good"] == result["accepted"]
    output.say("every blank accounted for, every good card verified" if ok else "NOT EVERYTHING IS ACCOUNTED FOR: see the report")
