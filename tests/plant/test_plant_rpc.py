"""The wire itself: every error is a status with a stable reason, nonsense never brings the server down, credits are kept."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import grpc
import pytest
from citycard.v1 import jobs_pb2, keys_pb2, metrics_pb2, station_pb2, stock_pb2
from citycard.v1.jobs_pb2_grpc import JobServiceStub
from citycard.v1.station_pb2_grpc import StationServiceStub
from citycard.v1.stock_pb2_grpc import StockServiceStub
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from engine.cli import client
from engine.cli.plant import Plant
from engine.orders.synthetic import order_file
from engine.production.metrics import Metrics
from engine.rpc.errors import CODES, reason_of, status_code
from engine.rpc.stations import StationService
from engine.virtual.hopper import Hopper
from keys import errors

PROFILE = "zhengzhou-citizen-card"
SERVICES = {
    m.DESCRIPTOR.services_by_name[n]
    for m, n in (
        (jobs_pb2, "JobService"),
        (stock_pb2, "StockService"),
        (station_pb2, "StationService"),
        (keys_pb2, "KeyService"),
        (keys_pb2, "CeremonyService"),
        (metrics_pb2, "MetricsService"),
    )
}
# what shuts a server, and does so whoever asks: see test_plant_zeroize
SHUT = {"Seal", "Zeroize"}
METHODS = sorted((m for service in SERVICES for m in service.methods if m.name not in SHUT), key=lambda m: m.full_name)
CONNECT = "citycard.v1.StationService.Connect"
Status = grpc.StatusCode


class Wire:
    """A server, and the protocol spoken to it directly."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self._keys = iter(range(10**6))

    def run(self, work: Callable[[grpc.aio.Channel], Any], seconds: float = 60) -> Any:
        return client.run(self.plant.address, lambda channel: asyncio.wait_for(work(channel), seconds))

    async def job(self, channel: grpc.aio.Channel, rows: int, *, first: int = 0, start: bool = True, instant: bool = False) -> str:
        """A job of good rows; its id."""
        stub = JobServiceStub(channel)
        kind = jobs_pb2.JOB_KIND_INSTANT if instant else jobs_pb2.JOB_KIND_BULK
        request = jobs_pb2.CreateJobRequest(idempotency_key=f"k{next(self._keys)}", profile=PROFILE, kind=kind)
        job_id = (await stub.CreateJob(request)).job.job_id
        if rows:
            await stub.UploadOrders(parts(job_id, b"".join(order_file(rows, first=first)), 1 << 20))
        if rows and start:
            await stub.StartJob(jobs_pb2.StartJobRequest(job_id=job_id))
        return job_id

    def healthy(self) -> bool:
        async def check(channel: grpc.aio.Channel) -> int:
            return (await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)).status

        return self.run(check) == health_pb2.HealthCheckResponse.SERVING

    def log(self) -> str:
        return self.plant.log_file("server").read_text()


async def parts(job_id: str, content: bytes, size: int, digest: bytes | None = None) -> AsyncIterator[jobs_pb2.UploadOrdersRequest]:
    yield jobs_pb2.UploadOrdersRequest(job_id=job_id, chunk=content[:size])
    for at in range(size, len(content), size):
        yield jobs_pb2.UploadOrdersRequest(chunk=content[at : at + size])
        yield jobs_pb2.UploadOrdersRequest()
    yield jobs_pb2.UploadOrdersRequest(sha256=hashlib.sha256(content).digest() if digest is None else digest)


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with Plant(tmp_path_factory.mktemp("wire") / "plant") as plant:
        plant.make_keys(PROFILE)
        plant.start_server()
        yield Wire(plant)


async def refused(call: Awaitable[object]) -> tuple[Status, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.details()
    return caught.value.code(), reason_of(caught.value)


async def hear(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass


async def test_a_station_whose_cards_could_not_be_settled_may_come_back() -> None:
    """The disk fills up while a returning station's cards are settled: its name is let go all the same."""
    line = AsyncMock()
    line.connected.side_effect = errors.Exhausted("DISK_FULL", "full")
    context = AsyncMock()
    context.abort.side_effect = grpc.aio.AbortError

    async def messages() -> AsyncIterator[station_pb2.ConnectRequest]:
        yield station_pb2.ConnectRequest(hello=station_pb2.Hello(station_id="s", chip_types=["ZZC01"], heads=1))

    with pytest.raises(grpc.aio.AbortError):
        await hear(StationService(line, Metrics()).Connect(messages(), context))
    assert context.abort.call_args.args == (Status.RESOURCE_EXHAUSTED, "full", (("citycard-reason", "DISK_FULL"),))
    link = line.connected.call_args.args[0]
    line.disconnected.assert_awaited_once_with("s", link)


def test_every_kind_of_error_has_its_status() -> None:
    assert set(CODES) == set(errors.CitycardError.__subclasses__())
    assert len(set(CODES.values())) == len(CODES)
    for kind, code in CODES.items():
        assert status_code(kind("REASON", "message")) is code


def test_errors_carry_status_reason_and_message(wire: Wire) -> None:
    async def work(channel: grpc.aio.Channel) -> None:
        jobs, stock, stations = JobServiceStub(channel), StockServiceStub(channel), StationServiceStub(channel)
        staged = await wire.job(channel, 0)
        ready = await wire.job(channel, 2, start=False)
        await stock.ReceiveStock(stock_pb2.ReceiveStockRequest(lot="L1", chip_type="ZZC01", count=5, by="t"))
        create = jobs_pb2.CreateJobRequest
        again = create(idempotency_key="k0", profile=PROFILE, kind=jobs_pb2.JOB_KIND_BULK, priority=2)
        bad = b"".join(order_file(1))
        credit = station_pb2.ConnectRequest(credit=station_pb2.Credit(count=1))
        nameless = station_pb2.ConnectRequest(hello=station_pb2.Hello(station_id=" ", chip_types=["ZZC01"], heads=1))
        expected: list[tuple[Callable[[], Awaitable[object]], Status, str]] = [
            (lambda: jobs.CreateJob(create(profile=PROFILE)), Status.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_MISSING"),
            (lambda: jobs.CreateJob(create(idempotency_key="x", profile="nix")), Status.NOT_FOUND, "PROFILE_UNKNOWN"),
            (lambda: jobs.CreateJob(create(idempotency_key="x", profile=PROFILE, kind=9)), Status.INVALID_ARGUMENT, "KIND_UNKNOWN"),
            (lambda: jobs.CreateJob(create(idempotency_key="x", profile=PROFILE, priority=10)), Status.INVALID_ARGUMENT, "JOB_REQUEST"),
            (lambda: jobs.CreateJob(again), Status.ALREADY_EXISTS, "IDEMPOTENCY_MISMATCH"),
            (lambda: jobs.StartJob(jobs_pb2.StartJobRequest(job_id=staged)), Status.FAILED_PRECONDITION, "JOB_STATE"),
            (lambda: jobs.ResumeJob(jobs_pb2.ResumeJobRequest(job_id=ready)), Status.FAILED_PRECONDITION, "JOB_STATE"),
            (lambda: jobs.DestroyPersonalData(jobs_pb2.DestroyPersonalDataRequest(job_id=ready)), Status.FAILED_PRECONDITION, "JOB_STATE"),
            (lambda: jobs.UploadOrders(parts(ready, b"x", 1)), Status.FAILED_PRECONDITION, "JOB_STATE"),
            (lambda: jobs.UploadOrders(parts(staged, bad, 9, bytes(32))), Status.DATA_LOSS, "UPLOAD_CORRUPT"),
            (lambda: jobs.UploadOrders(parts(staged, bad, 9, b"short")), Status.DATA_LOSS, "UPLOAD_CORRUPT"),
            (lambda: jobs.UploadOrders(iter([])), Status.INVALID_ARGUMENT, "UPLOAD_INCOMPLETE"),
            (
                lambda: jobs.UploadOrders(iter([jobs_pb2.UploadOrdersRequest(job_id=staged, chunk=bad)])),
                Status.INVALID_ARGUMENT,
                "UPLOAD_INCOMPLETE",
            ),
            (
                lambda: stock.IssueStock(stock_pb2.IssueStockRequest(lot="L1", station_id="s", count=6, by="t")),
                Status.RESOURCE_EXHAUSTED,
                "NO_BLANKS",
            ),
            (
                lambda: stock.ReceiveStock(stock_pb2.ReceiveStockRequest(lot="L1", chip_type="OTHER", count=1, by="t")),
                Status.ALREADY_EXISTS,
                "LOT_TYPE",
            ),
            (
                lambda: stock.ReceiveStock(stock_pb2.ReceiveStockRequest(lot="L1", chip_type="ZZC01", count=1)),
                Status.INVALID_ARGUMENT,
                "STOCK_BY",
            ),
            (lambda: stock.DrawSample(stock_pb2.DrawSampleRequest(job_id=ready, count=1, by="t")), Status.RESOURCE_EXHAUSTED, "NO_SAMPLES"),
            (lambda: hear(stations.Connect(iter([]))), Status.INVALID_ARGUMENT, "HELLO_MISSING"),
            (lambda: hear(stations.Connect(iter([credit]))), Status.INVALID_ARGUMENT, "HELLO_MISSING"),
            (lambda: hear(stations.Connect(iter([nameless]))), Status.INVALID_ARGUMENT, "HELLO_INVALID"),
            (lambda: stations.ResetStation(station_pb2.ResetStationRequest(station_id="s", by="t")), Status.NOT_FOUND, "STATION_UNKNOWN"),
        ]
        for begin, code, reason in expected:
            assert await refused(begin()) == (code, reason)
        staged_now = (await jobs.GetJob(jobs_pb2.GetJobRequest(job_id=staged))).job
        assert (staged_now.state, staged_now.lines) == ("STAGING", 0)
        assert list((wire.plant.server_data / "uploads").iterdir()) == []
        await jobs.UploadOrders(parts(staged, bad, 100))

    wire.run(work)


@pytest.mark.parametrize("size", [1, 7, 4093])
def test_an_order_file_in_chunks_of_any_size(wire: Wire, size: int) -> None:
    async def work(channel: grpc.aio.Channel) -> jobs_pb2.Job:
        content = b"".join(order_file(4))[: None if size > 1 else 900]
        return (await JobServiceStub(channel).UploadOrders(parts(await wire.job(channel, 0), content, size))).job

    job = wire.run(work)
    assert job.state == "READY"
    assert job.lines == (4 if size > 1 else job.accepted + job.rejected)


def test_two_uploads_of_one_job_do_not_mix(wire: Wire) -> None:
    async def work(channel: grpc.aio.Channel) -> int:
        stub, content, go = JobServiceStub(channel), b"".join(order_file(3)), asyncio.Event()
        job_id = await wire.job(channel, 0)

        async def slow() -> AsyncIterator[jobs_pb2.UploadOrdersRequest]:
            yield jobs_pb2.UploadOrdersRequest(job_id=job_id, chunk=content)
            await go.wait()
            yield jobs_pb2.UploadOrdersRequest(sha256=hashlib.sha256(content).digest())

        first = stub.UploadOrders(slow())
        while not list((wire.plant.server_data / "uploads").glob("*")):  # noqa: ASYNC110 - another process's file
            await asyncio.sleep(0.01)
        assert await refused(stub.UploadOrders(parts(job_id, content, 99))) == (Status.ALREADY_EXISTS, "UPLOAD_RUNNING")
        go.set()
        return (await first).job.accepted

    assert wire.run(work) == 3


def test_watching_streams_every_change_and_ends(wire: Wire) -> None:
    async def work(channel: grpc.aio.Channel) -> list[str]:
        stub, seen = JobServiceStub(channel), []
        job_id = await wire.job(channel, 2)
        steps: Iterator[Callable[[], Awaitable[object]]] = iter(
            [
                lambda: stub.PauseJob(jobs_pb2.PauseJobRequest(job_id=job_id)),
                lambda: stub.ResumeJob(jobs_pb2.ResumeJobRequest(job_id=job_id)),
                lambda: stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=job_id)),
            ]
        )
        async for message in stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id)):
            seen.append(message.job.state)
            step = next(steps, None)
            if step is not None:
                await step()
        return seen

    assert wire.run(work) == ["RUNNING", "PAUSED", "RUNNING", "CANCELLED"]


def test_reflection_lists_every_service(wire: Wire) -> None:
    async def work(channel: grpc.aio.Channel) -> set[str]:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for answer in stub.ServerReflectionInfo(iter([request])):
            return {service.name for service in answer.list_services_response.service}
        return set()

    wanted = {service.full_name for service in SERVICES} | {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert wire.run(work) == wanted


# -- nonsense ----------------------------------------------------------------------------------------------------------


def nonsense(message: Message, rng: random.Random, known: list[Any]) -> Message:
    """Fills a message with values that are absurd, extreme, or belong to something else."""
    kinds = FieldDescriptor
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.3:
            continue
        many = rng.randrange(4) if field.is_repeated else 1
        for _ in range(many):
            value: Any
            if field.type == kinds.TYPE_MESSAGE:
                target = getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)
                nonsense(target, rng, known)
                target.SetInParent()
                continue
            if field.type == kinds.TYPE_STRING:
                value = rng.choice(
                    ["", "x", "\x00", "'; drop table jobs; --", "名" * 300, "../../etc/passwd", *(k for k in known if isinstance(k, str))]
                )
            elif field.type == kinds.TYPE_BYTES:
                value = rng.randbytes(rng.choice([0, 1, 2, 29, 32, 40, 400]))
            elif field.type == kinds.TYPE_BOOL:
                value = rng.random() < 0.5
            else:
                top = {kinds.TYPE_UINT32: 2**32, kinds.TYPE_INT32: 2**31, kinds.TYPE_ENUM: 2**31, kinds.TYPE_INT64: 2**63}.get(
                    field.type, 2**64
                )
                low = -top if field.type in (kinds.TYPE_INT32, kinds.TYPE_INT64) else 0
                numbers = [k for k in known if isinstance(k, int) and low <= k < top]
                value = rng.choice([0, 1, 2, low, top - 1, rng.randrange(top), *numbers, *numbers])
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message


async def call(channel: grpc.aio.Channel, method: MethodDescriptor, request: Message) -> None:
    """One call of any shape; whatever streams back is read to its end or for a moment."""
    shapes = {(False, False): "unary_unary", (False, True): "unary_stream", (True, False): "stream_unary", (True, True): "stream_stream"}
    open_call = getattr(channel, shapes[method.client_streaming, method.server_streaming])(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    made = open_call(iter([request]) if method.client_streaming else request, timeout=5)
    if method.server_streaming:
        async for _ in made:
            made.cancel()
    else:
        await made


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.containing_service.name}.{m.name}")
def test_nonsense_is_answered_with_a_reason(wire: Wire, method: MethodDescriptor) -> None:
    """Whatever a request holds, the answer is a response or an error of the tree; never an unexpected one."""

    async def work(channel: grpc.aio.Channel) -> set[str]:
        rng, reasons = random.Random(method.full_name), set()
        known = [await wire.job(channel, 0), "L1", "ZZC01", "t", PROFILE]
        for _ in range(40):
            request = nonsense(GetMessageClass(method.input_type)(), rng, known)
            try:
                await call(channel, method, request)
            except asyncio.CancelledError:
                continue
            except grpc.aio.AioRpcError as error:
                reasons.add(f"{error.code().name}:{reason_of(error)}:{error.details()}"[:200])
        return reasons

    reasons = wire.run(work)
    allowed = {code.name for code in CODES.values()}
    wrong = {r for r in reasons if r.split(":")[0] not in allowed or r.split(":")[1] == r.split(":")[0]}
    assert wrong == set()
    assert wire.healthy()


def test_a_station_that_talks_nonsense_harms_nobody(wire: Wire) -> None:
    """A hundred random messages, with real tokens among them, on several streams; then a real station makes a real job."""

    async def babble(channel: grpc.aio.Channel, seed: int, first: station_pb2.ConnectRequest | None) -> None:
        rng, tokens = random.Random(seed), [0, 1, 2**63]

        async def messages() -> AsyncIterator[station_pb2.ConnectRequest]:
            if first is not None:
                yield first
                yield station_pb2.ConnectRequest(credit=station_pb2.Credit(count=4))
                await asyncio.sleep(0.15)
            for _ in range(100):
                name = rng.choice([f.name for f in station_pb2.ConnectRequest.DESCRIPTOR.fields if f.name != "credit" or first is None])
                message = station_pb2.ConnectRequest()
                nonsense(getattr(message, name), rng, [*tokens, "good", "reject", "no-blank", "garbage", "CHIP_GONE", "played"])
                getattr(message, name).SetInParent()
                yield message
                await asyncio.sleep(0.001)

        try:
            async for answer in StationServiceStub(channel).Connect(messages(), timeout=10):
                token = getattr(getattr(answer, answer.WhichOneof("message") or "welcome"), "token", 0)
                tokens += [token] * 3
        except grpc.aio.AioRpcError as error:
            # a message written just as the stream ended: this client's own word, the server said nothing of it
            written_late = "execute_batch" in (error.debug_error_string() or "")
            assert written_late or reason_of(error) not in ("INTERNAL", "UNKNOWN"), error

    async def work(channel: grpc.aio.Channel) -> None:
        await wire.job(channel, 30, first=100)
        names = [None, None, "babbler", "babbler", "prattler"]
        for seed, name in enumerate(names):
            hello = station_pb2.Hello(station_id=name or "", chip_types=["ZZC01"], heads=1)
            await babble(channel, seed, station_pb2.ConnectRequest(hello=hello) if name else None)

    wire.run(work)
    assert wire.healthy()
    assert "Traceback" not in wire.log()
    assert "unexpected" not in wire.log()
    make_one_card(wire)


def make_one_card(wire: Wire) -> None:
    async def begin(channel: grpc.aio.Channel) -> str:
        stock = StockServiceStub(channel)
        await stock.ReceiveStock(stock_pb2.ReceiveStockRequest(lot="0A01", chip_type="ZZC01", count=60, by="t"))
        await stock.IssueStock(stock_pb2.IssueStockRequest(lot="0A01", station_id="sound", count=60, by="t"))
        return await wire.job(channel, 3, first=900, instant=True)

    job_id = wire.run(begin)
    hopper = Hopper(wire.plant.station_data("sound") / "hopper")
    hopper.feeder.load(bytes.fromhex("0A01"), range(1, 61))
    hopper.close()
    wire.plant.start_station("sound")

    async def until_complete(channel: grpc.aio.Channel) -> jobs_pb2.Job:
        last = jobs_pb2.Job()
        async for message in JobServiceStub(channel).WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id)):
            last = message.job
        return last

    done = wire.run(until_complete)
    assert (done.state, done.good, done.scrapped) == ("COMPLETE", 3, 0)
    assert wire.plant.stop("sound") == 0


def test_a_station_never_gets_more_leases_than_credits(tmp_path: Path) -> None:
    with Plant(tmp_path / "plant") as plant:
        plant.make_keys(PROFILE)
        plant.start_server()
        wire = Wire(plant)

        async def work(channel: grpc.aio.Channel) -> tuple[list[int], jobs_pb2.Job]:
            job_id = await wire.job(channel, 20)
            outbox: asyncio.Queue[station_pb2.ConnectRequest | None] = asyncio.Queue()

            def say(**message: Any) -> None:
                outbox.put_nowait(station_pb2.ConnectRequest(**message))

            async def messages() -> AsyncIterator[station_pb2.ConnectRequest]:
                while (message := await outbox.get()) is not None:
                    yield message

            say(hello=station_pb2.Hello(station_id="slow", chip_types=["ZZC01"], heads=3))
            stream = StationServiceStub(channel).Connect(messages())
            reading = aiter(stream)
            assert (await anext(reading)).WhichOneof("message") == "welcome"
            leased: list[int] = []
            counts: list[int] = []

            async def leases() -> None:
                async for answer in reading:
                    kind = answer.WhichOneof("message")
                    if kind == "lease":
                        leased.append(answer.lease.token)
                    elif kind == "eject":
                        assert answer.eject.bin == "returned"
                        say(stacked=station_pb2.Stacked(token=answer.eject.token, bin="returned"))

            reader = asyncio.create_task(leases())
            for credit in (0, 3, 0, 1, 2):
                if credit:
                    say(credit=station_pb2.Credit(count=credit))
                await asyncio.sleep(0.25)
                counts.append(len(leased))
            say(not_presented=station_pb2.NotPresented(token=leased[0], reason="no-blank"))
            await asyncio.sleep(0.25)
            counts.append(len(leased))
            say(credit=station_pb2.Credit(count=1))
            await asyncio.sleep(0.25)
            counts.append(len(leased))
            assert len(set(leased)) == len(leased)
            outbox.put_nowait(None)
            await reader
            return counts, (await JobServiceStub(channel).GetJob(jobs_pb2.GetJobRequest(job_id=job_id))).job

        counts, job = wire.run(work)
        assert counts == [0, 3, 3, 4, 6, 6, 7]
        assert (job.good, job.scrapped, job.blanks_rejected, job.remaining) == (0, 0, 0, 20)
