"""`citycard serve`: the server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import typer

from engine.cli import logs
from engine.cli.client import DEFAULT_ADDRESS
from engine.cli.stores import Data, SecretFile, read_needed
from engine.production.keyroom import KeyRoom
from engine.production.keysetup import require_kind
from keys.hardening import harden


def serve(
    data: Data,
    bind: Annotated[str, typer.Option(help="Loopback HOST:PORT to listen on; port 0 chooses one.")] = DEFAULT_ADDRESS,
    dev: Annotated[bool, typer.Option("--dev", help="Accept TEST keys.")] = False,
    custody: Annotated[
        Literal["software", "token"] | None, typer.Option("--custody", help="Refuse to start on another custody than this.")
    ] = None,
    sealed: Annotated[bool, typer.Option("--sealed", help="Start without the keys, and wait for `citycard keys unseal`.")] = False,
    secret_file: SecretFile = None,
    drain_seconds: Annotated[float, typer.Option(help="How long cards in hand may take after SIGTERM.")] = 30.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    metrics: Annotated[
        str | None, typer.Option(help="Loopback HOST:PORT where Prometheus may read metrics over HTTP.", show_default="none")
    ] = None,
    port_file: Annotated[Path | None, typer.Option(help="Write the port here once the server answers.")] = None,
) -> None:
    """Run the server: jobs, stock, stations and keys over gRPC on loopback.

    Which custody holds the keys says custody.toml in the data directory (see `citycard keys init`). SIGTERM drains; SIGUSR1 zeroizes.
    """
    from engine.rpc.server import serve as run_server  # half a second that no other command needs

    logs.configure(log_level)
    harden(production=not dev)

    def ready(port: int) -> None:
        if port_file is not None:
            temporary = port_file.with_suffix(".new")
            temporary.write_text(str(port))
            temporary.replace(port_file)

    def opener() -> KeyRoom:
        room = KeyRoom(data, mode="test" if dev else "production")
        require_kind(room.setup, custody, data)
        if not sealed:
            room.unseal(*read_needed(room.needs, secret_file))
        return room

    asyncio.run(run_server(data=data, bind=bind, open_keys=opener, ready=ready, drain_s=drain_seconds, metrics_bind=metrics))
