"""The sections of the report: a picture with its caption, then the table behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from html import escape

from engine.capacity.report import charts, stages, whatif, words
from engine.capacity.report.tables import items, paragraph, table
from engine.capacity.report.units import cards, days, finish, percent, wait
from engine.capacity.result import PlanResult, Quantiles

_ROWS = 32


def section(title: str, *parts: str) -> str:
    """A section with its heading; nothing where all its parts are empty."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def picture(svg: str, caption: str) -> str:
    """A picture and what it shows; nothing where there is no picture."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" if svg else ""


def sections(result: PlanResult) -> Iterator[str]:
    """All of them, in order."""
    yield _cautions(result)
    if result.total and result.days:
        yield section("When", _fan(result), _finishes(result))
        yield section("What limits", _utilization(result))
    yield section("Instant issuance", _queues(result))
    yield section("What one more saves", _marginal(result))
    for number, one in enumerate(result.sweeps):
        yield section(f"What if: {one.field}", _sweep(result, number))
    yield section("Blanks", _blanks(result))
    yield section("The scenario", table("Inputs", ("name", "value"), result.summary) if result.summary else "")
    yield section("Where the figures are from", _sources(result))


def _cautions(result: PlanResult) -> str:
    """Before anything else: what makes the plan less believable, and how earlier plans did."""
    warnings = section("Warnings", items(result.warnings)) if result.warnings else ""
    none = "No finished job was compared with its prediction yet: how far plans are off here is not known."
    past = items(result.past_errors) if result.past_errors else paragraph(none)
    return f'<div class="caution">{warnings}{section("Past predictions", past)}</div>'


def _fan(result: PlanResult) -> str:
    least = charts.shaded(result)
    closed = "days on which nobody works" if least == 1 else f"{least} or more days in a row on which nobody works"
    caption = f"Good cards so far over {result.replications} replications. Shaded: {closed}."
    rows = [
        (day, *(cards(getattr(result.good, band)[at]) for band in ("p5", "p25", "p50", "p75", "p95")))
        for at, day in _sampled(result.days, _to(result))
    ]
    columns = ("at the end of", "P5", "P25", "P50", "P75", "P95")
    return picture(charts.fan(result), caption) + table("Good cards so far", columns, rows, numbers=range(1, 6))


def _finishes(result: PlanResult) -> str:
    ended = sorted(day for day in result.finish if day is not None)
    rows: list[tuple[object, ...]] = [("P50", finish(result.p50)), ("P80", finish(result.p80)), ("P95", finish(result.p95))]
    if ended:
        rows += [("earliest replication", ended[0]), ("latest replication that finishes", ended[-1])]
    rows.append(("finish within the horizon", f"{len(ended)} of {len(result.finish)}"))
    if result.deadline is not None:
        deadline = result.deadline
        rows += [
            (f"chance by {deadline.by}", percent(deadline.chance)),
            (f"good by {deadline.by}, P50 / P80 / P95", _three(deadline.good_by_then)),
        ]
        if deadline.late_days_p95 is not None:
            rows.append(("days late at P95", f"{deadline.late_days_p95:.0f}"))
    caption = f"When the {len(result.finish)} replications finish."
    return picture(charts.finishes(result), caption) + table("Finish", ("what", "value"), rows, numbers=(1,))


def _utilization(result: PlanResult) -> str:
    if not result.stages:
        return ""
    drawn = stages.shown(result)
    caption = "How much each stage did of what it could while people were there, the bottleneck first."
    if result.bottleneck not in drawn:
        caption = (
            f"How much each stage did of what it could while people were there. What limits, {result.stages[0].name}, is in the table."
        )
    elif len(drawn) < len(result.stages):
        caption += f" {len(result.stages) - len(drawn)} more in the table."
    rows = [(one.name, one.kind, percent(one.utilization), percent(one.limits), one.capacity) for one in result.stages]
    columns = ("stage", "kind", "utilization", "work that waited for it alone", "what it can do")
    return picture(stages.utilization(result), caption) + table("Stages", columns, rows, numbers=(2, 3)) + _monthly(result)


def _monthly(result: PlanResult) -> str:
    """Utilization by month, where there is more than one."""
    months = sorted({(day.year, day.month) for day in result.days if day <= _to(result)})
    if len(months) < 2 or not stages.shown(result):
        return ""
    shown = stages.shown(result)
    rows = []
    for year, month in months:
        row: list[str] = [f"{year}-{month:02d}"]
        for stage in shown:
            worked = [v for day, v in zip(result.days, stage.daily, strict=True) if (day.year, day.month) == (year, month) and v > 0]
            row.append(percent(sum(worked) / len(worked)) if worked else "none")
        rows.append(row)
    columns = ("month", *(stage.name for stage in shown))
    return table("Utilization by month, over the days worked", columns, rows, numbers=range(1, len(columns)))


def _queues(result: PlanResult) -> str:
    if not result.instant:
        return ""
    minutes = list(dict.fromkeys(minute for queue in result.instant for minute in queue.within))
    waits = [
        (
            queue.name,
            *(wait(seconds) for seconds in (queue.wait_p50, queue.wait_p95, queue.worst_office, queue.wait_max)),
            *(percent(queue.within[minute]) if minute in queue.within else "" for minute in minutes),
        )
        for queue in result.instant
    ]
    served = ("P50", "P95", "P95, slowest office", "longest", *(f"within {minute} min" for minute in minutes))
    counters = [
        (
            queue.name,
            *map(cards, (queue.offices, queue.stations, queue.customers_per_day)),
            percent(queue.utilization),
            cards(queue.unserved),
        )
        for queue in result.instant
    ]
    sizes = ("offices", "stations", "customers a day", "stations busy", "unserved a year")
    caption = "How long people wait from arrival until a station begins."
    return "".join(
        (
            picture(stages.queues(result), caption),
            table("Waits", ("counters", *served), waits, numbers=range(1, len(served) + 1)),
            table("Counters", ("counters", *sizes), counters, numbers=range(1, len(sizes) + 1)),
        )
    )


def _marginal(result: PlanResult) -> str:
    if not result.marginal:
        return ""
    shown = whatif.ordered(result)
    rows: list[tuple[str, ...]] = [
        (one.what, days(one.days_saved), f"{days(one.low)} to {days(one.high)}", "yes" if one.real else "cannot be told from none")
        for one in shown
    ]
    columns: tuple[str, ...] = ("one more", "days earlier", "90 % range", "real")
    if any(one.wait_p95_saved for one in shown):
        rows = [(*row, cards(one.wait_p95_saved) if one.wait_p95_saved else "") for row, one in zip(rows, shown, strict=True)]
        columns = (*columns, "seconds off the P95 wait")
    more = len(rows) - whatif.BARS_SHOWN
    caption = "Days earlier, each with everything else as planned and the same random numbers. Grey: cannot be told from none"
    caption += f". {more} more are in the table." if more > 0 else "."
    return picture(whatif.marginals(result), caption) + table("Marginal value", columns, rows, numbers=(1, 2, 4))


def _sweep(result: PlanResult, number: int) -> str:
    one = result.sweeps[number]
    if not one.points:
        return ""
    columns: tuple[str, ...] = (one.field, "P50", "P80", "P95", "what limits", "its utilization")
    rows: list[tuple[str, ...]] = [
        (f"{p.value:g}", *map(finish, (p.p50, p.p80, p.p95)), p.bottleneck, percent(p.utilization)) for p in one.points
    ]
    if any(p.wait_p95 for p in one.points):
        rows = [(*row, wait(p.wait_p95)) for row, p in zip(rows, one.points, strict=True)]
        columns = (*columns, "wait P95")
    caption = f"{words.sweep(one)} Above the bands: what limits there."
    return picture(whatif.sweep(result, number), caption) + table("Values tried", columns, rows, numbers=(5, 6))


def _blanks(result: PlanResult) -> str:
    blanks = result.blanks
    rows = [
        ("needed", *_quantiles(blanks.needed)),
        ("scrapped", *_quantiles(blanks.scrapped)),
        ("rejected before they were begun", *_quantiles(blanks.rejected)),
        ("days short of blanks", *_quantiles(blanks.short_days)),
    ]
    stock = f"{cards(blanks.in_stock_at_start)} blanks are in stock at the start, {cards(blanks.delivered_per_week)} are delivered a week."
    return paragraph(stock) + table("Blanks until the work is done", ("what", "P50", "P80", "P95"), rows, numbers=(1, 2, 3))


def _sources(result: PlanResult) -> str:
    return table("Figures", ("figure", "value", "from"), result.sources) if result.sources else ""


def _quantiles(value: Quantiles) -> tuple[str, str, str]:
    return cards(value.p50), cards(value.p80), cards(value.p95)


def _three(value: Quantiles) -> str:
    return " / ".join(_quantiles(value))


def _to(result: PlanResult) -> date:
    """The day up to which a table goes: a day after nearly every replication is done."""
    return result.p95 if result.p95 is not None else result.days[-1]


def _sampled(days: Sequence[date], last: date) -> list[tuple[int, date]]:
    """Places of the days of a table: all of a short plan, else ends of weeks, else of months; and the last."""
    kept = [(at, day) for at, day in enumerate(days) if day <= last]
    for rule in (_every_day, _sunday, _month_end):
        found = [(at, day) for at, day in kept if rule(day) or day == kept[-1][1]]
        if len(found) <= _ROWS:
            return found
    return found


def _every_day(_: date) -> bool:
    return True


def _sunday(day: date) -> bool:
    return day.weekday() == 6


def _month_end(day: date) -> bool:
    return (day + timedelta(days=1)).day == 1
