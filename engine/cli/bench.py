"""The test bench: plays a sample's test into the chip before it, in a virtual chip's directory or in a PC/SC reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import grpc
from citycard.v1 import stock_pb2 as pb
from citycard.v1.stock_pb2_grpc import StockServiceStub

from engine.chip.inprocess import InProcessTransport
from engine.chip.transport import Transport
from engine.personalize.segment import from_slab, to_slab
from engine.virtual.factory import open_chip
from keys.errors import InvalidInput, Unavailable

TEST_S: Final = 180.0


def contact(chip_id: str, chips: Path | None, reader: str) -> Transport:
    """The way to the sample. InvalidInput SAMPLE_WHERE unless exactly one is given, and what `open_chip` raises."""
    if (chips is None) != bool(reader):
        raise InvalidInput(
            "SAMPLE_WHERE", "say where the sample is: --chips DIRECTORY of virtual chips, or --reader NAME of a PC/SC reader"
        )
    if chips is not None:
        return InProcessTransport(open_chip(chips, chip_id), f"virtual chip {chip_id}")
    from engine.chip.pcsc import PcscTransport

    return PcscTransport(reader)


async def test_sample(channel: grpc.aio.Channel, transport: Transport, chip_id: str, by: str) -> pb.SampleResult:
    """The whole test. A chip that stops answering has failed it; a reader that fails ends it unrecorded, with READER_GONE."""
    outbox: asyncio.Queue[pb.TestSampleRequest | None] = asyncio.Queue()
    outbox.put_nowait(pb.TestSampleRequest(start=pb.TestSampleStart(chip_id=chip_id, by=by)))

    async def requests() -> AsyncIterator[pb.TestSampleRequest]:
        while (message := await outbox.get()) is not None:
            yield message

    connected = False
    try:
        async for answer in StockServiceStub(channel).TestSample(requests(), timeout=TEST_S):
            if answer.WhichOneof("message") == "result":
                return answer.result
            if not connected:
                await asyncio.to_thread(transport.connect)
                connected = True
            responses = await asyncio.to_thread(_play, transport, answer.segment)
            outbox.put_nowait(pb.TestSampleRequest(responses=to_slab(responses)))
    finally:
        outbox.put_nowait(None)
        transport.disconnect()
    raise Unavailable("SERVER_GONE", "the server ended the test without a result")


def _play(transport: Transport, segment: pb.SampleSegment) -> list[bytes]:
    """The answers, up to the first that is not the expected one."""
    responses: list[bytes] = []
    for index, command in enumerate(from_slab(segment.commands)):
        try:
            responses.append(transport.transmit(command))
        except Unavailable as error:
            if error.reason != "CHIP_GONE":
                raise
            break
        if responses[-1][-2:] != segment.expected[2 * index : 2 * index + 2]:
            break
    return responses
