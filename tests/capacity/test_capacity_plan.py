"""A plan from end to end: dates, what limits, what one more gives, what is assumed, and the command that prints it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from engine.capacity.distribution import Distribution
from engine.capacity.machine import Machine
from engine.capacity.plan import Planner, plan
from engine.capacity.profile import CapacityProfile, Measurement, save
from engine.capacity.result import PlanResult
from engine.capacity.scenario.file import require_scenario
from engine.capacity.scenario.model import Blanks, Counter, Engine, Failures, Group, Hsm, Orders, Range, Scenario, Shift, Staff, Times
from engine.capacity.simulation.inputs import resolve
from engine.cli.capacity import app
from keys.errors import InvalidInput

DATA = Path(__file__).parents[1] / "data"
TIMES = Times(Range(20, 20), Range(6, 6), Range(8, 8), Range(1, 1))
BREAKS = Failures(Range(0.01, 0.01), Range(0.02, 0.02), Range(20, 20), Range(30, 30))


def scenario(**changes: object) -> Scenario:
    base = Scenario(
        name="small",
        start=date(2026, 3, 2),
        orders=Orders("p", total=60_000, backlog=60_000),
        shifts=(Shift("day", 8 * 60, 16 * 60),),
        groups=(Group("a", 4, times=TIMES),),
        country="cn",
        failures=BREAKS,
        horizon_days=400,
    )
    return replace(base, **changes)


def profile(machine: Machine | None = None, n: int = 400) -> CapacityProfile:
    chips = np.random.default_rng(5).gamma(16, 20 / 16, n)
    made = [
        Measurement("chip_seconds", "s", {"profile": "p", "transport": "pcsc"}, Distribution.of(chips)),
        Measurement("print_seconds", "s", {"profile": "p"}, Distribution.constant(6.0)),
        Measurement("handling_seconds", "s", {"profile": "p"}, Distribution.constant(8.0)),
        Measurement("gap_seconds", "s", {}, Distribution.constant(1.0)),
        Measurement("failure_share", "", {"profile": "p", "reason": "TORN"}, events=8, trials=400),
        Measurement("failure_share", "", {"profile": "p", "reason": "blank-rejected"}, events=4, trials=400),
        Measurement("uptime_seconds", "s", {}, Distribution.of(np.random.default_rng(6).exponential(72_000, 60))),
        Measurement("repair_seconds", "s", {}, Distribution.of(np.random.default_rng(7).exponential(1800, 60))),
        Measurement("server_cpu_seconds", "s", {"profile": "p"}, Distribution.constant(0.002)),
    ]
    return CapacityProfile("citycard-capacity-profile/1", "2026-03-01", machine or Machine.here(), made)


def small(asked: Scenario, measured: CapacityProfile | None = None, **more: object) -> PlanResult:
    return plan(asked, measured, **{"replications": 40, "seed": 3, **more})


def test_the_dates_are_what_the_stations_can_do():
    """4 stations, 8 h of 97.6 % up, 35 s a good card: by hand, to a day."""
    found = small(scenario())
    cycle = 0.97 * 35 + 0.02 * 29 + 0.01 * 9
    a_day = 4 * 8 * 3600 * (20 / 20.5) / cycle * 0.97
    days = 60_000 / a_day
    assert found.p50 is not None
    assert abs(np.busday_count("2026-03-02", found.p50) - days) <= 1
    assert found.p50 <= found.p80 <= found.p95  # type: ignore[operator]
    assert sorted(day for day in found.finish if day)[20] >= found.p50
    assert found.bottleneck is not None
    assert found.bottleneck.name == "stations a"
    assert found.bottleneck.utilization > 0.95
    assert found.blanks.needed.p50 == pytest.approx(60_000 / 0.97, rel=0.003)
    assert found.blanks.scrapped.p50 == pytest.approx(60_000 / 0.97 * 0.02, rel=0.05)


def test_everything_per_day_has_the_length_of_the_days_shown():
    found = small(require_scenario(DATA / "scenario-bureau.toml"))
    for series in (found.good.p5, found.good.p95, *(stage.daily for stage in found.stages)):
        assert len(series) == len(found.days)
    assert found.good.p50[-1] == pytest.approx(60_000)
    assert all(later >= earlier for earlier, later in zip(found.good.p50, found.good.p50[1:], strict=False))
    assert date(2026, 3, 16) in found.closed
    assert date(2026, 4, 4) in found.closed
    assert all(0.0 <= share <= 1.0 for stage in found.stages for share in (stage.utilization, stage.limits, *stage.daily))


def test_the_same_seed_gives_the_same_plan_and_another_another():
    one, again, other = small(scenario()), small(scenario()), small(scenario(), seed=4)
    same = {"seconds": 0.0}
    assert msgspec.structs.replace(one, **same) == msgspec.structs.replace(again, **same)
    assert one.good != other.good


def test_what_one_more_gives_is_told_from_noise():
    asked = scenario(hsm=Hsm(10, Range(200, 200)), engine=Engine(1, 2, Range(2, 2)), blanks=Blanks(100_000, 1000))
    gains = {one.field: one for one in small(asked).marginal}
    assert gains["groups.a.count"].real
    # a fifth of 19 days of work, and a weekend perhaps
    assert 3.5 <= gains["groups.a.count"].days_saved <= 6.0
    assert gains["groups.a.heads"].days_saved > gains["groups.a.count"].days_saved
    assert gains["shifts"].real
    for idle in ("hsm.count", "engine.nodes", "blanks.per_week"):
        assert not gains[idle].real
        assert gains[idle].low <= 0.05
    assert small(asked).marginal[0].field in {"groups.a.heads", "shifts"}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"hsm": Hsm(20, Range(1, 1))}, "hsm"),
        ({"engine": Engine(1, 1, Range(15_000, 15_000))}, "engine"),
        ({"blanks": Blanks(2000, 3000)}, "blanks"),
        ({"staff": Staff(1, 2)}, "staff"),
        ({"orders": Orders("p", 60_000, 0, 700.0)}, "orders"),
        ({"groups": (Group("a", 4, heads=4, printers=1, times=replace(TIMES, print_seconds=Range(12, 12))),)}, "printer"),
    ],
)
def test_the_bottleneck_is_named_first(changes, kind):
    found = small(scenario(**changes))
    assert found.stages[0].kind == kind
    assert found.stages[0].limits > 0.8


def test_counters_say_how_long_people_wait():
    crowd = Counter("c", 5, 1, 9 * 60, 17 * 60, customers_per_day=Range(60, 60), talk_seconds=Range(240, 300), times=TIMES)
    asked = scenario(counters=(crowd,))
    found = small(asked)
    queue = found.instant[0]
    assert queue.customers_per_day == pytest.approx(300, rel=0.03)
    # 305 s of 480 s: a wait on average of rho / (2 (1 - rho)) services, of which the median is less
    assert 0 < queue.wait_p50 < 305 < queue.wait_p95 < 3600
    assert queue.within["5"] < queue.within["10"] < queue.within["15"] <= 1.0
    assert queue.utilization == pytest.approx(305 / 480, abs=0.05)
    gain = next(one for one in found.marginal if one.field == "counters.c.stations")
    assert gain.wait_p95_saved > 600
    # the counters' cards are not made twice
    assert small(scenario()).p50 > found.p50  # type: ignore[operator]


def test_instant_orders_are_a_share_of_the_orders():
    crowd = Counter("c", 5, 1, 9 * 60, 17 * 60, talk_seconds=Range(240, 300), times=TIMES)
    asked = scenario(counters=(crowd,), orders=Orders("p", 60_000, 40_000, 1000.0, 0.25))
    found = small(asked)
    assert found.instant[0].customers_per_day == pytest.approx(250, rel=0.03)
    assert found.p50 is not None


def test_a_deadline_has_a_chance():
    base = small(scenario(), by=date(2026, 3, 10))
    assert base.deadline is not None
    assert base.deadline.chance == 0.0
    assert 0 < base.deadline.good_by_then.p50 < 60_000
    assert base.deadline.late_days_p95
    sure = small(scenario(), by=date(2026, 12, 31))
    assert sure.deadline is not None
    assert sure.deadline.chance == 1.0
    assert sure.deadline.late_days_p95 == 0.0


def test_what_does_not_finish_within_the_horizon_has_no_date():
    found = small(scenario(horizon_days=30, failures=replace(BREAKS, uptime_hours=Range(1, 1), repair_minutes=Range(60, 60))))
    assert found.p50 is None
    assert found.finish == [None] * 40
    assert any("40 of 40 replications are not done" in warning for warning in found.warnings)


def test_a_sweep_gets_earlier_with_every_station_and_says_where_that_ends():
    found = small(scenario(staff=Staff(6, 1)), sweeps={"stations": [0, 2, 4, 6, 8]}).sweeps[0]
    assert found.points[0].bottleneck == "impossible"
    dates = [point.p50 for point in found.points[1:]]
    assert dates[0] > dates[1] > dates[2] == dates[3]  # type: ignore[operator]
    assert found.points[-1].bottleneck == "people"


def test_measured_numbers_are_as_sure_as_their_samples():
    asked = scenario(groups=(Group("a", 4),), failures=Failures(), engine=Engine(1, 2))
    many, few = small(asked, profile(n=40_000)), small(asked, profile(n=12))
    spread = [np.ptp([day.toordinal() for day in one.finish if day]) for one in (many, few)]
    assert spread[1] > spread[0]
    kinds = {what: kind for what, _, kind in many.sources}
    assert kinds["chip_seconds"] == "measured"
    assert kinds["failures TORN"] == "measured"
    assert small(scenario(), profile()).sources != many.sources


def test_a_profile_of_another_machine_is_used_with_a_warning():
    other = msgspec.structs.replace(Machine.here(), host="0123456789abcdef", cpu="other")
    found = small(scenario(groups=(Group("a", 4),)), profile(other))
    assert any("measured on another machine: other" in warning for warning in found.warnings)
    assert not any("another machine" in warning for warning in small(scenario(), profile()).warnings)


def test_assumptions_and_unpublished_holidays_are_said():
    found = small(scenario(start=date(2027, 1, 4), groups=(Group("a", 4, times=Times(Range(34, 34))),)))
    assert any("public holidays of 2027 are assumed" in warning for warning in found.warnings)
    assert any("gap_seconds = 0" in warning for warning in found.warnings)


def test_common_random_numbers_leave_only_the_difference():
    planner = Planner(None, replications=40, seed=3)
    base = planner.run(scenario())
    more = planner.run(scenario(groups=(Group("a", 5, times=TIMES),)))
    saved = base.finish_days - more.finish_days
    independent = Planner(None, replications=40, seed=9).run(scenario(groups=(Group("a", 5, times=TIMES),)))
    assert saved.std() < (base.finish_days - independent.finish_days).std()


def command(*words: str):
    return CliRunner().invoke(app, ["plan", *words])


def test_the_command_prints_a_table_json_and_a_report(tmp_path):
    path = str(DATA / "scenario-bureau.toml")
    shown = command(
        path, "--replications", "10", "--sweep", "groups.new.count=1:3:1", "--by", "2026-06-01", "--html", str(tmp_path / "a.html")
    )
    assert shown.exit_code == 0, shown.output
    for words in ("done by", "limited by", "bottleneck first", "what buys time", "groups.new.count", "100% chance"):
        assert words in shown.output
    assert max(len(line.rstrip()) for line in shown.output.splitlines() if not line.startswith("warning")) <= 100
    assert (tmp_path / "a.html").read_text(encoding="utf-8").startswith("<!")
    answer = json.loads(command(path, "--replications", "10", "--json").output)
    assert msgspec.convert(answer, PlanResult, strict=False).total == 60_000


def test_the_command_takes_a_profile(tmp_path):
    save(profile(), tmp_path / "profile.json")
    text = (
        (DATA / "scenario-bureau.toml")
        .read_text(encoding="utf-8")
        .replace("zhengzhou-citizen-card", "p")
        .replace("chip_seconds = 18\n", "")
    )
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    assert "NOT_MEASURED" in str(getattr(command(str(tmp_path / "s.toml"), "--replications", "4").exception, "reason", ""))
    assert command(str(tmp_path / "s.toml"), "--replications", "4", "--profile", str(tmp_path / "profile.json")).exit_code == 0


@pytest.mark.parametrize(
    "sweep", ["stations", "stations=", "stations=5:1:1", "stations=1:5:0", "stations=1:5:x", "=1:2:1", "stations=1:9:0.001", "a=nan:1:1"]
)
def test_a_sweep_that_is_none_is_refused(sweep):
    found = command(str(DATA / "scenario-bureau.toml"), "--sweep", sweep)
    assert isinstance(found.exception, InvalidInput)
    assert found.exception.reason == "SWEEP"


def test_a_token_that_was_measured_limits_as_one_that_was_said() -> None:
    """Two calls of a card, 0.3 s and 0.2 s, are two cards a second, however many calls a card is said to need."""
    calls = [
        Measurement(
            "hsm_call_seconds", "s", {"profile": "p", "custody": custody, "operation": what, "batch": batch}, Distribution.constant(time)
        )
        for custody, what, batch, time in (
            ("software", "channel-keys", "1", 1e-5),
            ("token", "channel-keys", "1", 0.3),
            ("token", "card-keys", "1", 0.2),
            ("token", "card-keys", "64", 5.0),
        )
    ]
    base = profile()
    found = resolve(scenario(hsm=Hsm(12)), msgspec.structs.replace(base, measurements=[*base.measurements, *calls]), 4, 1)
    assert found.calls_per_s == pytest.approx([24.0] * 4)
    two = resolve(scenario(hsm=Hsm(12, count=2)), msgspec.structs.replace(base, measurements=[*base.measurements, *calls]), 4, 1)
    assert two.calls_per_s == pytest.approx([48.0] * 4)
    with pytest.raises(InvalidInput, match="hsm: calls_per_second is neither in the scenario nor measured"):
        resolve(scenario(hsm=Hsm(12)), msgspec.structs.replace(base, measurements=[*base.measurements, calls[0]]), 4, 1)
