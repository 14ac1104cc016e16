"""What a load run asks of the server besides making cards: whether its keys are TEST keys, stock, jobs, counts, metrics."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from citycard.v1 import jobs_pb2, keys_pb2, metrics_pb2, stock_pb2
from citycard.v1.jobs_pb2_grpc import JobServiceStub
from citycard.v1.keys_pb2_grpc import KeyServiceStub
from citycard.v1.metrics_pb2_grpc import MetricsServiceStub
from citycard.v1.stock_pb2_grpc import StockServiceStub

from keys.errors import Denied, Unavailable

DEADLINE_S: Final = 60.0
BY: Final = "load"
JOB_ENDED: Final = frozenset({"COMPLETE", "CANCELLED", "FAILED"})
_CHUNK: Final = 1 << 19


@dataclass(frozen=True)
class Counted:
    """What the feeder and the bins of one station counted."""

    drawn: int
    good: int
    reject: int
    returned: int
    issued: int


class Desk:
    """The office side of a load run, over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._jobs = JobServiceStub(channel)
        self._stock = StockServiceStub(channel)
        self._keys = KeyServiceStub(channel)
        self._metrics = MetricsServiceStub(channel)

    async def require_test_keys(self) -> None:
        """Denied PRODUCTION_KEYS unless every key of the server is a TEST key; Unavailable NO_KEYS where it has none open."""
        answer = await self._keys.GetInventory(keys_pb2.GetInventoryRequest(), timeout=DEADLINE_S)
        keys: list[dict[str, Any]] = json.loads(answer.keys_json)["keys"]
        if not keys:
            raise Unavailable("NO_KEYS", "the server has no keys: nothing can be made")
        real = sum(1 for key in keys if key.get("test") is not True)
        if real:
            raise Denied("PRODUCTION_KEYS", f"{real} of the server's {len(keys)} keys are production keys: load takes TEST keys only")

    async def stock(self, lot: str, chip_type: str, issues: Iterable[tuple[str, int]]) -> None:
        """Receives a lot of blanks and issues all of it, `issues` saying how many to which station."""
        listed = list(issues)
        total = sum(count for _, count in listed)
        received = stock_pb2.ReceiveStockRequest(lot=lot, chip_type=chip_type, count=total, by=BY)
        await self._stock.ReceiveStock(received, timeout=DEADLINE_S)
        for station, count in listed:
            issue = stock_pb2.IssueStockRequest(lot=lot, station_id=station, count=count, by=BY)
            await self._stock.IssueStock(issue, timeout=DEADLINE_S)

    async def submit(self, orders: Iterable[bytes], *, profile: str, instant: bool, name: str) -> jobs_pb2.Job:
        """Submits an order file as a job, not started yet; the job with its accepted lines."""
        kind = jobs_pb2.JOB_KIND_INSTANT if instant else jobs_pb2.JOB_KIND_BULK
        request = jobs_pb2.CreateJobRequest(
            idempotency_key=secrets.token_hex(16), profile=profile, kind=kind, priority=5, submitted_by=BY, file_name=name
        )
        job = (await self._jobs.CreateJob(request, timeout=DEADLINE_S)).job
        return (await self._jobs.UploadOrders(_upload(job.job_id, orders))).job

    async def start(self, job_id: str) -> None:
        """Starts a job."""
        await self._jobs.StartJob(jobs_pb2.StartJobRequest(job_id=job_id), timeout=DEADLINE_S)

    async def job(self, job_id: str) -> jobs_pb2.Job:
        """The job as it is now."""
        return (await self._jobs.GetJob(jobs_pb2.GetJobRequest(job_id=job_id), timeout=DEADLINE_S)).job

    async def cancel(self, job_id: str) -> None:
        """Begins no more cards of the job."""
        await self._jobs.CancelJob(jobs_pb2.CancelJobRequest(job_id=job_id, reason="the load run is over"), timeout=DEADLINE_S)

    async def count(self, station: str, counted: Counted) -> list[str]:
        """Tells the server what a station's feeder and bins counted; in what the books differ, in words."""
        request = stock_pb2.CountStockRequest(
            station_id=station,
            feeder_remaining=counted.issued - counted.drawn,
            good=counted.good,
            reject=counted.reject,
            returned=counted.returned,
            in_heads=0,
            by=BY,
        )
        answer = await self._stock.CountStock(request, timeout=DEADLINE_S)
        return [f"{station}: {difference}" for difference in answer.differences]

    async def metrics(self) -> str:
        """The server's metrics as text; empty for a server that has none."""
        try:
            return (await self._metrics.GetMetrics(metrics_pb2.GetMetricsRequest(), timeout=DEADLINE_S)).text
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            return ""


async def _upload(job_id: str, orders: Iterable[bytes]) -> AsyncIterator[jobs_pb2.UploadOrdersRequest]:
    digest = hashlib.sha256()
    yield jobs_pb2.UploadOrdersRequest(job_id=job_id)
    for piece in orders:
        for at in range(0, len(piece), _CHUNK):
            chunk = piece[at : at + _CHUNK]
            digest.update(chunk)
            yield jobs_pb2.UploadOrdersRequest(chunk=chunk)
    yield jobs_pb2.UploadOrdersRequest(sha256=digest.digest())
