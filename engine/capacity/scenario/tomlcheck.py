"""Checks a TOML file against a description of its tables; every fault is found at once, with line and field."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from math import inf, isfinite
from typing import Any, Final, Literal

from engine.capacity.scenario.model import Range
from keys.ceremony.toml import Finding

Kind = Literal["text", "whole", "number", "range", "numbers", "texts", "date", "dates", "time"]
_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.-]+)\s*\]\]?\s*(#.*)?$")
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")
_AT_LINE: Final = re.compile(r"\(at line (\d+), column (\d+)\)")
_TIME: Final = re.compile(r"([01]\d|2[0-4]):([0-5]\d)")
_TEXT: Final = re.compile(r"[^\x00-\x1f\x7f]{1,120}")
# whole numbers beyond it are no exact floats
_BIGGEST: Final = 1 << 53
_SAID: Final[Mapping[str, str]] = {
    "text": "text of 1 to 120 characters",
    "whole": "a whole number",
    "number": "a number",
    "range": "a number, or [low, high] with low <= high",
    "numbers": "a list of numbers",
    "texts": "a list of texts, and not an empty one",
    "date": "a date such as 2027-12-31",
    "dates": "a list of dates",
    "time": 'a time of day such as "08:30"',
}


@dataclass(frozen=True, slots=True)
class Field:
    """What a value must be. `low` and `high` bound numbers (and both ends of a range); `above` says that `low` itself is too little;
    `length` is that of a list.
    """

    kind: Kind
    required: bool = False
    low: float = 0.0
    high: float = inf
    above: bool = False
    choices: tuple[str, ...] = ()
    length: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """The fields of a table; `many` for an array of tables."""

    fields: Mapping[str, Field]
    required: bool = False
    many: bool = False


class Checked:
    """`values` holds what was right, times as minutes of the day; the faults are in `findings`, in no order."""

    def __init__(self, text: str, top: Mapping[str, Field], tables: Mapping[str, Table]) -> None:
        self.findings: list[Finding] = []
        self.values: dict[str, Any] = {}
        self.tables: dict[str, list[dict[str, Any]]] = {name: [] for name in tables}
        self._lines = dict(_lines(text))
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            at = _AT_LINE.search(str(error))
            self.findings.append(Finding(int(at[1]) if at else 0, "file", "toml", _AT_LINE.sub("", str(error)).strip()))
            return
        self.values = self._fields({name: value for name, value in raw.items() if name not in tables}, top, "")
        for name, table in tables.items():
            self._table(name, table, raw.get(name))

    def fault(self, field: str, rule: str, message: str) -> None:
        """Adds a finding at the line of `field`, or of the nearest table around it."""
        at = field
        while at and at not in self._lines:
            at = at.rpartition(".")[0]
        self.findings.append(Finding(self._lines.get(at, 0), field, rule, message))

    def _table(self, name: str, table: Table, found: object) -> None:
        if found is None:
            if table.required:
                self.fault(name, "missing", f"[[{name}]] is missing" if table.many else f"[{name}] is missing")
            return
        if not isinstance(found, list if table.many else dict) or not all(isinstance(one, dict) for one in found if table.many):
            self.fault(name, "type", "must be an array of tables" if table.many else "must be a table")
            return
        for at, one in enumerate(found if isinstance(found, list) else [found]):
            self.tables[name].append(self._fields(one, table.fields, f"{name}[{at}]" if table.many else name))

    def _fields(self, found: Mapping[str, object], fields: Mapping[str, Field], where: str) -> dict[str, Any]:
        prefix = f"{where}." if where else ""
        for name in found:
            if name not in fields:
                self.fault(prefix + name, "unknown", "no such key in a scenario")
        right = {}
        for name, field in fields.items():
            if name not in found:
                if field.required:
                    self.fault(prefix + name, "missing", "is missing")
                continue
            value = _value(field, found[name])
            if value is None:
                self.fault(prefix + name, "type", f"must be {_SAID[field.kind]}" + (f", {field.length} of them" if field.length else ""))
            elif not self._bounded(prefix + name, field, value):
                continue
            else:
                right[name] = value
        return right

    def _bounded(self, where: str, field: Field, value: object) -> bool:
        if field.choices:
            wrong = [one for one in (value if isinstance(value, list) else [value]) if one not in field.choices]
            if wrong:
                self.fault(where, "choice", f"must be one of {', '.join(field.choices)}")
            return not wrong
        if field.kind not in ("whole", "number", "range", "numbers"):
            return True
        numbers: Any = value
        ends = (numbers.low, numbers.high) if isinstance(numbers, Range) else numbers if isinstance(numbers, list) else (numbers,)
        if all(field.low <= end <= field.high and not (field.above and end == field.low) for end in ends):
            return True
        least = f"more than {field.low:g}" if field.above else f"at least {field.low:g}"
        most = "" if field.high == inf else f" and at most {field.high:g}"
        self.fault(where, "range", f"must be {field.low:g}" if field.low == field.high else f"must be {least}{most}")
        return False


def _value(field: Field, value: object) -> object | None:
    """The value in the form the program uses, or None when it is of another kind."""
    reader = _READERS.get(field.kind)
    return _listed(field, value) if reader is None else reader(value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and _TEXT.fullmatch(value) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value < _BIGGEST else None


def _date(value: object) -> date | None:
    return value if isinstance(value, date) and not isinstance(value, datetime) else None


def _listed(field: Field, value: object) -> object | None:
    if not isinstance(value, list) or (field.length and len(value) != field.length):
        return None
    reader = {"numbers": _number, "dates": _date}.get(field.kind, _text)
    right = [reader(one) for one in value]
    return None if None in right or (field.kind == "texts" and not right) else right


def _number(value: object) -> float | None:
    right = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and abs(value) < _BIGGEST
    return float(value) if right and isinstance(value, int | float) else None


def _range(value: object) -> Range | None:
    ends = [_number(one) for one in value] if isinstance(value, list) else [_number(value)] * 2
    if len(ends) != 2 or ends[0] is None or ends[1] is None or ends[0] > ends[1]:
        return None
    return Range(ends[0], ends[1])


def _minutes(value: object) -> int | None:
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    minutes = int(found[1]) * 60 + int(found[2]) if found else None
    return None if minutes is None or minutes > 24 * 60 else minutes


_READERS: Final[Mapping[str, Callable[[object], object | None]]] = {
    "text": _text,
    "whole": _whole,
    "number": _number,
    "range": _range,
    "date": _date,
    "time": _minutes,
}


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Field path to line number, for the plain form people write: one key a line under its table's header."""
    where = ""
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            where = header[2]
            if header[1] == "[[":
                where = f"{header[2]}[{counts.get(header[2], 0)}]"
                counts[header[2]] = counts.get(header[2], 0) + 1
                if counts[header[2]] == 1:
                    yield header[2], number
            yield where, number
            continue
        key = _KEY.match(line)
        if key:
            yield f"{where}.{key[1]}" if where else key[1], number
