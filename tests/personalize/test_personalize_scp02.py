"""SCP02 host side: published values, and conversations with an independent card for both modes and every level."""

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.personalize import scp02
from engine.personalize.scp02 import Scp02Session
from engine.personalize.scp03 import Scp03Session
from engine.personalize.securechannel import SecureChannel
from keys.errors import Corrupt, Denied, InvalidInput, Precondition, Unsupported
from keys.secrets import SecretBytes

FOLDER = Path(__file__).parents[1] / "vectors"
HOST = bytes.fromhex("0102030405060708")
AID = bytes.fromhex("A000000151000000")
KEYS = tuple(bytes(range(n, n + 16)) for n in (0x10, 0x40, 0x80))


def vectors(name):
    return [pytest.param(test, id=test["id"]) for test in json.loads((FOLDER / f"{name}.json").read_text())["tests"]]


def b(text):
    return bytes.fromhex(text)


@pytest.mark.parametrize("test", vectors("scp02_pysim"))
@pytest.mark.parametrize("i", [0x15, 0x55])
def test_published_session(test, i):
    static = tuple(b(test[name]) for name in ("enc", "mac", "dek"))
    response = b(test["initialize_update_response"])
    session = Scp02Session.open(static, b(test["host_challenge"]), response, i, int(test["level"], 16))
    assert session.external_authenticate().hex().upper() == test["external_authenticate"]
    for command in test["commands"]:
        plain = b(command["plain"])
        assert session.wrap(*plain[:4]).hex().upper() == command["wrapped"]


@pytest.mark.parametrize("test", vectors("scp02_session_keys"))
def test_published_session_keys(test):
    constant = {"s_enc": scp02.S_ENC, "c_mac": scp02.C_MAC_KEY, "dek": scp02.DEK}[test["kind"]]
    assert bytes(scp02.session_key(b(test["key"]), constant, b(test["sequence"])).reveal()) == b(test["session"])


# -- an independent card ---------------------------------------------------------------------------------------------------


def tdes(key, mode, data, *, decrypt=False):
    cipher = Cipher(TripleDES(key + key[:8] if len(key) == 16 else key * 3), mode)
    return (cipher.decryptor() if decrypt else cipher.encryptor()).update(data)


def retail(key, icv, message):
    """ISO/IEC 9797-1 algorithm 3 as it is drawn there: single DES all along, then decipher with KR and encipher with KL."""
    message += b"\x80"
    message += bytes(-len(message) % 8)
    last = tdes(key[:8], modes.CBC(icv), message)[-8:]
    return tdes(key[:8], modes.ECB(), tdes(key[8:], modes.ECB(), last, decrypt=True))


class Card:
    """What a card does with a session, from the text of annex E, sharing no code with the host side."""

    def __init__(self, keys=KEYS, i=0x55, sequence=b"\x00\x07", challenge=None):
        zero = modes.CBC(bytes(8))
        self.enc, self.mac, self.dek = (
            tdes(key, zero, constant + sequence + bytes(12))
            for key, constant in zip(keys, (b"\x01\x82", b"\x01\x01", b"\x01\x81"), strict=True)
        )
        self.sequence = sequence
        self.challenge = challenge or (retail(self.mac, bytes(8), AID)[:6] if i & 0x40 else b"random")
        self.icv = None
        self.level = 0

    def cryptogram(self, message):
        return tdes(self.enc, modes.CBC(bytes(8)), message + b"\x80" + bytes(7))[-8:]

    def initialize_update(self, host_challenge=HOST):
        self.host = host_challenge
        made = self.cryptogram(host_challenge + self.sequence + self.challenge)
        return bytes(10) + b"\x30\x02" + self.sequence + self.challenge + made

    def external_authenticate(self, apdu):
        assert (apdu[:2], apdu[3:5]) == (b"\x84\x82", b"\x00\x10")
        assert apdu[5:13] == self.cryptogram(self.sequence + self.challenge + self.host)
        self.level = apdu[2]
        self.check_mac(apdu[:-8], apdu[-8:])

    def check_mac(self, message, mac):
        icv = bytes(8) if self.icv is None else tdes(self.mac[:8], modes.ECB(), self.icv)
        self.icv = retail(self.mac, icv, message)
        assert mac == self.icv

    def command(self, apdu, has_le):
        """The plain data of a secured command."""
        apdu = apdu[:-1] if has_le else apdu
        if not self.level & 1:
            return apdu[5:]
        assert apdu[4] == len(apdu) - 5
        assert apdu[0] & 4
        data, mac = apdu[5:-8], apdu[-8:]
        if self.level & 2 and data:
            padded = tdes(self.enc, modes.CBC(bytes(8)), data, decrypt=True)
            data = padded[: padded.rindex(b"\x80")]
        self.check_mac(apdu[:4] + bytes([len(data) + 8]) + data, mac)
        return data


def conversation(i=0x55, level=3, **card):
    made = Card(i=i, **card)
    session = Scp02Session.open(KEYS, HOST, made.initialize_update(), i, level, aid=AID)
    made.external_authenticate(session.external_authenticate())
    return session, made


exchange = st.tuples(st.binary(max_size=239), st.sampled_from([None, 0]))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([0x15, 0x55]), st.sampled_from([0, 1, 3]), st.binary(min_size=2, max_size=2), st.lists(exchange, max_size=6))
def test_commands_round_trip(i, level, sequence, exchanges):
    session, card = conversation(i, level, sequence=sequence)
    for data, le in exchanges:
        wrapped = session.wrap(0x80, 0xE2, 0x00, 0x01, data, le)
        assert card.command(wrapped, le is not None) == data
        assert (wrapped[-1] == 0) or le is None
    for index in range(len(exchanges)):
        assert session.check_response(index, b"answer", 0x9000) == b"answer"


@pytest.mark.parametrize(("level", "longest"), [(0, 255), (1, 247), (3, 239)])
def test_the_longest_command(level, longest):
    session, card = conversation(level=level)
    wrapped = session.wrap(0x80, 0xE2, 0, 0, b"x" * longest)
    assert len(wrapped) <= 5 + 255
    assert card.command(wrapped, False) == b"x" * longest
    with pytest.raises(InvalidInput) as error:
        session.wrap(0x80, 0xE2, 0, 0, b"x" * (longest + 1))
    assert error.value.reason == "APDU_TOO_LONG"


def test_level_00_leaves_commands_as_they_are():
    session, _ = conversation(level=0)
    assert session.wrap(0x80, 0xF2, 0x40, 0x00, b"\x4f\x00", 0) == bytes.fromhex("80F24000024F0000")
    assert session.wrap(0x80, 0xF2, 0x40, 0x00) == bytes.fromhex("80F24000")
    assert session.check_response(0, b"anything", 0x6A88) == b"anything"


def test_secrets_go_under_the_session_dek():
    session, card = conversation()
    secret = bytes(range(48))
    assert session.dek_encrypt(secret) == tdes(card.dek, modes.ECB(), secret)
    assert session.dek_encrypt_blocks(secret) == session.dek_encrypt(secret)
    assert session.dek_encrypt(secret[:8]) == tdes(card.dek, modes.ECB(), secret[:8])
    for wrong in (b"", secret[:7], secret[:17]):
        with pytest.raises(InvalidInput) as error:
            session.dek_encrypt(wrong)
        assert error.value.reason == "SPAN_LENGTH"


def test_static_keys_of_every_kind_give_the_same_session():
    response = Card().initialize_update()
    kinds = [KEYS, [bytearray(k) for k in KEYS], [SecretBytes(k) for k in KEYS], [np.frombuffer(k, np.uint8) for k in KEYS]]
    assert len({Scp02Session.open(keys, HOST, response, 0x55).external_authenticate() for keys in kinds}) == 1


def test_both_protocols_are_a_secure_channel():
    def takes(_: SecureChannel) -> None: ...

    names = [name for name in vars(SecureChannel) if not name.startswith("_")]
    for kind in (Scp02Session, Scp03Session):
        assert all(hasattr(kind, name) for name in names if name != "level")
    takes(conversation()[0])


# -- refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(12, 28))
def test_any_wrong_byte_of_counter_challenge_and_cryptogram_is_refused(at):
    response = bytearray(Card().initialize_update())
    response[at] ^= 1 << at % 8
    with pytest.raises(Denied) as error:
        Scp02Session.open(KEYS, HOST, bytes(response), 0x55)
    assert error.value.reason == "CARD_CRYPTOGRAM"


def test_a_challenge_that_is_not_the_well_known_one_is_refused_when_the_aid_is_known():
    response = Card(challenge=b"chosen").initialize_update()
    with pytest.raises(Denied) as error:
        Scp02Session.open(KEYS, HOST, response, 0x55, aid=AID)
    assert error.value.reason == "CARD_CHALLENGE"
    assert Scp02Session.open(KEYS, HOST, response, 0x55).level == 3
    assert Scp02Session.open(KEYS, HOST, response, 0x15, aid=AID).level == 3
    with pytest.raises(Denied):
        Scp02Session.open(KEYS, HOST, Card().initialize_update(), 0x55, aid=AID[:-1])


@pytest.mark.parametrize(
    ("kind", "reason", "change"),
    [
        (Unsupported, "SCP02_MODE", {"i": 0x05}),
        (Unsupported, "SCP02_MODE", {"i": 0x75}),
        (InvalidInput, "LEVEL_NOT_OFFERED", {"level": 0x02}),
        (InvalidInput, "LEVEL_NOT_OFFERED", {"level": 0x11}),
        (InvalidInput, "LEVEL_NOT_OFFERED", {"level": 0x33}),
        (InvalidInput, "HOST_CHALLENGE", {"host_challenge": HOST[:7]}),
        (InvalidInput, "KEY_LENGTH", {"static_keys": KEYS[:2]}),
        (InvalidInput, "KEY_LENGTH", {"static_keys": (KEYS[0], KEYS[1] * 2, KEYS[2])}),
        (Corrupt, "CHIP_GARBAGE", {"initialize_update_response": b""}),
        (Corrupt, "CHIP_GARBAGE", {"initialize_update_response": bytes(28)}),
        (Corrupt, "CHIP_GARBAGE", {"initialize_update_response": bytes(10) + b"\x30\x02" + bytes(17)}),
        (Corrupt, "CHIP_GARBAGE", {"initialize_update_response": bytes(10) + b"\x30\x03\x70" + bytes(19)}),
    ],
)
def test_refused(kind, reason, change):
    good = {"static_keys": KEYS, "host_challenge": HOST, "initialize_update_response": Card().initialize_update(), "i": 0x55}
    with pytest.raises(kind) as error:
        Scp02Session.open(**(good | change))
    assert error.value.reason == reason


def test_order_and_end_of_a_session():
    session = Scp02Session.open(KEYS, HOST, Card().initialize_update(), 0x55)
    with pytest.raises(Precondition, match="after EXTERNAL"):
        session.wrap(0x80, 0xF2, 0, 0)
    session.external_authenticate()
    with pytest.raises(Precondition, match="already"):
        session.external_authenticate()
    for _ in range(3):
        session.wrap(0x80, 0xF2, 0, 0)
    with pytest.raises(Precondition) as error:
        session.check_response(1, b"", 0x9000)
    assert error.value.reason == "RESPONSE_ORDER"
    assert session.check_response(0, b"data", 0x6283) == b"data"
    with pytest.raises(Corrupt) as error:
        session.check_response(1, b"data", 0x6A80)
    assert error.value.reason == "RESPONSE_DATA"
    with pytest.raises(Precondition) as error:
        session.wrap(0x80, 0xF2, 0, 0)
    assert error.value.reason == "CHANNEL_ENDED"


def test_close_wipes_and_ends():
    session, _ = conversation()
    views = [secret.reveal() for secret in session._secrets]
    assert all(any(view) for view in views)
    with session:
        pass
    assert not any(any(view) for view in views)
    for call in (lambda: session.wrap(0x80, 0xF2, 0, 0), lambda: session.dek_encrypt(bytes(8)), session.external_authenticate):
        with pytest.raises(Precondition) as error:
            call()
        assert error.value.reason == "SECRET_WIPED"


def test_nothing_secret_is_printed():
    session, card = conversation()
    text = repr(session) + str(vars(session))
    for secret in (*KEYS, card.enc, card.mac, card.dek):
        assert secret.hex() not in text.lower()
        assert repr(secret)[2:-1] not in text
