"""The pictures of what is busy and who waits: utilization of every stage over time, and the queue of instant issuance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from engine.capacity.report.charts import shade
from engine.capacity.report.svg import BLUE, GREY, INK, ORANGE, SKY, VERMILION, dated, draw, edge, short
from engine.capacity.report.units import percent
from engine.capacity.result import InstantQueue, PlanResult, Stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# more would not fit on a page; the table has all
SHOWN: Final = 8
QUEUES_SHOWN: Final = 16
_DAILY: Final = 60


def weekly(days: Sequence[date], daily: Sequence[float]) -> tuple[list[date], list[float]]:
    """Means over the days of each week that were worked at all; weeks without one are left out. A short plan stays daily."""
    if len(days) <= _DAILY:
        kept = [(day, value) for day, value in zip(days, daily, strict=True) if value > 0.0]
        return [day for day, _ in kept], [value for _, value in kept]
    weeks: dict[date, list[float]] = {}
    for day, value in zip(days, daily, strict=True):
        if value > 0.0:
            weeks.setdefault(day - timedelta(days=day.weekday()), []).append(value)
    return [week + timedelta(days=3) for week in weeks], [sum(values) / len(values) for values in weeks.values()]


def shown(result: PlanResult) -> list[Stage]:
    """The stages that have a course over time, the bottleneck first; for orders there is only the share of time without any."""
    return [stage for stage in result.stages if any(stage.daily) and stage.kind != "orders"][:SHOWN]


def utilization(result: PlanResult) -> str:
    """A strip per stage, the bottleneck first; empty for a plan without stages."""
    stages = shown(result)
    if not stages:
        return ""

    def paint(figure: Figure) -> None:
        rows = figure.subplots(len(stages), 1, sharex=True, squeeze=False)[:, 0]
        for axes, stage in zip(rows, stages, strict=True):
            shade(axes, result)
            days, values = weekly(result.days, stage.daily)
            limits = stage is result.bottleneck
            colour = VERMILION if limits else BLUE
            axes.fill_between(days, [100 * v for v in values], color=colour, alpha=0.25, linewidth=0)
            axes.plot(days, [100 * v for v in values], color=colour, linewidth=1.3, marker="." if len(days) < 3 else "")
            axes.axhline(100, color=GREY, linewidth=0.8, linestyle=":")
            axes.set_ylim(0, 112)
            axes.set_yticks([0, 50, 100])
            axes.set_title(f"{'bottleneck: ' if limits else ''}{short(stage.name)}, {percent(stage.utilization)}", pad=3)
        rows[0].set_xlim(edge(result.days[0]), edge(_last(result)) + 1.0)
        dated(rows[-1].xaxis, 10)
        for axes in rows:
            axes.grid(visible=False, axis="x")
        figure.supylabel("utilization, %", fontsize=9.5, color=INK)

    words = "; ".join(f"{stage.name} {percent(stage.utilization)}" for stage in stages)
    return draw("utilization", "Utilization of the stages over time", words, 0.55 + 1.0 * len(stages), paint)


def queues(result: PlanResult) -> str:
    """Waits at the counters: median, P95, and the P95 of the office that waits longest; empty without instant issuance."""
    groups = result.instant[:QUEUES_SHOWN]
    if not groups:
        return ""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        places = range(len(groups))
        for place, queue in zip(places, groups, strict=True):
            axes.plot([queue.wait_p50 / 60, queue.worst_office / 60], [place, place], color=SKY, linewidth=4, solid_capstyle="butt")
        for name, marker, colour, values in _waits(groups):
            axes.plot(values, places, linestyle="none", marker=marker, color=colour, markersize=7, label=name, clip_on=False, zorder=3)
        axes.set_yticks(list(places), [short(queue.name) for queue in groups])
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel("minutes from arrival until a station begins")
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside lower center", ncols=3)

    words = "; ".join(f"{queue.name}: P50 {queue.wait_p50 / 60:.1f} min, P95 {queue.wait_p95 / 60:.1f} min" for queue in groups)
    return draw("queues", "Waits of instant issuance", words, 1.35 + 0.34 * len(groups), paint)


def _waits(groups: Sequence[InstantQueue]) -> tuple[tuple[str, str, str, list[float]], ...]:
    return (
        ("P50", "o", BLUE, [queue.wait_p50 / 60 for queue in groups]),
        ("P95", "s", ORANGE, [queue.wait_p95 / 60 for queue in groups]),
        ("P95 of the slowest office", "D", VERMILION, [queue.worst_office / 60 for queue in groups]),
    )


def _last(result: PlanResult) -> date:
    """Where work has ended in nearly every replication."""
    return min(result.days[-1], result.p95 + timedelta(days=7)) if result.p95 is not None else result.days[-1]
