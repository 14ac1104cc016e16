"""`citycard job …`: submit an order file, follow the job, steer it, read its books."""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from citycard.v1 import jobs_pb2 as pb
from citycard.v1.jobs_pb2_grpc import JobServiceStub
from google.protobuf.json_format import MessageToDict

from engine.cli import client, output
from engine.cli.report import print_report
from engine.cli.upload import CHUNK, unreadable, upload
from keys.errors import CitycardError, InvalidInput, NotFound, Precondition

app = typer.Typer(help="Jobs: submit an order file and follow it to the last card.", no_args_is_help=True)

Server = Annotated[
    str, typer.Option("--server", help="HOST:PORT of the server.", default_factory=client.default_address, show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
JobId = Annotated[str, typer.Argument(help="Job id, as `job list` shows it.")]

ENDED = ("COMPLETE", "CANCELLED", "FAILED")


def as_dict(job: pb.Job) -> dict[str, Any]:
    """A job as JSON: snake_case names, integers as integers, every field present."""
    shown = MessageToDict(job, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return {k: int(v) if isinstance(v, str) and v.isdigit() and k != "job_id" else v for k, v in shown.items()}


async def submit_file(
    channel: grpc.aio.Channel,
    path: Path,
    *,
    profile: str,
    instant: bool,
    priority: int,
    due_us: int,
    key: str,
    by: str,
    encoding: str,
    start: bool,
) -> pb.Job:
    """Creates, uploads and starts a job; the server's answer after the last step. The same key with the same file goes on with an upload
    that was cut off.
    """
    stub = JobServiceStub(channel)
    kind = pb.JOB_KIND_INSTANT if instant else pb.JOB_KIND_BULK
    request = pb.CreateJobRequest(
        idempotency_key=key, profile=profile, kind=kind, priority=priority, due_us=due_us, submitted_by=by, file_name=path.name
    )
    created = await stub.CreateJob(request, timeout=client.DEADLINE_S)
    return await _fill(stub, created.job, path, encoding, start=start, again=created.existed)


async def resume_file(channel: grpc.aio.Channel, job_id: str, path: Path, encoding: str, *, start: bool) -> pb.Job:
    """Goes on with the upload of a job that was made before, and starts it."""
    stub = JobServiceStub(channel)
    job = (await stub.GetJob(pb.GetJobRequest(job_id=job_id), timeout=client.DEADLINE_S)).job
    if job.state not in ("STAGING", "READY"):
        raise Precondition("JOB_STATE", f"job {job_id} is {job.state}: it already has its order file")
    return await _fill(stub, job, path, encoding, start=start, again=True)


async def _fill(stub: JobServiceStub, job: pb.Job, path: Path, encoding: str, *, start: bool, again: bool) -> pb.Job:
    if job.state == "STAGING":
        job = await upload(stub, job.job_id, path, encoding, again=again)
    if start and job.state == "READY":
        job = (await stub.StartJob(pb.StartJobRequest(job_id=job.job_id), timeout=client.DEADLINE_S)).job
    return job


def require_file(path: Path) -> None:
    """NotFound ORDERS_UNREADABLE unless the path is a file that can be read."""
    try:
        if path.exists() and not path.is_file():
            raise NotFound("ORDERS_UNREADABLE", f"{path}: this is a directory or a device, not a file")
        with path.open("rb"):
            return
    except OSError as error:
        raise unreadable(path, error) from None


def parse_due(text: str) -> int:
    """A due date and time, ISO 8601, local time when it names no zone, as Unix microseconds."""
    if not text:
        return 0
    try:
        return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        raise InvalidInput("DUE_INVALID", f"--due {text!r} is no date and time like 2026-12-01T18:00") from None


@app.command()
def submit(
    orders: Annotated[Path, typer.Argument(help="Order file: CSV, UTF-8 or GB18030.")],
    server: Server,
    profile: Annotated[str, typer.Option(help="Card profile.")] = "zhengzhou-citizen-card",
    instant: Annotated[bool, typer.Option("--instant", help="Somebody waits at a counter: goes before all bulk jobs.")] = False,
    priority: Annotated[int, typer.Option(min=1, max=9, help="1 first, 9 last, among bulk jobs.")] = 5,
    due: Annotated[str, typer.Option(help="When the job must be done, e.g. 2026-12-01T18:00.")] = "",
    idempotency_key: Annotated[
        str, typer.Option(help="Submitting twice with one key makes one job; default: from file, profile and kind.")
    ] = "",
    by: Annotated[str, typer.Option(help="Who submits.")] = "",
    encoding: Annotated[str, typer.Option(help="utf-8 or gb18030; default: detected.")] = "",
    resume_job: Annotated[str, typer.Option("--resume", metavar="JOB", help="Go on with the upload of this job, which was cut off.")] = "",
    no_start: Annotated[bool, typer.Option("--no-start", help="Check and keep the job, start it later by `job resume`.")] = False,
    watch_it: Annotated[bool, typer.Option("--watch", help="Stay until the job ends.")] = False,
    as_json: Json = False,
) -> None:
    """Submit an order file as a job and start it. An upload that is cut off goes on by itself, or with the same command again."""
    require_file(orders)
    due_us = parse_due(due)
    if profile.endswith(".toml"):  # the server stands in a directory of its own
        profile = str(Path(profile).resolve())
    key = "" if resume_job else idempotency_key or _file_key(orders, profile, instant)

    async def work(channel: grpc.aio.Channel) -> pb.Job:
        if resume_job:
            return await resume_file(channel, resume_job, orders, encoding, start=not no_start)
        return await submit_file(
            channel,
            orders,
            profile=profile,
            instant=instant,
            priority=priority,
            due_us=due_us,
            key=key,
            by=by,
            encoding=encoding,
            start=not no_start,
        )

    try:
        job = client.run(server, work)
    except CitycardError as error:
        if error.reason.startswith("ORDERS_") and str(orders) not in error.message:  # these speak of the file, so they name it
            raise type(error)(error.reason, f"{orders}: {error.message}") from None
        raise
    if watch_it:
        job = follow(server, job.job_id, as_json=as_json)
    if as_json:
        output.emit_json(as_dict(job))
        return
    output.say(f"job {job.job_id}: {job.state}, {job.accepted} of {job.lines} lines accepted ({job.encoding}), {job.rejected} rejected")
    if job.state in ENDED and not watch_it:
        output.say("this file was submitted before and its job has ended; for a new job give an --idempotency-key of its own")
    if job.rejected:
        output.say(f"see `citycard job rejects {job.job_id}`")


def _file_key(path: Path, profile: str, instant: bool) -> str:
    """Submitting the same file twice is one job, unless the operator says otherwise."""
    digest = hashlib.sha256(f"{profile}/{instant}/".encode())
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise unreadable(path, error) from None
    return digest.hexdigest()


@app.command("list")
def list_(server: Server, as_json: Json = False) -> None:
    """All jobs, newest last."""
    jobs = client.ask(server, lambda c: JobServiceStub(c).ListJobs(pb.ListJobsRequest(), timeout=client.DEADLINE_S)).jobs
    if as_json:
        output.emit_json({"jobs": [as_dict(job) for job in jobs]})
        return
    output.table(
        ("job", "state", "kind", "profile", "lines", "good", "scrapped", "in flight", "remaining", "share"),
        [(j.job_id, j.state, _kind(j), j.profile, j.lines, j.good, j.scrapped, j.in_flight, j.remaining, _share(j)) for j in jobs],
        "no jobs yet",
    )


def _share(job: pb.Job) -> str:
    """Of all leases, what the job would get now."""
    return f"{job.share:.0%}" if job.share else ""


def _kind(job: pb.Job) -> str:
    return "instant" if job.kind == pb.JOB_KIND_INSTANT else "bulk"


@app.command()
def show(job_id: JobId, server: Server, as_json: Json = False) -> None:
    """One job, as it stands now."""
    job = client.ask(server, lambda c: JobServiceStub(c).GetJob(pb.GetJobRequest(job_id=job_id), timeout=client.DEADLINE_S)).job
    _print_job(job, as_json=as_json)


def _print_job(job: pb.Job, *, as_json: bool) -> None:
    if as_json:
        output.emit_json(as_dict(job))
        return
    shown = as_dict(job)
    shown["kind"] = _kind(job)
    shown["share"] = _share(job)
    for name in ("created_us", "started_us", "ended_us", "due_us", "finish_us", "finish_early_us", "finish_late_us"):
        shown[name.removesuffix("_us")] = _time(shown.pop(name))
    output.pairs((k.replace("_", " "), v) for k, v in shown.items() if v != "")


def _time(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6).astimezone().isoformat(timespec="seconds") if us else ""


def follow(server: str, job_id: str, *, as_json: bool) -> pb.Job:
    """Prints a line whenever the job changed, until it ends; the last state."""

    async def work(channel: grpc.aio.Channel) -> pb.Job:
        last = pb.Job()
        async for message in JobServiceStub(channel).WatchJob(pb.WatchJobRequest(job_id=job_id)):
            last = message.job
            if as_json:
                output.emit_json(as_dict(last))
            else:
                output.say(progress_line(last))
        return last

    return client.run(server, work)


def progress_line(job: pb.Job) -> str:
    """One line of progress in plain words."""
    text = f"{job.state:<10} {job.good}/{job.accepted} good, {job.in_flight} in hand, "
    text += f"{job.scrapped} scrapped, {job.blanks_rejected} blanks rejected"
    if job.finish_us:
        text += f"; done {_clock(job.finish_us)} ({_clock(job.finish_early_us)} to {_clock(job.finish_late_us)})"
    return text + (f"; waiting: {job.waiting_for}" if job.waiting_for else "")


def _clock(us: int) -> str:
    """The time of day; the date too where it is another day."""
    at = datetime.fromtimestamp(us / 1e6).astimezone()
    today = at.date() == datetime.now().astimezone().date()
    return at.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")


@app.command()
def watch(job_id: JobId, server: Server, as_json: Json = False) -> None:
    """Follow a job until it ends."""
    follow(server, job_id, as_json=as_json)


@app.command()
def pause(job_id: JobId, server: Server, as_json: Json = False) -> None:
    """No new card is begun; cards in hand are finished."""
    call = client.ask(server, lambda c: JobServiceStub(c).PauseJob(pb.PauseJobRequest(job_id=job_id), timeout=client.DEADLINE_S))
    _print_job(call.job, as_json=as_json)


@app.command()
def resume(job_id: JobId, server: Server, as_json: Json = False) -> None:
    """Go on with a paused job, or start one submitted with --no-start."""

    async def work(channel: grpc.aio.Channel) -> pb.Job:
        stub = JobServiceStub(channel)
        job = (await stub.GetJob(pb.GetJobRequest(job_id=job_id), timeout=client.DEADLINE_S)).job
        if job.state == "READY":
            return (await stub.StartJob(pb.StartJobRequest(job_id=job_id), timeout=client.DEADLINE_S)).job
        return (await stub.ResumeJob(pb.ResumeJobRequest(job_id=job_id), timeout=client.DEADLINE_S)).job

    _print_job(client.run(server, work), as_json=as_json)


@app.command()
def cancel(
    job_id: JobId, server: Server, reason: Annotated[str, typer.Option(help="Why, for the audit.")] = "", as_json: Json = False
) -> None:
    """Begin no more cards; cards in hand run to their end, finished ones stay finished."""
    request = pb.CancelJobRequest(job_id=job_id, reason=reason)
    _print_job(client.ask(server, lambda c: JobServiceStub(c).CancelJob(request, timeout=client.DEADLINE_S)).job, as_json=as_json)


@app.command()
def report(job_id: JobId, server: Server, as_json: Json = False) -> None:
    """The job's books: counts, proofs, and the reconciliation of ledger and counted pieces."""
    request = pb.GetReportRequest(job_id=job_id)
    raw = client.ask(server, lambda c: JobServiceStub(c).GetReport(request, timeout=client.DEADLINE_S)).report_json
    value = json.loads(raw)
    if as_json:
        output.emit_json(value)
    else:
        print_report(value)


async def fetch_rejects(channel: grpc.aio.Channel, job_id: str) -> list[dict[str, Any]]:
    """Every reject of a job, in line order."""
    found: list[dict[str, Any]] = []
    async for page in JobServiceStub(channel).ListRejects(pb.ListRejectsRequest(job_id=job_id)):
        found += [{"line": r.line, "field": r.field, "rule": r.rule, "message": r.message} for r in page.rejects]
    return found


@app.command()
def rejects(job_id: JobId, server: Server, as_json: Json = False) -> None:
    """Rejected order lines: line, field, rule and what to do."""
    found = client.run(server, lambda c: fetch_rejects(c, job_id))
    if as_json:
        output.emit_json({"rejects": found})
        return
    output.table(("line", "field", "rule", "message"), [tuple(r.values()) for r in found], "no line was rejected")


@app.command()
def results(
    job_id: JobId,
    server: Server,
    out: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
    as_json: Json = False,
) -> None:
    """The issuer's return file (CSV): line, card number, chip id, PSN, attempt, time, outcome."""

    async def work(channel: grpc.aio.Channel) -> bytes:
        chunks = [m.chunk async for m in JobServiceStub(channel).GetResults(pb.GetResultsRequest(job_id=job_id))]
        return b"".join(chunks)

    data = client.run(server, work)
    if out is not None:
        out.write_bytes(data)
        output.emit_json({"file": str(out), "bytes": len(data)}) if as_json else output.say(f"{len(data)} bytes written to {out}")
    elif as_json:
        head, *rows = [line.split(",") for line in data.decode().splitlines()]
        output.emit_json({"results": [dict(zip(head, row, strict=True)) for row in rows]})
    else:
        sys.stdout.write(data.decode())


@app.command("destroy-data")
def destroy_data(job_id: JobId, server: Server, as_json: Json = False) -> None:
    """Destroy the personal data of an ended job for good; counts and audit remain."""
    request = pb.DestroyPersonalDataRequest(job_id=job_id)
    job = client.ask(server, lambda c: JobServiceStub(c).DestroyPersonalData(request, timeout=client.DEADLINE_S)).job
    _print_job(job, as_json=as_json)


def new_key() -> str:
    """A fresh idempotency key."""
    return secrets.token_hex(16)
