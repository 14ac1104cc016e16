"""Structured logs on stderr: one JSON object a line for machines, or plain key=value lines for a terminal."""

from __future__ import annotations

import logging
import sys

import structlog

from keys.errors import InvalidInput


def configure(level: str = "info", *, as_json: bool | None = None) -> None:
    """Sets up structlog once per process. JSON unless stderr is a terminal. InvalidInput LOG_LEVEL."""
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise InvalidInput("LOG_LEVEL", f"log level {level!r} is not known: debug, info, warning or error")
    plain = sys.stderr.isatty() if as_json is None else not as_json
    renderer: structlog.typing.Processor = (
        structlog.processors.LogfmtRenderer() if plain else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(levels[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
