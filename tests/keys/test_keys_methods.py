"""Diversification by AN10922, SP 800-108 and EMV option C: published vectors, and the plain definitions in another library."""

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode
from hypothesis import given
from hypothesis import strategies as st

from keys import diversify
from keys.errors import InvalidInput

FOLDER = Path(__file__).parents[1] / "vectors"
MASTER = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
aes_key = st.sampled_from([16, 24, 32]).flatmap(lambda n: st.binary(min_size=n, max_size=n))


def load(name):
    return [pytest.param(test, id=test["id"]) for test in json.loads((FOLDER / f"{name}.json").read_text())["tests"]]


def column(values):
    return np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)


@pytest.mark.parametrize("test", load("diversify_an10922"))
def test_an10922_vectors(test):
    version = int(test["key_version"], 16) if "key_version" in test else None
    key = diversify.an10922(test["algorithm"], bytes.fromhex(test["key"]), bytes.fromhex(test["input"]), key_version=version)
    assert key.tobytes().hex().upper() == test["derived"]


@pytest.mark.parametrize(("algorithm", "master"), [("aes", MASTER), ("aes", MASTER * 2), ("3des", MASTER), ("3des", MASTER + b"threekey")])
def test_an10922_of_a_column_equals_its_rows(algorithm, master):
    longest = diversify.AN10922_INPUT_LENS[algorithm][-1]
    for length in (1, longest // 2, longest):
        inputs = np.random.default_rng(length).integers(0, 256, (5, length), np.uint8)
        masters = np.tile(np.frombuffer(master, np.uint8), (5, 1))
        made = diversify.an10922(algorithm, master, inputs)
        assert np.array_equal(made, diversify.an10922(algorithm, masters, inputs))
        assert np.array_equal(made, np.concatenate([diversify.an10922(algorithm, master, row) for row in inputs]))


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=31))
def test_an10922_of_inputs_beyond_a_block_is_cmac(master, data):
    mac = CMAC(AES(master))
    mac.update(b"\x01" + data)
    assert diversify.an10922("aes", master, data).tobytes() == mac.finalize()


def an10922_by_hand(cipher, block, constant, data):
    encryptor = Cipher(cipher, modes.ECB()).encryptor()
    rb = {8: 0x1B, 16: 0x87}[block]

    def double(value):
        number = int.from_bytes(value, "big") << 1
        return (number ^ (rb if number >> 8 * block else 0)).to_bytes(block + 1, "big")[-block:]

    k1 = double(encryptor.update(bytes(block)))
    message = bytes([constant]) + data
    mask = k1
    if len(message) < 2 * block:
        message = (message + b"\x80").ljust(2 * block, b"\0")
        mask = double(k1)
    last = bytes(a ^ b for a, b in zip(message[block:], mask, strict=True))
    return Cipher(cipher, modes.CBC(bytes(block))).encryptor().update(message[:block] + last)[-block:]


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=1, max_size=31))
def test_an10922_of_every_length_by_hand(master, data):
    assert diversify.an10922("aes", master, data).tobytes() == an10922_by_hand(AES(master), 16, 0x01, data)
    short = data[:15]
    cipher = TripleDES(master + master[:8])
    wanted = an10922_by_hand(cipher, 8, 0x21, short) + an10922_by_hand(cipher, 8, 0x22, short)
    assert diversify.an10922("3des", master, short, allow_weak=True).tobytes() == wanted


def test_an10922_key_version_sits_in_the_parity_bits():
    raw = diversify.an10922("3des", MASTER, b"uid").ravel()
    for version in (0x00, 0x80, 0x01, 0xFF):
        key = diversify.an10922("3des", MASTER, b"uid", key_version=version).ravel()
        assert "".join(str(byte & 1) for byte in key[:8]) == f"{version:08b}"
        assert np.array_equal(key & 0xFE, raw & 0xFE)
        assert np.array_equal(key[8:], raw[8:])


@pytest.mark.parametrize("test", load("kbkdf_counter_cmac"))
def test_counter_mode_vectors(test):
    key, fixed = (np.frombuffer(bytes.fromhex(test[name]), np.uint8) for name in ("key", "fixed"))
    made = diversify.counter_mode(key, np.empty((1, 0), np.uint8), test["counter_len"], fixed.reshape(1, -1), test["length"])
    assert made.tobytes().hex().upper() == test["derived"]


@given(aes_key, st.binary(max_size=40), st.lists(st.binary(min_size=6, max_size=6), min_size=1, max_size=5), st.integers(1, 70))
def test_sp800_108_equals_kbkdf(master, label, contexts, length):
    made = diversify.sp800_108(master, label, column(contexts), length)
    for row, context in zip(made, contexts, strict=True):
        oracle = KBKDFCMAC(
            AES, Mode.CounterMode, length, 4, 4, CounterLocation.BeforeFixed, label=label, context=context, fixed=None
        )  # fmt: skip
        assert row.tobytes() == oracle.derive(master)


def test_sp800_108_with_an_empty_context_and_label():
    oracle = KBKDFCMAC(AES, Mode.CounterMode, 16, 4, 4, CounterLocation.BeforeFixed, label=b"", context=b"", fixed=None)
    assert diversify.sp800_108(MASTER, b"", b"", 16).tobytes() == oracle.derive(MASTER)


@given(aes_key, st.text("0123456789", min_size=12, max_size=19), st.text("0123456789", min_size=2, max_size=2))
def test_option_c_by_hand(master, pan, psn):
    y = bytes.fromhex((pan + psn).zfill(32))
    blocks = Cipher(AES(master), modes.ECB()).encryptor().update(y + bytes(255 - b for b in y))
    made = diversify.emv_c(master, diversify.emv_y16([pan], psn))
    assert made.tobytes() == blocks[: len(master)]


def test_option_c_of_a_column_of_pans():
    pans = ["622848001000", "6228480010001234567", "6228480010001234"]
    column_ = diversify.emv_y16(pans, ["00", "01", "02"])
    assert [row.tobytes().hex() for row in column_] == [(p + s).zfill(32) for p, s in zip(pans, ("00", "01", "02"), strict=True)]
    one_by_one = [diversify.emv_c(MASTER, row.reshape(1, -1)) for row in column_]
    assert np.array_equal(diversify.emv_c(MASTER, column_), np.concatenate(one_by_one))


@pytest.mark.parametrize(
    ("reason", "call"),
    [
        ("METHOD_ALGORITHM", lambda: diversify.an10922("sm4", MASTER, b"uid")),
        ("ALGORITHM_UNKNOWN", lambda: diversify.an10922("des", MASTER, b"uid")),
        ("WRONG_SHAPE", lambda: diversify.an10922("aes", MASTER, b"")),
        ("WRONG_SHAPE", lambda: diversify.an10922("aes", MASTER, bytes(32))),
        ("WRONG_SHAPE", lambda: diversify.an10922("3des", MASTER, bytes(16))),
        ("KEY_LENGTH", lambda: diversify.an10922("3des", MASTER * 2, b"uid")),
        ("KEY_LENGTH", lambda: diversify.an10922("aes", MASTER[:8], b"uid")),
        ("KEY_VERSION", lambda: diversify.an10922("aes", MASTER, b"uid", key_version=1)),
        ("KEY_VERSION", lambda: diversify.an10922("3des", MASTER, b"uid", key_version=256)),
        ("WEAK_KEY", lambda: diversify.an10922("3des", MASTER[:8] * 2, b"uid")),
        ("NO_ROWS", lambda: diversify.an10922("aes", MASTER, np.zeros((0, 4), np.uint8))),
        ("NOT_BYTES", lambda: diversify.an10922("aes", MASTER, np.zeros((1, 4), np.int8))),
        ("WRONG_SHAPE", lambda: diversify.an10922("aes", np.zeros((2, 16), np.uint8), np.zeros((3, 4), np.uint8))),
        ("DERIVED_LENGTH", lambda: diversify.sp800_108(MASTER, b"l", b"c", 0)),
        ("DERIVED_LENGTH", lambda: diversify.sp800_108(MASTER, b"l", b"c", 1025)),
        ("KEY_LENGTH", lambda: diversify.sp800_108(MASTER[:15], b"l", b"c", 16)),
        ("NO_ROWS", lambda: diversify.sp800_108(MASTER, b"l", np.zeros((0, 4), np.uint8), 16)),
        ("WRONG_SHAPE", lambda: diversify.sp800_108(MASTER, b"l", np.zeros((1, 1, 4), np.uint8), 16)),
        ("WRONG_SHAPE", lambda: diversify.emv_c(MASTER, np.zeros((1, 8), np.uint8))),
        ("NO_ROWS", lambda: diversify.emv_c(MASTER, np.zeros((0, 16), np.uint8))),
        ("NO_ROWS", lambda: diversify.emv_y16([], "00")),
        ("PAN_INVALID", lambda: diversify.emv_y16(["1" * 20], "00")),
        ("PSN_INVALID", lambda: diversify.emv_y16(["1" * 16], "1")),
    ],
)
def test_refused(reason, call):
    with pytest.raises(InvalidInput) as error:
        call()
    assert error.value.reason == reason
