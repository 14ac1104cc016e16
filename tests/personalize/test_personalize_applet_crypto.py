"""What applets must answer: published and computed vectors, and two independent programs as oracles."""

from __future__ import annotations

import json
from pathlib import Path

import psec
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from hypothesis import given
from hypothesis import strategies as st
from pyemv import ac

from engine.personalize.applet_crypto import (
    BLOCK,
    application_cryptogram,
    des_cbc_mac,
    ecb,
    load_mac1,
    pad80,
    retail_mac,
    sm4_cbc_mac,
)

FOLDER = Path(__file__).parents[1] / "vectors"
# The oracles still import 3DES from its old place.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")


def load(name):
    return [pytest.param(test, id=test["id"]) for test in json.loads((FOLDER / f"{name}.json").read_text())["tests"]]


def hexed(test, *names):
    return [bytes.fromhex(test[name]) for name in names]


key16 = st.binary(min_size=16, max_size=16).filter(lambda k: k[:8] != k[8:])
message = st.binary(max_size=80)


@pytest.mark.parametrize("name", ["ac_session", "mac_emv", "virtual_purse"])
def test_vectors_say_where_they_come_from(name):
    file = json.loads((FOLDER / f"{name}.json").read_text())
    assert file["provenance"] in ("official", "independent", "self-made")
    assert file["source"]
    assert file["standard"]
    assert file["tests"]


@pytest.mark.parametrize("test", load("mac_emv"))
def test_retail_mac_vector(test):
    key, text, expected = hexed(test, "key", "message", "mac")
    assert retail_mac(key, text) == expected


@given(key16, message)
def test_retail_mac_equals_psec_and_pyemv(key, text):
    assert retail_mac(key, text) == psec.mac.generate_retail_mac(key[:8], key[8:], text, padding=2)
    assert retail_mac(key, text) == ac.generate_ac(key, text, ac.PaddingType.EMV, 8)


@given(st.binary(min_size=8, max_size=8), message)
def test_des_cbc_mac_equals_psec(key, text):
    assert des_cbc_mac(key, text) == psec.mac.generate_cbc_mac(key + key, text, padding=2)


def sm4_mac(key, text):
    """CBC-MAC written out, block by block."""
    state = bytes(16)
    padded = text + b"\x80"
    padded += bytes(-len(padded) % 16)
    for at in range(0, len(padded), 16):
        mixed = bytes(a ^ b for a, b in zip(state, padded[at : at + 16], strict=True))
        state = Cipher(SM4(key), modes.ECB()).encryptor().update(mixed)
    return state


@given(key16, message)
def test_sm4_cbc_mac(key, text):
    assert sm4_cbc_mac(key, text) == sm4_mac(key, text)


@given(key16, st.binary(max_size=40), st.sampled_from([8, 16]))
def test_padding_is_always_there_and_comes_off_one_way(key, text, block):
    padded = pad80(text, block)
    assert len(padded) % block == 0
    assert 1 <= len(padded) - len(text) <= block
    assert padded.rstrip(b"\0") == text + b"\x80"


@given(key16, st.binary(min_size=32, max_size=32))
def test_single_blocks(key, blocks):
    assert ecb("aes", key, blocks) == Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(blocks)
    assert ecb("sm4", key, blocks) == Cipher(SM4(key), modes.ECB()).encryptor().update(blocks)
    assert ecb("3des", key, blocks) == psec.des.encrypt_tdes_ecb(key, blocks)
    assert all(BLOCK[name] == size for name, size in (("3des", 8), ("sm4", 16), ("aes", 16)))


@pytest.mark.parametrize("test", load("ac_session"))
def test_application_cryptogram_uses_the_session_key_of_its_counter(test):
    key, atc, session = hexed(test, "key", "atc", "session")
    text = bytes(range(50))
    got = application_cryptogram(test["algorithm"], key, atc, text)
    if test["algorithm"] == "3des":
        assert got == ac.generate_ac(session, text, ac.PaddingType.EMV, 8)
    else:
        assert got == sm4_mac(session, text)[:8]
    assert application_cryptogram(test["algorithm"], key, b"\x00\x02", text) != got


@pytest.mark.parametrize("test", load("virtual_purse"))
def test_load_mac1_vector(test):
    key, random, amount, terminal, mac1 = hexed(test, "dlk", "random", "amount", "terminal", "load_mac1")
    card = test["balance"].to_bytes(4, "big") + test["sequence"].to_bytes(2, "big") + b"\x01\x00" + random
    assert load_mac1("3des", key, card, amount, terminal) == mac1


@given(key16, st.binary(min_size=12, max_size=12), st.binary(min_size=4, max_size=4), st.binary(min_size=6, max_size=6))
def test_load_mac1_by_its_definition(key, card, amount, terminal):
    text = card[:4] + amount + b"\x02" + terminal
    x = card[8:12] + card[4:6] + b"\x80\x00"
    session = psec.des.encrypt_tdes_ecb(key, x)
    assert load_mac1("3des", key, card, amount, terminal) == psec.mac.generate_cbc_mac(session + session, text, padding=2, length=4)
    both = x + bytes(255 - b for b in x)
    session = Cipher(SM4(key), modes.ECB()).encryptor().update(both)
    assert load_mac1("sm4", key, card, amount, terminal) == sm4_mac(session, text)[:4]


def test_keys_may_be_any_buffer():
    key, text = bytes(range(16)), b"message"
    for kind in (bytearray, memoryview):
        assert retail_mac(kind(key), text) == retail_mac(key, text)
        assert sm4_cbc_mac(kind(key), text) == sm4_cbc_mac(key, text)
        assert ecb("3des", kind(key), bytes(8)) == ecb("3des", key, bytes(8))
