"""Reading a scenario: one TOML file. `read_scenario` gives every fault at once; `require_scenario` raises them as one error."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Mapping
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from engine.capacity.scenario.model import (
    DAY_MINUTES,
    HORIZON_DAYS,
    WEEKDAYS,
    WORKDAYS,
    Blanks,
    Counter,
    Engine,
    Failures,
    Group,
    Hsm,
    Maintenance,
    Orders,
    Scenario,
    Shift,
    Staff,
    Times,
)
from engine.capacity.scenario.tomlcheck import Checked, Field, Table
from keys.ceremony.toml import Finding
from keys.errors import InvalidInput

_NAME: Final = Field("text", required=True)
_DAYS: Final = Field("texts", choices=WEEKDAYS)
_SHARE: Final = Field("range", high=0.95)
_TIMES: Final = {
    "chip_seconds": Field("range", high=3600, above=True),
    "print_seconds": Field("range", high=3600),
    "handling_seconds": Field("range", high=3600),
    "gap_seconds": Field("range", high=3600),
    "like": Field("text"),
}
_TOP: Final = {
    "schema": Field("whole", required=True, low=1, high=1),
    "name": _NAME,
    "title": Field("text"),
    "start": Field("date", required=True),
    "horizon_days": Field("whole", low=1, high=3660),
}
_TABLES: Final = {
    "orders": Table(
        {
            "profile": _NAME,
            "total": Field("whole", required=True, low=1, high=10**10),
            "backlog": Field("whole"),
            "per_day": Field("number"),
            "instant_share": Field("number", high=1),
            "weekday_factors": Field("numbers", length=7),
            "month_factors": Field("numbers", length=12),
        },
        required=True,
    ),
    "calendar": Table({"country": Field("text", required=True, choices=("cn", "none")), "closed": Field("dates")}),
    "shifts": Table({"name": _NAME, "from": Field("time", required=True), "to": Field("time", required=True), "days": _DAYS}, many=True),
    "groups": Table(
        {
            "name": _NAME,
            "count": Field("whole", required=True, high=10_000),
            "heads": Field("whole", low=1, high=64),
            "printers": Field("whole", high=64),
            "profiles": Field("texts"),
            "shifts": Field("texts"),
            "lot": Field("text"),
            **_TIMES,
        },
        many=True,
    ),
    "counters": Table(
        {
            "name": _NAME,
            "offices": Field("whole", required=True, low=1, high=10_000),
            "stations": Field("whole", low=1, high=64),
            "open": Field("time", required=True),
            "close": Field("time", required=True),
            "days": _DAYS,
            "customers_per_day": Field("range", high=10_000),
            "talk_seconds": Field("range", high=3600),
            **_TIMES,
        },
        many=True,
    ),
    "maintenance": Table(
        {"every_days": Field("whole", required=True, low=1), "hours": Field("number", required=True, high=24, above=True)}
    ),
    "blanks": Table(
        {
            "stock": Field("whole", required=True),
            "per_week": Field("whole"),
            "weekday": Field("text", choices=WEEKDAYS),
            "late_share": Field("number", high=1),
            "late_days": Field("range", high=365),
        }
    ),
    "failures": Table(
        {
            "blank_rejected": _SHARE,
            "scrap": _SHARE,
            "uptime_hours": Field("range", above=True),
            "repair_minutes": Field("range", above=True),
        }
    ),
    "hsm": Table(
        {
            "calls_per_second": Field("range"),
            "calls_per_card": Field("number", required=True, above=True),
            "count": Field("whole", low=0, high=1000),
        }
    ),
    "engine": Table(
        {
            "nodes": Field("whole", low=1, high=1000),
            "cores": Field("whole", low=1, high=1024),
            "cpu_ms_per_card": Field("range", above=True),
        }
    ),
    "staff": Table({"people": Field("whole", required=True), "stations_per_person": Field("number", required=True, above=True)}),
}


def require_scenario(path: Path) -> Scenario:
    """Reads a scenario; InvalidInput SCENARIO with every fault, a line each."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput("SCENARIO", f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput("SCENARIO", f"{path} is not UTF-8 (byte {error.start})") from None
    scenario, findings = read_scenario(text, path.name)
    if scenario is None:
        raise InvalidInput("SCENARIO", "\n".join([f"{path}: {len(findings)} faults", *(f"  {found}" for found in findings)]))
    return scenario


def read_scenario(text: str, file: str = "") -> tuple[Scenario | None, list[Finding]]:
    """The scenario, None when anything is wrong, and all faults by line."""
    read = Checked(text, _TOP, _TABLES)
    if not any(found.rule == "toml" for found in read.findings):
        _references(read)
    if read.findings:
        return None, sorted(read.findings)
    return _scenario(read, file), []


def _references(read: Checked) -> None:
    for name in ("shifts", "groups", "counters"):
        _unique(read, name)
    _orders(read)
    for at, shift in enumerate(read.tables["shifts"]):
        if shift.get("from", 0) == shift.get("to", 1):
            read.fault(f"shifts[{at}].to", "times", "a shift ends when it begins")
    _overlaps(read)
    known = {shift.get("name") for shift in read.tables["shifts"]}
    for at, group in enumerate(read.tables["groups"]):
        for name in group.get("shifts", ()):
            if name not in known:
                read.fault(f"groups[{at}].shifts", "reference", f"there is no shift {name}")
        if group.get("printers", 0) > group.get("heads", 1):
            read.fault(f"groups[{at}].printers", "printers", "more printers than heads: one for each is the most that can be used")
    _makers(read)


def _makers(read: Checked) -> None:
    for at, counter in enumerate(read.tables["counters"]):
        if counter.get("open", 0) >= counter.get("close", DAY_MINUTES):
            read.fault(f"counters[{at}].close", "times", "must be later than open")
    if not read.tables["groups"] and not read.tables["counters"]:
        read.fault("groups", "missing", "neither [[groups]] nor [[counters]]: nobody would make a card")
    failures = (read.tables["failures"] or [{}])[0]
    if sum(failures[name].high for name in ("blank_rejected", "scrap") if name in failures) >= 1:
        read.fault("failures.scrap", "shares", "blank_rejected and scrap together leave no good cards")
    if ("uptime_hours" in failures) != ("repair_minutes" in failures):
        read.fault("failures", "pair", "uptime_hours and repair_minutes are given together or not at all")


def _unique(read: Checked, table: str) -> None:
    seen = Count[str]()
    for at, one in enumerate(read.tables[table]):
        name = one.get("name")
        if name is not None:
            seen[name] += 1
            if seen[name] == 2:
                read.fault(f"{table}[{at}].name", "twice", f"the name {name} is given twice")


def _orders(read: Checked) -> None:
    orders = (read.tables["orders"] or [{}])[0]
    total = orders.get("total")
    if total is not None and orders.get("backlog", 0) > total:
        read.fault("orders.backlog", "total", f"more than the {total} cards of total")
    share = orders.get("instant_share", 0.0)
    said = [at for at, one in enumerate(read.tables["counters"]) if "customers_per_day" in one]
    if share and not read.tables["counters"]:
        read.fault("orders.instant_share", "reference", "there is no [[counters]] to issue at")
    if share and said:
        read.fault(f"counters[{said[0]}].customers_per_day", "twice", "customers come from orders.instant_share or from here, not both")
    if not share:
        for at, one in enumerate(read.tables["counters"]):
            if "customers_per_day" not in one:
                read.fault(f"counters[{at}].customers_per_day", "missing", "is missing (or orders.instant_share with orders.per_day)")
    elif not orders.get("per_day"):
        read.fault("orders.per_day", "missing", "instant_share is a share of the orders per day")


def _overlaps(read: Checked) -> None:
    """Shifts may follow each other, not overlap: a station cannot work twice at once."""
    spans = []
    for at, one in enumerate(read.tables["shifts"]):
        if "from" in one and "to" in one and one["from"] != one["to"]:
            for day in one.get("days", WORKDAYS):
                begin = WEEKDAYS.index(day) * DAY_MINUTES + one["from"]
                spans.append((begin, begin + _length(one), at))
    spans.sort()
    wrong = {later for (_, end, _), (begin, _, later) in pairwise(spans) if begin < end}
    if len(spans) > 1 and spans[-1][1] - 7 * DAY_MINUTES > spans[0][0]:
        wrong.add(spans[-1][2])
    for at in sorted(wrong):
        read.fault(f"shifts[{at}].from", "overlap", "overlaps another shift of the same day")


def _length(shift: Mapping[str, Any]) -> int:
    return int(shift["to"] - shift["from"]) % DAY_MINUTES or DAY_MINUTES


def _scenario(read: Checked, file: str) -> Scenario:
    top = read.values
    one = {name: (found[0] if found else None) for name, found in read.tables.items()}
    calendar = one["calendar"] or {"country": "none"}
    closed: list[date] = calendar.get("closed", [])
    return Scenario(
        name=top["name"],
        title=top.get("title", ""),
        start=top["start"],
        horizon_days=top.get("horizon_days", HORIZON_DAYS),
        orders=_as_orders(one["orders"] or {}),
        country="" if calendar["country"] == "none" else calendar["country"],
        closed=tuple(closed),
        shifts=tuple(_as_shift(found) for found in read.tables["shifts"]),
        groups=tuple(Group(**_with_times(found)) for found in read.tables["groups"]),
        counters=tuple(Counter(**{"stations": 1} | _with_times(found)) for found in read.tables["counters"]),
        maintenance=None if one["maintenance"] is None else Maintenance(**one["maintenance"]),
        blanks=None if one["blanks"] is None else Blanks(**one["blanks"]),
        failures=Failures(**(one["failures"] or {})),
        hsm=None if one["hsm"] is None else Hsm(**one["hsm"]),
        engine=None if one["engine"] is None else Engine(**one["engine"]),
        staff=None if one["staff"] is None else Staff(**one["staff"]),
        file=file,
    )


def _as_orders(found: Mapping[str, Any]) -> Orders:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    values.setdefault("backlog", 0 if values.get("per_day") else values["total"])
    return Orders(**values)


def _as_shift(found: Mapping[str, Any]) -> Shift:
    return Shift(found["name"], found["from"], found["from"] + _length(found), frozenset(found.get("days", WORKDAYS)))


def _with_times(found: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: frozenset(value) if isinstance(value, list) else value for name, value in found.items() if name not in _TIMES}
    return values | {"times": Times(**{name: value for name, value in found.items() if name in _TIMES})}
