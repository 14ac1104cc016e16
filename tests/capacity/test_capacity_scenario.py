"""Reading scenarios: every fault at once with its line, and scenarios that can never be done."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.capacity.scenario.feasible import impossible
from engine.capacity.scenario.file import read_scenario, require_scenario
from engine.capacity.scenario.model import Range
from engine.capacity.scenario.vary import current, one_more, varied
from engine.capacity.simulation.inputs import resolve
from keys.errors import InvalidInput

DATA = Path(__file__).parents[1] / "data"
GOOD = """\
schema = 1
name = "small"
start = 2026-03-02
horizon_days = 200

[orders]
profile = "p"
total = 10_000

[[shifts]]
name = "day"
from = "08:00"
to = "16:00"

[[groups]]
name = "a"
count = 2
heads = 2
chip_seconds = [10, 12]
print_seconds = 5
"""


@pytest.mark.parametrize("name", ["zhengzhou", "bureau", "counters"])
def test_the_examples_are_right(name):
    scenario = require_scenario(DATA / f"scenario-{name}.toml")
    assert impossible(scenario, resolve(scenario, None, 8, 1)) == []


def test_a_scenario_is_read_as_written():
    scenario, findings = read_scenario(GOOD)
    assert findings == []
    assert scenario is not None
    assert scenario.groups[0].times.chip_seconds == Range(10, 12)
    assert scenario.orders.backlog == 10_000
    assert (scenario.shifts[0].begin, scenario.shifts[0].end) == (480, 960)


def test_every_fault_is_found_at_once_with_line_and_field():
    text = """\
schema = 2
name = ""
startt = 2026-03-02

[orders]
profile = "p"
total = 0
backlog = 1.5

[[shifts]]
name = "day"
from = "8:00"
to = "16:00"
days = ["mon", "someday"]

[[shifts]]
name = "day"
from = "15:00"
to = "23:00"

[[groups]]
name = "a"
count = true
heads = 1
printers = 2
chip_seconds = [12, 10]
shifts = ["night"]

[[counters]]
name = "c"
offices = 3
open = "17:00"
close = "09:00"

[failures]
uptime_hours = 5
scrap = 1.5

[hsm]
calls_per_second = -1
"""
    scenario, findings = read_scenario(text)
    assert scenario is None
    found = {(one.line, one.field, one.rule) for one in findings}
    assert found >= {
        (1, "schema", "range"),
        (2, "name", "type"),
        (3, "startt", "unknown"),
        (0, "start", "missing"),
        (7, "orders.total", "range"),
        (8, "orders.backlog", "type"),
        (12, "shifts[0].from", "type"),
        (14, "shifts[0].days", "choice"),
        (17, "shifts[1].name", "twice"),
        (23, "groups[0].count", "type"),
        (25, "groups[0].printers", "printers"),
        (26, "groups[0].chip_seconds", "type"),
        (27, "groups[0].shifts", "reference"),
        (33, "counters[0].close", "times"),
        (29, "counters[0].customers_per_day", "missing"),
        (37, "failures.scrap", "range"),
        (35, "failures", "pair"),
        (40, "hsm.calls_per_second", "range"),
        (39, "hsm.calls_per_card", "missing"),
    }
    assert [one.line for one in findings] == sorted(one.line for one in findings)


def test_shifts_may_follow_but_not_overlap():
    more = '\n[[shifts]]\nname = "late"\nfrom = "{}"\nto = "{}"\n'
    assert read_scenario(GOOD + more.format("16:00", "00:00"))[1] == []
    assert [one.rule for one in read_scenario(GOOD + more.format("15:00", "23:00"))[1]] == ["overlap"]
    # over midnight into Friday's morning
    assert [one.rule for one in read_scenario(GOOD + more.format("22:00", "09:00"))[1]] == ["overlap"]


def test_a_file_that_is_no_toml_is_one_finding_with_its_line():
    scenario, findings = read_scenario("schema = 1\nname = \n")
    assert scenario is None
    assert [(one.line, one.rule) for one in findings] == [(2, "toml")]


def test_a_missing_file_and_one_in_another_encoding_say_so(tmp_path):
    with pytest.raises(InvalidInput, match="No such file"):
        require_scenario(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(InvalidInput, match="not UTF-8"):
        require_scenario(tmp_path / "bad.toml")


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text):
    scenario, findings = read_scenario(text)
    assert (scenario is None) == bool(findings)


VALUES = st.sampled_from(
    [
        "1",
        "-1",
        "0",
        "1.5",
        "nan",
        "inf",
        "true",
        '"x"',
        '"08:00"',
        '"24:00"',
        "[]",
        "[1,2]",
        "[2,1]",
        '["mon"]',
        "2026-01-01",
        "{}",
        "[[]]",
        "9e99",
    ]
)
LINES = [line for line in GOOD.splitlines() if "=" in line]


@settings(max_examples=300)
@given(st.sampled_from(LINES), VALUES)
def test_any_value_anywhere_is_read_or_refused_at_its_line(line, value):
    changed = f"{line.split('=')[0]}= {value}"
    text = GOOD.replace(line, changed, 1)
    scenario, findings = read_scenario(text)
    assert (scenario is None) == bool(findings)
    if tomllib.loads(text) and findings:
        number = text.splitlines().index(changed) + 1
        assert any(one.line == number for one in findings)
    if scenario is not None:
        impossible(scenario, resolve(scenario, None, 2, 1))


IMPOSSIBLE = {
    "no station can make p": ("count = 2\nheads = 2\n", 'count = 2\nheads = 2\nprofiles = ["q"]\n'),
    "there are stations but no shifts": (GOOD[GOOD.index("[[shifts]]") : GOOD.index("[[groups]]")], ""),
    "have no stations": ("count = 2", "count = 0"),
    "no station ever works": ("horizon_days = 200", 'horizon_days = 1\n[calendar]\ncountry = "none"\nclosed = [2026-03-02]\n'),
    "blanks are never enough": ("[[shifts]]", "[blanks]\nstock = 100\nper_week = 10\n\n[[shifts]]"),
    "the HSM makes no calls": ("[[shifts]]", "[hsm]\ncalls_per_second = 0\ncalls_per_card = 3\n\n[[shifts]]"),
    "people for one station": ("[[shifts]]", "[staff]\npeople = 0\nstations_per_person = 3\n\n[[shifts]]"),
    "are ever ordered": ("total = 10_000", "total = 10_000\nper_day = 5"),
    "cards at most within": ("total = 10_000", "total = 9_000_000"),
    "people a day come": (
        "[[groups]]",
        '[[counters]]\nname = "c"\noffices = 2\nopen = "09:00"\nclose = "17:00"\ncustomers_per_day = 500\nchip_seconds = 100\n\n[[groups]]',
    ),
}


@pytest.mark.parametrize("said", IMPOSSIBLE)
def test_what_can_never_be_done_is_said_before_simulating(said):
    old, new = IMPOSSIBLE[said]
    scenario, findings = read_scenario(GOOD.replace(old, new, 1))
    assert findings == []
    assert scenario is not None
    assert any(said in reason for reason in impossible(scenario, resolve(scenario, None, 4, 1)))


def test_times_neither_said_nor_measured_are_all_named():
    scenario, _ = read_scenario(GOOD.replace("chip_seconds = [10, 12]\n", ""))
    assert scenario is not None
    with pytest.raises(InvalidInput, match="group a: chip_seconds of p is neither in the scenario nor measured"):
        resolve(scenario, None, 4, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stations", 7),
        ("readers", 3),
        ("groups.a.count", 9),
        ("groups.a.chip_seconds", 4.5),
        ("shifts", 2),
        ("orders.total", 5),
        ("horizon_days", 9),
    ],
)
def test_any_number_can_be_varied(field, value):
    scenario, _ = read_scenario(GOOD)
    assert scenario is not None
    assert current(varied(scenario, field, value), field) == value
    assert current(scenario, field) != value


@pytest.mark.parametrize(
    ("field", "value"),
    [("none", 1), ("groups.b.count", 1), ("stations", 1.5), ("name", 1), ("groups", 1), ("hsm.count", 2), ("stations", -1)],
)
def test_what_cannot_be_varied_is_refused(field, value):
    scenario, _ = read_scenario(GOOD)
    assert scenario is not None
    with pytest.raises(InvalidInput):
        varied(scenario, field, value)


def test_one_more_shift_follows_the_last_and_then_takes_the_weekend():
    scenario, _ = read_scenario(GOOD)
    assert scenario is not None
    spans = [(shift.begin, shift.end) for shift in varied(scenario, "shifts", 3).shifts]
    assert spans == [(480, 960), (960, 1440), (0, 480)]
    four = varied(scenario, "shifts", 4).shifts
    assert four[3].days == frozenset({"sat"})


def test_one_more_of_everything_is_one_number_different():
    scenario = require_scenario(DATA / "scenario-zhengzhou.toml")
    steps = one_more(scenario)
    assert {step.field for step in steps} >= {"groups.factory.count", "groups.factory.heads", "shifts", "hsm.count", "engine.nodes"}
    for step in steps:
        assert step.value > current(scenario, step.field)
        assert current(varied(scenario, step.field, step.value), step.field) == step.value
