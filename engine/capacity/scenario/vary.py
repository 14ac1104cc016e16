"""One number of a scenario changed: for sweeps, and for what one more of something gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final

from engine.capacity.scenario.model import DAY_MINUTES, WEEKDAYS, Range, Scenario, Shift
from keys.errors import InvalidInput

# short names for what is asked most, where the scenario has one group or one kind of counter
_SHORT: Final = {"stations": "groups.{}.count", "readers": "groups.{}.heads", "counters": "counters.{}.stations"}
_NAMES: Final = {"hsm": "hsm.count", "nodes": "engine.nodes", "people": "staff.people", "blanks": "blanks.per_week"}
_LISTS: Final = ("groups", "counters")


@dataclass(frozen=True, slots=True)
class Step:
    """One more of something: in words, the field, and its value then."""

    what: str
    field: str
    value: float


def varied(scenario: Scenario, field: str, value: float) -> Scenario:
    """The scenario with one number changed. InvalidInput SWEEP for a field that is none, or a value it cannot have."""
    path = _path(scenario, field)
    if path == ["shifts"]:
        return _with_shifts(scenario, _whole(field, value))
    return _with(scenario, path, value, field)  # type: ignore[no-any-return]


def current(scenario: Scenario, field: str) -> float:
    """The number as it is; the middle of a range. InvalidInput SWEEP for a field that is none."""
    path = _path(scenario, field)
    if path == ["shifts"]:
        return float(len(scenario.shifts))
    found: Any = scenario
    for name in path:
        found = _named(found, name, field) if isinstance(found, tuple) else _attribute(found, name, field)
    if isinstance(found, Range):
        return found.middle
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise InvalidInput("SWEEP", f"{field} is no number of this scenario")
    return float(found)


def one_more(scenario: Scenario) -> list[Step]:
    """Every resource of the scenario, and one more of it."""
    steps = []
    for group in scenario.groups:
        of = f" in {group.name}" if len(scenario.groups) > 1 else ""
        steps.append(Step(f"one more station{of}", f"groups.{group.name}.count", group.count + 1))
        steps.append(Step(f"one more reader at each station{of}", f"groups.{group.name}.heads", group.heads + 1))
        if 0 < group.printers < group.heads:
            steps.append(Step(f"one more printer at each station{of}", f"groups.{group.name}.printers", group.printers + 1))
    if scenario.groups and len(_shifts(scenario.shifts, len(scenario.shifts) + 1)) > len(scenario.shifts):
        added = _shifts(scenario.shifts, len(scenario.shifts) + 1)[-1]
        steps.append(Step(f"one more shift ({said(added)})", "shifts", len(scenario.shifts) + 1))
    if scenario.hsm is not None:
        steps.append(Step("one more HSM", "hsm.count", scenario.hsm.count + 1))
    if scenario.engine is not None:
        steps.append(Step("one more engine node", "engine.nodes", scenario.engine.nodes + 1))
    if scenario.staff is not None:
        steps.append(Step("one more person", "staff.people", scenario.staff.people + 1))
    if scenario.blanks is not None and scenario.blanks.per_week:
        steps.append(Step("a tenth more blanks a week", "blanks.per_week", round(scenario.blanks.per_week * 1.1)))
    for counter in scenario.counters:
        of = f" of {counter.name}" if len(scenario.counters) > 1 else ""
        steps.append(Step(f"one more station at each counter{of}", f"counters.{counter.name}.stations", counter.stations + 1))
    return steps


def _path(scenario: Scenario, field: str) -> list[str]:
    if field in _SHORT:
        kind = "counters" if field == "counters" else "groups"
        names = [one.name for one in getattr(scenario, kind)]
        if len(names) != 1:
            options = ", ".join(_SHORT[field].format(name) for name in names) or f"there are no {kind}"
            raise InvalidInput("SWEEP", f"{field} does not say whose: {options}")
        return _SHORT[field].format(names[0]).split(".")
    return _NAMES.get(field, field).split(".")


def _with(thing: Any, path: Sequence[str], value: float, field: str) -> Any:  # noqa: ANN401 - any struct of a scenario
    if isinstance(thing, tuple):
        chosen = _named(thing, path[0], field)
        return tuple(_with(one, path[1:], value, field) if one is chosen else one for one in thing)
    if not path:
        raise InvalidInput("SWEEP", f"{field} names no single number")
    old = _attribute(thing, path[0], field)
    if len(path) > 1:
        return replace(thing, **{_at(thing, path[0]): _with(old, path[1:], value, field)})
    if path[0] not in {one.name for one in fields(thing)}:
        return replace(thing, times=replace(thing.times, **{path[0]: Range(value, value)}))
    return replace(thing, **{path[0]: _number(thing, path[0], old, value, field)})


def _at(thing: Any, name: str) -> str:  # noqa: ANN401
    return name if name in {one.name for one in fields(thing)} else "times"


def _number(thing: Any, name: str, old: object, value: float, field: str) -> object:  # noqa: ANN401
    if value < 0:
        raise InvalidInput("SWEEP", f"{field} cannot be {value:g}")
    kind = str(next(one.type for one in fields(thing) if one.name == name))
    if kind.startswith("Range"):
        return Range(value, value)
    if kind == "int":
        return _whole(field, value)
    if isinstance(old, int | float):
        return value
    raise InvalidInput("SWEEP", f"{field} is no number")


def _attribute(thing: Any, name: str, field: str) -> Any:  # noqa: ANN401
    if thing is not None and is_dataclass(thing):
        if hasattr(thing, name):
            return getattr(thing, name)
        times = getattr(thing, "times", None)
        if times is not None and name in {one.name for one in fields(times)} - {"like"}:
            return getattr(times, name)
    raise InvalidInput("SWEEP", f"this scenario has no {field}")


def _named(things: tuple[Any, ...], name: str, field: str) -> Any:  # noqa: ANN401
    for one in things:
        if getattr(one, "name", None) == name:
            return one
    raise InvalidInput("SWEEP", f"this scenario has no {field}")


def _whole(field: str, value: float) -> int:
    if value != int(value) or value < 0:
        raise InvalidInput("SWEEP", f"{field} is counted in whole numbers, not {value:g}")
    return int(value)


def _with_shifts(scenario: Scenario, number: int) -> Scenario:
    """A group that works the last shift works the added ones too."""
    shifts = _shifts(scenario.shifts, number)
    kept = {shift.name for shift in shifts}
    added = frozenset(kept - {shift.name for shift in scenario.shifts})
    last = scenario.shifts[-1].name if scenario.shifts else ""
    groups = tuple(
        replace(group, shifts=(group.shifts & kept) | (added if last in group.shifts else frozenset())) if group.shifts else group
        for group in scenario.groups
    )
    return replace(scenario, shifts=shifts, groups=groups)


def _shifts(shifts: tuple[Shift, ...], number: int) -> tuple[Shift, ...]:
    """The first ones; or more, each after the last of the day as long as that; where the day is full, at the weekend."""
    found = list(shifts[:number])
    while shifts and len(found) < number:
        last = max(found, key=lambda one: one.end) if found else shifts[0]
        first = min(one.begin for one in found)
        length = last.end - last.begin
        if last.end + length <= first + DAY_MINUTES:
            found.append(Shift(f"shift {len(found) + 1}", last.end % DAY_MINUTES, last.end % DAY_MINUTES + length, last.days))
            continue
        free = [day for day in WEEKDAYS if not any(day in one.days for one in found)]
        if not free:
            break
        model = found[0]
        found.append(Shift(f"{free[0]} shift", model.begin, model.end, frozenset({free[0]})))
    return tuple(found)


def said(shift: Shift) -> str:
    """Its days and hours for people."""
    days = [day for day in WEEKDAYS if day in shift.days]
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{when} {shift.begin // 60:02}:{shift.begin % 60:02} to {shift.end // 60 % 24:02}:{shift.end % 60:02}"
