"""`citycard station`: one station agent with its virtual feeder, heads and bins."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Annotated

import grpc
import typer

from engine.cli import client, logs
from engine.cli.job import Server
from engine.rpc.local import DataLock
from engine.station.agent import StationAgent
from engine.station.equipment import NoPrinter
from engine.station.head import Head
from engine.station.journal import Journal
from engine.station.paths import PcscPath, VirtualPath
from engine.virtual.faults import GOOD_PLAN, load_plan
from engine.virtual.hopper import Hopper
from engine.virtual.pcscd_rig import PcscdRig
from engine.virtual.speed import Speed
from keys.errors import InvalidInput

Name = Annotated[str, typer.Argument(help="Station id, as stock is issued to it.")]


def station(
    name: Name,
    server: Server,
    data: Annotated[Path, typer.Option("--data", help="The station's own directory: journal, feeder, bins.")],
    heads: Annotated[int, typer.Option(min=1, max=16, help="Heads that work side by side.")] = 1,
    load: Annotated[int, typer.Option(min=0, help="Put this many fresh virtual blanks into the feeder first.")] = 0,
    lot: Annotated[str, typer.Option(help="Lot of those blanks, 4 hex digits.")] = "0001",
    first_serial: Annotated[int, typer.Option(min=0, help="First chip serial number of those blanks.")] = 1,
    chip_type: Annotated[list[str] | None, typer.Option(help="Chip types in the feeder; virtual blanks are of the first.")] = None,
    profile: Annotated[list[str] | None, typer.Option(help="Profiles this station may make; default: all of its chip types.")] = None,
    faults: Annotated[Path | None, typer.Option(help="JSON file of faults for the virtual chips.")] = None,
    rig: Annotated[str, typer.Option(help="Use PC/SC: DIRECTORY:SLOT of a private pcscd, as `demo --pcsc` gives it.")] = "",
    chip_speed: Annotated[
        int | None, typer.Option("--chip-speed", min=1, help="Chips as slow as real ones at so many bits per second; default: at once.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run a station until SIGTERM; the card in hand is finished first."""
    logs.configure(log_level)
    client.checked_address(server)
    try:
        lot_bytes = bytes.fromhex(lot)
    except ValueError:
        raise InvalidInput("LOT_INVALID", f"--lot {lot!r} is not 4 hex digits") from None
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = DataLock(data)
    speed = Speed(chip_speed) if chip_speed else None
    hopper = Hopper(data / "hopper", heads, plan=load_plan(faults) if faults else GOOD_PLAN, speed=speed)
    chip_types = chip_type or ["ZZC01"]
    if load:
        hopper.feeder.load(lot_bytes, range(first_serial, first_serial + load), chip_type=chip_types[0].encode())
    paths = [PcscPath(hopper, 0, *_attach(rig))] if rig else [VirtualPath(hopper, i) for i in range(heads)]
    made = [Head(i, path, NoPrinter(), Journal(data / f"head{i}.journal")) for i, path in enumerate(paths)]
    agent = StationAgent(name, made, chip_types, "pcsc" if rig else "in-process", profile or ())
    try:
        asyncio.run(_run(agent, server))
    except grpc.aio.AioRpcError as error:
        raise client.translated(error, server) from None
    finally:
        for head in made:
            head.close()
        hopper.close()
        lock.release()


def _attach(text: str) -> tuple[PcscdRig, int]:
    home, _, slot = text.rpartition(":")
    if not home or not slot.isdecimal():
        raise InvalidInput("RIG_INVALID", f"--rig {text!r} is not DIRECTORY:SLOT")
    found = PcscdRig.attach(Path(home))
    # read once by libpcsclite, at the first call: a process has one pcscd
    os.environ.update(found.environment)
    return found, int(slot)


async def _run(agent: StationAgent, address: str) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stopping.set)
    with contextlib.suppress(asyncio.CancelledError):
        await agent.run(address, give_up_after_s=30.0)
