from __future__ import annotations

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from engine.virtual.factory import make_blank, open_chip
from tests.virtual.card_driver import (
    CITY,
    DF01,
    DF02,
    FCI_A5,
    FINANCE,
    HEALTH,
    IAD_3DES,
    IAD_SM4,
    LOT,
    PIN_BLOCK,
    SOCIAL,
    TRANSPORT,
    Host,
    capp_keys,
    df,
    dgi,
    ecb,
    file_entry,
    finance_image,
    kcv,
    key,
    mac_blocks,
    pad80,
    select,
    social_image,
    tlv,
    transport_image,
    transport_keys,
)


@pytest.fixture
def social(host):
    host.personalize(SOCIAL, social_image(host))
    select(host, SOCIAL)
    return host


@pytest.fixture
def finance(host):
    host.personalize(FINANCE, finance_image(host))
    select(host, FINANCE)
    return host


# The blank, and personalization as such


@pytest.mark.parametrize("aid", [SOCIAL, FINANCE, TRANSPORT, HEALTH, CITY])
def test_before_personalization_only_select_works(chip, host, aid):
    fci = select(host, aid)
    assert fci[2 : 4 + len(aid)] == b"\x84" + bytes((len(aid),)) + aid
    for apdu in ("00B2010C00", "00B0950000", "0084000008", "00880001080000000000000000", "80A8000002830000", "805C000204"):
        assert host.plain(apdu)[1] == 0x6985
    assert host.plain("00A4000002EF05")[1] in (0x6985, 0x6A82)


def test_all_five_applets_in_one_session(chip, host):
    host.personalize(SOCIAL, social_image(host))
    host.personalize(FINANCE, finance_image(host))
    host.personalize(TRANSPORT, transport_image(host))
    for aid in (HEALTH, CITY):
        host.personalize(aid, [(0xA001, df(aid, file_entry(0xEF05, 5, 2, 1)), False), (0x0501, aid, False)])
    assert host.put_key(0x20, [key(1), key(2), key(3)])[1] == 0x9000
    assert host.send("80F0800F")[1] == 0x9000
    listed = host.send("80F24002024F00")[0]
    assert listed.count(b"\x9f\x70\x01\x0f") == 5
    chip.power_on()
    for aid in (HEALTH, CITY):
        select(host, aid)
        assert host.plain("00B2012C00") == (aid, 0x9000)


def test_a_personalized_applet_takes_no_more(host, social):
    host.plain("00A4040000")
    host.open()
    assert host.install(SOCIAL)[1] == 0x6985


def test_blocks_are_counted_per_application(host):
    for aid in (CITY, HEALTH):
        host.install(aid)
        assert host.store(0x00, 1, dgi(0xA001, df(aid, file_entry(0xEF05, 5, 2, 3)))) == 0x6A86
        assert host.store(0x00, 0, dgi(0xA001, df(aid, file_entry(0xEF05, 5, 2, 3)))) == 0x9000
        assert host.store(0x00, 0, dgi(0x0501, b"x")) == 0x6A86
        assert host.store(0x80, 1, dgi(0x0501, b"x")) == 0x9000
        assert host.store(0x80, 2, dgi(0x0502, b"x")) == 0x6985


@pytest.mark.parametrize("p1", [0x20, 0x40, 0x10, 0x08, 0x01, 0x90])
def test_unknown_store_data_p1(host, p1):
    host.install(CITY)
    assert host.store(p1, 0, dgi(0xA001, df(CITY))) == 0x6A86


def test_a_refused_command_leaves_no_trace(host):
    host.install(CITY)
    root = dgi(0xA001, df(CITY, file_entry(0xEF05, 5, 2, 3)))
    assert host.store(0x00, 0, root + dgi(0x7777, b"x")) == 0x6A80
    assert host.store(0x00, 0, dgi(0x0501, b"x")) == 0x6A80
    assert host.store(0x80, 0, root + dgi(0x0502, b"kept")) == 0x9000
    select(host, CITY)
    assert host.plain("00B2012C00")[1] == 0x6A83
    assert host.plain("00B2022C00") == (b"kept", 0x9000)


def test_a_grouping_goes_on_in_the_next_command_cut_anywhere(tmp_path):
    value = bytes(range(250)) + bytes(40)
    raw = dgi(0xA001, df(CITY, file_entry(0xEF05, 5, 1, 400))) + dgi(0x0501, value)
    for cut in (1, 2, 3, 18, 19, 20, 21, 22, 23, 100, 160):
        chip = make_blank(tmp_path, lot=LOT, serial=bytes(7) + bytes((cut,)))
        chip.power_on()
        host = Host(chip.transmit, transport_keys(chip.chip_id))
        host.open(0x03)
        host.install(CITY)
        first, second, third = raw[:cut], raw[cut : cut + 150], raw[cut + 150 :]
        assert [host.store(0x00, 0, first), host.store(0x00, 1, second), host.store(0x80, 2, third)] == [0x9000] * 3
        select(host, CITY)
        assert host.plain("00B0850000")[0] == value[:256]
        chip.power_off()


def test_the_last_block_may_not_end_inside_a_grouping(host):
    host.install(CITY)
    assert host.store(0x80, 0, dgi(0xA001, df(CITY, file_entry(0xEF05, 5, 2, 3)))[:-1]) == 0x6A80
    assert host.store(0x80, 0, dgi(0xA001, df(CITY, file_entry(0xEF05, 5, 2, 3)))) == 0x9000


def test_install_again_starts_over(host):
    host.install(CITY)
    assert host.store(0x00, 0, dgi(0xA001, df(CITY, file_entry(0xEF05, 5, 2, 3))) + dgi(0x0501, b"old")) == 0x9000
    host.personalize(CITY, [(0xA001, df(CITY, file_entry(0xEF05, 5, 2, 3)), False), (0x0502, b"new", False)])
    select(host, CITY)
    assert host.plain("00B2012C00")[1] == 0x6A83
    assert host.plain("00B2022C00")[0] == b"new"


def test_keys_must_come_marked_as_encrypted(host):
    host.install(CITY)
    host.store(0x00, 0, dgi(0xA001, df(CITY)))
    keys = dgi(0x8020, capp_keys(host, (1, 1, 3, key(1))))
    assert host.store(0x00, 1, keys) == 0x6A80
    assert host.store(0x60, 1, keys) == 0x9000
    assert host.store(0x80, 2, dgi(0x9020, kcv("3des", key(1)))) == 0x9000


CAPP_BAD = {
    "record before any file": lambda h: [(0x00, dgi(0x0501, b"x"))],
    "root under another name": lambda h: [(0x00, dgi(0xA001, df(HEALTH)))],
    "df twice": lambda h: [(0x00, dgi(0xA001, df(CITY)) + dgi(0xA001, df(CITY)))],
    "entries cut": lambda h: [(0x00, dgi(0xA001, df(CITY, b"\xef\x05\x05")))],
    "no sfi": lambda h: [(0x00, dgi(0xA001, df(CITY, file_entry(0xEF05, 0, 2, 1))))],
    "sfi twice": lambda h: [(0x00, dgi(0xA001, df(CITY, file_entry(0xEF05, 5, 2, 1), file_entry(0xEF06, 5, 2, 1))))],
    "file type": lambda h: [(0x00, dgi(0xA001, df(CITY, file_entry(0xEF05, 5, 3, 1))))],
    "record in no file": lambda h: [(0x00, dgi(0xA001, df(CITY, file_entry(0xEF05, 5, 2, 1))) + dgi(0x0601, b"x"))],
    "record beyond the file": lambda h: [(0x00, dgi(0xA001, df(CITY, file_entry(0xEF05, 5, 2, 1))) + dgi(0x0502, b"x"))],
    "transparent too long": lambda h: [(0x00, dgi(0xA001, df(CITY, file_entry(0xEF05, 5, 1, 1))) + dgi(0x0501, b"xx"))],
    "keys without a df": lambda h: [(0x60, dgi(0x8020, capp_keys(h, (1, 1, 3, key(1)))))],
    "keys cut": lambda h: [(0x60, dgi(0xA001, df(CITY)) + dgi(0x8020, capp_keys(h, (1, 1, 3, key(1)))[:-1]))],
    "key purpose": lambda h: [(0x60, dgi(0xA001, df(CITY)) + dgi(0x8020, capp_keys(h, (1, 12, 3, key(1)))))],
    "kid twice": lambda h: [(0x60, dgi(0xA001, df(CITY)) + dgi(0x8020, capp_keys(h, (1, 1, 3, key(1)), (1, 1, 3, key(2)))))],
    "kcv before keys": lambda h: [(0x00, dgi(0xA001, df(CITY)) + dgi(0x9020, bytes(3)))],
    "kcv of another method": lambda h: [
        (
            0x60,
            dgi(0xA001, df(CITY)) + dgi(0x8022, capp_keys(h, (1, 1, 3, key(1)))) + dgi(0x9022, ecb("aes", key(1), bytes(16))[:3]),
        )
    ],
    "kcv count": lambda h: [
        (0x60, dgi(0xA001, df(CITY)) + dgi(0x8021, capp_keys(h, (1, 1, 3, key(1)))) + dgi(0x9021, kcv("sm4", key(1)) * 2))
    ],
}


@pytest.mark.parametrize("case", CAPP_BAD)
def test_bad_capp_content_is_refused(host, case):
    host.install(CITY)
    assert [host.store(p1, block, data) for block, (p1, data) in enumerate(CAPP_BAD[case](host))][-1] == 0x6A80


# Common card application


def test_capp_files(social):
    assert social.plain("00B2012C00") == (b"\x01\x02AB", 0x9000)
    assert social.plain("00B2072C00") == (b"\x07\x09123456788", 0x9000)
    assert social.plain("00B2022C00")[1] == 0x6A83
    assert social.plain("00B2014C00")[1] == 0x6A82
    assert social.plain("00B2012C02")[1] == 0x6C04
    assert social.plain("00B2012A00")[1] == 0x6A86
    assert social.plain("00B2014400")[1] == 0x6981
    assert social.plain("00B0850000")[1] == 0x6981
    assert social.plain("00B0880000")[0] == b"photo" + bytes(15)
    assert social.plain("00B0880202")[0] == b"ot"
    assert social.plain("00B0881400")[1] == 0x6B00
    assert social.plain("00B2010400")[1] == 0x6981
    fci, sw = social.plain("00A4020002EF0500")
    assert (fci.hex(), sw) == ("6f0e8201048302ef0588012885020007", 0x9000)
    assert social.plain("00B2010400")[0] == b"\x01\x02AB"
    assert social.plain("00A4000002EF99")[1] == 0x6A82
    assert social.plain("00200080082612345678FFFFFF")[1] == 0x6D00


def test_dfs_have_their_own_files_and_are_selected_by_name(social):
    select(social, DF01)
    assert social.plain("00B2012C00")[0] == b"oldest"
    assert social.plain("00B0950000")[1] == 0x6982
    fci = select(social, DF02)
    assert fci[2:10] == b"\x84\x06" + DF02
    assert social.plain("00B2022C00")[0] == b"second"
    assert social.plain("00B2012C00")[1] == 0x6A83
    assert select(social, DF01[:5])[4:10] == DF01
    social.plain("00A4000002" + "3F00")
    assert social.plain("00B2012C00")[0] == b"\x01\x02AB"


def test_cyclic_files_keep_the_newest_first(social):
    select(social, DF01)
    for content in (b"b", b"c", b"d"):
        assert social.plain(b"\x00\xdc\x01\x2c\x01" + content)[1] == 0x9000
    assert [social.plain(f"00B20{at}2C00")[0] for at in (1, 2, 3)] == [b"d", b"c", b"b"]
    assert social.plain("00B2042C00")[1] == 0x6A83


@pytest.mark.parametrize(("kid", "number", "algorithm", "size"), [(0x01, 1, "3des", 8), (0x81, 4, "sm4", 16)])
def test_internal_authenticate(social, kid, number, algorithm, size):
    block = bytes(range(size))
    command = bytes((0x00, 0x88, 0x00, kid, size)) + block
    assert social.plain(command) == (ecb(algorithm, key(number), block), 0x9000)
    assert social.plain(command[:4] + bytes((size - 1,)) + block[:-1])[1] == 0x6700
    assert social.plain(bytes((0x00, 0x88, 0x00, 0x77, size)) + block)[1] == 0x6A88


def test_internal_authenticate_with_aes_in_a_df(social):
    select(social, DF02)
    assert social.plain("0088000510" + "00" * 16)[0] == ecb("aes", key(6), bytes(16))
    assert social.plain("0088000108" + "00" * 8)[1] == 0x6A88


def test_internal_authenticate_with_a_key_for_something_else(social):
    assert social.plain("0088000208" + "00" * 8)[1] == 0x6985


def authenticate(host: Host, kid: int, algorithm: str, number: int, *, spoil: bool = False) -> int:
    size = 8 if algorithm == "3des" else 16
    challenge, sw = host.plain(f"00840000{size:02X}")
    assert (len(challenge), sw) == (size, 0x9000)
    cryptogram = bytearray(ecb(algorithm, key(number), challenge))
    cryptogram[0] ^= spoil
    return host.plain(bytes((0x00, 0x82, 0x00, kid, size)) + cryptogram)[1]


def test_external_authenticate_opens_what_it_guards(social):
    assert social.plain("00B2013400")[1] == 0x6982
    assert authenticate(social, 0x02, "3des", 2) == 0x9000
    assert social.plain("00B2013400") == (b"secret of the holder", 0x9000)
    assert social.plain("00DC023401AA")[1] == 0x9000
    assert social.plain("00D6880001AA")[1] == 0x6982
    assert authenticate(social, 0x82, "sm4", 5) == 0x9000
    assert social.plain("00D6880001AA")[1] == 0x9000
    assert social.plain("00B0880002")[0] == b"\xaah"
    assert social.plain("00D6881302AABB")[1] == 0x6A84
    select(social, SOCIAL)
    assert social.plain("00B2013400")[1] == 0x6982
    assert authenticate(social, 0x0B, "3des", 3) == 0x9000


def test_a_challenge_serves_once_and_only_at_once(social):
    challenge, _ = social.plain("0084000008")
    good = b"\x00\x82\x00\x02\x08" + ecb("3des", key(2), challenge)
    assert social.plain(good)[1] == 0x9000
    assert social.plain(good)[1] == 0x6985
    challenge, _ = social.plain("0084000008")
    social.plain("00B2012C00")
    assert social.plain(b"\x00\x82\x00\x02\x08" + ecb("3des", key(2), challenge))[1] == 0x6985
    challenge, _ = social.plain("0084000008")
    social.plain("00A4020002EF05")
    assert social.plain(b"\x00\x82\x00\x02\x08" + ecb("3des", key(2), challenge))[1] == 0x6985
    assert social.plain("0084000004")[1] == 0x6700


def test_retry_counter_locks_and_persists(tmp_path, chip, social):
    assert authenticate(social, 0x02, "3des", 2, spoil=True) == 0x63C2
    assert authenticate(social, 0x02, "3des", 2) == 0x9000
    assert [authenticate(social, 0x02, "3des", 2, spoil=True) for _ in range(2)] == [0x63C2, 0x63C1]
    assert social.plain("00B2013400")[1] == 0x6982
    chip.power_on()
    select(social, SOCIAL)
    assert authenticate(social, 0x02, "3des", 2, spoil=True) == 0x63C0
    again = open_chip(tmp_path, chip.chip_id)
    again.power_on()
    host = Host(again.transmit, [])
    select(host, SOCIAL)
    assert authenticate(host, 0x02, "3des", 2) == 0x6983
    assert authenticate(host, 0x82, "sm4", 5) == 0x9000


# Finance


def gpo(host: Host, choice: str) -> dict[str, str]:
    data, sw = host.plain("80A8000007830536000000" + choice + "00")
    assert sw == 0x9000
    assert data[:2].hex() == "770a"
    return {"aip": data[4:6].hex(), "afl": data[8:].hex()}


@pytest.mark.parametrize(("choice", "algorithm", "number", "iad"), [("00", "3des", 7, IAD_3DES), ("01", "sm4", 10, IAD_SM4)])
def test_generate_ac(chip, finance, choice, algorithm, number, iad):
    for atc in (1, 2):
        aip = bytes.fromhex(gpo(finance, choice)["aip"])
        cdol = bytes(range(33))
        data, sw = finance.plain(b"\x80\xae\x80\x00\x21" + cdol + b"\x00")
        assert sw == 0x9000
        counter = atc.to_bytes(2, "big")
        x = bytes(6) + counter
        y = bytes(6) + bytes(byte ^ 0xFF for byte in counter)
        session = ecb(algorithm, key(number), x + y)
        message = cdol + aip + counter + iad
        if algorithm == "sm4":
            ac = mac_blocks("sm4", session, message)[:8]
        else:
            left, right = session[:8], session[8:]
            last = mac_blocks("3des", left * 3, message)
            ac = ecb("3des", left * 3, Cipher(TripleDES(right * 3), modes.ECB()).decryptor().update(last))
        body = b"\x9f\x27\x01\x80\x9f\x36\x02" + counter + b"\x9f\x26\x08" + ac + b"\x9f\x10" + bytes((len(iad),)) + iad
        assert data == b"\x77" + bytes((len(body),)) + body
        assert finance.plain(b"\x80\xae\x80\x00\x21" + cdol + b"\x00")[1] == 0x6985
        chip.power_on()
        select(finance, FINANCE)
    assert finance.plain("80CA9F3600")[0].hex() == "9f36020002"


def test_finance_selection_records_and_data(finance):
    assert select(finance, FINANCE[:7]) == tlv("6F", tlv("84", FINANCE) + tlv("A5", FCI_A5))
    assert finance.plain("00B2010C00")[0] == tlv("70", tlv("57", bytes(19)))
    assert len(finance.plain("00B2020C00")[0]) == 2 + 1 + 4 + 150
    assert finance.plain("00B2030C00")[1] == 0x6A83
    assert finance.plain("00B2011400")[1] == 0x6A82
    assert finance.plain("00B2016C00")[1] == 0x6A82
    assert finance.plain("00B2017400")[1] == 0x6A82
    assert finance.plain("80CA9F1700")[0].hex() == "9f170103"
    assert finance.plain("80CA9F1300")[0].hex() == "9f13020000"
    assert finance.plain("80CA9F7F00")[1] == 0x6A88
    assert finance.plain("00DC010C01AA")[1] == 0x6D00


def test_gpo_and_generate_ac_refusals(finance):
    assert finance.plain("80AE80000100")[1] == 0x6985
    assert finance.plain("80A8000002830000")[1] == 0x6A80
    assert finance.plain("80A80000028400")[1] == 0x6A80
    assert finance.plain("80A80100078305360000000000")[1] == 0x6A86
    gpo(finance, "00")
    assert finance.plain("80AE10000100")[1] == 0x6A86


def test_pin(chip, finance):
    wrong = b"\x00\x20\x00\x80\x08" + bytes.fromhex("26999999FFFFFFFF")
    right = b"\x00\x20\x00\x80\x08" + PIN_BLOCK
    assert finance.plain(right)[1] == 0x9000
    assert finance.plain(wrong)[1] == 0x63C2
    assert finance.plain(right)[1] == 0x9000
    assert [finance.plain(wrong)[1] for _ in range(2)] == [0x63C2, 0x63C1]
    chip.power_on()
    select(finance, FINANCE)
    assert finance.plain("80CA9F1700")[0].hex() == "9f170101"
    assert finance.plain(wrong)[1] == 0x63C0
    assert finance.plain(right)[1] == 0x6983


FINANCE_BAD = {
    "record without template": lambda h: (0x00, 0x0101, tlv("57", bytes(4))),
    "record longer than announced": lambda h: (0x00, 0x0101, tlv("70", bytes(0)) + b"\x00"),
    "gpo without afl": lambda h: (0x00, 0x9104, bytes.fromhex("82027C00")),
    "iad too long": lambda h: (0x00, 0x9200, bytes(33)),
    "keys too short": lambda h: (0x60, 0x8000, h.sealed(bytes(32))),
    "kcvs before keys": lambda h: (0x00, 0x9000, bytes(9)),
    "pin of another format": lambda h: (0x60, 0x8010, h.sealed(pad80(bytes.fromhex("0612345678901234")))),
    "pin not under the dek": lambda h: (0x60, 0x8010, pad80(PIN_BLOCK)),
    "more tries left than allowed": lambda h: (0x00, 0x9010, b"\x04\x03"),
    "unknown": lambda h: (0x00, 0x9999, b"x"),
}


@pytest.mark.parametrize("case", FINANCE_BAD)
def test_bad_finance_content_is_refused(host, case):
    host.install(FINANCE)
    p1, number, value = FINANCE_BAD[case](host)
    assert host.store(p1, 0, dgi(number, value)) == 0x6A80


def test_finance_kcvs_are_checked_one_by_one(host):
    host.install(FINANCE)
    keys = [key(1), key(2), key(3)]
    assert host.store(0x60, 0, dgi(0x8400, host.sealed(b"".join(keys)))) == 0x9000
    checks = b"".join(kcv("sm4", k) for k in keys)
    for at in (0, 3, 8):
        spoiled = bytearray(checks)
        spoiled[at] ^= 1
        assert host.store(0x00, 1, dgi(0x9400, bytes(spoiled))) == 0x6A80
    assert host.store(0x80, 1, dgi(0x9400, checks)) == 0x9000
