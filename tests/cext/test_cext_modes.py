"""Modes of operation of SM4 and AES at every level: published vectors, and OpenSSL around the sizes where a batch ends."""

import json
from pathlib import Path

import numpy as np
import pytest

import cext
from tests.cext.openssl import KCV_METHODS, cbc, cmac, kcv, random_bytes, rows

FOLDER = Path(__file__).parents[1] / "vectors"
CBC = {"sm4": cext.sm4_cbc, "aes": cext.aes_cbc}
CBC_MAC = {"sm4": cext.sm4_cbc_mac, "aes": cext.aes_cbc_mac}
CMAC = {"sm4": cext.sm4_cmac, "aes": cext.aes_cmac}
KCV = {"sm4": cext.sm4_kcv, "aes": cext.aes_kcv}
KEY_LENS = [("sm4", 16), ("aes", 16), ("aes", 24), ("aes", 32)]
# Around a register, a group and a batch of each instruction set: 1, 4, 8, 16, 32, 64, 128 and 256 blocks.
COUNTS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 127, 128, 129, 255, 257]

pytestmark = pytest.mark.usefixtures("level")


def array(text):
    return np.frombuffer(bytes.fromhex(text), np.uint8)


def vectors(*names):
    for name in names:
        content = json.loads((FOLDER / f"{name}.json").read_text())
        for test in content["tests"]:
            algorithm = test.get("algorithm", content.get("algorithm"))
            if algorithm in ("sm4", "aes"):
                yield pytest.param(algorithm, test, id=f"{algorithm}-{test['id']}")


@pytest.mark.parametrize(("algorithm", "test"), list(vectors("cbc_aes", "cbc_sm4")))
@pytest.mark.parametrize("n", [1, 70])
def test_published_cbc(algorithm, test, n):
    plain = np.tile(array(test["plaintext"]), (n, 1))
    wanted = [bytes.fromhex(test["ciphertext"])] * n
    assert rows(CBC[algorithm](array(test["key"]), plain, array(test["iv"]))) == wanted
    assert rows(CBC[algorithm](np.tile(array(test["key"]), (n, 1)), plain, np.tile(array(test["iv"]), (n, 1)))) == wanted


@pytest.mark.parametrize(("algorithm", "test"), list(vectors("cmac_nist")))
@pytest.mark.parametrize("n", [1, 70])
def test_published_cmac(algorithm, test, n):
    messages = np.tile(array(test["message"]), (n, 1))
    assert rows(CMAC[algorithm](array(test["key"]), messages)) == [bytes.fromhex(test["mac"])] * n
    assert rows(CMAC[algorithm](np.tile(array(test["key"]), (n, 1)), messages)) == [bytes.fromhex(test["mac"])] * n


@pytest.mark.parametrize(("algorithm", "test"), list(vectors("kcv_published", "kcv_definition")))
def test_published_check_value(algorithm, test):
    assert rows(KCV[algorithm](array(test["key"]).reshape(1, -1), test["method"])) == [bytes.fromhex(test["kcv"])]


@pytest.mark.parametrize(("algorithm", "key_len"), KEY_LENS)
@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("per_row", [False, True])
def test_cbc_and_its_mac_equal_openssl(algorithm, key_len, n, per_row):
    keys, iv, plain = random_bytes(n, n, key_len), random_bytes(n + 1, n, 16), random_bytes(n + 2, n, 48)
    keys, iv = (keys, iv) if per_row else (keys[0], iv[0])
    each = zip(np.broadcast_to(keys, (n, key_len)), np.broadcast_to(iv, (n, 16)), plain, strict=True)
    wanted = [cbc(algorithm, key, start, row) for key, start, row in each]
    assert rows(CBC[algorithm](keys, plain, iv)) == wanted
    assert rows(CBC_MAC[algorithm](keys, plain, iv)) == [row[-16:] for row in wanted]


@pytest.mark.parametrize(("algorithm", "key_len"), KEY_LENS)
@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("per_row", [False, True])
def test_cmac_equals_openssl(algorithm, key_len, n, per_row):
    keys = random_bytes(n, n, key_len) if per_row else random_bytes(n, key_len)
    for length in (1, 15, 16, 17, 32, 41):
        messages = random_bytes(length, n, length)
        wanted = [cmac(algorithm, key, message) for key, message in zip(np.broadcast_to(keys, (n, key_len)), messages, strict=True)]
        assert rows(CMAC[algorithm](keys, messages)) == wanted


@pytest.mark.parametrize("length", range(1, 65))
def test_cmac_of_every_length_around_four_blocks(length):
    key, messages = random_bytes(1, 16), random_bytes(length, 3, length)
    for algorithm in ("sm4", "aes"):
        assert rows(CMAC[algorithm](key, messages)) == [cmac(algorithm, key, message) for message in messages]


@pytest.mark.parametrize(("algorithm", "key_len"), KEY_LENS)
@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("method", KCV_METHODS)
def test_check_values_equal_openssl(algorithm, key_len, n, method):
    keys = random_bytes(n, n, key_len)
    assert rows(KCV[algorithm](keys, method)) == [kcv(algorithm, key, method) for key in keys]


def test_without_iv_it_is_zeros():
    keys, plain = random_bytes(1, 16), random_bytes(2, 5, 32)
    for algorithm in ("sm4", "aes"):
        assert np.array_equal(CBC[algorithm](keys, plain), CBC[algorithm](keys, plain, np.zeros(16, np.uint8)))
        assert np.array_equal(CBC_MAC[algorithm](keys, plain), CBC[algorithm](keys, plain)[:, 16:])


@pytest.mark.parametrize("n", [1, 33, 300])
def test_cbc_in_place(n):
    for algorithm in ("sm4", "aes"):
        keys, plain = random_bytes(1, n, 16), random_bytes(2, n, 64)
        wanted = CBC[algorithm](keys, plain)
        assert CBC[algorithm](keys, plain, out=plain) is plain
        assert np.array_equal(plain, wanted)


@pytest.mark.parametrize("n", [1, 5, 33, 65])
def test_results_never_run_over_their_rows(n):
    guard = np.full((n + 2, 16), 0xA5, np.uint8)
    for algorithm in ("sm4", "aes"):
        CMAC[algorithm](random_bytes(1, 16), random_bytes(2, n, 20), out=guard[1:-1])
        assert np.all(guard[0] == 0xA5)
        assert np.all(guard[-1] == 0xA5)


KEY, ROWS = np.zeros(16, np.uint8), np.zeros((4, 32), np.uint8)
READ_ONLY = np.frombuffer(bytes(128), np.uint8).reshape(4, 32)


@pytest.mark.parametrize("algorithm", ["sm4", "aes"])
@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "no rows", lambda a: CBC[a](KEY, ROWS[:0])),
        (ValueError, "no rows", lambda a: CBC_MAC[a](KEY, ROWS[:0])),
        (ValueError, "no rows", lambda a: CMAC[a](KEY, ROWS[:0])),
        (ValueError, "no rows", lambda a: KCV[a](ROWS[:0, :16].copy())),
        (ValueError, "positive multiple of 16 bytes, not 31", lambda a: CBC[a](KEY, np.zeros((4, 31), np.uint8))),
        (ValueError, "positive multiple of 16 bytes, not 0", lambda a: CBC_MAC[a](KEY, np.zeros((4, 0), np.uint8))),
        (ValueError, "positive multiple of 1 bytes, not 0", lambda a: CMAC[a](KEY, np.zeros((4, 0), np.uint8))),
        (ValueError, "16", lambda a: CBC[a](KEY[:15].copy(), ROWS)),
        (ValueError, "3 rows for 4 lanes", lambda a: CMAC[a](np.zeros((3, 16), np.uint8), ROWS)),
        (ValueError, "iv must have shape", lambda a: CBC[a](KEY, ROWS, np.zeros(8, np.uint8))),
        (ValueError, "iv has 3 rows for 4 lanes", lambda a: CBC_MAC[a](KEY, ROWS, np.zeros((3, 16), np.uint8))),
        (ValueError, "C-contiguous", lambda a: CMAC[a](KEY, np.zeros((4, 64), np.uint8)[:, ::2])),
        (TypeError, "dtype uint8", lambda a: CBC[a](KEY, ROWS.astype(np.int8))),
        (TypeError, "numpy array", lambda a: CMAC[a](bytes(16), ROWS)),
        (ValueError, "read-only", lambda a: CBC[a](KEY, ROWS, out=READ_ONLY)),
        (ValueError, "overlaps the keys", lambda a: CBC[a](ROWS[0, :16], ROWS[1:], out=ROWS[:3])),
        (ValueError, "no check value method 'crc'", lambda a: KCV[a](np.zeros((1, 16), np.uint8), "crc")),
        (ValueError, "no check value method None", lambda a: KCV[a](np.zeros((1, 16), np.uint8), None)),
        (ValueError, "shape", lambda a: KCV[a](KEY)),
    ],
)
def test_bad_input_is_refused(algorithm, error, message, call):
    with pytest.raises(error, match=message):
        call(algorithm)
