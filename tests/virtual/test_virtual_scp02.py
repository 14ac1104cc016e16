"""A chip with SCP02: published sessions, the sequence counter, every refusal of the channel, PUT KEY and personalization over it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.virtual.birth import CHIP_TYPE_SCP02
from engine.virtual.factory import make_blank, open_chip
from engine.virtual.faults import Faults
from engine.virtual.hopper import Hopper
from engine.virtual.nvm import Nvm
from engine.virtual.scp02_card import CardChannel02, card_challenge
from engine.virtual.wire import Refused, parse
from tests.virtual.card_driver import FINANCE, ISD, LOT, PIN_BLOCK, SERIAL, Host, finance_image, kcv, key
from tests.virtual.card_driver02 import Host02, retail_mac, transport_keys

FOLDER = Path(__file__).parents[1] / "vectors"
(PYSIM,) = json.loads((FOLDER / "scp02_pysim.json").read_text())["tests"]
(CPS,) = json.loads((FOLDER / "scp02_cps.json").read_text())["tests"]


def b(text):
    return bytes.fromhex(text)


@pytest.fixture
def chip(tmp_path):
    chip = make_blank(tmp_path, lot=LOT, serial=SERIAL, chip_type=CHIP_TYPE_SCP02)
    chip.power_on()
    yield chip
    chip.power_off()


@pytest.fixture
def host(chip):
    return Host02(chip.transmit, transport_keys(chip.chip_id))


def test_published_session():
    response = b(PYSIM["initialize_update_response"])
    keys = tuple(b(PYSIM[name]) for name in ("enc", "mac", "dek"))
    channel = CardChannel02(keys, response[12:14], b(PYSIM["host_challenge"]), response[14:20])
    assert channel.card_cryptogram == response[20:]
    authenticate = parse(b(PYSIM["external_authenticate"]))
    assert channel.host_cryptogram_fits(authenticate.data[:8])
    assert channel.check_mac(authenticate)
    channel.level = 0x01
    (command,) = PYSIM["commands"]
    assert channel.unwrap(parse(b(command["wrapped"]))) == parse(b(command["plain"]))
    with pytest.raises(Refused, match="6982"):
        channel.unwrap(parse(b(command["wrapped"])))


def test_the_projects_own_cps_vector():
    """KMC to cryptograms and DEK over the whole chip; self-made, so it fixes our reading and proves no more."""
    static = tuple(transport_keys(CPS["keydata"], b(CPS["kmc"])))
    channel = CardChannel02(static, b(CPS["sequence"]), b(CPS["host_challenge"]), b(CPS["card_challenge"]))
    assert channel.card_cryptogram == b(CPS["card_cryptogram"])
    assert channel.host_cryptogram_fits(b(CPS["host_cryptogram"]))
    assert channel.decrypt_span(b(CPS["secret_under_dek"])) == b(CPS["secret"])
    assert kcv("3des", b(CPS["secret"])).hex().upper() == CPS["secret_kcv"]


def test_the_chip_says_scp02(chip, host):
    assert chip.power_on()[4:9] == b"ZZC02"
    assert b("06092A864886FC6B040255") in host.plain("80CA006600")[0]
    assert host.plain("80CA00E000")[0].hex() == "e012c00401308010c00402308010c00403308010"
    assert host.plain("80CA00C100")[0].hex() == "c1020000"
    assert b("06092A864886FC6B040255") in host.plain("00A4040008A00000015100000000")[0]


def test_the_sequence_counter_moves_with_the_first_right_c_mac_only(chip, host, tmp_path):
    first, _ = host.initialize_update()
    assert len(first) == 28
    assert first[:12] == LOT + SERIAL + b"\x30\x02"
    assert host.initialize_update()[0] == first  # nothing authenticated yet: everything is as before
    assert host.external_authenticate(0x03, spoil_cryptogram=1) == 0x6300
    assert host.initialize_update()[0] == first
    assert host.external_authenticate(0x03, spoil_mac=1) == 0x6982
    host.open()
    again, _ = host.initialize_update()
    assert again[12:14] == b"\x00\x01"
    assert again[14:] != first[14:]
    assert host.plain("80CA00C100")[0].hex() == "c1020001"
    chip.power_off()
    later = open_chip(tmp_path, chip.chip_id)
    later.power_on()
    assert Host02(later.transmit, host.keys).initialize_update()[0] == again


def test_the_card_challenge_is_the_well_known_one(host):
    data, _ = host.initialize_update()
    assert data[14:20] == retail_mac(host.c_mac, bytes(8), ISD)[:6]
    assert data[14:20] == card_challenge(host.keys[1], data[12:14], ISD)


@pytest.mark.parametrize("level", [0x00, 0x01, 0x03])
def test_levels(host, level):
    host.open(level)
    assert host.send("80F24002024F00")[1] == 0x9000
    assert host.send("80CA004200")[0].hex() == "42024101"
    if level:
        assert host.plain("80F24002024F00")[1] == 0x6982  # a plain command ends the channel
        assert host.send("80CA004200")[1] in (0x6882, 0x6982)


@pytest.mark.parametrize("level", [0x02, 0x10, 0x11, 0x13, 0x33, 0xFF])
def test_levels_with_r_mac_and_others_are_not_offered(host, level):
    host.initialize_update()
    assert host.external_authenticate(level) == 0x6A86


@pytest.mark.parametrize("at", [1, 2, 3, *range(5, 21)])
def test_every_byte_of_a_secured_command_is_proven(host, at):
    host.open(0x03)
    wrapped = bytearray(host.wrap(b("80F28002024F00")))
    assert len(wrapped) == 21
    wrapped[at] ^= 0x10
    assert host.plain(bytes(wrapped))[1] == 0x6982
    assert host.send("80F28002024F00")[1] in (0x6882, 0x6982)


def test_a_replayed_command_is_refused(host):
    host.open(0x03)
    wrapped = host.wrap(b("80F28002024F00"))
    assert host.plain(wrapped)[1] == 0x9000
    assert host.plain(wrapped)[1] == 0x6982


def test_wrong_host_keys_count_and_block(tmp_path):
    chip = make_blank(tmp_path, lot=LOT, serial=SERIAL, chip_type=CHIP_TYPE_SCP02, max_failures=2)
    chip.power_on()
    host = Host02(chip.transmit, transport_keys(chip.chip_id))
    for _ in range(2):
        host.initialize_update()
        assert host.external_authenticate(0x03, spoil_cryptogram=1) == 0x6300
    assert host.initialize_update()[1] == 0x6983


def test_a_used_up_counter_ends_the_key_set(chip, host, tmp_path):
    chip.power_off()
    nvm = Nvm(tmp_path / f"{chip.chip_id}.nvm")
    nvm.put("isd.seq.30", 0xFFFF)
    nvm.commit()
    nvm.close()
    chip.power_on()
    host.open()
    assert host.initialize_update()[1] == 0x6985


def put_key_data(host, keys, kvn=0x31, kind=b"\x80\x10", spoil=0):
    data = bytes((kvn,))
    for each in keys:
        check = kcv("3des", each)
        data += kind + host.sealed(each) + b"\x03" + bytes((check[0] ^ spoil,)) + check[1:]
    return data


def command(header, data):
    return b(header) + bytes((len(data),)) + data


def test_put_key_replaces_the_makers_keys_and_begins_a_new_counter(host):
    keys = [key(1), key(2), key(3)]
    host.open()
    host.open()
    answer, sw = host.send(command("80D83081", put_key_data(host, keys)))
    assert sw == 0x9000
    assert answer == b"\x31" + b"".join(kcv("3des", each) for each in keys)
    assert host.plain("00A4040008A00000015100000000")[1] == 0x9000
    assert host.initialize_update(0x30)[1] == 0x6A88
    issuer = Host02(host.transmit, keys)
    issuer.open(kvn=0x31)
    assert issuer.sequence == b"\x00\x00"


@pytest.mark.parametrize("change", [{"kind": b"\x88\x10"}, {"kind": b"\x88\x11\x10"}, {"kind": b"\x80\x08"}, {"spoil": 1}])
def test_put_key_of_another_form_is_refused(host, change):
    host.open()
    assert host.send(command("80D83081", put_key_data(host, [key(1), key(2), key(3)], **change)))[1] == 0x6A80
    assert host.send("80CA00E000")[0][5] == 0x30


def store_data(host, blocks):
    for at, (number, value, encrypted) in enumerate(blocks):
        grouping = number.to_bytes(2, "big") + bytes((len(value),)) + value
        p1 = (0x60 if encrypted else 0x00) | (0x80 if at == len(blocks) - 1 else 0x00)
        yield host.send(command(f"80E2{p1:02X}{at:02X}", grouping))[1]


def test_an_applet_is_personalized_over_scp02_with_a_bare_pin_block(host):
    host.open()
    target = b"\x00\x00" + bytes((len(FINANCE),)) + FINANCE + bytes(3)
    assert host.send(command("80E62000", target))[1] == 0x9000
    image = [(n, host.sealed(PIN_BLOCK) if n == 0x8010 else value, secret) for n, value, secret in finance_image(host)]
    assert set(store_data(host, image)) == {0x9000}
    assert host.plain(b"\x00\xa4\x04\x00\x08" + FINANCE + b"\x00")[1] == 0x9000
    assert host.plain(b"\x00\x20\x00\x80\x08" + PIN_BLOCK)[1] == 0x9000


def test_spans_are_whole_des_blocks(host):
    host.open()
    target = b"\x00\x00" + bytes((len(FINANCE),)) + FINANCE + bytes(3)
    host.send(command("80E62000", target))
    assert next(store_data(host, [(0x8010, bytes(12), True), (0, b"", False)])) == 0x6A80


@pytest.mark.parametrize("protocol", ["scp03 host, scp02 chip", "scp02 host, scp03 chip"])
def test_the_protocols_do_not_mix(tmp_path, protocol):
    chip_type = CHIP_TYPE_SCP02 if protocol.endswith("scp02 chip") else b"ZZC01"
    chip = make_blank(tmp_path, lot=LOT, serial=SERIAL, chip_type=chip_type)
    chip.power_on()
    host = (Host if chip_type == CHIP_TYPE_SCP02 else Host02)(chip.transmit, [bytes(16)] * 3)
    data, _ = host.initialize_update()
    assert data[11] == (0x02 if chip_type == CHIP_TYPE_SCP02 else 0x03)
    assert not host.card_cryptogram_fits


def test_wrong_transport_keys_show_in_the_cryptogram(tmp_path):
    chip = make_blank(tmp_path, lot=LOT, serial=SERIAL, chip_type=CHIP_TYPE_SCP02, faults=Faults(wrong_transport_keys=True))
    chip.power_on()
    host = Host02(chip.transmit, transport_keys(chip.chip_id))
    host.initialize_update()
    assert not host.card_cryptogram_fits


def test_a_feeder_gives_blanks_of_its_lots_type(tmp_path):
    hopper = Hopper(tmp_path)
    hopper.feeder.load(LOT, [1], chip_type=CHIP_TYPE_SCP02)
    hopper.feeder.draw()
    slot = hopper.slot()
    assert slot.power_on()[4:9] == b"ZZC02"
    assert slot.transmit(b("8050300008" + "11" * 8 + "00"))[11] == 0x02
    hopper.close()
