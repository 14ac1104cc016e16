from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.virtual.factory import make_blank, open_chip
from engine.virtual.nvm import Nvm
from engine.virtual.scp03_card import CardChannel
from engine.virtual.wire import Refused, parse
from tests.virtual.card_driver import CITY, FINANCE, HEALTH, ISD, LOT, SERIAL, SOCIAL, TRANSPORT, Host, ecb, kcv, key, transport_keys

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "virtual_scp03_pysim.json").read_text())["tests"]


@pytest.fixture
def host(chip):
    return Host(chip.transmit, transport_keys(chip.chip_id))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["id"])
def test_published_session_runs_against_the_chip(tmp_path, vector):
    hexed = {name: bytes.fromhex(value) for name, value in vector.items() if isinstance(value, str) and name != "id"}
    kdd = hexed["kdd"]
    chip = make_blank(tmp_path, lot=kdd[:2], serial=kdd[2:], isd_aid=hexed["isd_aid"])
    nvm = Nvm(tmp_path / f"{chip.chip_id}.nvm")
    nvm.put("isd.keys.30", hexed["enc"] + hexed["mac"] + hexed["dek"])
    nvm.put("isd.seq", vector["sequence_before"])
    nvm.commit()
    nvm.close()
    chip.power_on()
    assert chip.transmit(hexed["initialize_update"]) == hexed["initialize_update_response"] + b"\x90\x00"
    assert chip.transmit(hexed["external_authenticate"]) == b"\x90\x00"
    # The chip takes the published MAC and ciphertext: STORE DATA without a target is 6985, a wrong MAC would be 6982.
    assert chip.transmit(hexed["wrapped_command"]) == b"\x69\x85"


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["id"])
def test_published_command_and_response_are_unwrapped_and_wrapped(vector):
    hexed = {name: bytes.fromhex(value) for name, value in vector.items() if isinstance(value, str) and name != "id"}
    response = hexed["initialize_update_response"]
    channel = CardChannel(hexed["enc"], hexed["mac"], hexed["dek"], hexed["initialize_update"][5:13], response[13:21])
    authenticate = parse(hexed["external_authenticate"])
    assert channel.host_cryptogram_fits(authenticate.data[:8])
    assert channel.check_mac(authenticate)
    channel.level = 0x33
    plain, wanted = channel.unwrap(parse(hexed["wrapped_command"])), parse(hexed["plain_command"])
    assert plain == wanted
    assert channel.wrap_response(hexed["plain_response"], 0x9000) == hexed["wrapped_response"]
    with pytest.raises(Refused, match="6982"):
        channel.unwrap(parse(hexed["wrapped_command"]))


def test_identity(chip, host):
    atr = chip.power_on()
    assert atr[:4].hex() == "3b8d8001"
    assert atr[4:9] == b"ZZC01"
    assert atr[9:17] == SERIAL
    check = 0
    for byte in atr[1:]:
        check ^= byte
    assert check == 0
    assert len(atr) == 18
    assert chip.chip_id == "4101" + "1122334455667788"
    cplc, sw = host.plain("80CA9F7F00")
    assert sw == 0x9000
    assert cplc[:3].hex() == "9f7f2a"
    assert len(cplc) == 45
    assert cplc[3 + 12 : 3 + 16] == SERIAL[4:]
    assert cplc[3 + 16 : 3 + 18] == LOT
    assert host.plain("80CA00E000")[0].hex() == "e012c00401308810c00402308810c00403308810"
    assert host.plain("00CA00E000")[0] == host.plain("80CA00E000")[0][2:]
    assert bytes.fromhex("06092A864886FC6B040370") in host.plain("80CA006600")[0]
    assert host.plain("80CA004200")[0].hex() == "42024101"
    assert host.plain("80CA004500")[0].hex() == "450a41011122334455667788"
    assert host.plain("80CA00C100")[0].hex() == "c103000000"
    assert host.plain("80CA123400")[1] == 0x6A88


def test_status_lists_the_isd_and_the_applets(host):
    assert host.plain("80F28000024F00")[0] == b"\x08" + ISD + b"\x07\x9a"
    listed = host.plain("80F24002024F00")[0]
    assert [listed.count(aid) for aid in (SOCIAL, FINANCE, TRANSPORT, HEALTH, CITY)] == [1] * 5
    assert host.plain("80F22002024F00")[1] == 0x6A88
    assert host.plain("80F20002024F00")[1] == 0x6A86


@pytest.mark.parametrize("apdu", ["00A4040000", "00A4040008A00000015100000000", "00A4040005A00000015100", "00A4040007A0000001510000"])
def test_isd_is_selected_by_nothing_all_or_part_of_its_name(host, apdu):
    fci, sw = host.plain(apdu)
    assert sw == 0x9000
    assert fci[:2] == b"\x6f\x4e"
    assert fci[2:12] == b"\x84\x08" + ISD
    assert b"\x9f\x65\x01\xff" in fci


@pytest.mark.parametrize(
    "apdu", ["00A4040008A00000015100000100", "00A4040003A00000", "00A4040205A000000151", "00A40400020102", "00A40000023F00"]
)
def test_names_that_are_not_there(host, apdu):
    assert host.plain(apdu)[1] == 0x6A82


def test_each_initialize_update_counts_and_survives_power_loss(chip, host):
    for expected in (1, 2):
        data, _ = host.initialize_update()
        assert data[:13] == LOT + SERIAL + b"\x30\x03\x70"
        assert int.from_bytes(data[-3:], "big") == expected
        assert host.card_cryptogram_fits
    chip.power_on()
    data, _ = host.initialize_update(kvn=0)
    assert data[10] == 0x30
    assert int.from_bytes(data[-3:], "big") == 3
    assert host.plain("80CA00C100")[0][-1] == 3


def test_unknown_key_version(host):
    assert host.initialize_update(kvn=0x31)[1] == 0x6A88


@pytest.mark.parametrize("level", [0x00, 0x01, 0x03, 0x11, 0x13, 0x33])
def test_every_level_opens_and_carries_commands(host, level):
    host.open(level)
    for _ in range(3):
        data, sw = host.send("80CA00E000")
        assert (data[:2], sw) == (b"\xe0\x12", 0x9000)
    assert host.install(SOCIAL) == (b"\x00", 0x9000)


@pytest.mark.parametrize("level", [0x02, 0x10, 0x23, 0x31, 0xFF])
def test_levels_that_do_not_exist(host, level):
    host.initialize_update()
    assert host.external_authenticate(level) == 0x6A86


def test_errors_carry_no_mac_and_leave_the_channel(host):
    host.open(0x33)
    assert host.send("80CA123400") == (b"", 0x6A88)
    assert host.send("80CA00C100")[1] == 0x9000


@pytest.mark.parametrize("at", [5, 12, -1])
def test_a_wrong_mac_closes_the_channel(host, at):
    host.open(0x33)
    apdu = bytearray(host.wrap(bytes.fromhex("80CA00C100"))[:-1])
    apdu[at] ^= 1
    assert host.plain(bytes(apdu)) == (b"", 0x6982)
    assert host.send("80E6200000")[1] == 0x6882


def test_a_plain_command_in_a_protected_channel_closes_it(host):
    host.open(0x01)
    assert host.plain("80CA00C100")[1] == 0x6982
    assert host.plain("80CA00C100")[1] == 0x9000


def test_a_command_cannot_be_replayed(host):
    host.open(0x33)
    apdu = host.wrap(bytes.fromhex("80CA00C100"))
    assert host.plain(apdu)[1] == 0x9000
    assert host.plain(apdu)[1] == 0x6982


@pytest.mark.parametrize("apdu", ["00A4040000", "00A4040008A00000033301010100", "00A4040008A00000033301019900"])
def test_select_of_anything_closes_the_channel(host, apdu):
    host.open(0x33)
    host.plain(apdu)
    host.plain("00A4040000")
    assert host.send("80CA00C100")[1] == 0x6882


@pytest.mark.parametrize("apdu", ["80E62000080000A00000033301", "80E2000000", "80D83081", "80F0800F", "80E40000", "80E80000"])
def test_content_management_needs_a_channel(host, apdu):
    assert host.plain(apdu) == (b"", 0x6982)


def test_a_pending_challenge_serves_once(host):
    host.initialize_update()
    assert host.external_authenticate(0x33, spoil_cryptogram=1) == 0x6300
    assert host.external_authenticate(0x33) == 0x6985


@pytest.mark.parametrize(("spoiled", "sw"), [({"spoil_cryptogram": 1}, 0x6300), ({"spoil_mac": 1}, 0x6982)])
def test_failures_lock_the_key_set_for_good(tmp_path, spoiled, sw):
    chip = make_blank(tmp_path, lot=LOT, serial=SERIAL)
    host = Host(chip.transmit, transport_keys(chip.chip_id))
    for _ in range(10):
        chip.power_on()
        assert host.initialize_update()[1] == 0x9000
        assert host.external_authenticate(0x33, **spoiled) == sw
    assert host.initialize_update()[1] == 0x6983
    assert host.external_authenticate(0x33) == 0x6983
    again = open_chip(tmp_path, chip.chip_id)
    again.power_on()
    assert Host(again.transmit, host.keys).initialize_update()[1] == 0x6983


def test_success_resets_the_failure_counter(tmp_path):
    chip = make_blank(tmp_path, lot=LOT, serial=SERIAL, max_failures=3)
    chip.power_on()
    host = Host(chip.transmit, transport_keys(chip.chip_id))
    for _ in range(3):
        for _ in range(2):
            host.initialize_update()
            assert host.external_authenticate(0x03, spoil_cryptogram=1) == 0x6300
        host.open(0x03)


def test_install_for_personalization(host):
    host.open()
    assert host.install(FINANCE) == (b"\x00", 0x9000)
    assert host.install(FINANCE[:-1])[1] == 0x6A88
    assert host.send("80E62000050000000000")[1] == 0x6A80
    assert host.send("80E60C000101")[1] == 0x6A81
    assert host.send("80E4000000")[1] == 0x6985
    assert host.send("80E8000000")[1] == 0x6A81
    assert host.send("80990000")[1] == 0x6D00


def test_key_change_and_life_cycle(chip, host):
    issuer = [key(1), key(2), key(3)]
    host.open()
    answer, sw = host.put_key(0x20, issuer)
    assert sw == 0x9000
    assert answer == b"\x20" + b"".join(kcv("aes", k) for k in issuer)
    # The session goes on under its old keys.
    assert host.send("80F0800F")[1] == 0x9000
    assert host.send("80F0800F")[1] == 0x6985
    assert host.send("80F080FF")[1] == 0x6A80
    assert host.initialize_update(kvn=0x30)[1] == 0x6A88
    chip.power_on()
    host.keys = issuer
    for kvn in (0x20, 0):
        host.open(kvn=kvn)
        assert host.send("80F28000024F00")[0] == b"\x08" + ISD + b"\x0f\x9a"


def test_put_key_adds_a_second_set_behind_the_first(host):
    host.open()
    assert host.put_key(0x21, [key(1), key(2), key(3)], replace=0)[1] == 0x9000
    assert host.plain("00A4040000")[1] == 0x9000
    assert host.initialize_update(kvn=0)[0][10] == 0x30
    host.keys = [key(1), key(2), key(3)]
    host.open(kvn=0x21)


def test_put_key_refusals_change_nothing(host):
    host.open()
    new = [key(1), key(2), key(3)]
    wrong = [kcv("aes", k) for k in new[:2]] + [b"\x00\x00\x00"]
    assert host.put_key(0x20, new, kcvs=wrong)[1] == 0x6A80
    assert host.put_key(0x00, new)[1] == 0x6A80
    assert host.put_key(0x80, new)[1] == 0x6A80
    assert host.put_key(0x20, new, replace=0x33)[1] == 0x6A88
    assert host.put_key(0x30, new, replace=0)[1] == 0x6A80
    assert host.send("80D830010120")[1] == 0x6A86
    assert host.send("80D830810120")[1] == 0x6A80
    host.plain("00A4040000")
    host.open()


def test_put_key_takes_the_form_without_inner_length(host):
    host.open()
    new = [key(1), key(2), key(3)]
    data = b"\x20" + b"".join(b"\x88\x10" + host.sealed(k) + b"\x03" + kcv("aes", k) for k in new)
    assert host.send(bytes((0x80, 0xD8, 0x30, 0x81, len(data))) + data)[1] == 0x9000


def test_the_dek_is_the_static_one(host):
    """A key sealed under something else does not pass its own check value."""
    host.open()
    new = [key(1), key(2), key(3)]
    data = b"\x20" + b"".join(b"\x88\x11\x10" + ecb("aes", host.s_enc, k) + b"\x03" + kcv("aes", k) for k in new)
    assert host.send(bytes((0x80, 0xD8, 0x30, 0x81, len(data))) + data)[1] == 0x6A80
