"""StationService: one stream per station, translated to calls of the line and back. Knows the wire; decides nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import grpc
import structlog
from citycard.v1 import station_pb2 as pb
from citycard.v1.station_pb2_grpc import StationServiceServicer

from engine.ledger.timings import Timings
from engine.personalize.segment import Segment, to_slab
from engine.production.line import Line
from engine.production.metrics import Metrics
from engine.production.stationlink import FoundPiece, StationHello
from engine.rpc.errors import answered, answering, note_unexpected
from keys.errors import CitycardError, InvalidInput

log = structlog.get_logger("rpc.stations")
Context = grpc.aio.ServicerContext[Any, Any]

SERVER_ID = "citycard"
CARD_MESSAGES = frozenset({"presented", "not_presented", "segment_played", "printed", "stacked"})
QUESTIONS = CARD_MESSAGES - {"stacked"}
ANSWERS = frozenset({"segment", "print", "eject"})


class StreamLink:
    """The line's way to one station: every call queues one message."""

    def __init__(self) -> None:
        # when the message arrived that each card's next answer answers, and its kind
        self.asked: dict[int, tuple[float, str]] = {}
        self.outbox: asyncio.Queue[pb.ConnectResponse | None] = asyncio.Queue()
        self.gone = False
        self.left = False

    def lease(self, token: int, commands: list[bytes], lease_ms: int) -> None:
        self.outbox.put_nowait(pb.ConnectResponse(lease=pb.Lease(token=token, commands=to_slab(commands), lease_ms=lease_ms)))

    def segment(self, token: int, segment: Segment) -> None:
        message = pb.Segment(
            token=token,
            sequence=segment.sequence,
            commands=segment.slab,
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

    def __init__(self, line: Line, metrics: Metrics) -> None:
        self._line = line
        self._metrics = metrics

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
                        self._note(link, message)
                        yield message
                finally:
                    link.gone = True
                    reader.cancel()
                    await asyncio.gather(reader, return_exceptions=True)
            finally:
                # however it ended, even half connected: a name that is not let go could never come back
                await self._line.disconnected(station_id, link)

    def _note(self, link: StreamLink, message: pb.ConnectResponse) -> None:
        """Measures how long the station waited for this message, where it answers one."""
        kind = message.WhichOneof("message")
        asked = link.asked.pop(getattr(message, kind).token, None) if kind in ANSWERS else None
        if asked is not None:
            seconds = time.perf_counter() - asked[0]
            self._metrics.answer.observe(seconds, asked[1])
            if asked[1] == "presented" and kind == "segment":
                self._metrics.segment.observe(seconds)

    async def _read(self, station_id: str, messages: AsyncIterator[pb.ConnectRequest], link: StreamLink) -> None:
        """Handles messages in order; what then has to be waited for, for different cards, is waited for side by side."""
        running: set[asyncio.Task[None]] = set()
        try:
            async for message in messages:
                kind = message.WhichOneof("message")
                if kind is None:
                    continue
                body = getattr(message, kind)
                if kind in CARD_MESSAGES:
                    if kind in QUESTIONS:
                        link.asked[body.token] = time.perf_counter(), kind
                    run = self._line.run(body.token)
                    if run is not None and run.station_id != station_id:
                        log.error("a station spoke of another station's card", station=station_id, message=kind)
                        continue
                    if run is not None and run.timings is not None:
                        _note_times(run.timings, kind, body)
                for work in self._work(station_id, kind, body):
                    task = asyncio.create_task(_guard(work))
                    running.add(task)
                    task.add_done_callback(running.discard)
            link.left = True
        finally:
            # a card's step that has begun is finished: its outcome is in the ledger before the station is let go
            if running:
                await asyncio.wait(running)
            link.close()

    def _work(self, station_id: str, kind: str, body: Any) -> Iterator[Coroutine[Any, Any, None]]:  # noqa: ANN401 - one of several messages
        """What has to be waited for after a message; an error of one message must not end the stream with the other cards on it."""
        line = self._line
        try:
            if kind == "segment_played":
                rest = line.judging.played(body.token, body.sequence, body.responses, body.stopped)
                if rest is not None:
                    yield rest
            elif kind == "presented":
                yield line.presented(body.token, body.atr, body.cplc, body.initialize_update_response)
            elif kind == "stacked":
                yield line.stacked(body.token, body.bin)
                if body.credit:
                    yield line.credit(station_id, body.credit)
            elif kind == "credit":
                yield line.credit(station_id, body.count)
            elif kind == "printed":
                yield line.judging.printed(body.token, ok=body.ok, detail=body.detail)
            elif kind == "not_presented":
                yield line.not_presented(body.token, body.reason, body.detail)
        except Exception as error:  # noqa: BLE001 - see above
            _note_error(error)

    @answered
    async def ListStations(self, request: pb.ListStationsRequest, context: Context) -> pb.ListStationsResponse:
        del request
        lots = [{"lot": lot, "stopped": why} for lot, why in sorted(self._line.outcomes.stopped_lots().items())]
        shown = {"stations": self._line.stations(), "stopped_lots": lots}
        return pb.ListStationsResponse(stations_json=json.dumps(shown).encode())

    @answered
    async def ResetStation(self, request: pb.ResetStationRequest, context: Context) -> pb.ResetStationResponse:
        await self._line.reset_station(request.station_id, request.by)
        return pb.ResetStationResponse()


def _hello(hello: pb.Hello) -> StationHello:
    found = [FoundPiece(f.token, bytes(f.kdd), f.step, f.sequence, bytes(f.responses), f.bin, f.head) for f in hello.found]
    return StationHello(
        hello.station_id,
        tuple(hello.chip_types),
        hello.heads,
        hello.software,
        hello.transport,
        found,
        tuple(hello.profiles),
        prints=not hello.no_printer,
    )


async def _guard(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - one message must not end the stream with the other cards on it
        _note_error(error)


def _note_error(error: Exception) -> None:
    if isinstance(error, CitycardError):
        log.error("message not handled", reason=error.reason, message=error.message)
    else:
        note_unexpected(error)


def _note_times(timings: Timings, kind: str, body: Any) -> None:  # noqa: ANN401 - one of several messages
    """What the station measured of a card, kept until its piece was seen falling."""
    if kind == "segment_played":
        timings.played(body.apdu_us)
    elif kind == "presented":
        timings.reader, timings.feed_us = body.reader, body.feed_us
        timings.played(body.apdu_us)
    elif kind == "printed":
        timings.print_us = body.print_us
    elif kind == "not_presented":
        timings.reader = body.reader
    else:
        timings.eject_us, timings.waited_us = body.eject_us, body.waited_us
