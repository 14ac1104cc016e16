"""Chinese public holidays as data, and the working days that follow from them."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from engine.capacity.scenario.calendar import MONDAY, SATURDAY, Calendar, chinese_years


def working_days(year: int) -> int:
    calendar = Calendar("cn")
    days = (date(year, 1, 1) + timedelta(n) for n in range(366))
    return sum(0 <= calendar.weekday(day) < SATURDAY for day in days if day.year == year)


@pytest.mark.parametrize(("year", "statutory"), [(2025, 13), (2026, 13), (2027, 13), (2028, 13)])
def test_a_year_has_its_weekdays_less_the_statutory_holidays(year, statutory):
    """However days are moved about, 13 holidays (since 2025) come off the weekdays, since those on a weekend are given back."""
    weekdays = sum(day.weekday() < 5 for day in (date(year, 1, 1) + timedelta(n) for n in range(366)) if day.year == year)
    assert working_days(year) == weekdays - statutory


@pytest.mark.parametrize("year", sorted(chinese_years()))
def test_days_worked_instead_are_weekend_days_and_not_off(year):
    known = chinese_years()[year]
    for day in known.worked:
        assert day.weekday() >= SATURDAY
        assert day not in known.off
    assert {day.year for day in (*known.off, *known.worked)} == {year}


def test_the_notice_of_2026_as_published():
    calendar = Calendar("cn")
    assert calendar.closed(date(2026, 2, 17))
    assert calendar.closed(date(2026, 2, 15))
    assert calendar.weekday(date(2026, 2, 14)) == MONDAY
    assert calendar.weekday(date(2026, 2, 28)) == MONDAY
    assert calendar.weekday(date(2026, 2, 24)) == 1
    assert not calendar.closed(date(2026, 10, 8))
    assert calendar.closed(date(2026, 9, 25))
    assert chinese_years()[2026].published
    assert not chinese_years()[2027].published


def test_a_plan_in_a_year_without_a_notice_says_so():
    calendar = Calendar("cn")
    assert calendar.warnings(date(2026, 1, 1), date(2026, 12, 31)) == []
    assert "assumed" in calendar.warnings(date(2026, 12, 1), date(2027, 1, 5))[0]
    assert "no public holidays are known for 2035" in calendar.warnings(date(2035, 1, 1), date(2035, 1, 5))[0]
    assert Calendar("").warnings(date(2035, 1, 1), date(2035, 1, 5)) == []


def test_without_a_country_only_the_week_and_closed_days_count():
    calendar = Calendar("", [date(2026, 2, 18)])
    assert calendar.weekday(date(2026, 2, 17)) == 1
    assert calendar.closed(date(2026, 2, 18))
    assert calendar.weekday(date(2026, 2, 14)) == SATURDAY
