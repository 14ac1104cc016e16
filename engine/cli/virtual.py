"""`citycard virtual …`: a virtual chip in a PC/SC slot, for any PC/SC program to talk to."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import output
from engine.cli.job import Json
from engine.virtual.faults import Faults
from engine.virtual.vpcd import Facts, run
from keys.errors import InvalidInput

app = typer.Typer(help="Virtual chips.", no_args_is_help=True)


@app.callback()
def virtual() -> None:
    """Virtual chips."""


@app.command()
def serve(
    vpcd: Annotated[str, typer.Option(help="HOST:PORT of a vpcd slot, e.g. 127.0.0.1:35963.")],
    data: Annotated[
        Path | None, typer.Option(help="Directory of chips, e.g. a demo station's hopper/chips; default: a fresh TEST blank.")
    ] = None,
    card: Annotated[str, typer.Option(help="Chip id in that directory.")] = "",
    as_json: Json = False,
) -> None:
    """Put one chip into a vpcd slot until SIGTERM; it survives resets, and its memory is the chip's own file."""
    host, _, port = vpcd.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidInput("VPCD_ADDRESS", f"--vpcd {vpcd!r} is no HOST:PORT")
    if (data is None) != (not card):
        raise InvalidInput("CHIP_ID_INVALID", "--data and --card go together: a directory of chips, and one chip's id")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def announce(facts: Facts) -> None:
        if as_json:
            output.emit_json({"chip_id": facts.chip_id, "atr": facts.atr, "kvn": f"{facts.kvn:02X}", "vpcd": facts.address})
            return
        output.say(f"chip {facts.chip_id} in vpcd {facts.address}")
        output.say(f"ATR {facts.atr}; security domain A000000151000000; first key version {facts.kvn:02X}, SCP03 i=70")
        if data is None:
            output.say("a fresh TEST blank: keys are KDF3 of the public test key 404142434445464748494A4B4C4D4E4F by the chip's KDD")

    run(host.strip("[]"), int(port), data=data, chip_id=card or None, faults=Faults(), announce=announce, stop_event=stop)
