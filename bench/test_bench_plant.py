"""The whole line: durable intake, end-to-end cards per second, and the server's memory with a large job.

Run by `make bench`. CITYCARD_BENCH_LINES sets the size of the large job (default one million).
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.cli import client
from engine.cli.demo import run_demo
from engine.cli.job import new_key, submit_file
from engine.cli.plant import Plant
from engine.ledger import jobs
from engine.ledger.store import Ledger
from engine.ledger.tx import Tx
from engine.orders.synthetic import order_file
from engine.production import intake
from engine.rpc.local import LEDGER_FILE
from keys.secrets import SecretBytes

PROFILE = "zhengzhou-citizen-card"
INTAKE_ROWS = 100_000
LINES = int(os.environ.get("CITYCARD_BENCH_LINES", "1000000"))


def orders(path: Path, rows: int) -> Path:
    with path.open("wb") as file:
        for chunk in order_file(rows):
            file.write(chunk)
    return path


def staged_job(tx: Tx) -> jobs.JobRow:
    return jobs.create(
        tx,
        job_id="BENCH",
        idempotency_key="bench",
        profile=PROFILE,
        profile_hash="00" * 32,
        priority=5,
        kind="bulk",
        due_us=None,
        submitted_by="bench",
        pii_key_wrapped=b"none",
        options={},
    )


def status_mb(pid: int, field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def test_durable_intake(benchmark: Any, tmp_path: Path) -> None:
    """Spooled order file -> checked, hashed, sealed lines on disk; rows per second is rows / the time shown."""
    source = orders(tmp_path / "orders.csv", INTAKE_ROWS)
    runs = 0

    def take_in() -> None:
        nonlocal runs
        runs += 1
        with Ledger.open(tmp_path / f"ledger-{runs}.sqlite") as ledger:
            job_id = ledger.run(staged_job).job_id
            upload = intake.begin(job_id, tmp_path / f"up-{runs}", None, SecretBytes(os.urandom(32)))
            upload.writer.write(source.read_bytes())
            intake.finish(upload, upload.writer.sha256)
            intake.take_in(ledger, upload, SecretBytes(os.urandom(32)))
            intake.drop(upload)

    benchmark.pedantic(take_in, rounds=3, iterations=1)
    benchmark.extra_info |= {"batch": INTAKE_ROWS, "rows_per_second": round(INTAKE_ROWS / benchmark.stats["min"])}
    assert runs == 3


@pytest.mark.timeout(900)
def test_end_to_end(benchmark: Any, tmp_path: Path) -> None:
    """The demo's 1,000 cards with four stations, server and stations together on two cores: cards per second of production."""
    result: dict[str, Any] = {}

    def make() -> None:
        result.update(run_demo(Path("tests/data/orders-1000.csv"), 4, PROFILE, tmp_path / "plant", pcsc=False, quiet=True, time_limit=600))

    all_cores = os.sched_getaffinity(0)
    two = set(sorted(all_cores)[-2:])
    os.sched_setaffinity(0, two)
    try:
        benchmark.pedantic(make, rounds=1, iterations=1)
    finally:
        os.sched_setaffinity(0, all_cores)
    benchmark.extra_info |= {"batch": result["good"], "cards_per_second": result["cards_per_second"], "cores_used": len(two)}
    assert result["reconciled"]


@pytest.mark.timeout(900)
def test_server_memory_with_a_large_job(benchmark: Any, tmp_path: Path) -> None:
    """Peak resident memory of the server while it takes in and keeps one job of LINES lines."""
    source = orders(tmp_path / "orders.csv", LINES)
    with Plant(tmp_path / "plant") as plant:
        plant.make_keys(PROFILE)
        plant.start_server()

        async def work(channel: grpc.aio.Channel) -> None:
            await submit_file(
                channel,
                source,
                profile=PROFILE,
                instant=False,
                priority=5,
                due_us=0,
                key=new_key(),
                by="bench",
                encoding="",
                start=True,
            )
            await asyncio.sleep(3)

        benchmark.pedantic(lambda: client.run(plant.address, work), rounds=1, iterations=1)
        peak, now = status_mb(plant.pid("server"), "VmHWM"), status_mb(plant.pid("server"), "VmRSS")
        size = (plant.server_data / LEDGER_FILE).stat().st_size / 1e6
    benchmark.extra_info |= {"batch": LINES, "peak_mb": round(peak), "resident_mb": round(now), "ledger_mb": round(size)}
