"""Which days are worked: the week, Chinese public holidays with the Saturdays and Sundays worked instead, and days closed besides.

Holidays are data (`data/holidays-cn.toml`), each year either published by the State Council or assumed and so labelled.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from typing import Final

MONDAY: Final = 0
SATURDAY: Final = 5
_PUBLISHED: Final = "published"


@dataclass(frozen=True, slots=True)
class Year:
    """Days off with their names, Saturdays and Sundays worked, and whether the State Council has said so."""

    year: int
    published: bool
    source: str
    off: dict[date, str]
    worked: frozenset[date]


@cache
def chinese_years() -> dict[int, Year]:
    """The years that are known, published or assumed."""
    raw = tomllib.loads(files("engine.capacity.scenario").joinpath("data/holidays-cn.toml").read_text(encoding="utf-8"))
    return {int(number): _year(int(number), one) for number, one in raw.items()}


def _year(number: int, raw: dict[str, object]) -> Year:
    spans = raw["off"]
    worked = raw["worked"]
    if not isinstance(spans, list) or not isinstance(worked, list):
        raise TypeError(f"holidays of {number}: off and worked must be lists")
    off = {day: str(span["name"]) for span in spans for day in _days(span["from"], span["to"])}
    return Year(number, raw["provenance"] == _PUBLISHED, str(raw["source"]), off, frozenset(worked))


def _days(first: date, last: date) -> Iterable[date]:
    return (first + timedelta(n) for n in range((last - first).days + 1))


class Calendar:
    """`country` "cn" knows the Chinese holidays, "" none. `closed` are further days on which nobody works."""

    def __init__(self, country: str = "cn", closed: Iterable[date] = ()) -> None:
        self._years = chinese_years() if country == "cn" else {}
        self._country = country
        self._closed = frozenset(closed)

    def weekday(self, day: date) -> int:
        """The weekday (0 Monday) whose shifts are worked: a Saturday or Sunday worked instead counts as a Monday; -1 for a day off."""
        if day in self._closed:
            return -1
        year = self._years.get(day.year)
        if year is not None and day in year.off:
            return -1
        if year is not None and day in year.worked:
            return MONDAY
        return day.weekday()

    def closed(self, day: date) -> bool:
        """A holiday, or a day closed besides."""
        return self.weekday(day) < 0

    def warnings(self, first: date, last: date) -> list[str]:
        """What makes dates between two days less certain: years whose holidays are assumed, or not known at all."""
        if self._country != "cn":
            return []
        said = []
        for number in range(first.year, last.year + 1):
            year = self._years.get(number)
            if year is None:
                said.append(f"no public holidays are known for {number}: only the week was counted, so dates in it are too early")
            elif not year.published:
                said.append(f"the public holidays of {number} are assumed ({year.source}), not read from a State Council notice")
        return said
