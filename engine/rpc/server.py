"""The gRPC server: binds loopback, opens keys and ledger, serves, drains on SIGTERM, and zeroizes on SIGUSR1.

Until mutual TLS exists nothing but loopback is bound. Health says SERVING only while new cards can be begun: not while the keys are
sealed or their token is gone, and not from the moment a drain begins, so that nobody is sent here any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import structlog
from citycard.v1 import jobs_pb2, keys_pb2, metrics_pb2, station_pb2, stock_pb2
from citycard.v1.jobs_pb2_grpc import add_JobServiceServicer_to_server
from citycard.v1.keys_pb2_grpc import add_CeremonyServiceServicer_to_server, add_KeyServiceServicer_to_server
from citycard.v1.metrics_pb2_grpc import add_MetricsServiceServicer_to_server
from citycard.v1.station_pb2_grpc import add_StationServiceServicer_to_server
from citycard.v1.stock_pb2_grpc import add_StockServiceServicer_to_server
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from engine.dispatch.dispatcher import Dispatcher
from engine.ledger.serials import SerialAllocator
from engine.ledger.store import Ledger
from engine.production import ceremonies
from engine.production.context import Context
from engine.production.jobs import JobDesk
from engine.production.keydesk import KeyDesk
from engine.production.keyroom import KeyRoom
from engine.production.line import Line
from engine.production.metrics import Metrics
from engine.production.samples import Samples
from engine.production.stockroom import Stockroom
from engine.production.upkeep import Upkeep
from engine.rpc.jobs import JobService
from engine.rpc.keys import CeremonyService, KeyService
from engine.rpc.local import LEDGER_FILE, DataLock, check_bind
from engine.rpc.metrics import Exposition, MetricsService, levels_of
from engine.rpc.stations import StationService
from engine.rpc.stock import StockService
from keys import memory
from keys.errors import Unavailable

log = structlog.get_logger("server")

DRAIN_S: Final = 30.0
# A card leaves hardly any cycles behind, so garbage is looked for rarely.
GC_THRESHOLD: Final = (20_000, 20, 50)
# The ledger's thread lets go of the interpreter with every statement; taking it back from a busy event loop must not take 5 ms each time.
SWITCH_S: Final = 0.0005
# SO_REUSEPORT is on by default in gRPC: a second server would share the port without a word.
OPTIONS: Final = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 4 << 20), ("grpc.max_concurrent_streams", 4096))


@dataclass
class Served:
    """A server that is up."""

    server: grpc.aio.Server
    line: Line
    upkeep: Upkeep
    keys: KeyDesk
    health: health.aio.HealthServicer
    port: int


async def start(ledger: Ledger, room: KeyRoom, data: Path, bind: str, metrics: Metrics) -> Served:
    """Puts the services together and binds; Unavailable PORT_TAKEN when something listens there already."""
    context = Context(ledger, room, SerialAllocator(ledger))
    ledger.watch(metrics.committed)
    line = Line(context, Dispatcher(), metrics)
    metrics.levels(levels_of(line))
    desk = JobDesk(context, line, data)
    checks = health.aio.HealthServicer()

    async def changed(trouble: str) -> None:
        """SERVING while new cards can be begun, NOT_SERVING while something forbids it; when that is over, jobs go on."""
        if not trouble:
            await desk.go_on()
        status = health_pb2.HealthCheckResponse.NOT_SERVING if trouble else health_pb2.HealthCheckResponse.SERVING
        for name in ("", *names):
            await checks.set(name, status)

    upkeep = Upkeep(ledger, line, changed)
    keys = KeyDesk(room, context, line, upkeep)
    server = grpc.aio.server(options=OPTIONS)
    add_JobServiceServicer_to_server(JobService(desk), server)
    add_StockServiceServicer_to_server(StockService(Stockroom(context, line), Samples(context)), server)
    add_StationServiceServicer_to_server(StationService(line, metrics), server)
    add_MetricsServiceServicer_to_server(MetricsService(metrics), server)
    add_KeyServiceServicer_to_server(KeyService(keys), server)
    add_CeremonyServiceServicer_to_server(CeremonyService(data / ceremonies.DIRECTORY), server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = [
        *(
            m.DESCRIPTOR.services_by_name[n].full_name
            for m, n in (
                (jobs_pb2, "JobService"),
                (stock_pb2, "StockService"),
                (station_pb2, "StationService"),
                (keys_pb2, "KeyService"),
                (keys_pb2, "CeremonyService"),
                (metrics_pb2, "MetricsService"),
            )
        ),
        health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
    ]
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    try:
        port = server.add_insecure_port(bind)
    except RuntimeError:
        port = 0
    if port == 0:
        raise Unavailable("PORT_TAKEN", f"{bind} cannot be bound: another program listens there; choose another --bind")
    await upkeep.look()
    await desk.recover()
    await changed(line.trouble)
    await server.start()
    return Served(server, line, upkeep, keys, checks, port)


async def serve(
    *,
    data: Path,
    bind: str,
    open_keys: Callable[[], KeyRoom],
    ready: Callable[[int], None],
    drain_s: float = DRAIN_S,
    metrics_bind: str | None = None,
) -> None:
    """Runs until SIGTERM or SIGINT, then drains: no new leases, cards in hand finished, streams closed, ledger closed.

    `metrics_bind`: where Prometheus may read the metrics over HTTP, on loopback too.
    """
    check_bind(bind)
    if metrics_bind is not None:
        check_bind(metrics_bind)
    lock = DataLock(data)
    try:
        room = open_keys()
        ledger = await asyncio.to_thread(Ledger.open, data / LEDGER_FILE)
        try:
            await _serve_until_told(ledger, room, data, bind, ready, drain_s, metrics_bind)
        finally:
            await asyncio.to_thread(room.close)
            await asyncio.to_thread(ledger.close)
    finally:
        lock.release()


async def _serve_until_told(
    ledger: Ledger, room: KeyRoom, data: Path, bind: str, ready: Callable[[int], None], drain_s: float, metrics_bind: str | None
) -> None:
    metrics = Metrics()
    exposition = Exposition(metrics, metrics_bind) if metrics_bind is not None else None
    served = await start(ledger, room, data, bind, metrics)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    zeroizing: set[asyncio.Task[None]] = set()
    loop.add_signal_handler(signal.SIGUSR1, lambda: zeroizing.add(asyncio.create_task(served.keys.zeroize_now("SIGUSR1"))))
    sweeper = asyncio.create_task(served.upkeep.forever())
    watcher = asyncio.create_task(metrics.watch_loop())
    # what is there now stays: looking through it again and again for garbage would hold up cards for milliseconds
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    sys.setswitchinterval(SWITCH_S)
    ready(served.port)
    if shortfall := memory.shortfall():
        log.warning("keys are not locked in memory", why=shortfall)
    log.info("serving", port=served.port, data=str(data), pid=os.getpid(), key_memory="unlocked" if shortfall else "locked")
    if served.line.trouble:
        log.warning("no cards yet", why=served.line.trouble)
    await stop.wait()
    log.info("draining", in_flight=served.line.in_flight())
    await served.health.enter_graceful_shutdown()
    await served.upkeep.drain(drain_s)
    for task in (sweeper, watcher):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    if exposition is not None:
        exposition.close()
    await served.server.stop(2.0)
    log.info("stopped")
