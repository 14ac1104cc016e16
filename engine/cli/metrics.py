"""`citycard metrics`: what a running server measures of itself."""

from __future__ import annotations

from typing import Any

from citycard.v1.metrics_pb2 import GetMetricsRequest
from citycard.v1.metrics_pb2_grpc import MetricsServiceStub

from engine.cli import client, output
from engine.cli.job import Json, Server


def metrics(server: Server, as_json: Json = False) -> None:
    """What the server measures of itself, in Prometheus's text format; with --json one object per metric."""
    request = GetMetricsRequest()
    text = client.ask(server, lambda c: MetricsServiceStub(c).GetMetrics(request, timeout=client.DEADLINE_S)).text
    if as_json:
        output.emit_json(as_dict(text))
    else:
        output.say(text.rstrip("\n"))


def as_dict(text: str) -> dict[str, Any]:
    """The exposition by metric: help, type, and samples with their labels and value."""
    from prometheus_client.parser import text_string_to_metric_families

    return {
        family.name: {
            "help": family.documentation,
            "type": family.type,
            "samples": [{"name": s.name, "labels": s.labels, "value": s.value} for s in family.samples],
        }
        for family in text_string_to_metric_families(text)
    }
