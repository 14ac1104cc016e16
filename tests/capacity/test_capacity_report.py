"""The HTML report of a plan: what it shows is the result's, nothing comes from elsewhere, and no name becomes HTML."""

from __future__ import annotations

import re
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.capacity import report
from engine.capacity.report import charts, stages, units, whatif
from engine.capacity.result import (
    Bands,
    Blanks,
    Deadline,
    InstantQueue,
    Marginal,
    PlanResult,
    Quantiles,
    Stage,
    Sweep,
    SweepPoint,
)

START = date(2026, 11, 23)
VOID = {"meta", "br", "hr", "img", "link", "input"}


def plan(total: int = 12_800_000, days: int = 420, replications: int = 200, **changes: Any) -> PlanResult:
    """A plan as a simulation would give it: a bureau that closes on Sundays and over the Spring Festival."""
    rng = np.random.default_rng(5)
    calendar = [START + timedelta(days=n) for n in range(days)]
    festival = {date(2027, 2, 5) + timedelta(days=n) for n in range(9)}
    closed = [day for day in calendar if day.weekday() == 6 or day in festival]
    worked = np.array([day not in closed for day in calendar], float)
    speed = rng.normal(1.0, 0.03, (replications, 1))
    daily = worked * total / (worked.sum() * 0.86) * speed * rng.normal(1.0, 0.05, (replications, days))
    good = np.minimum(np.cumsum(daily, axis=1), total)
    done = [calendar[int(np.argmax(row >= total))] if row[-1] >= total else None for row in good]
    ended = sorted(day for day in done if day is not None)
    at = {share: ended[int(share * (replications - 1))] if len(ended) > share * replications else None for share in (0.5, 0.8, 0.95)}

    def busy(mean: float) -> list[float]:
        return [round(float(v), 4) for v in np.clip(worked * rng.normal(mean, 0.04, days), 0.0, 1.0)]

    named = [
        ("bureau 1, personalization", "stations", 0.94, 0.81, "20 stations of 2 readers, 26,400 cards a day"),
        ("printers", "printer", 0.71, 0.06, "10 printers, 34,000 cards a day"),
        ("HSM", "hsm", 0.38, 0.0, "1,200 calls/s"),
        ("engine", "engine", 0.12, 0.0, "1 node, 2 cores, 900 cards/s"),
        ("blanks", "blanks", 0.55, 0.11, "200,000 a week"),
    ]
    filled: dict[str, Any] = {
        "name": "Zhengzhou citizen card 郑州市民卡",
        "scenario_file": "zhengzhou.toml",
        "profile_file": "capacity.json",
        "machine": "AMD EPYC, 4 cores, avx512 kernels",
        "commit": "e3efb9b",
        "seed": 1,
        "replications": replications,
        "seconds": 12.25,
        "start": START,
        "horizon_days": days,
        "total": total,
        "summary": [("stations", "20 in 1 group"), ("shifts", "2 of 8 h, Monday to Saturday"), ("counters", "526 offices")],
        "sources": [("chip seconds", "6.1 s at P50", "measured"), ("blanks a week", "200,000", "said in the scenario")],
        "warnings": ["measured on another machine: other CPU, 8 cores; this one is AMD EPYC, 4 cores"],
        "past_errors": ["job J47529FEE: predicted 12.9 min, measured 13.4 min, error -3.7 %"],
        "finish": done,
        "p50": at[0.5],
        "p80": at[0.8],
        "p95": at[0.95],
        "days": calendar,
        "closed": closed,
        "good": Bands(*(np.quantile(good, q, axis=0).round().tolist() for q in (0.05, 0.25, 0.5, 0.75, 0.95))),
        "stages": [Stage(name, kind, use, limits, words, busy(use)) for name, kind, use, limits, words in named],
        "instant": [
            InstantQueue("all", 526, 631, 1480.0, 12.0, 410.0, 3900.0, {"5": 0.91, "10": 0.97, "15": 0.99}, 960.0, 0.34, 12.0),
            InstantQueue("city centre 中原区", 26, 80, 700.0, 35.0, 620.0, 3900.0, {"5": 0.82, "10": 0.94, "15": 0.97}, 960.0, 0.61, 9.0),
        ],
        "blanks": Blanks(
            Quantiles(13_011_220.0, 13_020_000.0, 13_031_000.0),
            Quantiles(131_220.0, 140_000.0, 149_000.0),
            Quantiles(80_000.0, 80_000.0, 82_000.0),
            400_000,
            200_000.0,
            Quantiles(0.0, 1.0, 3.0),
        ),
        "marginal": [
            Marginal("one more station in bureau 1", "groups.bureau-1.count", 14.6, 12.9, 16.2, True),
            Marginal("one more shift", "shifts", 61.3, 57.0, 66.0, True, 4.0),
            Marginal("one more HSM", "hsm.count", 0.2, -0.5, 0.9, False),
            Marginal("one more engine node", "engine.nodes", -0.1, -0.8, 0.6, False),
        ],
        "sweeps": [Sweep("stations", [_point(value) for value in range(10, 61, 5)])],
        "deadline": Deadline(date(2027, 11, 30), 0.735, Quantiles(12_800_000.0, 12_650_000.0, 12_400_000.0), 17.0),
    }
    return PlanResult(**(filled | changes))


def _point(stations: int) -> SweepPoint:
    days = [max(170, 3600 * spread // stations) for spread in (2, 2.1, 2.2)]
    p50, p80, p95 = (START + timedelta(days=int(n)) if n < 500 else None for n in days)
    bottleneck = "bureau 1, personalization" if stations < 35 else "printers" if stations < 50 else "blanks"
    return SweepPoint(float(stations), p50, p80, p95, bottleneck, 0.93, 0.0)


class Reader(HTMLParser):
    """Checks that every element is closed, and collects what a reader sees and what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.seen: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        if "svg" not in self.open:
            self.seen.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data

    @property
    def text(self) -> str:
        return " ".join(self.seen)


def numbers_of(value: Any) -> set[str]:
    """Every way in which the report may write a number that a result holds."""
    if isinstance(value, date):
        return {str(value)}
    if isinstance(value, str):
        return set(re.findall(r"[\d][\d.,]*\d|\d", value))
    if isinstance(value, bool) or value is None:
        return set()
    if isinstance(value, int | float):
        found = {
            f"{value:,.0f}",
            f"{value:.1f}",
            f"{value:g}",
            f"{abs(value):.1f}",
            f"{100 * value:.0f}",
            f"{100 * value:.1f}",
            f"{value / 60:.1f}",
        }
        return found | {str(value)}
    if isinstance(value, msgspec.Struct):
        return set().union(*(numbers_of(getattr(value, name)) for name in value.__struct_fields__))
    if isinstance(value, dict):
        return set().union(*(numbers_of(x) for pair in value.items() for x in pair))
    return set().union(*(numbers_of(x) for x in value)) if value else set()


@pytest.fixture(scope="module")
def result() -> PlanResult:
    return plan()


@pytest.fixture(scope="module")
def html(result: PlanResult) -> str:
    return report.page(result)


def test_every_section_has_its_picture_in_words_and_its_table(html: str) -> None:
    read = Reader(html)
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings == [
        *("Warnings", "Past predictions", "When", "What limits", "Instant issuance", "What one more saves", "What if: stations", "Blanks"),
        *("The scenario", "Where the figures are from"),
    ]
    assert read.tags.count("svg") == 6
    assert read.tags.count("desc") == read.tags.count("figcaption") == 6
    assert read.tags.count("caption") == read.tags.count("table") >= 9
    assert len(read.ids) == len(set(read.ids))
    for _, named in (pair for pair in read.attributes if pair[0] == "aria-labelledby"):
        assert set(named.split()) <= set(read.ids)


def test_nothing_is_fetched_and_nothing_runs(html: str) -> None:
    read = Reader(html)
    assert not {"script", "link", "img", "iframe", "image", "object", "base"} & set(read.tags)
    for name, value in read.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "action"):
            assert value.startswith("#"), (name, value)
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert "http" not in outside
    assert not re.search(r"@import|url\((?!#)", outside)


def test_every_number_a_reader_sees_is_one_of_the_results(result: PlanResult) -> None:
    steady = [msgspec.structs.replace(s, daily=[s.utilization if v else 0.0 for v in s.daily]) for s in result.stages]
    result = msgspec.structs.replace(result, stages=steady)
    known = numbers_of(result)
    # words of the report itself: half, 8 of 10, 19 of 20, P50 and the like, the 90 % range, the counts it makes
    known |= {"8", "10", "19", "20", "5", "25", "50", "75", "80", "95", "90", f"{charts.LONG_BREAK}"}
    known |= {f"{sum(day is not None for day in result.finish)}"} | {f"{day:%Y-%m}" for day in result.days}
    read = Reader(report.page(result))
    strange = [n for n in re.findall(r"\d{4}-\d\d(?:-\d\d)?|\d[\d,]*\.\d+|\d[\d,]*\d|\d", read.text) if n not in known]
    assert strange == []


def test_the_headline_says_date_limit_gain_wait_and_chance(html: str) -> None:
    said = " ".join(re.sub(r"<[^>]+>", "", text) for text in re.findall(r'<p class="lead">(.*?)</p>', html))
    assert "12,800,000 cards are done by 2027-11-" in said
    assert "What limits is bureau 1, personalization (20 stations of 2 readers, 26,400 cards a day), busy 94 % of its time." in said
    assert "What buys most is one more shift: 61.3 days (57.0 to 66.0)." in said
    assert "waits 12 s at the median and 6.8 min at P95" in said
    assert "The chance to be done by 2027-11-30, that day included, is 74 %." in said


def test_what_makes_a_plan_doubtful_stands_before_the_pictures(result: PlanResult, html: str) -> None:
    first = html.index("<svg")
    assert html.index(result.warnings[0]) < first
    assert html.index(result.past_errors[0]) < first
    unchecked = report.page(msgspec.structs.replace(result, past_errors=[], warnings=[], sweeps=[], marginal=[], stages=[], instant=[]))
    assert "how far plans are off here is not known" in unchecked[: unchecked.index("<svg")]


def test_names_are_shown_as_text_and_never_become_html() -> None:
    evil = "</title></svg><script>alert(1)</script> & \"a\" 'b' $x_{1}$ <b>郑州</b>"
    base = plan(days=40, replications=20, total=5000)
    renamed: dict[str, Any] = {
        name: [msgspec.structs.replace(getattr(base, name)[0], **{field: evil})]
        for name, field in (("stages", "name"), ("instant", "name"), ("marginal", "what"))
    }
    point = msgspec.structs.replace(base.sweeps[0].points[0], bottleneck=evil)
    texts = {
        "name": evil,
        "scenario_file": evil,
        "profile_file": evil,
        "machine": evil,
        "commit": evil,
        "warnings": [evil],
        "past_errors": [evil],
    }
    lists = {"summary": [(evil, evil)], "sources": [(evil, evil, evil)], "sweeps": [Sweep(evil, [point])]}
    html = report.page(msgspec.structs.replace(base, **renamed, **texts, **lists))
    read = Reader(html)
    assert not {"script", "b"} & set(read.tags)
    assert evil in read.text
    assert evil in read.cells
    assert read.tags.count("svg") == 6


def test_a_plan_that_never_finishes_says_so() -> None:
    base = plan(days=40, replications=20, total=5000)
    never: dict[str, Any] = {"finish": [None] * 20, "p50": None, "p80": None, "p95": None, "deadline": None}
    read = Reader(report.page(msgspec.structs.replace(base, **never)))
    assert "5,000 cards are not done within 40 days: 0 of 20 replications finish." in read.text
    assert "finish within the horizon" in read.cells
    assert "0 of 20" in read.cells
    assert read.cells.count("not within the horizon") >= 3


def test_a_plan_of_counters_only_speaks_of_waits() -> None:
    base = plan(days=40, replications=20)
    none: dict[str, Any] = {"total": 0, "stages": [], "marginal": [], "sweeps": [], "finish": [], "p50": None, "p80": None, "p95": None}
    read = Reader(report.page(msgspec.structs.replace(base, deadline=None, **none)))
    assert read.tags.count("svg") == 1
    assert "Instant issuance waits 12 s at the median" in read.text
    assert "cards are" not in read.text


def test_gains_that_cannot_be_told_from_chance_are_not_sold() -> None:
    base = plan(days=40, replications=20, total=5000)
    noise = [one for one in base.marginal if not one.real]
    read = Reader(report.page(msgspec.structs.replace(base, marginal=noise)))
    assert "Nothing that was tried brings the finish forward" in read.text
    assert read.cells.count("cannot be told from none") == len(noise)


def test_pictures_are_the_same_bytes_for_the_same_plan(result: PlanResult) -> None:
    assert charts.fan(result) == charts.fan(result)
    assert whatif.sweep(result, 0) == whatif.sweep(result, 0)


def test_pictures_show_long_breaks_and_mark_each_quantile(result: PlanResult) -> None:
    fan = charts.fan(result)
    for name, day in (("P50", result.p50), ("P80", result.p80), ("P95", result.p95)):
        assert f"{name} {day}" in fan
    assert f"deadline {result.deadline.by if result.deadline else ''}" in fan
    assert list(charts.breaks(result.closed, charts.LONG_BREAK)) == [(date(2027, 2, 5), date(2027, 2, 14))]
    assert len(list(charts.breaks(result.closed, 1))) > 50


def test_weeks_are_means_of_the_days_that_were_worked() -> None:
    days = [date(2027, 3, 1) + timedelta(days=n) for n in range(70)]
    daily = [0.0 if day.weekday() >= 5 else 0.5 for day in days]
    weeks, values = stages.weekly(days, daily)
    assert len(weeks) == 10
    assert values == pytest.approx([0.5] * 10)
    assert stages.weekly(days[:14], daily[:14])[1] == [0.5] * 10


def test_one_day_one_value_and_one_point_can_be_drawn() -> None:
    base = plan(days=1, replications=3, total=10)
    alone: dict[str, Any] = {"finish": [START] * 3, "p50": START, "p80": START, "p95": START, "deadline": None}
    sweep = Sweep("shifts", [SweepPoint(1.0, START, START, START, "printers", 0.5, 60.0)])
    read = Reader(report.page(msgspec.structs.replace(base, sweeps=[sweep], **alone)))
    assert "1.0 min" in read.cells


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    target = tmp_path / "plan.html"
    target.write_text("before")
    report.write(plan(days=40, replications=20, total=5000), target)
    Reader(target.read_text(encoding="utf-8"))
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(OSError, match="No such file"):
        report.write(plan(days=40, replications=20, total=5000), tmp_path / "nowhere" / "plan.html")


def test_dates_that_agree_are_said_once_and_a_far_deadline_is_not_drawn() -> None:
    base = plan(days=40, replications=20, total=5000)
    day = START + timedelta(days=30)
    far = Deadline(START + timedelta(days=400), 1.0, Quantiles(5000.0, 5000.0, 5000.0), None)
    same = msgspec.structs.replace(base, p50=day, p80=day, p95=day, deadline=far)
    html = report.page(same)
    assert f"5,000 cards are done by {day} in 19 of 20 replications." in re.sub(r"<[^>]+>", "", html)
    assert f"deadline {far.by}" not in html
    assert f"deadline {day}" in report.page(msgspec.structs.replace(same, deadline=msgspec.structs.replace(far, by=day)))


def test_a_bottleneck_without_a_course_is_named_beside_the_picture() -> None:
    base = plan(days=40, replications=20, total=5000)
    orders = Stage("orders", "orders", 0.93, 0.93, "stations wait for orders", [0.93] * 40)
    html = report.page(msgspec.structs.replace(base, stages=[orders, *base.stages]))
    assert "What limits, orders, is in the table." in html
    assert "What limits is orders (stations wait for orders)." in html
    assert "bottleneck: orders" not in html


def test_no_gain_is_written_as_none_and_not_as_less_than_none() -> None:
    assert units.days(-0.04) == units.days(0.0) == "0.0"
    assert units.days(-0.06) == "-0.1"
