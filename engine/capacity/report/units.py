"""Numbers as the report writes them, each kind in one way."""

from __future__ import annotations

from datetime import date
from typing import Final

NEVER: Final = "not within the horizon"


def cards(count: float) -> str:
    """A number of pieces."""
    return f"{count:,.0f}"


def finish(day: date | None) -> str:
    """A finish date, or that there is none."""
    return str(day) if day is not None else NEVER


def percent(share: float) -> str:
    """A share; shares that are small but not none keep a digit."""
    return f"{100 * share:.0f} %" if share >= 0.1 or share == 0 else f"{100 * share:.1f} %"


def wait(seconds: float) -> str:
    """A wait at a counter."""
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def days(count: float) -> str:
    """Days gained or lost; never a negative zero."""
    return f"{round(count, 1) + 0.0:.1f}"
