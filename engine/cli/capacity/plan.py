"""`citycard capacity plan`: when will it be done, how sure is that, what limits it, and what buys a week."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from engine.cli import output
from keys.errors import InvalidInput

if TYPE_CHECKING:
    from engine.capacity.result import PlanResult

_MOST_POINTS: Final = 200


def plan(
    scenario: Annotated[Path, typer.Argument(help="The scenario, a TOML file.")],
    profile: Annotated[Path | None, typer.Option(help="What `capacity measure` wrote; without it the scenario must say all times.")] = None,
    replications: Annotated[int, typer.Option(min=2, max=100_000, help="How often it is simulated.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same plan.")] = 1,
    sweep: Annotated[list[str] | None, typer.Option(help="FIELD=FROM:TO:STEP, e.g. stations=10:60:5; may be given again.")] = None,
    by: Annotated[str | None, typer.Option(help="A date such as 2027-06-30: the chance to be done by then.")] = None,
    data: Annotated[Path | None, typer.Option(help="The engine's data directory: how far past predictions were off.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report with pictures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Simulate a scenario many times: finish dates, utilization with the bottleneck first, waiting at counters, and what one more gives."""
    import msgspec

    from engine.capacity import plan as planning
    from engine.capacity.profile import load
    from engine.capacity.scenario.file import require_scenario

    result = planning.plan(
        require_scenario(scenario),
        None if profile is None else load(profile),
        replications=replications,
        seed=seed,
        sweeps=dict(_sweep(text) for text in sweep or ()),
        by=None if by is None else _date(by),
        past_errors=[] if data is None else _past_errors(data),
        profile_file="" if profile is None else profile.name,
    )
    if html is not None:
        from engine.capacity.report import write

        write(result, html)
    if as_json:
        output.emit_json(msgspec.to_builtins(result))
        return
    _show(result)
    if html is not None:
        output.say(f"\nreport: {html}")


def _sweep(text: str) -> tuple[str, list[float]]:
    field, equals, span = text.partition("=")
    parts = span.split(":")
    try:
        low, high, step = (float(part) for part in parts) if len(parts) == 3 else (float(parts[0]), float(parts[1]), 1.0)
    except (ValueError, IndexError):
        raise InvalidInput("SWEEP", f"{text} is not FIELD=FROM:TO:STEP, such as stations=10:60:5") from None
    if not equals or not field or not step > 0 or not low <= high or not (high - low) / step < _MOST_POINTS:
        raise InvalidInput("SWEEP", f"{text}: a field, numbers upwards, and at most {_MOST_POINTS} points")
    return field, [round(low + step * number, 9) for number in range(int((high - low) / step + 1e-9) + 1)]


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidInput("DATE", f"{text} is no date such as 2027-06-30") from None


def _past_errors(data: Path) -> list[str]:
    from engine.capacity.check import past_errors
    from engine.cli.capacity.ledger import ledger_path

    return past_errors(ledger_path(data, None))


def _show(result: PlanResult) -> None:
    for warning in result.warnings:
        output.say(f"warning: {warning}")
    if result.warnings:
        output.say("")
    first = result.bottleneck
    output.pairs(
        [
            ("scenario", f"{result.name}, from {result.start}"),
            ("cards", f"{result.total:,}"),
            ("done by", f"{_day(result.p50)} (P50)   {_day(result.p80)} (P80)   {_day(result.p95)} (P95)"),
            ("limited by", "nothing" if first is None else f"{first.name}: {first.capacity}"),
            *_deadline(result),
            ("blanks needed", f"{result.blanks.needed.p50:,.0f} (P50)   {result.blanks.needed.p95:,.0f} (P95)"),
            ("scrap", f"{result.blanks.scrapped.p50:,.0f} (P50)   {result.blanks.scrapped.p95:,.0f} (P95)"),
            ("blanks rejected", f"{result.blanks.rejected.p50:,.0f} (P50)   {result.blanks.rejected.p95:,.0f} (P95)"),
            ("simulated", f"{result.replications} times, seed {result.seed}, in {result.seconds:.1f} s"),
        ]
    )
    output.say("")
    rows = [(one.name, f"{one.utilization:.0%}", f"{one.limits:.0%}", one.capacity) for one in result.stages]
    output.table(("stage, bottleneck first", "busy", "waited for", "can do"), rows, "no stages")
    if result.instant:
        output.say("")
        output.table(("counters", "people/day", "wait P50", "P95", "5 min", "10 min", "15 min", "worst office P95"), _counters(result), "")
    output.say("")
    output.table(("what buys time", "days saved", "90 % range", "wait P95"), _marginal(result), "nothing to add one of")
    for swept in result.sweeps:
        output.say("")
        points = [(f"{p.value:g}", _day(p.p50), _day(p.p80), _day(p.p95), p.bottleneck, f"{p.utilization:.0%}") for p in swept.points]
        output.table((swept.field, "P50", "P80", "P95", "bottleneck", "busy"), points, "no points")
    output.say("")
    if result.past_errors:
        output.say("past predictions:")
    for line in result.past_errors or ["past predictions: none checked (see `citycard capacity check`)"]:
        output.say(line)


def _day(day: date | None) -> str:
    return "not in time" if day is None else day.isoformat()


def _deadline(result: PlanResult) -> list[tuple[str, str]]:
    if result.deadline is None:
        return []
    one = result.deadline
    late = "" if not one.late_days_p95 else f"; late by {one.late_days_p95:.0f} days at P95"
    return [(f"by {one.by}", f"{one.chance:.0%} chance; {one.good_by_then.p50:,.0f} cards good by then (P50){late}")]


def _counters(result: PlanResult) -> list[tuple[str, ...]]:
    return [
        (
            one.name,
            f"{one.customers_per_day:,.0f}",
            _minutes(one.wait_p50),
            _minutes(one.wait_p95),
            *(f"{one.within[minutes]:.1%}" for minutes in ("5", "10", "15")),
            _minutes(one.worst_office),
        )
        for one in result.instant
    ]


def _marginal(result: PlanResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one in result.marginal:
        days = f"{one.days_saved:.1f}" if one.real else "none that shows"
        wait = f"{_minutes(one.wait_p95_saved)} less" if one.wait_p95_saved >= 1 else ""
        rows.append((one.what, days, f"{one.low + 0.0:.1f} to {one.high + 0.0:.1f}".replace("-0.0", "0.0"), wait))
    return rows


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
