"""Order files whose upload is cut off: by a refusal, a dead server, a dead client, another file. Real processes, killed where it hurts."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from citycard.v1 import jobs_pb2 as pb
from citycard.v1.jobs_pb2_grpc import JobServiceStub
from grpc.aio import AioRpcError, Metadata

from engine.cli import client, upload
from engine.cli.job import resume_file, submit_file
from engine.orders.spool import FRAME
from engine.orders.synthetic import order_file
from engine.rpc.errors import REASON_KEY
from keys.errors import CitycardError

if TYPE_CHECKING:
    from conftest import Works

PROFILE = "zhengzhou-citizen-card"


class Refusing:
    """A job service whose upload fails in the given ways, one after another, and then succeeds."""

    def __init__(self, *failures: tuple[grpc.StatusCode, str]) -> None:
        self.failures = list(failures)
        self.uploads = 0

    async def CreateJob(self, _: pb.CreateJobRequest, timeout: float) -> pb.CreateJobResponse:  # noqa: N802, ASYNC109 - as the stub
        return pb.CreateJobResponse(job=pb.Job(job_id="J1", state="STAGING"))

    async def GetUpload(self, _: pb.GetUploadRequest, timeout: float, wait_for_ready: bool) -> pb.GetUploadResponse:  # noqa: N802, ASYNC109
        return pb.GetUploadResponse(kept=0, sha256=hashlib.sha256().digest())

    async def UploadOrders(self, chunks: AsyncIterator[pb.UploadOrdersRequest]) -> pb.UploadOrdersResponse:  # noqa: N802 - as the stub
        self.uploads += 1
        sent = [chunk async for chunk in chunks]
        if self.failures:
            code, details = self.failures.pop(0)
            raise AioRpcError(code, Metadata(), Metadata(*([(REASON_KEY, details)] if details.isupper() else [])), details)
        assert b"".join(chunk.chunk for chunk in sent) == b"orders"
        return pb.UploadOrdersResponse(job=pb.Job(job_id="J1", state="READY"))


async def submit(service: Refusing, path: Path, monkeypatch: pytest.MonkeyPatch) -> pb.Job:
    monkeypatch.setattr("engine.cli.job.JobServiceStub", lambda _: service)
    monkeypatch.setattr(upload, "PAUSE_S", 0.001)
    channel: Any = None
    return await submit_file(
        channel, path, profile="p", instant=False, priority=5, due_us=0, key="k", by="test", encoding="big5", start=False
    )


LOST = (grpc.StatusCode.INTERNAL, upload.WRITE_LOST)
REASON = (grpc.StatusCode.INVALID_ARGUMENT, "encoding 'big5' is not known")
GONE = (grpc.StatusCode.UNAVAILABLE, "the connection was reset")
NOT_NOTICED = (grpc.StatusCode.ALREADY_EXISTS, "UPLOAD_RUNNING")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "orders.csv"
    path.write_bytes(b"orders")
    return path


async def test_the_servers_reason_comes_to_light(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Refusing(LOST, LOST, REASON)
    with pytest.raises(AioRpcError) as caught:
        await submit(service, small, monkeypatch)
    assert caught.value.details() == REASON[1]
    assert service.uploads == 3


async def test_what_may_pass_is_tried_again_and_nothing_else(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for failures, uploads in (
        ((LOST,) * 9, upload.LOST_TRIES),
        ((REASON,), 1),
        (((grpc.StatusCode.INTERNAL, "a fault of the server"),), 1),
        ((NOT_NOTICED,), 1),  # somebody else's
        (((grpc.StatusCode.UNAVAILABLE, "TOKEN_GONE"),), 1),  # the server is there, and says so
    ):
        service = Refusing(*failures)
        with pytest.raises(AioRpcError):
            await submit(service, small, monkeypatch)
        assert service.uploads == uploads
    for failures in ((LOST,), (GONE,) * 5, (GONE, NOT_NOTICED, GONE)):
        assert (await submit(Refusing(*failures), small, monkeypatch)).state == "READY"


async def test_a_server_that_stays_away_is_given_up_with_the_way_to_go_on(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PATIENCE_S", 0.05)
    with pytest.raises(CitycardError) as caught:
        await submit(Refusing(*[GONE] * 1000), small, monkeypatch)
    assert caught.value.reason == "UPLOAD_CUT_OFF"
    assert f"citycard job submit {small} --resume J1" in caught.value.message


# -- real processes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An order file of several frames."""
    path = tmp_path_factory.mktemp("orders") / "big.csv"
    path.write_bytes(b"".join(order_file(30_000)))
    assert path.stat().st_size > 4 * FRAME
    return path


class Valve:
    """Stands in the reading of the order file: after `chunks` of it nothing goes through until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
        self.open = threading.Event()
        self.shut = threading.Event()
        self._left = chunks
        self._read_chunks = upload.read_chunks
        self.offsets: list[int] = []
        monkeypatch.setattr(upload, "read_chunks", self.read_chunks)

    async def read_chunks(self, *args: Any) -> AsyncIterator[pb.UploadOrdersRequest]:
        self.offsets.append(args[4])
        async for message in self._read_chunks(*args):
            if self._left == 0 and not self.open.is_set():
                self.shut.set()
                await asyncio.to_thread(self.open.wait, 30)
            self._left -= bool(message.chunk)
            yield message


def spooled(works: Works) -> int:
    return sum(path.stat().st_size for path in (works.plant.server_data / "uploads").glob("*.spool"))


def wait(until: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sending(works: Works, path: Path, key: str, jobs: list[pb.Job], refused: list[str] | None = None) -> threading.Thread:
    async def work(channel: grpc.aio.Channel) -> pb.Job:
        return await submit_file(
            channel, path, profile=PROFILE, instant=False, priority=5, due_us=0, key=key, by="t", encoding="", start=False
        )

    def run() -> None:
        try:
            jobs.append(client.run(works.address, work))
        except CitycardError as error:
            assert refused is not None, error
            refused.append(error.reason)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_server_killed_in_the_middle_goes_on_where_it_was(works: Works, big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    valve, jobs = Valve(monkeypatch, 4), list[pb.Job]()
    thread = sending(works, big, "once", jobs)
    assert valve.shut.wait(30)
    wait(lambda: spooled(works) > 2 * FRAME)
    works.plant.kill("server")
    valve.open.set()
    works.restart_server()
    thread.join(60)
    assert [(job.state, job.accepted) for job in jobs] == [("READY", 30_000)]
    assert valve.offsets[0] == 0
    assert valve.offsets[-1] >= 2 * FRAME
    assert valve.offsets[-1] % FRAME == 0
    assert spooled(works) == 0


_CLIENT = """
import sys, time
from engine.cli import main, upload
whole = upload.read_chunks
async def half(*args):
    sent = 0
    async for message in whole(*args):
        yield message
        sent += bool(message.chunk)
        if sent == 4:
            time.sleep(60)
upload.read_chunks = half
main.run()
"""


def test_a_client_killed_in_the_middle_goes_on_with_the_same_command_or_by_job(works: Works, big: Path, tmp_path: Path) -> None:
    arguments = ["job", "submit", str(big), "--server", works.address, "--no-start"]
    with (tmp_path / "client.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", _CLIENT, *arguments], stdout=log, stderr=log)
        try:
            wait(lambda: spooled(works) > FRAME)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    [job] = works.ask(lambda c: JobServiceStub(c).ListJobs(pb.ListJobsRequest(), timeout=10)).jobs
    wait(lambda: "rest of its order file" in works.job(job.job_id).waiting_for)
    kept = works.ask(lambda c: JobServiceStub(c).GetUpload(pb.GetUploadRequest(job_id=job.job_id), timeout=10))
    assert kept.kept >= FRAME
    assert kept.sha256 == hashlib.sha256(big.read_bytes()[: kept.kept]).digest()

    other = tmp_path / "other.csv"
    other.write_bytes(b"x" + big.read_bytes())
    for path in (other, tmp_path / "short.csv"):
        path.touch()
        with pytest.raises(CitycardError) as caught:
            client.run(works.address, lambda c, path=path: resume_file(c, job.job_id, path, "", start=False))
        assert caught.value.reason == "UPLOAD_OTHER_FILE"
    assert works.ask(lambda c: JobServiceStub(c).GetUpload(pb.GetUploadRequest(job_id=job.job_id), timeout=10)) == kept

    environment = {**os.environ, "CITYCARD_SERVER": works.address}
    again = [sys.executable, "-m", "engine.cli.main", *arguments]
    ran = subprocess.run(again, check=False, capture_output=True, text=True, timeout=60, env=environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"job {job.job_id}: READY, 30000 of 30000 lines accepted")
    named = subprocess.run([*again, "--resume", job.job_id], check=False, capture_output=True, text=True, timeout=60, env=environment)
    assert (named.returncode, named.stderr) == (0, "")
    assert spooled(works) == 0


def test_what_is_kept_goes_with_its_job(works: Works, big: Path) -> None:
    content = big.read_bytes()

    async def work(channel: grpc.aio.Channel) -> None:
        stub = JobServiceStub(channel)
        request = pb.CreateJobRequest(idempotency_key="half", profile=PROFILE)
        job_id = (await stub.CreateJob(request)).job.job_id

        async def refusal(*messages: pb.UploadOrdersRequest) -> str:
            with pytest.raises(AioRpcError) as caught:
                await stub.UploadOrders(iter(messages))
            return client.translated(caught.value, "").reason

        chunks = [pb.UploadOrdersRequest(chunk=content[at : at + FRAME]) for at in range(0, 3 * FRAME, FRAME)]
        assert await refusal(pb.UploadOrdersRequest(job_id=job_id), *chunks) == "UPLOAD_INCOMPLETE"
        get = pb.GetUploadRequest(job_id=job_id)
        assert (await stub.GetUpload(get)).kept == 3 * FRAME
        # a client that does not know where it goes on cannot do harm
        assert await refusal(pb.UploadOrdersRequest(job_id=job_id, offset=FRAME), *chunks) == "UPLOAD_OFFSET"
        assert (await stub.GetUpload(get)).kept == 3 * FRAME
        # one that begins anew begins anew
        assert await refusal(pb.UploadOrdersRequest(job_id=job_id), *chunks[:1]) == "UPLOAD_INCOMPLETE"
        assert (await stub.GetUpload(get)).kept == FRAME
        await stub.CancelJob(pb.CancelJobRequest(job_id=job_id))

    client.run(works.address, work)
    assert spooled(works) == 0


def test_a_client_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.rpc import jobs

    monkeypatch.setattr(jobs, "UPLOAD_IDLE_S", 0.01)

    async def silent() -> AsyncIterator[pb.UploadOrdersRequest]:
        await asyncio.sleep(60)
        yield pb.UploadOrdersRequest()

    with pytest.raises(CitycardError) as caught:
        asyncio.run(jobs._next(aiter(silent())))
    assert caught.value.reason == "UPLOAD_SILENT"


def test_zeroized_keys_end_an_upload_and_a_new_server_goes_on(works: Works, big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload holds a key of its own job: it ends with all others. What is kept opens again once the keys are there."""
    valve, refused = Valve(monkeypatch, 3), list[str]()

    thread = sending(works, big, "once", [], refused)
    assert valve.shut.wait(30)
    wait(lambda: spooled(works) > FRAME)
    os.kill(works.plant.pid("server"), signal.SIGUSR1)
    wait(lambda: "keys zeroized" in works.log("server"))
    valve.open.set()
    thread.join(60)
    assert refused == ["ZEROIZED"]
    works.plant.stop("server")
    works.restart_server()
    jobs: list[pb.Job] = []
    sending(works, big, "once", jobs, refused).join()
    assert [(job.state, job.accepted) for job in jobs] == [("READY", 30_000)]
    assert valve.offsets[-1] >= FRAME
