from __future__ import annotations

import json
import time

import pytest

from engine.virtual.factory import make_blank, open_chip
from engine.virtual.faults import Death, Faults, Garbage, Plan, load_plan
from keys.errors import InvalidInput
from tests.virtual.card_driver import (
    FINANCE,
    ISD,
    SOCIAL,
    TRANSPORT,
    Host,
    ecb,
    finance_image,
    key,
    social_image,
    transport_image,
    transport_keys,
)

LOT, SERIAL = bytes.fromhex("4101"), bytes.fromhex("1122334455667788")
INITIALIZE_UPDATE = bytes.fromhex("8050300008" + "11" * 8 + "00")


def blank(tmp_path, faults=None):
    chip = make_blank(tmp_path, lot=LOT, serial=SERIAL, faults=faults)
    atr = chip.power_on()
    return chip, atr


def sequence(tmp_path, chip) -> int:
    """Reads the counter of a chip without its faults."""
    healthy = open_chip(tmp_path, chip.chip_id, Faults())
    healthy.power_on()
    answer = healthy.transmit(bytes.fromhex("80CA00C100"))
    healthy.power_off()
    return int.from_bytes(answer[2:5], "big") if answer else -1


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("when", ["before", "after"])
def test_death_at_every_index(tmp_path, at, when):
    chip, _ = blank(tmp_path, Faults(die=Death(at, when, revive=True)))
    for index in range(4):
        answer = chip.transmit(INITIALIZE_UPDATE)
        assert bool(answer) == (index < at)
    chip.power_off()
    assert sequence(tmp_path, chip) == at + (when == "after")


def test_a_dead_chip_stays_dead(tmp_path):
    chip, atr = blank(tmp_path, Faults(die=Death(1)))
    assert atr
    assert chip.transmit(INITIALIZE_UPDATE)
    assert chip.transmit(INITIALIZE_UPDATE) == b""
    assert chip.power_on() == b""
    assert chip.transmit(INITIALIZE_UPDATE) == b""
    assert open_chip(tmp_path, chip.chip_id, Faults()).power_on() == b""


def test_a_chip_may_revive_once(tmp_path):
    chip, _ = blank(tmp_path, Faults(die=Death(1, revive=True)))
    assert chip.transmit(INITIALIZE_UPDATE)
    assert chip.transmit(INITIALIZE_UPDATE) == b""
    assert chip.power_on()
    assert chip.transmit(INITIALIZE_UPDATE)[-2:] == b"\x90\x00"


def test_garbage(tmp_path):
    kinds = ("random", "length", "sw")
    chip, _ = blank(tmp_path, Faults(garbage=[Garbage(at, kind) for at, kind in enumerate(kinds)]))
    good = open_chip(tmp_path, chip.chip_id, Faults())
    select = bytes.fromhex("00A4040000")
    random, length, sw, after = (chip.transmit(select) for _ in range(4))
    good.power_on()
    right = good.transmit(select)
    assert random != right
    assert len(random) == len(right)
    assert length == right[:-1]
    assert sw == right[:-2] + b"\x6f\x00"
    assert after == right


def test_wrong_transport_keys(tmp_path):
    chip, _ = blank(tmp_path, Faults(wrong_transport_keys=True))
    host = Host(chip.transmit, transport_keys(chip.chip_id))
    assert host.initialize_update()[1] == 0x9000
    assert not host.card_cryptogram_fits
    assert host.external_authenticate(0x33) == 0x6300


def test_already_personalized(tmp_path):
    chip, _ = blank(tmp_path, Faults(already_personalized=True))
    host = Host(chip.transmit, transport_keys(chip.chip_id))
    assert host.initialize_update()[1] == 0x6A88
    assert host.initialize_update(kvn=0)[1] == 0x9000
    assert not host.card_cryptogram_fits
    assert host.plain("80F28000024F00")[0] == b"\x08" + ISD + b"\x0f\x9a"


def test_one_applet_personalized_already(tmp_path):
    chip, _ = blank(tmp_path, Faults(personalized_applets=[FINANCE.hex()]))
    host = Host(chip.transmit, transport_keys(chip.chip_id))
    host.open()
    assert host.install(SOCIAL)[1] == 0x9000
    assert host.install(FINANCE)[1] == 0x6985


def test_locked_key_set(tmp_path):
    chip, _ = blank(tmp_path, Faults(locked_key_set=True))
    host = Host(chip.transmit, transport_keys(chip.chip_id))
    assert host.initialize_update()[1] == 0x6983
    assert host.plain("8482330010" + "00" * 16)[1] == 0x6983


def test_slow(tmp_path):
    chip, _ = blank(tmp_path, Faults(slow_ms=30))
    started = time.perf_counter()
    chip.transmit(INITIALIZE_UPDATE)
    assert time.perf_counter() - started >= 0.03


def test_lies_spoil_answers_and_nothing_else(tmp_path):
    chip, _ = blank(tmp_path)
    host = Host(chip.transmit, transport_keys(chip.chip_id))
    host.open()
    for aid, image in ((SOCIAL, social_image), (FINANCE, finance_image), (TRANSPORT, transport_image)):
        host.personalize(aid, image(host))
    chip.power_off()

    def verification(transmit):
        host = Host(transmit, [])
        answers = {}
        host.plain(b"\x00\xa4\x04\x00\x0f" + SOCIAL)
        answers["internal-authenticate"] = host.plain("0088000108" + "00" * 8)
        answers["read-record"] = host.plain("00B2012C00")
        challenge, _ = host.plain("0084000008")
        answers["external-authenticate"] = host.plain(b"\x00\x82\x00\x02\x08" + ecb("3des", key(2), challenge))
        host.plain(b"\x00\xa4\x04\x00\x08" + TRANSPORT)
        answers["initialize-for-load"] = host.plain("805000020B01" + "00" * 10 + "10")
        answers["purchase"] = host.plain("805001020B01" + "00" * 10 + "0F")
        host.plain(b"\x00\xa4\x04\x00\x08" + FINANCE)
        host.plain("80A800000783053600000000")
        answers["generate-ac"] = host.plain("80AE80000100")
        return answers

    for lie in ("internal-authenticate", "read-record", "external-authenticate", "initialize-for-load", "generate-ac"):
        liar = open_chip(tmp_path, chip.chip_id, Faults(lies=[lie]))
        honest = open_chip(tmp_path, chip.chip_id, Faults())
        honest.power_on()
        expected = verification(honest.transmit)
        honest.power_off()
        liar.power_on()
        told = verification(liar.transmit)
        liar.power_off()
        for name, (data, sw) in told.items():
            assert len(data) == len(expected[name][0])
            if name == "external-authenticate":
                assert sw == (0x63C2 if lie == name else 0x9000)
            elif name in ("initialize-for-load", "purchase", "generate-ac"):
                assert sw == 0x9000
            else:
                assert (data != expected[name][0]) == (lie == name)
    # Random and counted answers are judged by what they prove: the MAC1 and the AC no longer verify.
    liar = open_chip(tmp_path, chip.chip_id, Faults(lies=["initialize-for-load"]))
    liar.power_on()
    told, _ = verification(liar.transmit)["initialize-for-load"]
    from tests.virtual.test_virtual_transport import purse_mac, session, transport_keys_of

    session_key = session("3des", transport_keys_of("3des")[5], told[8:12] + told[4:6] + b"\x80\x00")
    right = purse_mac("3des", session_key, told[:4] + bytes(4) + b"\x02" + bytes(6))
    assert told[12:15] == right[:3]
    assert told[15] == right[3] ^ 1


def test_a_plan_chooses_by_chip_then_by_serial_then_default(tmp_path):
    path = tmp_path / "faults.json"
    path.write_text(
        json.dumps(
            {
                "chips": {"41010000000000000003": {"locked_key_set": True}},
                "every": 3,
                "every_nth": {"die": {"at": 7, "when": "after"}},
                "default": {"slow_ms": 1},
            }
        )
    )
    plan = load_plan(path)
    assert plan.for_chip("41010000000000000003") == Faults(locked_key_set=True)
    assert plan.for_chip("41010000000000000006") == Faults(die=Death(7, "after"))
    assert plan.for_chip("41010000000000000007") == Faults(slow_ms=1)
    assert Plan().for_chip("41010000000000000003") == Faults()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"chip": {}}',
        '{"chips": {"41": {}}}',
        '{"default": {"die": {"at": -1}}}',
        '{"default": {"lies": ["x"]}}',
        '{"every": 0}',
        "\xff",
    ],
)
def test_a_bad_plan_is_refused_with_its_place(tmp_path, text):
    path = tmp_path / "faults.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InvalidInput, match=r"faults\.json") as caught:
        load_plan(path)
    assert caught.value.reason == "FAULT_PLAN_INVALID"


def test_a_missing_plan(tmp_path):
    with pytest.raises(InvalidInput, match=r"none\.json"):
        load_plan(tmp_path / "none.json")


def test_faults_stay_with_the_piece(tmp_path):
    chip, _ = blank(tmp_path, Faults(locked_key_set=True))
    chip.power_off()
    again = open_chip(tmp_path, chip.chip_id)
    again.power_on()
    assert again.transmit(INITIALIZE_UPDATE) == b"\x69\x83"
