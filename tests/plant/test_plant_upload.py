"""An upload that the server refuses while a chunk is being written: the reason reaches the operator all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from citycard.v1 import jobs_pb2 as pb
from grpc.aio import AioRpcError, Metadata

from engine.cli.job import UPLOAD_TRIES, WRITE_LOST, submit_file


class Refusing:
    """A job service whose upload fails in the given ways, one after another, and then succeeds."""

    def __init__(self, *failures: tuple[grpc.StatusCode, str]) -> None:
        self.failures = list(failures)
        self.uploads = 0

    async def CreateJob(self, _: pb.CreateJobRequest, timeout: float) -> pb.CreateJobResponse:  # noqa: N802, ASYNC109 - as the stub
        return pb.CreateJobResponse(job=pb.Job(job_id="J1", state="STAGING"))

    async def UploadOrders(self, chunks: AsyncIterator[pb.UploadOrdersRequest]) -> pb.UploadOrdersResponse:  # noqa: N802 - as the stub
        self.uploads += 1
        sent = [chunk async for chunk in chunks]
        if self.failures:
            code, details = self.failures.pop(0)
            raise AioRpcError(code, Metadata(), Metadata(), details)
        assert b"".join(chunk.chunk for chunk in sent) == b"orders"
        return pb.UploadOrdersResponse(job=pb.Job(job_id="J1", state="READY"))


async def submit(service: Refusing, path: Path, monkeypatch: pytest.MonkeyPatch) -> pb.Job:
    monkeypatch.setattr("engine.cli.job.JobServiceStub", lambda _: service)
    channel: Any = None
    return await submit_file(
        channel, path, profile="p", instant=False, priority=5, due_us=0, key="k", by="test", encoding="big5", start=False
    )


LOST = (grpc.StatusCode.INTERNAL, WRITE_LOST)
REASON = (grpc.StatusCode.INVALID_ARGUMENT, "encoding 'big5' is not known")


async def test_the_servers_reason_comes_to_light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(b"orders")
    service = Refusing(LOST, LOST, REASON)
    with pytest.raises(AioRpcError) as caught:
        await submit(service, path, monkeypatch)
    assert caught.value.details() == REASON[1]
    assert service.uploads == 3


async def test_it_is_not_tried_for_ever_and_no_other_failure_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(b"orders")
    for failures, uploads in (((LOST,) * 9, UPLOAD_TRIES), ((REASON,), 1), (((grpc.StatusCode.INTERNAL, "a fault of the server"),), 1)):
        service = Refusing(*failures)
        with pytest.raises(AioRpcError):
            await submit(service, path, monkeypatch)
        assert service.uploads == uploads
    service = Refusing(LOST)
    assert (await submit(service, path, monkeypatch)).state == "READY"
