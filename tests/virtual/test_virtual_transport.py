"""The e-purse applet: its files, its keys, and load, purchase and TAC."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.virtual.applets import purse as purse_module
from tests.virtual.card_driver import (
    FCI_A5,
    TRANSPORT,
    Host,
    dgi,
    ecb,
    kcv,
    mac_blocks,
    select,
    tlv,
    transport_image,
    transport_keys_of,
)

PURSE_VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "virtual_purse.json").read_text())["tests"][0]


@pytest.fixture
def transport(host):
    host.personalize(TRANSPORT, transport_image(host))
    select(host, TRANSPORT)
    return host


def test_transport_files(transport):
    assert select(transport, TRANSPORT) == tlv("6F", tlv("84", TRANSPORT) + tlv("A5", FCI_A5))
    for sfi, size in ((0x15, 30), (0x16, 55), (0x17, 60)):
        assert transport.plain(bytes((0x00, 0xB0, 0x80 | sfi, 0x00, 0x00))) == (bytes(range(size)), 0x9000)
        assert transport.plain(bytes((0x00, 0xD6, 0x80 | sfi, 0x00, 0x01, 0xAA)))[1] == 0x6982
    assert transport.plain("00A4000002001500")[1] == 0x9000
    assert transport.plain("00B0000A04")[0] == bytes(range(10, 14))
    assert transport.plain("00B0940000")[1] == 0x6A82
    assert transport.plain("805C000204") == (bytes(4), 0x9000)


@pytest.mark.parametrize("spoiled", [16, 19 * 14 + 18])
def test_transport_key_check_values_are_checked(host, spoiled):
    value = bytearray(b"".join(host.sealed(k) + kcv("3des", k) for k in transport_keys_of("3des")[:15]))
    value[spoiled] ^= 1
    host.install(TRANSPORT)
    raw = dgi(0xB0A0, bytes(value))
    assert host.store(0x60, 0, raw[:200]) == 0x9000
    assert host.store(0x60, 1, raw[200:]) == 0x6A80


@pytest.mark.parametrize(("kid", "algorithm"), [(1, "3des"), (3, "3des"), (0x81, "sm4"), (0x83, "sm4")])
def test_transport_external_authenticate(chip, transport, kid, algorithm):
    size = 8 if algorithm == "3des" else 16
    value = transport_keys_of(algorithm)[(kid & 0x7F) - 1]

    def attempt(spoil: int) -> int:
        challenge, _ = transport.plain(f"00840000{size:02X}")
        cryptogram = ecb(algorithm, value, bytes((challenge[0] ^ spoil,)) + challenge[1:])
        return transport.plain(bytes((0x00, 0x82, 0x00, kid, size)) + cryptogram)[1]

    assert attempt(0) == 0x9000
    assert [attempt(1), attempt(0), attempt(1), attempt(1), attempt(1)] == [0x63C2, 0x9000, 0x63C2, 0x63C1, 0x63C0]
    chip.power_on()
    select(transport, TRANSPORT)
    assert attempt(0) == 0x6983


def test_transport_keys_for_other_things_do_not_authenticate(transport):
    for kid in (2, 4, 5, 0x87):
        transport.plain("0084000008")
        assert transport.plain(bytes((0x00, 0x82, 0x00, kid, 8)) + bytes(8))[1] == 0x6985
    assert transport.plain("0082001008" + "00" * 8)[1] == 0x6A88
    assert transport.plain("0088000108" + "00" * 8)[1] == 0x6985


def session(algorithm: str, value: bytes, x: bytes) -> bytes:
    return ecb("3des", value, x) if algorithm == "3des" else ecb("sm4", value, x + bytes(byte ^ 0xFF for byte in x))


def purse_mac(algorithm: str, value: bytes, message: bytes) -> bytes:
    return mac_blocks(algorithm, value * 3 if algorithm == "3des" else value, message)[:4]


def load(host: Host, index: int, amount: int, terminal: bytes) -> tuple[bytes, bytes]:
    """INITIALIZE FOR LOAD: the answer, and the session key it proves."""
    algorithm = "sm4" if index & 0x80 else "3des"
    value = transport_keys_of(algorithm)[5 if index & 0x7F == 1 else 15]
    answer, sw = host.plain(bytes((0x80, 0x50, 0x00, 0x02, 11, index)) + amount.to_bytes(4, "big") + terminal + b"\x10")
    assert (len(answer), sw) == (16, 0x9000)
    session_key = session(algorithm, value, answer[8:12] + answer[4:6] + b"\x80\x00")
    message = answer[:4] + amount.to_bytes(4, "big") + b"\x02" + terminal
    assert answer[12:] == purse_mac(algorithm, session_key, message)
    return answer, session_key


@pytest.mark.parametrize("index", [0x01, 0x02, 0x81, 0x82])
def test_initialize_for_load_proves_the_load_key_and_changes_nothing(chip, transport, index):
    first, _ = load(transport, index, 100, bytes(6))
    second, _ = load(transport, index, 100, bytes(6))
    assert first[:8] == second[:8] == bytes(6) + b"\x01" + (b"\x04" if index & 0x80 else b"\x00")
    assert first[8:12] != second[8:12]


@pytest.mark.parametrize("family", [0x00, 0x80])
def test_load_purchase_and_tac(chip, transport, family):
    algorithm = "sm4" if family else "3des"
    keys = transport_keys_of(algorithm)
    tac_key = keys[6] if family else bytes(a ^ b for a, b in zip(keys[6][:8], keys[6][8:], strict=True))
    terminal, stamp = bytes.fromhex("410100000001"), bytes.fromhex("20261123120000")
    _, session_key = load(transport, family | 1, 1000, terminal)
    body = (1000).to_bytes(4, "big") + b"\x02" + terminal + stamp
    mac2 = purse_mac(algorithm, session_key, body)
    tac, sw = transport.plain(b"\x80\x52\x00\x00\x0b" + stamp + mac2 + b"\x04")
    assert sw == 0x9000
    assert tac == purse_mac(algorithm, tac_key, (1000).to_bytes(4, "big") + bytes(2) + body)
    chip.power_on()
    select(transport, TRANSPORT)
    assert transport.plain("805C000204")[0] == (1000).to_bytes(4, "big")

    command = bytes((0x80, 0x50, 0x01, 0x02, 11, family | 1)) + (300).to_bytes(4, "big") + terminal + b"\x0f"
    answer, sw = transport.plain(command)
    assert (len(answer), sw) == (15, 0x9000)
    assert answer[:9] == (1000).to_bytes(4, "big") + bytes(5)
    terminal_sequence = bytes.fromhex("00000005")
    session_key = session(algorithm, keys[4], answer[11:15] + answer[4:6] + terminal_sequence[2:])
    body = (300).to_bytes(4, "big") + b"\x06" + terminal
    mac1 = purse_mac(algorithm, session_key, body + stamp)
    answer, sw = transport.plain(b"\x80\x54\x01\x00\x0f" + terminal_sequence + stamp + mac1 + b"\x08")
    assert sw == 0x9000
    assert answer[:4] == purse_mac(algorithm, tac_key, body + terminal_sequence + stamp)
    assert answer[4:] == purse_mac(algorithm, session_key, (300).to_bytes(4, "big"))
    assert transport.plain("805C000204")[0] == (700).to_bytes(4, "big")
    newest, sw = transport.plain("00B201C400")
    assert (newest, sw) == (bytes(5) + (300).to_bytes(4, "big") + b"\x06" + terminal + stamp, 0x9000)
    assert transport.plain("00B202C400")[0][9] == 2
    assert transport.plain("00B203C400")[1] == 0x6A83


def test_purse_refusals(transport):
    terminal = bytes(6)
    assert transport.plain("805000020B03" + "00" * 10)[1] == 0x9403
    assert transport.plain("805001020B02" + "00" * 10)[1] == 0x9403
    assert transport.plain("805001020B0100000001" + "00" * 6)[1] == 0x9401
    assert transport.plain("805002020B01" + "00" * 10)[1] == 0x6A86
    assert transport.plain("8050000201")[1] == 0x6700
    assert transport.plain("805200000B" + "00" * 11)[1] == 0x6985
    load(transport, 1, 5, terminal)
    assert transport.plain("805200000B" + "00" * 11)[1] == 0x9302
    assert transport.plain("805200000B" + "00" * 11)[1] == 0x6985
    _, session_key = load(transport, 1, 5, terminal)
    transport.plain("805C000204")
    mac2 = purse_mac("3des", session_key, (5).to_bytes(4, "big") + b"\x02" + terminal + bytes(7))
    assert transport.plain(b"\x80\x52\x00\x00\x0b" + bytes(7) + mac2)[1] == 0x6985
    load(transport, 1, 0, terminal)
    assert transport.plain("805401000F" + "00" * 15)[1] == 0x6985
    assert transport.plain("805C000204")[0] == bytes(4)


def test_purse_formulas_give_the_recorded_values():
    """Golden values: they hold the reading of the formulas still, and prove nothing beyond that."""
    v = {name: bytes.fromhex(value) if isinstance(value, str) and name != "id" else value for name, value in PURSE_VECTOR.items()}
    sequence = v["sequence"].to_bytes(2, "big")
    purchase = purse_module.PurseKeys("3des", v["dpk"], v["dtk"])
    key_ = purse_module._session_key(purchase, v["random"] + sequence + v["terminal_sequence"][2:])
    body = v["amount"] + b"\x06" + v["terminal"]
    assert purse_module._mac("3des", key_, body + v["date_time"]) == v["purchase_mac1"]
    assert purse_module._mac("3des", key_, v["amount"]) == v["purchase_mac2"]
    assert purse_module._tac(purchase, body + v["terminal_sequence"] + v["date_time"]) == v["purchase_tac"]
    key_ = purse_module._session_key(purse_module.PurseKeys("3des", v["dlk"], v["dtk"]), v["random"] + sequence + b"\x80\x00")
    body = v["amount"] + b"\x02" + v["terminal"]
    before, after = v["balance"].to_bytes(4, "big"), (v["balance"] + 100).to_bytes(4, "big")
    assert purse_module._mac("3des", key_, before + body) == v["load_mac1"]
    assert purse_module._mac("3des", key_, body + v["date_time"]) == v["load_mac2"]
    assert purse_module._tac(purchase, after + sequence + body + v["date_time"]) == v["load_tac"]
