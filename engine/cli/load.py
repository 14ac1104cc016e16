"""`citycard load`: virtual stations against a running server, and what the server did under them."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Annotated, Literal

import grpc
import typer

from engine.cli import client, output
from engine.cli.job import Json, Server, require_file
from engine.load.result import LoadResult, Spread, Window
from engine.load.settings import Settings, ramp, seconds, share
from keys.errors import InvalidInput

DEFAULT_CHIP = "6s"
_DIFFERENCES = 10
DEFAULT_DURATION = "60s"
DEFAULT_STEP = "20s"


def load(
    server: Server,
    stations: Annotated[int, typer.Option(help="Virtual stations.")] = 10,
    readers: Annotated[int, typer.Option(help="Readers of each station: cards it makes side by side.")] = 1,
    chip_time: Annotated[str, typer.Option(help=f"What a chip works for one card; default {DEFAULT_CHIP}.", show_default=False)] = "",
    chip_spread: Annotated[str, typer.Option(help="Standard deviation of the chip time, as a share of it.")] = "0%",
    print_time: Annotated[str, typer.Option(help="Printing of one card.")] = "0s",
    rate_of: Annotated[
        float | None, typer.Option(help="Cards an hour and station, kept to; the chip time follows from it.", show_default="none")
    ] = None,
    time_scale: Annotated[float, typer.Option(help="Divides every time that is waited.")] = 1.0,
    cards: Annotated[int | None, typer.Option(help="Run until so many cards are made.", show_default="none")] = None,
    duration: Annotated[
        str, typer.Option(help=f"Measure for so long; default {DEFAULT_DURATION}, each step of a ramp {DEFAULT_STEP}.", show_default=False)
    ] = "",
    ramp_of: Annotated[str, typer.Option("--ramp", help="FIRST:LAST:STEP stations instead of --stations, one row each.")] = "",
    p99_limit: Annotated[str, typer.Option(help="For a ramp: the p99 from challenge to segment that must hold, e.g. 20ms.")] = "",
    profile: Annotated[str, typer.Option(help="Card profile.")] = "zhengzhou-citizen-card",
    fail: Annotated[str, typer.Option(help="Share of cards that are torn at a random command.")] = "0%",
    kind: Annotated[
        Literal["bulk", "instant", "mixed"], typer.Option(help="Kind of the jobs; mixed: a tenth of the lines instant.")
    ] = "bulk",
    orders: Annotated[Path | None, typer.Option(help="Order file; default: people who do not exist.", show_default="none")] = None,
    name: Annotated[
        str, typer.Option(help="First part of the stations' names, one that none had before; default: a new one.", show_default=False)
    ] = "",
    seed: Annotated[int, typer.Option(help="Of chip times and failures.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the result as JSON to this file too.", show_default="none")] = None,
    as_json: Json = False,
) -> None:
    """Load a running server with virtual stations, and report what it bears. The server must hold TEST keys only.

    The stations make real cards of made-up people, with blanks of a lot of their own; at the end every blank is counted.
    """
    if rate_of is not None and chip_time:
        raise InvalidInput("LOAD_INVALID", "say either --chip-time or --rate-of: with a rate the chip time follows from it")
    if orders is not None:
        require_file(orders)
    time_text = duration or ("" if cards is not None else DEFAULT_STEP if ramp_of else DEFAULT_DURATION)
    settings = Settings(
        steps=ramp(ramp_of) if ramp_of else (stations,),
        readers=readers,
        chip_s=seconds(chip_time or DEFAULT_CHIP, "--chip-time"),
        chip_spread=share(chip_spread, "--chip-spread"),
        print_s=seconds(print_time, "--print-time"),
        rate=rate_of,
        time_scale=time_scale,
        cards=cards,
        duration_s=seconds(time_text, "--duration") if time_text else None,
        profile=profile,
        fail=share(fail, "--fail"),
        p99_limit_s=seconds(p99_limit, "--p99-limit") if p99_limit else None,
        kind=kind,
        orders=orders,
        # stations that worked before have their pieces of then in the ledger, which this run did not count
        name=name or f"load-{secrets.token_hex(2)}",
        seed=seed,
    ).checked()
    client.checked_address(server)
    result = _run(server, settings, quiet=as_json)
    if out is not None:
        out.write_text(json.dumps(result.as_dict(), ensure_ascii=False, indent=1) + "\n")
    if as_json:
        output.emit_json(result.as_dict())
    else:
        print_result(result)
    if not result.books.reconciled:
        raise typer.Exit(1)


def _run(server: str, settings: Settings, *, quiet: bool) -> LoadResult:
    from engine.load.run import drive  # numpy, kernels and profiles, which no other command needs

    try:
        return asyncio.run(drive(server, settings, (lambda _: None) if quiet else output.say))
    except grpc.aio.AioRpcError as error:
        raise client.translated(error, server) from None


def print_result(result: LoadResult) -> None:
    """The run for people."""
    windows = result.windows
    output.say("")
    output.table(
        ("stations", "heads", "seconds", "good", "scrapped", "cards/s", "cards/h and station", "server p50", "p99", "max",
         "stations saw p50", "p99", "CPU/card", "cores", "memory"),
        [_row(window) for window in windows],
        "nothing was measured",
    )  # fmt: skip
    output.say("")
    last = windows[-1]
    output.pairs(
        [
            ("profile", f"{result.profile}, {result.protocol}"),
            ("times", f"chip {result.chip_s:.3g} s, print {result.print_s:.3g} s, divided by {result.time_scale:.4g}"),
            ("ledger", f"{_number(last.ledger_transitions_per_second, '.0f')} transitions/s, commit {_times(last.ledger_commit_s)}"),
            ("server's loop late", _times(last.server_lag_s)),
            ("generator", f"{_ms(last.generator_cpu_per_card_s)} CPU a card, {last.generator_core_share:.0%} of a core"),
            ("generator's loop late", _times(last.lag_s)),
            ("stations connected", last.connected),
        ]
    )  # fmt: skip
    _print_limit(result)
    for name, why in sorted(result.stopped_stations.items()):
        output.say(f"station {name} was stopped: {why}")
    for window in windows:
        for doubt in window.doubts:
            output.say(f"{window.stations} stations, not to be trusted: {doubt}")
    _print_books(result)


def _print_limit(result: LoadResult) -> None:
    limit = result.p99_limit_s
    if limit is None:
        return
    held, passed = result.held, result.limit_stations
    text = f"p99 of {1e3 * limit:.4g} ms from challenge to segment: "
    if held is not None:
        text += f"held up to {held.cards_per_second:.1f} cards/s ({held.stations} stations)"
    else:
        text += "never held"
    output.say(text + (f", passed at {passed} stations" if passed is not None else ", never passed"))


def _print_books(result: LoadResult) -> None:
    books = result.books
    output.say("")
    output.say(f"job {', '.join(f'{job} {state}' for job, state in zip(books.jobs, books.job_states, strict=True))}")
    output.say("blanks issued = good + reject bin + returned + still in feeders")
    output.say(f"  {books.issued} = {books.good} + {books.rejected} + {books.returned} + {books.left}")
    for difference in books.differences[:_DIFFERENCES]:
        output.say(f"  {difference}")
    if len(books.differences) > _DIFFERENCES:
        output.say(f"  and {len(books.differences) - _DIFFERENCES} more; --json has them all")
    output.say("  the ledger and what feeders and bins counted agree" if books.reconciled else "  NOT EVERYTHING IS ACCOUNTED FOR")


def _row(window: Window) -> tuple[str, ...]:
    server, station = window.server_stream_s, window.station_stream_s
    cpu, memory = window.server_cpu_per_card_s, window.server_memory_bytes
    return (
        str(window.stations),
        str(window.heads),
        f"{window.seconds:.1f}",
        str(window.good),
        str(window.scrapped + window.rejected),
        f"{window.cards_per_second:.1f}",
        f"{window.cards_per_hour_and_station:,.0f}",
        _ms(server.p50),
        _ms(server.p99),
        _ms(server.most),
        _ms(station.p50),
        _ms(station.p99),
        _ms(cpu),
        _number(window.server_core_share, ".2f"),
        "-" if memory is None else f"{memory / 2**20:.0f} MiB",
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{1e3 * value:.1f} ms" if value >= 0.01 else f"{1e3 * value:.2f} ms"


def _times(spread: Spread) -> str:
    return f"p50 {_ms(spread.p50)}, p99 {_ms(spread.p99)}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
