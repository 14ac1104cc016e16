"""SCP03 host side: recorded vectors, and conversations with an independent card for every mode, level and key length."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode
from cryptography.hazmat.primitives.padding import PKCS7
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.personalize import scp03, scp03_channel
from engine.personalize.scp03 import Scp03Session
from keys.errors import Corrupt, Denied, InvalidInput, Precondition, Unsupported
from keys.secrets import SecretBytes

FILE = json.loads((Path(__file__).parents[1] / "vectors" / "scp03_pysim.json").read_text())
VECTORS = [pytest.param(test, id=test["id"]) for test in FILE["tests"]]
HOST = bytes.fromhex("0102030405060708")
MODES = [(i, level) for i, levels in ((0x00, (0, 1, 3)), (0x10, (0, 1, 3))) for level in levels]
MODES += [(i, level) for i in (0x20, 0x30) for level in (0, 1, 3, 0x11, 0x13)]
MODES += [(i, level) for i in (0x60, 0x70) for level in (0, 1, 3, 0x11, 0x13, 0x33)]


def static_keys(test):
    return tuple(bytes.fromhex(test[name]) for name in ("enc", "mac", "dek"))


def open_vector(test, **other):
    arguments = {"level": int(test["level"], 16)} | other
    return Scp03Session.open(
        static_keys(test), bytes.fromhex(test["host_challenge"]), bytes.fromhex(test["initialize_update_response"]), **arguments
    )


def split(apdu):
    """(header, data, le) of a plain short command."""
    body = apdu[4:]
    if len(body) <= 1:
        return (*apdu[:4], b"", body[0] if body else None)
    return (*apdu[:4], body[1 : 1 + body[0]], body[-1] if len(body) == body[0] + 2 else None)


@pytest.mark.parametrize("test", VECTORS)
def test_published_sessions(test):
    session = open_vector(test, i=0x70)
    assert session.external_authenticate().hex().upper() == test["external_authenticate"]
    for command in test["commands"]:
        assert session.wrap(*split(bytes.fromhex(command["plain"]))).hex().upper() == command["wrapped"]
    plain = session.check_response(0, bytes.fromhex(test["response"]), 0x9000)
    assert plain.hex().upper() == test["response_plain"]


@pytest.mark.parametrize("test", VECTORS)
def test_published_card_challenges(test):
    response = bytes.fromhex(test["initialize_update_response"])
    made = scp03.pseudo_random_challenge(bytes.fromhex(test["enc"]), response[29:32], bytes.fromhex(FILE["isd_aid"]))
    assert made == response[13:21]


# -- an independent card ---------------------------------------------------------------------------------------------------


def card_kdf(key, constant, context, length):
    fixed = bytes(11) + bytes([constant, 0]) + (8 * length).to_bytes(2, "big")
    return KBKDFCMAC(
        AES,
        Mode.CounterMode,
        length,
        1,
        None,
        CounterLocation.MiddleFixed,
        label=None,
        context=None,
        fixed=fixed + context,
        break_location=len(fixed),
    ).derive(key)


def cmac(key, data):
    mac = CMAC(AES(key))
    mac.update(data)
    return mac.finalize()


class Card:
    """What a card does with a session, from the text of Amendment D, sharing no code with the host side."""

    def __init__(self, keys, i, card_challenge):
        self.keys, self.i, self.challenge = keys, i, card_challenge
        self.chain, self.counter, self.level = bytes(16), 0, 0

    def initialize_update(self, host_challenge):
        enc, mac, _ = self.keys
        context = host_challenge + self.challenge
        self.s_enc = card_kdf(enc, 4, context, len(enc))
        self.s_mac, self.s_rmac = card_kdf(mac, 6, context, len(mac)), card_kdf(mac, 7, context, len(mac))
        self.host_cryptogram = card_kdf(self.s_mac, 1, context, 8)
        tail = b"\x00\x00\x01" if self.i & 0x10 else b""
        return bytes(10) + bytes([0x30, 3, self.i]) + self.challenge + card_kdf(self.s_mac, 0, context, 8) + tail

    def external_authenticate(self, apdu):
        assert (apdu[:2], apdu[3:5]) == (b"\x84\x82", b"\x00\x10")
        assert apdu[5:13] == self.host_cryptogram
        self.level = apdu[2]
        self._check_mac(apdu)

    def _check_mac(self, apdu):
        self.chain = cmac(self.s_mac, self.chain + apdu[:-8])
        assert apdu[-8:] == self.chain[:8]

    def command(self, apdu, has_le):
        """The plain data of a secured command."""
        if self.level & 1 == 0:
            return split(apdu)[4]
        apdu = apdu[:-1] if has_le else apdu
        assert apdu[4] == len(apdu) - 5
        assert apdu[0] & 4
        self._check_mac(apdu)
        self.counter += 1
        data = apdu[5:-8]
        if self.level & 2 and data:
            icv = Cipher(AES(self.s_enc), modes.ECB()).encryptor().update(self.counter.to_bytes(16, "big"))
            padded = Cipher(AES(self.s_enc), modes.CBC(icv)).decryptor().update(data)
            data = padded[: padded.rindex(b"\x80")]
        return data

    def response(self, data, sw):
        if self.level & 0x20 and data:
            icv = bytearray(self.counter.to_bytes(16, "big"))
            icv[0] = 0x80
            icv = Cipher(AES(self.s_enc), modes.ECB()).encryptor().update(bytes(icv))
            padded = data + b"\x80"
            padded += bytes(-len(padded) % 16)
            data = Cipher(AES(self.s_enc), modes.CBC(icv)).encryptor().update(padded)
        if self.level & 0x10:
            data += cmac(self.s_rmac, self.chain + data + sw.to_bytes(2, "big"))[:8]
        return data


def conversation(i, level, length=16, challenge=b"cardchal"):
    keys = tuple(bytes([n]) * length for n in (1, 2, 3))
    card = Card(keys, i, challenge)
    session = Scp03Session.open(keys, HOST, card.initialize_update(HOST), i=i, level=level)
    card.external_authenticate(session.external_authenticate())
    return session, card


good_or_warning = st.sampled_from([0x9000, 0x6283, 0x6300, 0x63C2])
exchange = st.tuples(st.binary(max_size=239), st.sampled_from([None, 0]), st.binary(max_size=200), good_or_warning)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODES), st.sampled_from([16, 24, 32]), st.binary(min_size=8, max_size=8), st.lists(exchange, max_size=6))
def test_commands_and_responses_round_trip(mode, length, challenge, exchanges):
    session, card = conversation(*mode, length, challenge)
    answers = []
    for data, le, answer, sw in exchanges:
        wrapped = session.wrap(0x80, 0xE2, 0x00, 0x01, data, le)
        assert card.command(wrapped, le is not None) == data
        assert (wrapped[-1] == 0) or le is None
        answers.append((card.response(answer, sw), sw, answer))
    for index, (secured, sw, plain) in enumerate(answers):
        assert session.check_response(index, secured, sw) == plain


def test_level_00_leaves_commands_as_they_are():
    session, _ = conversation(0x70, 0x00)
    assert session.wrap(0x80, 0xF2, 0x40, 0x00, b"\x4f\x00", 0) == bytes.fromhex("80F24000024F0000")
    assert session.wrap(0x80, 0xF2, 0x40, 0x00) == bytes.fromhex("80F24000")
    assert session.check_response(0, b"anything", 0x6A88) == b"anything"


# -- refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bit", range(64))
def test_any_wrong_bit_of_the_card_cryptogram_is_refused(bit):
    test = FILE["tests"][2]
    response = bytearray.fromhex(test["initialize_update_response"])
    response[21 + bit // 8] ^= 1 << bit % 8
    with pytest.raises(Denied) as caught:
        Scp03Session.open(static_keys(test), bytes.fromhex(test["host_challenge"]), bytes(response), level=0x33)
    assert caught.value.reason == "CARD_CRYPTOGRAM"


@pytest.mark.parametrize("what", ["mac", "data", "sw", "previous"])
def test_a_response_that_is_not_the_cards_own_is_refused_and_ends_the_channel(what):
    session, card = conversation(0x70, 0x33)
    card.command(session.wrap(0x80, 0xCA, 0, 0x66, b"", 0), True)
    first = card.response(b"hello", 0x9000)
    card.command(session.wrap(0x80, 0xCA, 0, 0x66, b"", 0), True)
    session.check_response(0, first, 0x9000)
    second, sw = bytearray(card.response(b"hello", 0x9000)), 0x9000
    if what == "mac":
        second[-1] ^= 1
    elif what == "data":
        second[0] ^= 1
    elif what == "sw":
        sw = 0x6300
    else:
        second = first
    with pytest.raises(Denied) as caught:
        session.check_response(1, bytes(second), sw)
    assert caught.value.reason == "RESPONSE_MAC"
    with pytest.raises(Precondition) as ended:
        session.wrap(0x80, 0xCA, 0, 0x66)
    assert ended.value.reason == "CHANNEL_ENDED"


@pytest.mark.parametrize("length", range(8))
def test_a_response_too_short_for_its_mac_is_refused(length):
    session, _ = conversation(0x30, 0x11)
    session.wrap(0x80, 0xCA, 0, 0x66)
    with pytest.raises(Denied) as caught:
        session.check_response(0, bytes(length), 0x9000)
    assert caught.value.reason == "RESPONSE_MAC"


@pytest.mark.parametrize("sw", [0x6982, 0x6A80, 0x6A88, 0x6985, 0x6400, 0x6581, 0x6C10, 0x6100, 0x9001, 0x0000])
def test_an_error_response_has_no_mac_and_ends_the_channel(sw):
    session, _ = conversation(0x70, 0x33)
    for _ in range(2):
        session.wrap(0x80, 0xE2, 0, 0, b"x")
    assert session.check_response(0, b"", sw) == b""
    with pytest.raises(Precondition) as ended:
        session.check_response(1, b"", 0x9000)
    assert ended.value.reason == "CHANNEL_ENDED"


def test_an_error_response_with_data_is_refused():
    session, _ = conversation(0x70, 0x33)
    session.wrap(0x80, 0xE2, 0, 0, b"x")
    with pytest.raises(Corrupt) as caught:
        session.check_response(0, b"secret?", 0x6A80)
    assert caught.value.reason == "RESPONSE_DATA"


@pytest.mark.parametrize(("plain_blocks", "reason"), [(b"no padding here.", "RESPONSE_PADDING"), (b"x" * 15 + b"\x00", "RESPONSE_PADDING")])
def test_authentic_but_badly_padded_data_is_refused(plain_blocks, reason):
    session, card = conversation(0x70, 0x33)
    card.command(session.wrap(0x80, 0xE2, 0, 0, b"x"), False)
    icv = Cipher(AES(card.s_enc), modes.ECB()).encryptor().update(b"\x80" + (1).to_bytes(15, "big"))
    body = Cipher(AES(card.s_enc), modes.CBC(icv)).encryptor().update(plain_blocks)
    with pytest.raises(Corrupt) as caught:
        session.check_response(0, body + cmac(card.s_rmac, card.chain + body + b"\x90\x00")[:8], 0x9000)
    assert caught.value.reason == reason


def test_authentic_data_that_is_no_whole_block_is_refused():
    session, card = conversation(0x70, 0x33)
    card.command(session.wrap(0x80, 0xE2, 0, 0, b"x"), False)
    with pytest.raises(Corrupt) as caught:
        session.check_response(0, b"odd" + cmac(card.s_rmac, card.chain + b"odd\x90\x00")[:8], 0x9000)
    assert caught.value.reason == "RESPONSE_DATA"


def test_order_is_kept():
    session, card = conversation(0x70, 0x33)
    with pytest.raises(Precondition):
        session.external_authenticate()
    with pytest.raises(Precondition) as early:
        session.check_response(0, b"", 0x9000)
    assert early.value.reason == "RESPONSE_ORDER"
    for _ in range(2):
        card.command(session.wrap(0x80, 0xE2, 0, 0, b"x"), False)
    for index in (1, -1, 2):
        with pytest.raises(Precondition):
            session.check_response(index, b"", 0x9000)
    fresh = open_vector(FILE["tests"][0])
    with pytest.raises(Precondition) as before:
        fresh.wrap(0x80, 0xF2, 0, 0)
    assert before.value.reason == "CHANNEL_ORDER"


@pytest.mark.parametrize(("level", "longest"), [(0x33, 239), (0x03, 239), (0x11, 247), (0x01, 247), (0x00, 255)])
def test_short_apdu_limits(level, longest):
    session, _ = conversation(0x70, level)
    assert len(session.wrap(0x80, 0xE2, 0, 0, bytes(longest))) <= 260
    with pytest.raises(InvalidInput) as caught:
        session.wrap(0x80, 0xE2, 0, 0, bytes(longest + 1))
    assert caught.value.reason == "APDU_TOO_LONG"


@pytest.mark.parametrize("i", [0x00, 0x10, 0x20, 0x30, 0x60, 0x70])
@pytest.mark.parametrize("level", range(0x40))
def test_levels_by_mode(i, level):
    keys = (b"a" * 16, b"b" * 16, b"c" * 16)
    response = Card(keys, i, b"cardchal").initialize_update(HOST)
    if (i, level) in MODES:
        assert Scp03Session.open(keys, HOST, response, i, level).level == level
        return
    with pytest.raises(InvalidInput) as caught:
        Scp03Session.open(keys, HOST, response, i, level)
    assert caught.value.reason == "LEVEL_NOT_OFFERED"


@pytest.mark.parametrize(
    ("i", "reason"),
    [(0x01, "SCP03_S16"), (0x71, "SCP03_S16"), (0x40, "SCP03_MODE"), (0x02, "SCP03_MODE"), (0x80, "SCP03_MODE")],
)
def test_other_modes_are_refused_with_a_reason(i, reason):
    response = bytes(10) + bytes([0x30, 3, i]) + bytes(19 if i & 0x10 else 16)
    with pytest.raises(Unsupported) as caught:
        Scp03Session.open((bytes(16),) * 3, HOST, response, level=1)
    assert caught.value.reason == reason


GOOD = bytes.fromhex(FILE["tests"][2]["initialize_update_response"])


@pytest.mark.parametrize(
    ("kind", "reason", "arguments"),
    [
        (Corrupt, "CHIP_GARBAGE", {"response": b""}),
        (Corrupt, "CHIP_GARBAGE", {"response": GOOD[:-1]}),
        (Corrupt, "CHIP_GARBAGE", {"response": GOOD[:-3]}),
        (Corrupt, "CHIP_GARBAGE", {"response": GOOD[:11] + b"\x02" + GOOD[12:]}),
        (Denied, "CHANNEL_MODE", {"i": 0x60}),
        (InvalidInput, "HOST_CHALLENGE", {"host": b"1234567"}),
        (InvalidInput, "KEY_LENGTH", {"keys": (bytes(16), bytes(16))}),
        (InvalidInput, "KEY_LENGTH", {"keys": (bytes(16), bytes(24), bytes(16))}),
        (InvalidInput, "KEY_LENGTH", {"keys": (bytes(15),) * 3}),
    ],
)
def test_wrong_arguments(kind, reason, arguments):
    test = FILE["tests"][2]
    given_ = {"keys": static_keys(test), "host": bytes.fromhex(test["host_challenge"]), "response": GOOD, "i": None} | arguments
    with pytest.raises(kind) as caught:
        Scp03Session.open(given_["keys"], given_["host"], given_["response"], given_["i"], 0x33)
    assert caught.value.reason == reason


# -- keys ------------------------------------------------------------------------------------------------------------------


def test_static_keys_may_be_bytes_arrays_or_secrets_and_are_left_alone():
    test = FILE["tests"][2]
    forms = [static_keys(test), [np.frombuffer(k, np.uint8) for k in static_keys(test)], [SecretBytes(k) for k in static_keys(test)]]
    made = [Scp03Session.open(form, bytes.fromhex(test["host_challenge"]), GOOD, level=0x33).external_authenticate() for form in forms]
    assert len(set(made)) == 1
    assert forms[2][0].reveal() == bytes.fromhex(test["enc"])


@pytest.mark.parametrize("length", [16, 24, 32])
@pytest.mark.parametrize("blocks", [1, 3])
def test_dek_spans(length, blocks):
    session, _ = conversation(0x70, 0x33, length)
    secret = bytes(range(16 * blocks))
    cbc = Cipher(AES(b"\x03" * length), modes.CBC(bytes(16))).encryptor().update(secret)
    assert session.dek_encrypt(secret) == cbc
    ecb = Cipher(AES(b"\x03" * length), modes.ECB()).encryptor().update(secret)
    assert session.dek_encrypt_blocks(secret) == ecb
    for wrong in (b"", secret + b"x"):
        with pytest.raises(InvalidInput) as caught:
            session.dek_encrypt(wrong)
        assert caught.value.reason == "SPAN_LENGTH"


def test_closing_wipes_and_forbids():
    session, _ = conversation(0x70, 0x33)
    views = list(session._keys.array)
    assert all(any(view) for view in views)
    session.close()
    session.close()
    assert not any(any(view) for view in views)
    uses = [
        lambda: session.wrap(0x80, 0xE2, 0, 0),
        lambda: session.dek_encrypt(bytes(16)),
        lambda: session.check_response(0, b"", 0x9000),
    ]
    for call in uses:
        with pytest.raises(Precondition) as caught:
            call()
        assert caught.value.reason == "SECRET_WIPED"


def test_nothing_prints_keys():
    test = FILE["tests"][2]
    with open_vector(test) as session:
        text = repr(session) + repr(vars(session))
    assert test["enc"].lower() not in text.lower()
    assert "bytes" not in repr(session)


def test_pad80_differs_from_pkcs7():
    padder = PKCS7(128).padder()
    assert scp03_channel.pad80(b"x" * 16) != padder.update(b"x" * 16) + padder.finalize()
    assert scp03_channel.pad80(b"x" * 16) == b"x" * 16 + b"\x80" + bytes(15)


def test_a_segment_of_sixty_commands_is_quick():
    def once():
        start = time.perf_counter()
        session, _ = conversation(0x70, 0x33)
        for block in range(60):
            session.wrap(0x80, 0xE2, 0x60, block, bytes(170))
        return time.perf_counter() - start

    assert min(once() for _ in range(10)) < 0.01  # measured 0.5 ms
