"""Answers to reset: known ones read as the standard says, any bytes are read or refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.chip.atr import parse
from engine.virtual.identity import atr as virtual_atr
from keys.errors import Corrupt


@pytest.mark.parametrize(
    ("text", "protocols", "f", "d", "clock"),
    [
        # no interface bytes: everything is the default
        ("3B00", (0,), 372, 1, 5000),
        # TA1 = 95: F 512, D 16; TA1 = 96: D 32; inverse convention changes nothing
        ("3B1095", (0,), 512, 16, 5000),
        ("3F1096", (0,), 512, 32, 5000),
        # TB1 and TC1 before TD1; T=1 offered alone
        ("3BF0180000814110", (1,), 372, 12, 5000),
        # T=0 offered first, then T=1, then a global TD that is no protocol
        ("3B808081" + "1F" + "05", (0, 1), 372, 1, 5000),
        # reserved values of TA1 leave the defaults
        ("3B107F", (0,), 372, 1, 5000),
        ("3B1090", (0,), 372, 1, 5000),
    ],
)
def test_interface_bytes(text, protocols, f, d, clock):
    found = parse(bytes.fromhex(text))
    assert (found.protocols, found.f, found.d, found.max_clock_khz) == (protocols, f, d, clock)


def test_the_rate_is_the_clocks_and_never_above_the_highest():
    assert parse(bytes.fromhex("3B00")).bits_per_s(3571.2) == pytest.approx(9600)
    assert parse(bytes.fromhex("3B1096")).bits_per_s(20_000) == pytest.approx(5_000_000 * 32 / 512)
    assert parse(bytes.fromhex("3B00")).etu_per_byte == 12
    assert parse(virtual_atr(b"ZZC01", bytes(8))).etu_per_byte == 11


@given(st.binary(max_size=40))
@example(b"")
@example(b"\x3b")
@example(b"\x3b\xff")
@example(b"\x3b" + b"\x80" * 39)
def test_any_bytes_are_read_or_refused(data):
    try:
        found = parse(data)
    except Corrupt as error:
        assert error.reason == "ATR_INVALID"
    else:
        assert 0 < found.bits_per_s(3571) < 10_000_000
