"""The doors to the metrics: MetricsService on the wire, and HTTP on loopback for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc
from citycard.v1 import metrics_pb2 as pb
from citycard.v1.metrics_pb2_grpc import MetricsServiceServicer
from prometheus_client import start_http_server

from engine.production.line import Line
from engine.production.metrics import Metrics
from engine.rpc.errors import answered
from keys.errors import Unavailable

Context = grpc.aio.ServicerContext[Any, Any]


class MetricsService(MetricsServiceServicer):
    """See metrics.proto."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @answered
    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Context) -> pb.GetMetricsResponse:
        del request
        return pb.GetMetricsResponse(text=self._metrics.text().decode())


class Exposition:
    """The metrics over HTTP, from a thread of their own. `bind` was checked to be loopback; Unavailable PORT_TAKEN."""

    def __init__(self, metrics: Metrics, bind: str) -> None:
        host, _, port = bind.rpartition(":")
        try:
            self._server, self._thread = start_http_server(int(port), host.strip("[]"), metrics.registry)
        except OSError:
            raise Unavailable("PORT_TAKEN", f"{bind} cannot be bound: another program listens there; choose another --metrics") from None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def levels_of(line: Line) -> Callable[[], Mapping[str, tuple[str, float]]]:
    """What the line has under way, as gauges."""

    def ask() -> Mapping[str, tuple[str, float]]:
        stations = line.stations()
        return {
            "citycard_stations": ("stations connected", len(stations)),
            "citycard_stations_stopped": (
                "connected stations that get no work until somebody resets them",
                sum(bool(s["stopped"]) for s in stations),
            ),
            "citycard_cards_in_hand": ("cards in heads of connected stations", line.in_flight()),
            "citycard_jobs_running": ("jobs whose lines may be leased", line.jobs_running()),
        }

    return ask
