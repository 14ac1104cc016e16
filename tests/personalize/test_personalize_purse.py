"""Purse formulas of the host side, by vectors computed from the formula; the virtual chip's own, separate code is tested by the same."""

from __future__ import annotations

import json
from pathlib import Path

from engine.personalize import applet_crypto as crypto

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "virtual_purse.json").read_text())["tests"][0]


def given(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


BALANCE, SEQUENCE = VECTOR["balance"].to_bytes(4, "big"), VECTOR["sequence"].to_bytes(2, "big")
AMOUNT, TERMINAL, WHEN = given("amount"), given("terminal"), given("date_time")


def test_a_load() -> None:
    card = BALANCE + SEQUENCE + b"\x01\x00" + given("random")
    session = crypto.load_session(given("dlk"), card)
    assert session == given("load_session")
    assert crypto.load_mac1("3des", given("dlk"), card, AMOUNT, TERMINAL) == given("load_mac1")
    assert crypto.load_mac2(session, AMOUNT, TERMINAL, WHEN) == given("load_mac2")
    loaded = (VECTOR["balance"] + int.from_bytes(AMOUNT, "big")).to_bytes(4, "big")
    assert crypto.load_tac(given("dtk"), loaded, SEQUENCE, AMOUNT, TERMINAL, WHEN) == given("load_tac")


def test_a_purchase() -> None:
    card = BALANCE + SEQUENCE + bytes(3) + b"\x01\x00" + given("random")
    session = crypto.purchase_session(given("dpk"), card, given("terminal_sequence"))
    assert session == given("purchase_session")
    assert crypto.purchase_mac1(session, AMOUNT, TERMINAL, WHEN) == given("purchase_mac1")
    assert crypto.purchase_mac2(session, AMOUNT) == given("purchase_mac2")
    tac = crypto.purchase_tac(given("dtk"), AMOUNT, TERMINAL, given("terminal_sequence"), WHEN)
    assert tac == given("purchase_tac")
