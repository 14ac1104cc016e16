"""StockService: the wire in front of the ledger's stock and scrap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from citycard.v1 import stock_pb2 as pb
from citycard.v1.stock_pb2_grpc import StockServiceServicer

from engine.personalize.segment import Segment
from engine.production.samples import Outcome, Samples
from engine.production.stockroom import Stockroom
from engine.rpc.errors import answered, answering
from keys.errors import InvalidInput, Unavailable

Context = grpc.aio.ServicerContext[Any, Any]

# A bench that says nothing for so long has gone: the card's keys do not wait for it.
BENCH_S: Final = 60.0
# More than any bureau's blanks; sums of such numbers stay far inside the ledger's integers.
MOST_PIECES: Final = 1_000_000_000


def _count(number: int) -> int:
    """InvalidInput STOCK_COUNT for a number that is none of pieces."""
    if number > MOST_PIECES:
        raise InvalidInput("STOCK_COUNT", f"a number of pieces is at most {MOST_PIECES}, not {number}")
    return number


class StockService(StockServiceServicer):
    """See stock.proto."""

    def __init__(self, stockroom: Stockroom, samples: Samples) -> None:
        self._room = stockroom
        self._samples = samples

    @answered
    async def ReceiveStock(self, request: pb.ReceiveStockRequest, context: Context) -> pb.ReceiveStockResponse:
        left = await self._room.receive(request.lot, request.chip_type, _count(request.count), request.by)
        return pb.ReceiveStockResponse(in_store=left)

    @answered
    async def IssueStock(self, request: pb.IssueStockRequest, context: Context) -> pb.IssueStockResponse:
        left = await self._room.issue(request.lot, request.station_id, _count(request.count), request.by)
        return pb.IssueStockResponse(in_store=left)

    @answered
    async def ReturnStock(self, request: pb.ReturnStockRequest, context: Context) -> pb.ReturnStockResponse:
        left = await self._room.take_back(request.lot, request.station_id, _count(request.count), request.by, request.kind or "blank")
        return pb.ReturnStockResponse(in_store=left)

    @answered
    async def CountStock(self, request: pb.CountStockRequest, context: Context) -> pb.CountStockResponse:
        counted = {
            "feeder_remaining": _count(request.feeder_remaining),
            "good": _count(request.good),
            "reject": _count(request.reject),
            "returned": _count(request.returned),
            "in_heads": _count(request.in_heads),
        }
        differences = await self._room.count(request.station_id, counted, request.by)
        return pb.CountStockResponse(agrees=not differences, differences=differences)

    @answered
    async def GetStock(self, request: pb.GetStockRequest, context: Context) -> pb.GetStockResponse:
        del request
        return pb.GetStockResponse(stock_json=json.dumps(await self._room.overview(), ensure_ascii=False).encode())

    @answered
    async def ResetLot(self, request: pb.ResetLotRequest, context: Context) -> pb.ResetLotResponse:
        await self._room.reset_lot(request.lot, request.by)
        return pb.ResetLotResponse()

    @answered
    async def ListScrap(self, request: pb.ListScrapRequest, context: Context) -> pb.ListScrapResponse:
        scrap = await self._room.scrap(request.job_id)
        return pb.ListScrapResponse(scrap_json=json.dumps({"scrap": scrap}, ensure_ascii=False).encode())

    @answered
    async def DestroyScrap(self, request: pb.DestroyScrapRequest, context: Context) -> pb.DestroyScrapResponse:
        ids = list(request.attempt_ids)
        done = await self._room.destroy(ids, request.first_name, request.second_name, everything=request.all, job_id=request.job_id)
        return pb.DestroyScrapResponse(destroyed=done)

    @answered
    async def DrawSample(self, request: pb.DrawSampleRequest, context: Context) -> pb.DrawSampleResponse:
        drawn = await self._room.draw_sample(request.job_id, _count(request.count), request.by)
        return pb.DrawSampleResponse(attempt_ids=[a for a, _ in drawn], chip_ids=[c for _, c in drawn])

    async def TestSample(
        self, request_iterator: AsyncIterator[pb.TestSampleRequest], context: Context
    ) -> AsyncIterator[pb.TestSampleResponse]:
        async with answering(context):
            messages = aiter(request_iterator)
            start = (await _next(messages, "start")).start
            async with self._samples.testing(chip_id=start.chip_id, attempt_id=start.attempt_id, by=start.by) as test:
                step: Segment | Outcome = test.first()
                while isinstance(step, Segment):
                    segment = pb.SampleSegment(commands=step.slab, expected=step.expected_slab())
                    yield pb.TestSampleResponse(segment=segment)
                    step = await test.played((await _next(messages, "responses")).responses)
            yield pb.TestSampleResponse(result=_result(step))


async def _next(messages: AsyncIterator[pb.TestSampleRequest], kind: str) -> pb.TestSampleRequest:
    try:
        async with asyncio.timeout(BENCH_S):
            message = await anext(messages, None)
    except TimeoutError:
        raise Unavailable("BENCH_SILENT", f"the test bench said nothing for {BENCH_S:.0f} seconds: nothing was recorded") from None
    if message is None or message.WhichOneof("message") != kind:
        raise InvalidInput("TEST_SEQUENCE", f"the test of a sample expects {kind} here")
    return message


def _result(outcome: Outcome) -> pb.SampleResult:
    checks = [pb.SampleCheck(subject=c.subject, ok=c.ok, message=c.message) for c in outcome.checks]
    a = outcome.attempt
    return pb.SampleResult(passed=outcome.passed, checks=checks, attempt_id=a.attempt_id, job_id=a.job_id, chip_id=a.chip_id or "")
