"""The agent's side of the stream: what it asks for and when, and that it always comes to an end when it is told to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
from citycard.v1 import station_pb2 as pb
from citycard.v1.station_pb2_grpc import StationServiceServicer, add_StationServiceServicer_to_server

from engine.personalize.segment import to_slab
from engine.station.agent import StationAgent
from engine.station.head import Played, Presented

COMMANDS = to_slab([b"\x00\xa4\x04\x00", b"\x80\xca\x9f\x7f", b"\x80\x50\x00\x00"])
SECONDS = 20.0


class Blanks:
    def __init__(self, count: int) -> None:
        self.count = count

    def available(self) -> bool:
        return self.count > 0


class FakeHead:
    """A head whose chip says yes to everything."""

    restarted = False
    prints = False
    reader = "reader"

    def __init__(self, index: int, blanks: int) -> None:
        self.index = index
        self.path = Blanks(blanks)
        self.token = 0
        self.waited_us = 0
        self.tokens: list[int] = []
        self.eject_s = 0.0

    def found(self) -> None:
        return None

    def present(self, token: int, commands: list[bytes]) -> Presented:
        self.token = token
        self.tokens.append(token)
        self.path.count -= 1
        return Presented(b"\x3b", Played([b"\x90\x00"] * len(commands), [1] * len(commands), ""), 1)

    def eject(self, bin_name: str) -> int:
        time.sleep(self.eject_s)
        return 1

    def settle(self) -> None:
        self.token = 0


class Server(StationServiceServicer):
    """Does what the test says with each stream; `heard` has all messages."""

    def __init__(self, script: Callable[[Server, grpc.aio.ServicerContext], Awaitable[None]]) -> None:
        self._script = script
        self.heard: list[pb.ConnectRequest] = []
        self._messages: AsyncIterator[pb.ConnectRequest]

    async def Connect(self, request_iterator, context):  # noqa: N802
        self._messages = aiter(request_iterator)
        await self.hear("hello")
        await context.write(pb.ConnectResponse(welcome=pb.Welcome(server_id="t")))
        await self._script(self, context)

    async def hear(self, kind: str):
        message = await anext(self._messages)
        self.heard.append(message)
        assert message.WhichOneof("message") == kind
        return getattr(message, kind)

    async def ended(self) -> bool:
        """Whether the station ends the stream and says nothing before."""
        return await anext(self._messages, None) is None


def lease(token: int) -> pb.ConnectResponse:
    return pb.ConnectResponse(lease=pb.Lease(token=token, commands=COMMANDS, lease_ms=1000))


def eject(token: int) -> pb.ConnectResponse:
    return pb.ConnectResponse(eject=pb.Eject(token=token, bin="reject", reason="r"))


async def play(script, heads: list[FakeHead]) -> tuple[StationAgent, Server]:
    agent = StationAgent("s", heads, ["ZZC01"], "test")
    failed: list[BaseException] = []

    async def guarded(service: Server, context) -> None:
        try:
            await script(service, context, agent)
        except BaseException as error:
            failed.append(error)
            agent.stopping.set()
            raise

    service = Server(guarded)
    server = grpc.aio.server()
    add_StationServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        await asyncio.wait_for(agent.run(f"127.0.0.1:{port}"), SECONDS)
    finally:
        await server.stop(0)
    if failed:
        raise failed[0]
    return agent, service


async def one_card(service: Server, context, token: int, *, ejects: int = 1) -> pb.Stacked:
    await context.write(lease(token))
    assert (await service.hear("presented")).token == token
    for _ in range(ejects):
        await context.write(eject(token))
    stacked = await service.hear("stacked")
    assert stacked.token == token
    return stacked


async def test_a_piece_that_fell_asks_for_the_next_card_in_the_same_message():
    head = FakeHead(0, blanks=2)

    async def script(service, context, agent):
        await service.hear("credit")
        assert (await one_card(service, context, 1)).credit == 1
        # the feeder is empty now: nothing is asked for
        assert (await one_card(service, context, 2)).credit == 0
        agent.stopping.set()
        assert await service.ended()

    _, service = await play(script, [head])
    assert head.tokens == [1, 2]
    assert service.heard[0].hello.no_printer


async def test_no_card_is_asked_for_while_stopping():
    async def script(service, context, agent):
        await service.hear("credit")
        await context.write(lease(1))
        await service.hear("presented")
        agent.stopping.set()
        await context.write(eject(1))
        assert (await service.hear("stacked")).credit == 0
        assert await service.ended()

    await play(script, [FakeHead(0, blanks=5)])


async def test_a_second_eject_is_not_taken_for_a_lease():
    """It arrives while the piece falls: a station of two heads listens meanwhile."""
    head = FakeHead(0, blanks=5)
    head.eject_s = 0.1

    async def script(service, context, agent):
        await service.hear("credit")
        assert (await one_card(service, context, 1, ejects=2)).credit == 1
        assert (await one_card(service, context, 2)).credit == 1
        agent.stopping.set()
        assert await service.ended()

    await play(script, [head, FakeHead(1, blanks=0)])
    assert head.tokens == [1, 2]


async def test_a_lease_that_crosses_the_wish_to_stop_is_made_and_the_station_ends():
    """Two heads: one finishes its card, the other asked for one that comes only then."""
    heads = [FakeHead(0, blanks=1), FakeHead(1, blanks=1)]

    async def script(service, context, agent):
        await service.hear("credit")
        await service.hear("credit")
        await context.write(lease(1))
        await service.hear("presented")
        agent.stopping.set()
        await asyncio.sleep(0.05)
        assert (await one_card(service, context, 2)).credit == 0
        await context.write(eject(1))
        assert (await service.hear("stacked")).token == 1
        assert await service.ended()

    await play(script, heads)
    assert sorted(head.tokens for head in heads) == [[1], [2]]


@pytest.mark.parametrize("heads", [1, 2])
async def test_an_idle_station_ends_at_once(heads):
    async def script(service, context, agent):
        for _ in range(heads):
            await service.hear("credit")
        agent.stopping.set()
        assert await service.ended()

    await play(script, [FakeHead(index, blanks=1) for index in range(heads)])
