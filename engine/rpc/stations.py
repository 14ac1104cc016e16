"""StationService: one stream per station, translated to calls of the line and back. Knows the wire; decides nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog
from citycard.v1 import station_pb2 as pb
from citycard.v1.station_pb2_grpc import StationServiceServicer

from engine.personalize.segment import Segment, to_slab
from engine.production.line import Line
from engine.production.stationlink import FoundPiece, StationHello
from engine.rpc.errors import answered, answering, note_unexpected
from keys.errors import CitycardError, InvalidInput

log = structlog.get_logger("rpc.stations")
Context = grpc.aio.ServicerContext[Any, Any]

SERVER_ID = "citycard"
CARD_MESSAGES = frozenset({"presented", "not_presented", "segment_played", "printed", "stacked"})


class StreamLink:
    """The line's way to one station: every call queues one message."""

    def __init__(self) -> None:
        self.outbox: asyncio.Queue[pb.ConnectResponse | None] = asyncio.Queue()
        self.gone = False

    def lease(self, token: int, commands: list[bytes], lease_ms: int) -> None:
        self.outbox.put_nowait(pb.ConnectResponse(lease=pb.Lease(token=token, commands=to_slab(commands), lease_ms=lease_ms)))

    def segment(self, token: int, segment: Segment) -> None:
        message = pb.Segment(
            token=token,
            sequence=segment.sequence,
            commands=to_slab(segment.commands),
            expected=segment.expected_slab(),
            journal_answers=segment.journal_answers,
        )
        self.outbox.put_nowait(pb.ConnectResponse(segment=message))

    def print_card(self, token: int) -> None:
        self.outbox.put_nowait(pb.ConnectResponse(print=pb.Print(token=token)))

    def eject(self, token: int, bin_name: str, reason: str, head: int = 0) -> None:
        self.outbox.put_nowait(pb.ConnectResponse(eject=pb.Eject(token=token, bin=bin_name, reason=reason, head=head)))

    def hold(self, reason: str, *, resume: bool) -> None:
        self.outbox.put_nowait(pb.ConnectResponse(hold=pb.Hold(reason=reason, resume=resume)))

    def close(self) -> None:
        self.outbox.put_nowait(None)


class StationService(StationServiceServicer):
    """See station.proto."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def Connect(self, request_iterator: AsyncIterator[pb.ConnectRequest], context: Context) -> AsyncIterator[pb.ConnectResponse]:
        async with answering(context):
            first = await anext(aiter(request_iterator), None)
            if first is None or first.WhichOneof("message") != "hello":
                raise InvalidInput("HELLO_MISSING", "the first message of a station is its hello")
            station_id = first.hello.station_id
            if not station_id.strip():
                raise InvalidInput("HELLO_INVALID", "a station needs a name: the one that stock is issued to")
            link = StreamLink()
            link.outbox.put_nowait(pb.ConnectResponse(welcome=pb.Welcome(server_id=SERVER_ID)))
            try:
                await self._line.connected(link, _hello(first.hello))
                reader = asyncio.create_task(self._read(station_id, request_iterator, link))
                try:
                    while (message := await link.outbox.get()) is not None:
                        yield message
                finally:
                    link.gone = True
                    reader.cancel()
                    await asyncio.gather(reader, return_exceptions=True)
            finally:
                # however it ended, even half connected: a name that is not let go could never come back
                await self._line.disconnected(station_id, link)

    async def _read(self, station_id: str, messages: AsyncIterator[pb.ConnectRequest], link: StreamLink) -> None:
        """Handles messages in order; what belongs to different cards runs side by side, what settles a card is awaited."""
        running: set[asyncio.Task[None]] = set()
        try:
            async for message in messages:
                kind = message.WhichOneof("message")
                if kind in CARD_MESSAGES and self._line.holder(getattr(message, kind).token) not in (None, station_id):
                    log.error("a station spoke of another station's card", station=station_id, message=kind)
                    continue
                if kind == "credit":
                    await self._guard(self._line.credit(station_id, message.credit.count))
                elif kind == "stacked":
                    await self._guard(self._line.stacked(message.stacked.token, message.stacked.bin))
                elif kind is not None:
                    task = asyncio.create_task(self._guard(self._card(message, kind)))
                    running.add(task)
                    task.add_done_callback(running.discard)
        finally:
            # a card's step that has begun is finished: its outcome is in the ledger before the station is let go
            if running:
                await asyncio.wait(running)
            link.close()

    async def _guard(self, work: Any) -> None:  # noqa: ANN401
        try:
            await work
        except CitycardError as error:
            log.error("message not handled", reason=error.reason, message=error.message)
        except Exception as error:  # noqa: BLE001 - one message must not end the stream with the other cards on it
            note_unexpected(error)

    async def _card(self, message: pb.ConnectRequest, kind: str) -> None:
        line = self._line
        if kind == "presented":
            p = message.presented
            await line.presented(p.token, p.atr, p.cplc, p.initialize_update_response)
        elif kind == "not_presented":
            n = message.not_presented
            await line.not_presented(n.token, n.reason, n.detail)
        elif kind == "segment_played":
            s = message.segment_played
            await line.played(s.token, s.sequence, s.responses, s.stopped)
        elif kind == "printed":
            await line.printed(message.printed.token, ok=message.printed.ok, detail=message.printed.detail)

    @answered
    async def ListStations(self, request: pb.ListStationsRequest, context: Context) -> pb.ListStationsResponse:
        del request
        return pb.ListStationsResponse(stations_json=json.dumps({"stations": self._line.stations()}).encode())

    @answered
    async def ResetStation(self, request: pb.ResetStationRequest, context: Context) -> pb.ResetStationResponse:
        await self._line.reset_station(request.station_id, request.by)
        return pb.ResetStationResponse()


def _hello(hello: pb.Hello) -> StationHello:
    found = [FoundPiece(f.token, bytes(f.kdd), f.step, f.sequence, bytes(f.responses), f.bin, f.head) for f in hello.found]
    return StationHello(
        hello.station_id, tuple(hello.chip_types), hello.heads, hello.software, hello.transport, found, tuple(hello.profiles)
    )
