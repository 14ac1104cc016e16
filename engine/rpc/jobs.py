"""JobService: the wire in front of `production.jobs`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import grpc
from citycard.v1 import jobs_pb2 as pb
from citycard.v1.jobs_pb2_grpc import JobServiceServicer

from engine.production.jobs import JobDesk
from engine.production.views import JobView
from engine.rpc.errors import answered, answering
from keys.errors import Exhausted, InvalidInput, Unavailable

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]

REJECTS_PER_MESSAGE = 500
CHUNK = 1 << 18
UPLOAD_IDLE_S = 20.0
KINDS = {pb.JOB_KIND_UNSPECIFIED: "bulk", pb.JOB_KIND_BULK: "bulk", pb.JOB_KIND_INSTANT: "instant"}


def to_wire(view: JobView) -> pb.Job:
    """A job as the wire shows it."""
    return pb.Job(
        job_id=view.job_id,
        profile=view.profile,
        kind=pb.JOB_KIND_INSTANT if view.kind == "instant" else pb.JOB_KIND_BULK,
        priority=view.priority,
        due_us=view.due_us or 0,
        state=view.state,
        created_us=view.created_us,
        started_us=view.started_us or 0,
        ended_us=view.ended_us or 0,
        lines=view.lines,
        accepted=view.accepted,
        rejected=view.rejected,
        good=view.good,
        in_flight=view.in_flight,
        scrapped=view.scrapped,
        blanks_rejected=view.blanks_rejected,
        cancelled=view.cancelled,
        remaining=view.remaining,
        waiting_for=view.waiting_for,
        encoding=view.encoding,
        share=view.share,
        finish_us=view.finish_us or 0,
        finish_early_us=view.finish_early_us or 0,
        finish_late_us=view.finish_late_us or 0,
    )


async def _next(messages: AsyncIterator[pb.UploadOrdersRequest]) -> pb.UploadOrdersRequest | None:
    """The next message of an upload. A client that is gone without a word must not keep its job from going on elsewhere."""
    try:
        async with asyncio.timeout(UPLOAD_IDLE_S):
            return await anext(messages, None)
    except TimeoutError:
        raise Unavailable("UPLOAD_SILENT", f"nothing came of the order file for {UPLOAD_IDLE_S:.0f} seconds: send the rest") from None


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Awaits work that must not be left running behind: when the call is cancelled, it ends first."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


class JobService(JobServiceServicer):
    """See jobs.proto."""

    def __init__(self, desk: JobDesk) -> None:
        self._desk = desk

    @answered
    async def CreateJob(self, request: pb.CreateJobRequest, context: Context) -> pb.CreateJobResponse:
        if request.kind not in KINDS:
            raise InvalidInput("KIND_UNKNOWN", f"job kind {request.kind} is not known")
        view, existed = await self._desk.create(
            idempotency_key=request.idempotency_key,
            profile=request.profile,
            kind=KINDS[request.kind],
            priority=request.priority,
            due_us=request.due_us or None,
            submitted_by=request.submitted_by,
            file_name=request.file_name,
        )
        return pb.CreateJobResponse(job=to_wire(view), existed=existed)

    @answered
    async def UploadOrders(self, request_iterator: AsyncIterator[pb.UploadOrdersRequest], context: Context) -> pb.UploadOrdersResponse:
        messages = aiter(request_iterator)
        first = await _next(messages)
        if first is None:
            raise InvalidInput("UPLOAD_INCOMPLETE", "the upload was empty")
        uploads = self._desk.uploads
        upload = await uploads.begin(first.job_id, first.encoding, first.offset)
        finished, keep = False, True
        try:
            message: pb.UploadOrdersRequest | None = first
            while message is not None:
                uploads.check()
                if message.chunk:
                    await _to_its_end(asyncio.to_thread(upload.writer.write, message.chunk))
                if message.sha256:
                    finished = True
                    # the whole file is here: it is taken in even when the client goes away now
                    await _to_its_end(uploads.finish(upload, message.sha256))
                    return pb.UploadOrdersResponse(job=to_wire(await self._desk.view(upload.job_id)))
                message = await _next(messages)
        except Exhausted:  # what is kept of a file that finds no room would take the room for good
            keep = False
            raise
        finally:
            if not finished:
                await _to_its_end(uploads.leave(upload, keep=keep))
        raise InvalidInput("UPLOAD_INCOMPLETE", "the upload ended without its SHA-256: what arrived of it is kept, send the rest")

    @answered
    async def GetUpload(self, request: pb.GetUploadRequest, context: Context) -> pb.GetUploadResponse:
        kept = await self._desk.uploads.kept(request.job_id)
        return pb.GetUploadResponse(kept=kept.size, sha256=kept.sha256)

    @answered
    async def StartJob(self, request: pb.StartJobRequest, context: Context) -> pb.StartJobResponse:
        return pb.StartJobResponse(job=to_wire(await self._desk.start(request.job_id)))

    @answered
    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=to_wire(await self._desk.view(request.job_id)))

    @answered
    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        del request
        return pb.ListJobsResponse(jobs=[to_wire(view) for view in await self._desk.all_jobs()])

    async def WatchJob(self, request: pb.WatchJobRequest, context: Context) -> AsyncIterator[pb.WatchJobResponse]:
        async with answering(context):
            async for view in self._desk.watch(request.job_id):
                yield pb.WatchJobResponse(job=to_wire(view))

    @answered
    async def PauseJob(self, request: pb.PauseJobRequest, context: Context) -> pb.PauseJobResponse:
        return pb.PauseJobResponse(job=to_wire(await self._desk.pause(request.job_id)))

    @answered
    async def ResumeJob(self, request: pb.ResumeJobRequest, context: Context) -> pb.ResumeJobResponse:
        return pb.ResumeJobResponse(job=to_wire(await self._desk.resume(request.job_id)))

    @answered
    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        return pb.CancelJobResponse(job=to_wire(await self._desk.cancel(request.job_id, request.reason)))

    @answered
    async def GetReport(self, request: pb.GetReportRequest, context: Context) -> pb.GetReportResponse:
        report = await self._desk.report(request.job_id)
        return pb.GetReportResponse(report_json=json.dumps(report, ensure_ascii=False).encode())

    async def ListRejects(self, request: pb.ListRejectsRequest, context: Context) -> AsyncIterator[pb.ListRejectsResponse]:
        async with answering(context):
            async for page in self._desk.rejects(request.job_id, REJECTS_PER_MESSAGE):
                yield pb.ListRejectsResponse(rejects=[pb.Reject(**row) for row in page])

    async def GetResults(self, request: pb.GetResultsRequest, context: Context) -> AsyncIterator[pb.GetResultsResponse]:
        async with answering(context):
            async for chunk in self._desk.results(request.job_id, CHUNK):
                yield pb.GetResultsResponse(chunk=chunk)

    @answered
    async def DestroyPersonalData(self, request: pb.DestroyPersonalDataRequest, context: Context) -> pb.DestroyPersonalDataResponse:
        return pb.DestroyPersonalDataResponse(job=to_wire(await self._desk.destroy_data(request.job_id)))
