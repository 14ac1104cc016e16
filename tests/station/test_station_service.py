"""The server's end of a station's stream: which message becomes which call of the line, and in what order."""

from __future__ import annotations

import asyncio

import pytest
from citycard.v1 import station_pb2 as pb

from engine.production.metrics import Metrics
from engine.production.stationlink import StationHello
from engine.rpc.stations import StationService
from keys.errors import Precondition


class Line:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.hello: StationHello | None = None
        self.judging = self

    async def connected(self, link: object, hello: StationHello) -> None:
        self.hello = hello

    async def disconnected(self, station_id: str, link: object) -> None:
        self.calls.append("disconnected")

    def run(self, token: int) -> None:
        return None

    def stacked(self, token: int, bin_name: str):
        # before anything is waited for: a lease for the same head must come after it in the ledger
        self.calls.append(("stacked", token, bin_name))
        return asyncio.sleep(0)

    async def credit(self, station_id: str, count: int) -> None:
        self.calls.append(("credit", station_id, count))

    def played(self, token: int, sequence: int, slab: bytes, stopped: str) -> None:
        self.calls.append(("played", token))
        if token == 13:
            raise Precondition("STATION_GONE", "gone")


async def stream(*messages: pb.ConnectRequest, **hello: object) -> Line:
    async def all_of_them():
        yield pb.ConnectRequest(hello=pb.Hello(station_id="s", chip_types=["ZZC01"], heads=1, **hello))
        for message in messages:
            yield message

    line = Line()
    said = [message async for message in StationService(line, Metrics()).Connect(all_of_them(), None)]
    assert [message.WhichOneof("message") for message in said] == ["welcome"]
    return line


@pytest.mark.parametrize(("hello", "prints"), [({}, True), ({"no_printer": False}, True), ({"no_printer": True}, False)])
async def test_a_station_prints_unless_it_says_that_it_does_not(hello, prints):
    assert (await stream(**hello)).hello.prints is prints


async def test_a_piece_that_fell_and_the_next_credit_in_one_message_or_in_two():
    stacked = {"token": 5, "bin": "good"}
    one = await stream(pb.ConnectRequest(stacked=pb.Stacked(**stacked, credit=2)))
    two = await stream(pb.ConnectRequest(stacked=pb.Stacked(**stacked)), pb.ConnectRequest(credit=pb.Credit(count=2)))
    assert one.calls == two.calls == [("stacked", 5, "good"), ("credit", "s", 2), "disconnected"]


async def test_one_bad_message_does_not_end_the_stream():
    line = await stream(
        pb.ConnectRequest(),
        pb.ConnectRequest(segment_played=pb.SegmentPlayed(token=13, sequence=1)),
        pb.ConnectRequest(segment_played=pb.SegmentPlayed(token=14, sequence=1)),
    )
    assert line.calls == [("played", 13), ("played", 14), "disconnected"]
