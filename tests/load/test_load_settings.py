"""What a load run is asked for: times, shares and ramps as people write them, and everything impossible said at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.load.run import lines_for
from engine.load.settings import CHIP_SHARE, Settings, ramp, seconds, share
from keys.errors import InvalidInput

GOOD = Settings(steps=(4,), cards=10)


@pytest.mark.parametrize(("text", "value"), [("6s", 6.0), ("20ms", 0.02), ("1.5min", 90.0), (" 2 h ", 7200.0), ("250us", 0.00025)])
def test_times_as_people_write_them(text, value):
    assert seconds(text, "--chip-time") == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "6", "s", "-1s", "6 seconds", "1e3s", "infs", "６s", "6s6s"])
def test_what_is_no_time_is_named_with_its_option(text):
    with pytest.raises(InvalidInput, match="--chip-time") as caught:
        seconds(text, "--chip-time")
    assert caught.value.reason == "TIME_INVALID"


@pytest.mark.parametrize("text", ["", "2", "101%", "-2%", "0.02", "2 percent", "nan%"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(InvalidInput) as caught:
        share(text, "--fail")
    assert caught.value.reason == "SHARE_INVALID"


@pytest.mark.parametrize("text", ["", "50", "50:400", "0:10:1", "400:50:50", "50:400:0", "1:5000:1", "50:400:50:1", "a:b:c"])
def test_what_is_no_ramp_is_refused(text):
    with pytest.raises(InvalidInput) as caught:
        ramp(text)
    assert caught.value.reason == "RAMP_INVALID"


@given(st.text(max_size=12))
def test_no_text_crashes_the_readers(text):
    for reader in (lambda: seconds(text, "--x"), lambda: share(text, "--x"), lambda: ramp(text)):
        try:
            reader()
        except InvalidInput as error:
            assert error.reason in {"TIME_INVALID", "SHARE_INVALID", "RAMP_INVALID"}


def test_a_ramp_ends_at_its_last_step():
    assert ramp("50:400:50") == tuple(range(50, 401, 50))
    assert ramp("7:7:1") == (7,)


def test_everything_impossible_is_said_at_once():
    wrong = replace(GOOD, steps=(0,), readers=0, time_scale=0.0, fail=0.95, name="Not a name", duration_s=5.0)
    with pytest.raises(InvalidInput) as caught:
        wrong.checked()
    for option in ("--stations", "--readers", "--time-scale", "--fail", "--name", "--cards or --duration"):
        assert option in caught.value.message


def test_a_rate_sets_pace_and_chip_time():
    """1,000 cards an hour and station with two readers: a head's cycle is 7.2 s; the time scale divides it."""
    rated = Settings(steps=(200,), readers=2, rate=1000.0, print_s=1.0, duration_s=60.0, time_scale=2.0).checked()
    assert rated.pace_s == pytest.approx(3.6)
    assert rated.chip_wait_s == pytest.approx(CHIP_SHARE * 3.6 - 0.5)
    with pytest.raises(InvalidInput, match="--print-time"):
        replace(rated, print_s=8.0).checked()


def test_lines_last_for_the_whole_run():
    """Every head at full speed for warm-up and window makes fewer cards than there are lines."""
    timed = Settings(steps=(10, 20), readers=2, chip_s=2.0, duration_s=30.0)
    assert lines_for(timed) > (10 + 20) * 2 / 2.0 * (30.0 + 2 * 2.0)
    assert lines_for(GOOD) == 10
