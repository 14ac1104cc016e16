"""What a lint says: one finding, its weight and its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """One thing the lint has to say."""

    severity: Severity
    rule: str
    where: str
    message: str


def error(rule: str, where: str, message: str) -> Finding:
    return Finding("error", rule, where, message)


def warning(rule: str, where: str, message: str) -> Finding:
    return Finding("warning", rule, where, message)
