"""The pictures of what if: days saved by one more of something, and finish dates over the values of a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from itertools import groupby
from typing import TYPE_CHECKING, Final

from engine.capacity.report.charts import QUANTILES
from engine.capacity.report.svg import GREEN, GREY, INK, dated, draw, short
from engine.capacity.result import Marginal, PlanResult, Sweep, SweepPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS_SHOWN: Final = 14
_MARKERS: Final = ("o", "s", "D")
_BANDS: Final = ("#FFFFFF", "#EFEFEF")


def ordered(result: PlanResult) -> list[Marginal]:
    """What buys most first."""
    return sorted(result.marginal, key=lambda one: -one.days_saved)


def marginals(result: PlanResult) -> str:
    """Days saved with their range; grey and hatched where the simulation cannot tell them from none. Empty without any."""
    shown = ordered(result)[:BARS_SHOWN]
    if not shown:
        return ""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, one in enumerate(shown):
            colour, hatch = (GREEN, "") if one.real else ("#D0D0D0", "////")
            axes.barh(place, one.days_saved, height=0.62, color=colour, hatch=hatch, edgecolor=GREY, linewidth=0.6)
            axes.plot([one.low, one.high], [place, place], color=INK, linewidth=1.4, marker="|", markersize=7)
        axes.axvline(0, color=INK, linewidth=0.8)
        # hours are not blown up to the width of the page
        low, high = axes.get_xlim()
        axes.set_xlim(low, max(high, 1.0))
        axes.set_yticks(range(len(shown)), [short(one.what) for one in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlabel("days earlier at the median; the line is the 90 % range of the mean")
        axes.grid(visible=False, axis="y")

    words = "; ".join(f"{one.what}: {one.days_saved:.1f} days ({one.low:.1f} to {one.high:.1f})" for one in shown)
    return draw("marginal", "What one more saves", words, 0.95 + 0.34 * len(shown), paint)


def sweep(result: PlanResult, number: int) -> str:
    """Finish dates over the values of one sweep, with what limits where. A value at which a share does not finish has no point."""
    one = result.sweeps[number]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        _limits(axes, one)
        for (name, colour, line), marker, dates in zip(QUANTILES, _MARKERS, _dates(one), strict=True):
            kept = [(point.value, day) for point, day in zip(one.points, dates, strict=True) if day is not None]
            if kept:
                axes.plot(*zip(*kept, strict=True), color=colour, linestyle=line, marker=marker, markersize=5, linewidth=1.5, label=name)
        axes.margins(y=0.14)
        late = [point.value for point in one.points if point.p95 is None]
        axes.plot(
            late,
            [0.97] * len(late),
            "x",
            color=INK,
            transform=axes.get_xaxis_transform(),
            label="P95 not within the horizon" if late else None,
        )
        dated(axes.yaxis, 8)
        axes.set_xlabel(short(one.field))
        axes.set_ylabel("finish")
        axes.set_xticks(_ticks([point.value for point in one.points]))
        axes.grid(visible=True, axis="y")
        figure.legend(loc="outside lower center", ncols=4)

    words = "; ".join(f"{point.value:g}: P50 {point.p50 or 'none'}, limited by {point.bottleneck}" for point in one.points)
    return draw(f"sweep-{number}", f"Finish over {one.field}", words, 3.6, paint)


def _dates(one: Sweep) -> Iterator[list[date | None]]:
    yield [point.p50 for point in one.points]
    yield [point.p80 for point in one.points]
    yield [point.p95 for point in one.points]


def _limits(axes: Axes, one: Sweep) -> None:
    """Bands of values with the same bottleneck, its name above them."""
    spans = [(name, list(points)) for name, points in groupby(one.points, key=lambda point: point.bottleneck)]
    edges = _edges(one.points, [len(points) for _, points in spans])
    axes.set_xlim(edges[0], edges[-1])
    for place, (name, _) in enumerate(spans):
        axes.axvspan(edges[place], edges[place + 1], color=_BANDS[place % 2], linewidth=0, zorder=0)
        middle = (edges[place] + edges[place + 1]) / 2
        axes.annotate(
            short(name),
            (middle, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4 + 12 * (place % 2)),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=INK,
        )


def _edges(points: list[SweepPoint], lengths: list[int]) -> list[float]:
    """Where one bottleneck gives way to the next: half way between the values."""
    values = [point.value for point in points]
    margin = (values[-1] - values[0]) / max(1, 2 * len(values)) or 0.5
    edges, at = [values[0] - margin], 0
    for length in lengths[:-1]:
        at += length
        edges.append((values[at - 1] + values[at]) / 2)
    return [*edges, values[-1] + margin]


def _ticks(values: list[float]) -> list[float]:
    return values[:: max(1, -(-len(values) // 12))]
