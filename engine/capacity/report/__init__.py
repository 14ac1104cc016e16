"""A plan as one HTML file that anybody can open, print and file: pictures, the tables behind them, and what it rests on.

No script, no font, no picture from elsewhere; whatever the scenario's author wrote is shown as text, never read as HTML.
"""

from __future__ import annotations

from pathlib import Path

from engine.capacity.report.page import page
from engine.capacity.result import PlanResult

__all__ = ["page", "write"]


def write(result: PlanResult, path: Path) -> None:
    """Writes the report whole or not at all. OSError where the place cannot be written."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(page(result), encoding="utf-8")
    temporary.replace(path)
