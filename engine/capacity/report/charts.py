"""The pictures of when: finish-date fan, and finish dates of the replications."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from engine.capacity.report.svg import BLUE, GREY, INK, ORANGE, VERMILION, dated, draw, edge
from engine.capacity.result import PlanResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# in a long plan only these are shaded: a stripe for every Sunday would hide the curve
LONG_BREAK: Final = 3
_SHORT_PLAN: Final = 120
_DAILY_BARS: Final = 45
_NEAR: Final = 0.35
_DAY: Final = timedelta(days=1)
QUANTILES: Final = (("P50", BLUE, "-"), ("P80", ORANGE, "--"), ("P95", VERMILION, "-."))


def marks(result: PlanResult) -> list[tuple[str, date, str, str]]:
    """The finish dates there are: name, date, colour, line style."""
    dates = (result.p50, result.p80, result.p95)
    return [(name, day, colour, line) for (name, colour, line), day in zip(QUANTILES, dates, strict=True) if day is not None]


def breaks(closed: Sequence[date], least: int) -> Iterator[tuple[date, date]]:
    """Runs of at least `least` consecutive days: first and last."""
    run: list[date] = []
    for day in [*sorted(set(closed)), None]:
        if run and day != run[-1] + _DAY:
            if len(run) >= least:
                yield run[0], run[-1]
            run = []
        if day is not None:
            run.append(day)


def shaded(result: PlanResult) -> int:
    """How long a break must be to be shaded in this plan's pictures."""
    return 1 if len(result.days) <= _SHORT_PLAN else LONG_BREAK


def shade(axes: Axes, result: PlanResult) -> None:
    """Grey bands over days on which nobody works."""
    first, last = result.days[0], result.days[-1]
    runs = [(max(a, first), min(b, last)) for a, b in breaks(result.closed, shaded(result)) if a <= last and b >= first]
    for place, (a, b) in enumerate(runs):
        axes.axvspan(edge(a), edge(b + _DAY), color="#000000", alpha=0.07, linewidth=0, label="closed" if place == 0 else None)


def fan(result: PlanResult) -> str:
    """Good cards so far, day by day: the median, and what half and nine tenths of the replications lie in."""

    def paint(figure: Figure) -> None:
        from matplotlib.ticker import StrMethodFormatter

        axes = figure.add_subplot()
        shade(axes, result)
        ends = [edge(result.start), *(edge(day + _DAY) for day in result.days)]
        unit, name = _scale(result.total)
        good = {band: [0.0, *(value / unit for value in getattr(result.good, band))] for band in ("p5", "p25", "p50", "p75", "p95")}
        axes.fill_between(ends, good["p5"], good["p95"], color=BLUE, alpha=0.18, linewidth=0, label="9 of 10 replications")
        axes.fill_between(ends, good["p25"], good["p75"], color=BLUE, alpha=0.30, linewidth=0, label="half of them")
        axes.plot(ends, good["p50"], color=BLUE, linewidth=1.6, label="median")
        axes.axhline(result.total / unit, color=GREY, linewidth=1.0, linestyle=":")
        for quantile, day, colour, line in marks(result):
            axes.axvline(edge(day + _DAY), color=colour, linewidth=1.3, linestyle=line, label=f"{quantile} {day}")
        for by in _deadline(result):
            axes.axvline(edge(by + _DAY), color=INK, linewidth=1.3, linestyle=":", label=f"deadline {by}")
        axes.set_ylabel(f"good cards{name}")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.set_ylim(0, 1.06 * result.total / unit)
        first, last = edge(result.start), _horizon(result, ends)
        axes.set_xlim(first, last + 0.015 * (last - first))
        dated(axes.xaxis, 10)
        axes.grid(visible=False, axis="x")
        figure.legend(loc="outside lower center", ncols=4)

    middle = "no median finish" if result.p50 is None else f"median finish {result.p50}"
    return draw(
        "fan", "Finish-date fan", f"Cumulative good cards with ranges over {result.replications} replications; {middle}.", 4.1, paint
    )


def finishes(result: PlanResult) -> str:
    """How many replications finish when; empty where none does."""
    ended = sorted(day for day in result.finish if day is not None)
    if not ended:
        return ""
    width = 1 if (ended[-1] - ended[0]).days <= _DAILY_BARS else 7

    def paint(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.add_subplot()
        bars: dict[date, int] = {}
        for day in ended:
            left = ended[0] + timedelta(days=(day - ended[0]).days // width * width)
            bars[left] = bars.get(left, 0) + 1
        axes.bar(
            [edge(left) for left in bars],
            list(bars.values()),
            width=width * 0.92,
            align="edge",
            color="#8FC1E0",
            label="replications",
        )
        for quantile, day, colour, line in marks(result):
            axes.axvline(edge(day) + 0.5, color=colour, linewidth=1.6, linestyle=line, label=f"{quantile} {day}")
        for by in _deadline(result):
            axes.axvline(edge(by) + 0.5, color=INK, linewidth=1.3, linestyle=":", label=f"deadline {by}")
        axes.set_ylabel(f"replications per {'day' if width == 1 else 'week'}")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        low, high = axes.get_xlim()
        axes.set_xlim(low - max(0.0, 4 - (high - low) / 2), high + max(0.0, 4 - (high - low) / 2))
        dated(axes.xaxis, 10)
        axes.grid(visible=False, axis="x")
        figure.legend(loc="outside lower center", ncols=5)

    words = f"{len(ended)} of {len(result.finish)} replications finish, between {ended[0]} and {ended[-1]}."
    return draw("finishes", "Finish dates of the replications", words, 2.9, paint)


def _scale(total: int) -> tuple[float, str]:
    if total >= 2_000_000:
        return 1e6, ", millions"
    return (1e3, ", thousands") if total >= 20_000 else (1.0, "")


def _deadline(result: PlanResult) -> list[date]:
    """The deadline, where it lies near enough to the finish to be drawn: one far off would squeeze everything else."""
    if result.deadline is None:
        return []
    last = result.p95 or result.days[-1]
    near = abs((result.deadline.by - last).days) <= _NEAR * (last - result.start).days
    return [result.deadline.by] if near else []


def _horizon(result: PlanResult, ends: Sequence[float]) -> float:
    """Where the picture ends: at the latest date that is marked; the whole plan where a quantile is missing."""
    if result.p95 is None:
        return ends[-1]
    return edge(max([result.p95, *_deadline(result)]) + _DAY)
