"""One virtual station: a stream to the server over a connection of its own, some heads, a feeder and bins that count."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import grpc
from citycard.v1 import station_pb2 as pb
from citycard.v1.station_pb2_grpc import StationServiceStub

from engine.load.chips import Chip, Recording
from engine.load.desk import Counted
from engine.load.head import Head, Tally, Times
from keys.errors import CitycardError, Unavailable

SOFTWARE: Final = "citycard-load/1"
# every station is to be a connection of its own, as real ones are
_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 4 << 20))
_BATCH: Final = 64


class Magazine:
    """Blanks of one station, numbered from `first`, their keys made some at a time; and its bins."""

    def __init__(self, recording: Recording, lot: bytes, first: int, count: int) -> None:
        self._recording = recording
        self._lot = lot
        self._next = first
        self._left = count
        self._issued = count
        self._ready: list[Chip] = []
        self._inserted: list[Chip] = []
        self._bins: Counter[str] = Counter()
        self._drawn = 0

    @property
    def good(self) -> int:
        """Pieces in the good bin."""
        return self._bins["good"]

    def insert(self, make: Callable[[bytes], Chip]) -> None:
        """Makes the next blank another kind of chip."""
        self._ready.insert(0, make(self._kdds(1)[0]))

    def take(self) -> Chip | None:
        """The next blank; None when the feeder is empty."""
        if not self._ready:
            if not self._left:
                return None
            self._ready += self._recording.make(self._kdds(min(_BATCH, self._left)))
            self._ready.reverse()
        self._drawn += 1
        return self._ready.pop()

    def _kdds(self, count: int) -> list[bytes]:
        found = [self._lot + number.to_bytes(8, "big") for number in range(self._next, self._next + count)]
        self._next += count
        self._left -= count
        return found

    def drop(self, bin_name: str) -> None:
        """A piece fell into a bin."""
        self._bins[bin_name] += 1

    def counted(self) -> Counted:
        """What the feeder and the bins counted."""
        bins = self._bins
        return Counted(drawn=self._drawn, good=bins["good"], reject=bins["reject"], returned=bins["returned"], issued=self._issued)


class Station:
    """Runs until `close`; the first error of the stream or of a chip ends it and is its `failure`."""

    def __init__(self, name: str, magazine: Magazine, readers: int, chip_type: str, profile: str, *, prints: bool) -> None:
        self.name = name
        self.magazine = magazine
        self.readers = readers
        self.heads: list[Head] = []
        self.connected = False
        self.stopped = ""
        self._failure: CitycardError | None = None
        self._hello = pb.Hello(
            station_id=name,
            chip_types=[chip_type],
            heads=readers,
            software=SOFTWARE,
            transport="recorded",
            profiles=[profile],
            no_printer=not prints,
        )
        self._outbox: asyncio.Queue[pb.ConnectRequest | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._channel: grpc.aio.Channel | None = None

    def __repr__(self) -> str:
        return f"Station({self.name})"

    @property
    def failure(self) -> BaseException | None:
        """What ended the station before its time; None while all is well."""
        ended = self._task is not None and self._task.done() and not self._task.cancelled()
        return self._failure or (self._task.exception() if ended and self._task is not None else None)

    def equip(self, times: Times, tally: Tally, *, seed: int, fail: float) -> None:
        """Gives the station its heads, new ones each time."""
        self.heads = [
            Head(
                index=index,
                reader=f"{self.name} reader {index}",
                feeder=self.magazine,
                times=times,
                rng=random.Random(f"{seed} {self.name} {index}"),  # noqa: S311 - times and failures, not secrets
                tally=tally,
                send=self._outbox.put_nowait,
                fail=fail,
            )
            for index in range(self.readers)
        ]

    async def connect(self, address: str) -> None:
        """Opens the stream and says hello; raises the RpcError of a server that refuses it."""
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        call = StationServiceStub(self._channel).Connect()
        await call.write(pb.ConnectRequest(hello=self._hello))
        if await call.read() is grpc.aio.EOF:
            raise Unavailable("SERVER_GONE", f"the server ended the stream of {self.name} at once")
        self.connected = True
        self._task = asyncio.create_task(self._serve(call))

    async def close(self) -> None:
        """Ends the stream, whatever lies in the heads."""
        self._outbox.put_nowait(None)
        if self._task is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._task, 10.0)
        if self._channel is not None:
            await self._channel.close()

    async def _serve(self, call: grpc.aio.StreamStreamCall[pb.ConnectRequest, pb.ConnectResponse]) -> None:
        writer = asyncio.create_task(self._write(call))
        try:
            while isinstance(message := await call.read(), pb.ConnectResponse):
                self._on(message)
        except grpc.aio.AioRpcError as error:
            self._fail(Unavailable("STREAM_ENDED", f"the server ended the stream of {self.name}: {error.details()}"))
        except CitycardError as error:
            self._fail(error)
            call.cancel()
        finally:
            self.connected = False
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, call: grpc.aio.StreamStreamCall[pb.ConnectRequest, pb.ConnectResponse]) -> None:
        while (message := await self._outbox.get()) is not None:
            await call.write(message)
        await call.done_writing()

    def _fail(self, error: CitycardError) -> None:
        self._failure = self._failure or error

    def _on(self, message: pb.ConnectResponse) -> None:
        kind = message.WhichOneof("message")
        if kind == "lease":
            waiting = next((h for h in self.heads if h.asked), None)
            if waiting is not None:
                waiting.lease(message.lease)
        elif kind == "segment":
            if (head := self._head(message.segment.token)) is not None:
                head.segment(message.segment)
        elif kind == "print":
            if (head := self._head(message.print.token)) is not None:
                head.print_card()
        elif kind == "eject":
            if (head := self._head(message.eject.token)) is not None:
                head.eject(message.eject.bin)
        elif kind == "hold":
            self.stopped = "" if message.hold.resume else message.hold.reason

    def _head(self, token: int) -> Head | None:
        return next((h for h in self.heads if h.token == token), None) if token else None


def all_failures(stations: Sequence[Station]) -> BaseException | None:
    """The first thing that went wrong at any station."""
    return next((station.failure for station in stations if station.failure is not None), None)
