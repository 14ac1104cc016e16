"""CBC, CBC-MAC, retail MAC and CMAC over columns of messages: published vectors, other libraries, and what is refused."""

import json
from pathlib import Path

import numpy as np
import psec
import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES, SM4
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given
from hypothesis import strategies as st

from keys import mac
from keys.algorithms import BLOCK_LEN
from keys.errors import InvalidInput

FOLDER = Path(__file__).parents[1] / "vectors"
CIPHERS = {"3des": lambda k: TripleDES(k + k[:8] if len(k) == 16 else k), "sm4": SM4, "aes": AES}
KINDS = [("3des", 16), ("sm4", 16), ("aes", 16), ("aes", 24), ("aes", 32)]
GOOD = np.frombuffer(bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"), np.uint8)


def load(name):
    return [pytest.param(test, id=test["id"]) for test in json.loads((FOLDER / f"{name}.json").read_text())["tests"]]


def array(text):
    return np.frombuffer(bytes.fromhex(text), np.uint8)


@pytest.mark.parametrize("test", load("cmac_nist"))
def test_cmac_vectors(test):
    made = mac.cmac(test["algorithm"], array(test["key"]), array(test["message"]).reshape(1, -1))
    assert made.tobytes().hex().upper().startswith(test["mac"])


@pytest.mark.parametrize("test", load("mac_emv"))
def test_retail_mac_vector(test):
    made = mac.retail_mac(array(test["key"]), mac.pad80(array(test["message"]).reshape(1, -1), 8))
    assert made.tobytes().hex().upper() == test["mac"]


@given(st.sampled_from(KINDS), st.integers(1, 5), st.integers(1, 70), st.booleans(), st.integers(0, 2**32))
def test_rows_equal_another_library(kind, n, length, shared, seed):
    algorithm, key_len = kind
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 256, key_len if shared else (n, key_len), np.uint8)
    messages = rng.integers(0, 256, (n, length), np.uint8)
    block = BLOCK_LEN[algorithm]
    padded = mac.pad80(messages, block)
    iv = rng.integers(0, 256, (n, block), np.uint8)
    chained, last, tags = (
        mac.cbc(algorithm, keys, padded, iv),
        mac.cbc_mac(algorithm, keys, padded, iv),
        mac.cmac(algorithm, keys, messages),
    )
    assert np.array_equal(mac.cbc(algorithm, keys, padded, iv[0])[0], chained[0])
    for row in range(n):
        cipher = CIPHERS[algorithm]((keys if shared else keys[row]).tobytes())
        whole = messages[row].tobytes() + b"\x80"
        whole += bytes(-len(whole) % block)
        assert padded[row].tobytes() == whole
        wanted = Cipher(cipher, modes.CBC(iv[row].tobytes())).encryptor().update(whole)
        assert chained[row].tobytes() == wanted
        assert last[row].tobytes() == wanted[-block:]
        tag = CMAC(cipher)
        tag.update(messages[row].tobytes())
        assert tags[row].tobytes() == tag.finalize()


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.integers(1, 4), st.integers(1, 60), st.integers(0, 2**32))
def test_retail_mac_equals_psec(n, length, seed):
    rng = np.random.default_rng(seed)
    keys, messages = rng.integers(0, 256, (n, 16), np.uint8), rng.integers(0, 256, (n, length), np.uint8)
    made = mac.retail_mac(keys, mac.pad80(messages, 8))
    single = mac.des_cbc_mac(np.ascontiguousarray(keys[:, :8]), mac.pad80(messages, 8))
    for row in range(n):
        left, right, message = keys[row, :8].tobytes(), keys[row, 8:].tobytes(), messages[row].tobytes()
        assert made[row].tobytes() == psec.mac.generate_retail_mac(left, right, message, 2)
        assert single[row].tobytes() == psec.mac.generate_cbc_mac(left, message, 2)


def test_a_retail_mac_may_go_on_from_an_iv():
    messages = np.arange(48, dtype=np.uint8).reshape(2, 24)
    whole = mac.retail_mac(GOOD, messages)
    single = np.concatenate([GOOD[:8], GOOD[:8]])
    after_first = mac.cbc("3des", single, np.ascontiguousarray(messages[:, :8]))
    assert np.array_equal(mac.retail_mac(GOOD, np.ascontiguousarray(messages[:, 8:]), after_first), whole)


def test_same_rows_looks_at_each_row():
    ours = np.arange(12, dtype=np.uint8).reshape(3, 4)
    theirs = ours.copy()
    assert mac.same_rows(ours, theirs).tolist() == [True] * 3
    for at in range(12):
        changed = theirs.copy()
        changed.ravel()[at] ^= 0x80
        assert mac.same_rows(ours, changed).tolist() == [row != at // 4 for row in range(3)]


BLOCKS = np.zeros((2, 16), np.uint8)


@pytest.mark.parametrize(
    ("reason", "call"),
    [
        ("NO_ROWS", lambda: mac.cbc("aes", GOOD, BLOCKS[:0])),
        ("NO_ROWS", lambda: mac.cmac("aes", GOOD, BLOCKS[:0])),
        ("NO_ROWS", lambda: mac.retail_mac(GOOD, BLOCKS[:0])),
        ("WRONG_SHAPE", lambda: mac.cbc("aes", GOOD, BLOCKS[:, :15])),
        ("WRONG_SHAPE", lambda: mac.cbc("aes", GOOD, BLOCKS[:, :0])),
        ("WRONG_SHAPE", lambda: mac.cbc("aes", GOOD, BLOCKS[0])),
        ("WRONG_SHAPE", lambda: mac.retail_mac(GOOD, BLOCKS[:, :7])),
        ("WRONG_SHAPE", lambda: mac.cbc_mac("3des", GOOD, BLOCKS[:, :12])),
        ("WRONG_SHAPE", lambda: mac.cbc("aes", np.zeros((3, 16), np.uint8), BLOCKS)),
        ("WRONG_SHAPE", lambda: mac.cbc("aes", GOOD, BLOCKS, np.zeros(8, np.uint8))),
        ("WRONG_SHAPE", lambda: mac.cbc("aes", GOOD, BLOCKS, np.zeros((3, 16), np.uint8))),
        ("WRONG_SHAPE", lambda: mac.cmac("aes", GOOD, BLOCKS[:, :0])),
        ("WRONG_SHAPE", lambda: mac.cmac("aes", np.zeros((3, 16), np.uint8), BLOCKS)),
        ("KEY_LENGTH", lambda: mac.cmac("3des", np.zeros(24, np.uint8), BLOCKS)),
        ("KEY_LENGTH", lambda: mac.cbc("sm4", GOOD[:8], BLOCKS)),
        ("KEY_LENGTH", lambda: mac.retail_mac(GOOD[:8], BLOCKS)),
        ("WRONG_SHAPE", lambda: mac.same_rows(BLOCKS, BLOCKS[:1])),
    ],
)
def test_refused(reason, call):
    with pytest.raises(InvalidInput) as error:
        call()
    assert error.value.reason == reason
