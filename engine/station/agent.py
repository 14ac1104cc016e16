"""The station agent: one stream to the server, one task per head; reconnects for ever, with what lies in its heads told first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, ParamSpec, TypeVar

import grpc
import structlog
from citycard.v1 import station_pb2 as pb
from citycard.v1.station_pb2_grpc import StationServiceStub

from engine.personalize.segment import from_slab, to_slab
from engine.station.head import FoundPiece, Head
from keys.errors import CitycardError

log = structlog.get_logger("station")
T = TypeVar("T")
P = ParamSpec("P")

CONTROL_WORD: Final = 2
RETRY_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
SOFTWARE: Final = "citycard-station/1"
# reasons of Head.present that are the feeder's or the reader's fault, not the chip's
_NOT_THE_CHIP: Final = {"NO_BLANK": "no-blank", "READER_GONE": "reader", "PCSC_MISSING": "reader"}


# what INITIALIZE UPDATE of a sound chip says when it is no blank of ours: no such key version; key set blocked
_REFUSALS: Final = {"6A88": "other-keys", "6983": "locked"}


class StationAgent:
    """Runs heads against a server until `stop` is set. A card in hand is finished before stopping."""

    def __init__(
        self, station_id: str, heads: Sequence[Head], chip_types: Sequence[str], transport: str, profiles: Sequence[str] = ()
    ) -> None:
        self._station_id = station_id
        self._heads = list(heads)
        self._chip_types = list(chip_types)
        self._transport = transport
        self._profiles = list(profiles)
        self._outbox: asyncio.Queue[pb.ConnectRequest | None] = asyncio.Queue()
        self._inboxes: dict[int, asyncio.Queue[pb.ConnectResponse]] = {h.index: asyncio.Queue() for h in heads}
        # heads that asked for a card and wait for its lease
        self._idle: dict[int, bool] = {}
        self._holding = False
        self._leaving = False
        self.stopping = asyncio.Event()

    async def run(self, address: str, *, give_up_after_s: float | None = None) -> None:
        """Connects and serves; raises the last RpcError when the server was never reached within `give_up_after_s`."""
        attempt, reached = 0, False
        deadline = None if give_up_after_s is None else asyncio.get_running_loop().time() + give_up_after_s
        while not self.stopping.is_set():
            try:
                async with grpc.aio.insecure_channel(address) as channel:
                    await self._serve(StationServiceStub(channel))
                    reached, attempt = True, 0
            except grpc.aio.AioRpcError as error:
                fatal = error.code() is grpc.StatusCode.INVALID_ARGUMENT
                if fatal or (not reached and deadline is not None and asyncio.get_running_loop().time() > deadline):
                    raise
                log.warning("stream ended", code=error.code().name, detail=error.details())
            wait = RETRY_S[min(attempt, len(RETRY_S) - 1)]
            attempt += 1
            if not self.stopping.is_set():
                await _wait(self.stopping, wait)

    async def _serve(self, stub: StationServiceStub) -> None:
        self._outbox = asyncio.Queue()
        self._idle, self._leaving = {}, False
        for index in self._inboxes:
            self._inboxes[index] = asyncio.Queue()
        hello = pb.Hello(
            station_id=self._station_id,
            chip_types=self._chip_types,
            heads=len(self._heads),
            software=SOFTWARE,
            transport=self._transport,
            profiles=self._profiles,
            no_printer=not any(head.prints for head in self._heads),
        )
        pieces: dict[int, FoundPiece | None] = {}
        for head in self._heads:
            piece = pieces[head.index] = await self._blocking(head.found)
            if piece is not None:
                hello.found.append(
                    pb.Found(
                        token=piece.token,
                        kdd=piece.kdd,
                        step=piece.step,
                        sequence=piece.sequence,
                        responses=piece.responses,
                        bin=piece.bin,
                        head=head.index,
                    )
                )
        self._outbox.put_nowait(pb.ConnectRequest(hello=hello))
        call = stub.Connect(self._requests())
        responses = aiter(call)
        await anext(responses, None)  # Welcome, or the refusal as an RpcError
        log.info("connected", station=self._station_id, found=len(hello.found))
        tasks = [asyncio.create_task(self._run_head(h, pieces[h.index])) for h in self._heads]
        try:
            async for response in responses:
                self._route(response)
        finally:
            for task in tasks:
                task.cancel()
            # a head inside a blocking call finishes it: the piece's state must be known before the next Hello
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _requests(self) -> AsyncIterator[pb.ConnectRequest]:
        while (message := await self._outbox.get()) is not None:
            yield message

    async def _blocking(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Card handling. With one head nothing else waits for it, and a thread of its own would cost more than it gives."""
        if len(self._heads) == 1:
            return work(*args, **kwargs)
        return await asyncio.to_thread(work, *args, **kwargs)

    def _route(self, response: pb.ConnectResponse) -> None:
        kind = response.WhichOneof("message")
        if kind == "hold":
            self._holding = not response.hold.resume
            log.warning("hold" if self._holding else "resumed", reason=response.hold.reason)
            return
        if kind is None or kind == "welcome":
            return
        token = getattr(response, kind).token
        if kind == "eject" and token == 0:
            waiting = [h for h in self._heads if h.index == response.eject.head]
        else:
            waiting = [h for h in self._heads if token and h.token == token]
        if not waiting and kind == "lease" and not self._leaving:
            waiting = [h for h in self._heads if self._idle.get(h.index)]
            if waiting:
                self._idle[waiting[0].index] = False
                waiting[0].token = token  # what follows for this lease finds its head, however late the head begins
        for head in waiting[:1]:
            self._inboxes[head.index].put_nowait(response)

    async def _run_head(self, head: Head, piece: FoundPiece | None) -> None:
        inbox = self._inboxes[head.index]
        if piece is not None and piece.step != "ejected":
            head.token = piece.token
            await self._until_ejected(head, inbox)
        while True:
            # else it asked with the piece before
            if not self._idle.get(head.index):
                if self.stopping.is_set():
                    self._maybe_finish()
                    await asyncio.Event().wait()
                if not await self._blocking(head.path.available):
                    await _wait(self.stopping, 0.25)
                    continue
                self._idle[head.index] = True
                self._send(credit=pb.Credit(count=1))
            lease = await self._next(inbox)
            if lease is None:
                self._maybe_finish()
                # while other heads finish theirs, what this one asked for may still come
                lease = await inbox.get()
            await _shielded(self._lease(head, lease.lease))
            await self._until_ejected(head, inbox)

    async def _next(self, inbox: asyncio.Queue[pb.ConnectResponse]) -> pb.ConnectResponse | None:
        """The next message; None when the agent is told to stop while nothing was leased."""
        getter = asyncio.ensure_future(inbox.get())
        stopper = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({getter, stopper}, return_when=asyncio.FIRST_COMPLETED)
            return getter.result() if getter.done() else None
        finally:
            stopper.cancel()
            if not getter.done():
                getter.cancel()

    def _maybe_finish(self) -> None:
        if all(h.token == 0 or self._idle.get(h.index, False) for h in self._heads):
            self._leaving = True
            self._outbox.put_nowait(None)

    async def _until_ejected(self, head: Head, inbox: asyncio.Queue[pb.ConnectResponse]) -> None:
        """Plays what the server sends for the piece in the head until it fell into a bin."""
        while True:
            began = time.perf_counter_ns()
            message = await inbox.get()
            head.waited_us += (time.perf_counter_ns() - began) // 1000
            kind = message.WhichOneof("message")
            if kind == "segment":
                await _shielded(self._segment(head, message.segment))
            elif kind == "print":
                await _shielded(self._print(head))
            elif kind == "eject":
                bin_name = message.eject.bin
                token = head.token
                if message.eject.reason:
                    log.warning("piece not good", head=head.index, bin=bin_name, reason=message.eject.reason)
                eject_us = await _shielded(self._blocking(head.eject, bin_name))
                head.settle()
                while not inbox.empty():  # of the piece that is gone; the next lease comes when it is asked for
                    inbox.get_nowait()
                more = not self.stopping.is_set() and await self._blocking(head.path.available)
                self._idle[head.index] = more
                self._send(stacked=pb.Stacked(token=token, bin=bin_name, eject_us=eject_us, waited_us=head.waited_us, credit=int(more)))
                return

    async def _lease(self, head: Head, lease: pb.Lease) -> None:
        commands = from_slab(lease.commands)
        head.waited_us = 0
        try:
            blank = await self._blocking(head.present, lease.token, commands)
        except CitycardError as error:
            self._not_presented(head, lease.token, _NOT_THE_CHIP.get(error.reason, "no-answer"), error.message)
            return
        played = blank.played
        complete = not played.stopped and len(played.responses) == len(commands)
        last = played.responses[-1] if complete else b""
        if last[-CONTROL_WORD:] != b"\x90\x00":
            sw = last[-CONTROL_WORD:].hex().upper()
            detail = played.stopped or f"INITIALIZE UPDATE answered {sw}"
            reason = "no-answer" if played.stopped == "CHIP_GONE" else _REFUSALS.get(sw, "garbage")
            self._not_presented(head, lease.token, reason, detail)
            return
        presented = pb.Presented(token=lease.token, atr=blank.atr, initialize_update_response=last[:-CONTROL_WORD])
        presented.cplc = played.responses[1][:-CONTROL_WORD]
        presented.apdu_us.extend(played.apdu_us)
        presented.feed_us, presented.reader = blank.feed_us, head.reader
        self._send(presented=presented)

    def _not_presented(self, head: Head, token: int, reason: str, detail: str) -> None:
        self._send(not_presented=pb.NotPresented(token=token, reason=reason, detail=detail, reader=head.reader))

    async def _segment(self, head: Head, segment: pb.Segment) -> None:
        commands = from_slab(segment.commands)
        words = [int.from_bytes(segment.expected[i : i + 2], "big") for i in range(0, len(segment.expected), 2)]
        try:
            played = await self._blocking(head.play, segment.sequence, commands, words, journal_answers=segment.journal_answers)
        except CitycardError as error:
            self._send(segment_played=pb.SegmentPlayed(token=segment.token, sequence=segment.sequence, stopped=error.reason))
            return
        self._send(
            segment_played=pb.SegmentPlayed(
                token=segment.token,
                sequence=segment.sequence,
                responses=to_slab(played.responses),
                apdu_us=played.apdu_us,
                stopped=played.stopped,
            )
        )

    async def _print(self, head: Head) -> None:
        token = head.token
        try:
            print_us = await self._blocking(head.print_card)
            self._send(printed=pb.Printed(token=token, ok=True, print_us=print_us))
        except CitycardError as error:
            self._send(printed=pb.Printed(token=token, ok=False, detail=error.message))

    def _send(self, **message: object) -> None:
        self._outbox.put_nowait(pb.ConnectRequest(**message))  # type: ignore[arg-type]


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


async def _shielded(work: Awaitable[T]) -> T:
    """Runs card handling to its end even when the stream breaks meanwhile: a piece's state is never left in a thread."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
