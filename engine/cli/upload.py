"""Sending an order file: in chunks, and again from where it was cut off, as often as the server or the network goes away."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
from citycard.v1 import jobs_pb2 as pb
from citycard.v1.jobs_pb2_grpc import JobServiceStub

from engine.cli import client
from engine.rpc.errors import reason_of
from keys.errors import Conflict, NotFound, Unavailable

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK: Final = 1 << 20
# A server that does not come back for so long, or takes nothing more, is given up.
PATIENCE_S: Final = 60.0
PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 4.0
# what the library says when the call ended under a chunk that was being written
WRITE_LOST: Final = "Internal error from Core"
LOST_TRIES: Final = 4
_GONE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED})
# The server speaks of an upload that was cut off: our own, before it noticed that.
_NOT_YET: Final = frozenset({"UPLOAD_RUNNING", "UPLOAD_SILENT"})


def unreadable(path: Path, error: OSError) -> NotFound:
    """The error for an order file that cannot be read."""
    return NotFound("ORDERS_UNREADABLE", f"{path}: {error.strerror}")


async def read_chunks(
    job_id: str, path: Path, encoding: str, failures: list[OSError], offset: int = 0, digest: _Hash | None = None
) -> AsyncIterator[pb.UploadOrdersRequest]:
    """The upload stream of one order file from `offset` on, `digest` having taken in what is before it; memory is one chunk. Where
    reading fails the stream ends without its SHA-256, and `failures` holds why: an error raised in here would be lost in the call.
    """
    digest = digest or hashlib.sha256()
    yield pb.UploadOrdersRequest(job_id=job_id, encoding=encoding, offset=offset)
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                digest.update(chunk)
                yield pb.UploadOrdersRequest(chunk=chunk)
    except OSError as error:
        failures.append(error)
        return
    yield pb.UploadOrdersRequest(sha256=digest.digest())


def beginning(path: Path, kept: int, sha256: bytes, job_id: str) -> _Hash:
    """The digest over the first `kept` bytes of the file. Conflict UPLOAD_OTHER_FILE where the server has those of another file."""
    digest, left = hashlib.sha256(), kept
    try:
        with path.open("rb") as file:
            while left and (chunk := file.read(min(CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
    except OSError as error:
        raise unreadable(path, error) from None
    if left or digest.digest() != sha256:
        message = f"{path}: job {job_id} has {kept:,} bytes of another file: send that one, or cancel the job and submit this file anew"
        raise Conflict("UPLOAD_OTHER_FILE", message)
    return digest


async def upload(stub: JobServiceStub, job_id: str, path: Path, encoding: str, *, again: bool = False) -> pb.Job:
    """Sends the file, from where an earlier upload of it was cut off, and goes on when this one is. `again`: there was an earlier one,
    which the server may not have given up yet.

    Raises Conflict UPLOAD_OTHER_FILE, NotFound ORDERS_UNREADABLE, Unavailable UPLOAD_CUT_OFF when the server does not come back, and
    AioRpcError for what it refuses. A server that refuses a file at once may end the call while a chunk is being written: then the
    library reports its own fault in place of the server's reason, which the next try, just as harmless, brings to light.
    """
    farthest, lost, pause = -1, 0, PAUSE_S
    deadline = time.monotonic() + PATIENCE_S
    while True:
        failures: list[OSError] = []
        try:
            request = pb.GetUploadRequest(job_id=job_id)
            there = await stub.GetUpload(request, timeout=max(1.0, deadline - time.monotonic()), wait_for_ready=again)
            if there.kept > farthest:
                farthest, pause, deadline = there.kept, PAUSE_S, time.monotonic() + PATIENCE_S
            digest = await asyncio.to_thread(beginning, path, there.kept, there.sha256, job_id)
            return (await stub.UploadOrders(read_chunks(job_id, path, encoding, failures, there.kept, digest))).job
        except grpc.aio.AioRpcError as error:
            if failures:
                raise unreadable(path, failures[0]) from None
            if error.code() is grpc.StatusCode.INTERNAL and error.details() == WRITE_LOST:
                lost += 1
                if lost == LOST_TRIES:
                    raise
                continue
            gone = error.code() in _GONE and reason_of(error) == error.code().name
            if not gone and not (again and reason_of(error) in _NOT_YET):
                staged = await _taken_meanwhile(stub, job_id, error) if again else None
                if staged is None:
                    raise
                return staged
            if time.monotonic() + pause > deadline:
                message = f"the upload of {path} was cut off: go on with `citycard job submit {path} --resume {job_id}`"
                raise Unavailable("UPLOAD_CUT_OFF", message) from None
        again = True
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


async def _taken_meanwhile(stub: JobServiceStub, job_id: str, error: grpc.aio.AioRpcError) -> pb.Job | None:
    """The job, where the server had the whole file after all and only its answer was lost."""
    if reason_of(error) != "JOB_STATE":
        return None
    job = (await stub.GetJob(pb.GetJobRequest(job_id=job_id), timeout=client.DEADLINE_S)).job
    return job if job.state == "READY" else None
