"""`citycard stock …`, `scrap …`, `sample …`: where every blank is."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from citycard.v1 import stock_pb2 as pb
from citycard.v1.station_pb2 import ListStationsRequest, ResetStationRequest
from citycard.v1.station_pb2_grpc import StationServiceStub
from citycard.v1.stock_pb2_grpc import StockServiceStub

from engine.cli import bench, client, output
from engine.cli.job import Json, Server


def _user() -> str:
    try:
        return getpass.getuser()
    except OSError:
        return ""


app = typer.Typer(help="Blanks: received, issued to stations, returned, counted.", no_args_is_help=True)
scrap = typer.Typer(help="Scrapped pieces and their destruction by two people.", no_args_is_help=True)
sample = typer.Typer(help="Quality samples.", no_args_is_help=True)

Lot = Annotated[str, typer.Argument(help="Lot of blanks, as the maker names it.")]
Station = Annotated[str, typer.Argument(help="Station id.")]
Count = Annotated[int, typer.Argument(min=1, help="How many.")]
By = Annotated[str, typer.Option("--by", help="Who does it.", default_factory=_user, show_default=False)]


def _done(text: str, value: dict[str, Any], *, as_json: bool) -> None:
    output.emit_json(value) if as_json else output.say(text)


@app.command()
def receive(
    lot: Lot,
    count: Count,
    server: Server,
    by: By,
    chip_type: Annotated[str, typer.Option(help="Chip type of the lot.")] = "ZZC01",
    as_json: Json = False,
) -> None:
    """Take blanks of a lot into the store."""
    request = pb.ReceiveStockRequest(lot=lot, chip_type=chip_type, count=count, by=by)
    left = client.ask(server, lambda c: StockServiceStub(c).ReceiveStock(request, timeout=client.DEADLINE_S)).in_store
    _done(
        f"{count} blanks of lot {lot} received; {left} in store",
        {"lot": lot, "received": count, "in_store": left},
        as_json=as_json,
    )


@app.command()
def issue(lot: Lot, station: Station, count: Count, server: Server, by: By, as_json: Json = False) -> None:
    """Hand blanks from the store to a station."""
    request = pb.IssueStockRequest(lot=lot, station_id=station, count=count, by=by)
    left = client.ask(server, lambda c: StockServiceStub(c).IssueStock(request, timeout=client.DEADLINE_S)).in_store
    _done(
        f"{count} blanks of lot {lot} issued to {station}; {left} in store",
        {"lot": lot, "issued": count, "in_store": left},
        as_json=as_json,
    )


@app.command("return")
def return_(
    lot: Lot,
    station: Station,
    count: Count,
    server: Server,
    by: By,
    kind: Annotated[str, typer.Option(help="blank: back to the store; setup: used up setting the machine up.")] = "blank",
    as_json: Json = False,
) -> None:
    """Take unused blanks back from a station, or book set-up pieces."""
    request = pb.ReturnStockRequest(lot=lot, station_id=station, count=count, by=by, kind=kind)
    left = client.ask(server, lambda c: StockServiceStub(c).ReturnStock(request, timeout=client.DEADLINE_S)).in_store
    _done(
        f"{count} {kind} pieces of lot {lot} taken back from {station}; {left} in store",
        {"lot": lot, "in_store": left},
        as_json=as_json,
    )


@app.command()
def count(
    station: Station,
    server: Server,
    by: By,
    feeder: Annotated[int, typer.Option(min=0, help="Blanks left in the feeder.")],
    good: Annotated[int, typer.Option(min=0, help="Pieces in the good bin.")],
    reject: Annotated[int, typer.Option(min=0, help="Pieces in the reject bin.")],
    returned: Annotated[int, typer.Option(min=0, help="Untouched blanks in the returned bin.")] = 0,
    in_heads: Annotated[int, typer.Option(min=0, help="Pieces still in heads.")] = 0,
    as_json: Json = False,
) -> None:
    """Enter what was counted at a station, and compare it with the ledger."""
    request = pb.CountStockRequest(
        station_id=station, feeder_remaining=feeder, good=good, reject=reject, returned=returned, in_heads=in_heads, by=by
    )
    answer = client.ask(server, lambda c: StockServiceStub(c).CountStock(request, timeout=client.DEADLINE_S))
    if as_json:
        output.emit_json({"agrees": answer.agrees, "differences": list(answer.differences)})
    elif answer.agrees:
        output.say(f"{station}: count and ledger agree")
    else:
        output.say(f"{station}: count and ledger DO NOT AGREE")
        for difference in answer.differences:
            output.say(f"  {difference}")
    if not answer.agrees:
        raise typer.Exit(1)


@app.command()
def show(server: Server, as_json: Json = False) -> None:
    """Stock by lot and station, and the reconciliation of all."""
    value = json.loads(
        client.ask(server, lambda c: StockServiceStub(c).GetStock(pb.GetStockRequest(), timeout=client.DEADLINE_S)).stock_json
    )
    if as_json:
        output.emit_json(value)
        return
    output.table(("lot", "chip type", "in store"), [tuple(v.values()) for v in value["lots"]], "no blanks were ever received")
    _stopped_lots(value)
    books = value["reconciliation"]
    output.pairs((k.replace("_", " "), v) for k, v in books.items() if k != "differences")
    for difference in books["differences"]:
        output.say(f"  {difference}")


def _stopped_lots(value: dict[str, Any]) -> None:
    if value["stopped_lots"]:
        output.table(("stopped lot", "because"), [tuple(v.values()) for v in value["stopped_lots"]], "")


@app.command("reset-lot")
def reset_lot(
    lot: Annotated[str, typer.Argument(help="Lot of chips, as `stations` and `stock show` name it.")], server: Server, by: By
) -> None:
    """Let blanks of a stopped lot be used again, after what stopped it was cleared up."""
    request = pb.ResetLotRequest(lot=lot, by=by)
    client.ask(server, lambda c: StockServiceStub(c).ResetLot(request, timeout=client.DEADLINE_S))
    output.say(f"lot {lot} may be used again")


@scrap.command("list")
def scrap_list(server: Server, job: Annotated[str, typer.Option(help="Only of this job.")] = "", as_json: Json = False) -> None:
    """Pieces waiting for destruction, and those destroyed."""
    request = pb.ListScrapRequest(job_id=job)
    value = json.loads(client.ask(server, lambda c: StockServiceStub(c).ListScrap(request, timeout=client.DEADLINE_S)).scrap_json)
    if as_json:
        output.emit_json(value)
        return
    output.table(
        ("attempt", "job", "line", "chip", "state", "reason", "detail"),
        [(s["attempt_id"], s["job_id"], s["line"], s["chip_id"], s["state"], s["reason"], s["detail"]) for s in value["scrap"]],
        "no scrap",
    )


@scrap.command("destroy")
def scrap_destroy(
    server: Server,
    first: Annotated[str, typer.Option(help="First person present.")],
    second: Annotated[str, typer.Option(help="Second person present: somebody else.")],
    attempts: Annotated[list[int] | None, typer.Argument(help="Attempt numbers, as `scrap list` shows them.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every piece waiting for destruction.")] = False,
    job: Annotated[str, typer.Option(help="With --all: only of this job.")] = "",
    as_json: Json = False,
) -> None:
    """Record that pieces were destroyed in front of two people."""
    request = pb.DestroyScrapRequest(attempt_ids=attempts or [], first_name=first, second_name=second, all=everything, job_id=job)
    done = client.ask(server, lambda c: StockServiceStub(c).DestroyScrap(request, timeout=client.DEADLINE_S)).destroyed
    _done(f"{done} pieces recorded as destroyed by {first} and {second}", {"destroyed": done}, as_json=as_json)


@sample.command("draw")
def sample_draw(
    job: Annotated[str, typer.Argument(help="Job id.")],
    server: Server,
    by: By,
    count: Annotated[int, typer.Option(min=1, help="How many finished cards to take.")] = 1,
    as_json: Json = False,
) -> None:
    """Take finished cards out of the good bin as samples; their lines are made again."""
    request = pb.DrawSampleRequest(job_id=job, count=count, by=by)
    answer = client.ask(server, lambda c: StockServiceStub(c).DrawSample(request, timeout=client.DEADLINE_S))
    value = {"attempt_ids": list(answer.attempt_ids), "chip_ids": list(answer.chip_ids)}
    _done("take out of the good bin: " + ", ".join(answer.chip_ids), value, as_json=as_json)


@sample.command("test")
def sample_test(
    chip_id: Annotated[str, typer.Argument(help="Chip id of a drawn sample.")],
    server: Server,
    by: By,
    chips: Annotated[Path | None, typer.Option(help="Directory of virtual chips, e.g. a station's hopper/chips.")] = None,
    reader: Annotated[str, typer.Option(help="Name of the PC/SC reader the sample lies in.")] = "",
    as_json: Json = False,
) -> None:
    """Use a drawn sample's PIN and purse, as production must not: what only a sample can prove."""
    transport = bench.contact(chip_id, chips, reader)
    result = client.run(server, lambda channel: bench.test_sample(channel, transport, chip_id, by))
    if as_json:
        checks = [{"key": c.subject, "ok": c.ok, "message": c.message} for c in result.checks]
        value = {"passed": result.passed, "attempt_id": result.attempt_id, "job_id": result.job_id, "chip_id": result.chip_id}
        output.emit_json({**value, "checks": checks})
    else:
        output.say(f"sample {result.chip_id} of job {result.job_id}: {'passed' if result.passed else 'FAILED'}")
        for c in result.checks:
            output.say(f"  {'ok    ' if c.ok else 'FAILED'} {c.subject}" + (f": {c.message}" if c.message else ""))
    if not result.passed:
        raise typer.Exit(1)


def list_stations(server: str, *, as_json: bool) -> None:
    """`citycard stations`."""
    answer = client.ask(server, lambda c: StationServiceStub(c).ListStations(ListStationsRequest(), timeout=client.DEADLINE_S))
    value = json.loads(answer.stations_json)
    if as_json:
        output.emit_json(value)
        return
    output.table(
        ("station", "heads", "transport", "in flight", "stopped because"),
        [tuple(s.values()) for s in value["stations"]],
        "no station is connected",
    )
    _stopped_lots(value)


def reset_station(server: str, name: str, by: str) -> None:
    """`citycard station-reset`."""
    request = ResetStationRequest(station_id=name, by=by)
    client.ask(server, lambda c: StationServiceStub(c).ResetStation(request, timeout=client.DEADLINE_S))
    output.say(f"{name} works again")
