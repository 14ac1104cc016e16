"""Triple DES modes, MACs and fused derivation at every level, against published vectors and, lane by lane, against other libraries."""

import json
from pathlib import Path

import numpy as np
import psec.mac
import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.cmac import CMAC

import cext

FOLDER = Path(__file__).parents[1] / "vectors"
# Around half a pass, a pass and two passes of 128, 256 and 512 lanes, and around the eight lanes that are stored together.
COUNTS = [1, 2, 7, 8, 9, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1025]
KCV = {"zero-block": 3, "one-block": 3, "cmac": 5}

pytestmark = pytest.mark.usefixtures("level")


def data(*shape, seed=1):
    return np.random.default_rng([seed, *shape]).integers(0, 256, shape, dtype=np.uint8)


def vectors(name, algorithm=None):
    content = json.loads((FOLDER / f"{name}.json").read_text())["tests"]
    return [pytest.param(test, id=test["id"]) for test in content if algorithm in (None, test.get("algorithm"))]


def array(text):
    return np.frombuffer(bytes.fromhex(text), np.uint8)


def encrypt(key, plain, mode=None):
    key = bytes(key)
    return Cipher(TripleDES(key + key[:8]), mode or modes.ECB()).encryptor().update(bytes(plain))


def cmac(key, message):
    key = bytes(key)
    context = CMAC(TripleDES(key + key[:8]))
    context.update(bytes(message))
    return context.finalize()


def check_value(key, method):
    if method == "cmac":
        return cmac(key, bytes(8))[:5]
    return encrypt(key, (b"\0" if method == "zero-block" else b"\1") * 8)[:3]


def derive(master, levels, parity):
    """PBOC dispersion from its definition, one key at a time."""
    key = bytes(master)
    for factor in levels:
        key = encrypt(key, bytes(factor) + bytes(~factor))
        if parity:
            key = bytes(byte & 0xFE | (byte >> 1).bit_count() % 2 ^ 1 for byte in key)
    return key


@pytest.mark.parametrize("test", vectors("cmac_nist", "3des"))
def test_published_cmac(test):
    assert cext.tdes_cmac(array(test["key"]), array(test["message"]).reshape(1, -1)).tobytes().hex() == test["mac"].lower()


@pytest.mark.parametrize("test", vectors("mac_emv"))
def test_published_retail_mac(test):
    padded = np.concatenate([array(test["message"]), array("8000000000000000")]).reshape(1, -1)
    assert cext.tdes_retail_mac(array(test["key"]), padded).tobytes().hex() == test["mac"].lower()


@pytest.mark.parametrize("test", vectors("kcv_published", "3des") + vectors("kcv_definition", "3des"))
def test_published_check_value(test):
    assert cext.tdes_kcv(array(test["key"]).reshape(1, 16), test["method"]).tobytes().hex() == test["kcv"].lower()


@pytest.mark.parametrize("test", vectors("diversify_pboc", "3des"))
def test_pboc_vector(test):
    factors = np.stack([array(factor) for factor in test["factors"]]).reshape(1, -1, 8)
    assert cext.tdes_pboc(array(test["key"]), factors, False).tobytes().hex() == test["derived"].lower()


@pytest.mark.parametrize("own_key", [False, True])
@pytest.mark.parametrize("n", COUNTS)
def test_cbc_equals_openssl(n, own_key):
    keys, plain, iv = data(n, 16), data(n, 24), data(n, 8)
    key, vector = (keys, iv) if own_key else (keys[0], iv[0])
    result = cext.tdes_cbc(key, plain, vector)
    for i in range(n):
        assert result[i].tobytes() == encrypt(keys[i if own_key else 0], plain[i], modes.CBC(bytes(iv[i if own_key else 0])))
    assert np.array_equal(cext.tdes_cbc(key, plain), cext.tdes_cbc(key, plain, np.zeros(8, np.uint8)))


@pytest.mark.filterwarnings("ignore:TripleDES has been moved", "ignore:Single-key TripleDES")
@pytest.mark.parametrize("own_key", [False, True])
@pytest.mark.parametrize("n", COUNTS)
def test_retail_mac_equals_psec(n, own_key):
    keys, messages = data(n, 16), data(n, 40)
    result = cext.tdes_retail_mac(keys if own_key else keys[0], messages)
    for i in range(n):
        key = keys[i if own_key else 0]
        assert result[i].tobytes() == psec.mac.generate_retail_mac(key[:8].tobytes(), key[8:].tobytes(), messages[i].tobytes(), 1)


def test_retail_mac_starts_from_the_initial_value():
    keys, messages, iv = data(300, 16), data(300, 16), data(300, 8)
    folded = messages.copy()
    folded[:, :8] ^= iv
    assert np.array_equal(cext.tdes_retail_mac(keys, messages, iv), cext.tdes_retail_mac(keys, folded))


@pytest.mark.parametrize("length", [1, 7, 8, 9, 15, 16, 17, 40])
@pytest.mark.parametrize("n", [1, 129, 513])
def test_cmac_equals_openssl(n, length):
    keys, messages = data(n, 16), data(n, length)
    own, shared = cext.tdes_cmac(keys, messages), cext.tdes_cmac(keys[0], messages)
    for i in range(n):
        assert own[i].tobytes() == cmac(keys[i], messages[i])
        assert shared[i].tobytes() == cmac(keys[0], messages[i])


@pytest.mark.parametrize("method", KCV)
@pytest.mark.parametrize("n", COUNTS)
def test_check_values_equal_their_definition(n, method):
    keys = data(n, 16)
    result = cext.tdes_kcv(keys, method)
    assert result.shape == (n, KCV[method])
    assert result.tobytes() == b"".join(check_value(key, method) for key in keys)


@pytest.mark.parametrize("levels", [1, 2, 3, 8])
@pytest.mark.parametrize("parity", [False, True])
def test_dispersion_over_levels_equals_its_definition(levels, parity):
    masters, factors = data(130, 16), data(130, levels, 8)
    own, shared = cext.tdes_pboc(masters, factors, parity), cext.tdes_pboc(masters[0], factors, parity)
    for i in range(130):
        assert own[i].tobytes() == derive(masters[i], factors[i], parity)
        assert shared[i].tobytes() == derive(masters[0], factors[i], parity)


@pytest.mark.parametrize("method", KCV)
@pytest.mark.parametrize("n", COUNTS)
def test_derived_keys_come_with_their_check_values(n, method):
    factors, master = data(n, 2, 8), data(16)
    keys, checks = cext.tdes_pboc(master, factors, True, kcv=method)
    assert np.array_equal(keys, cext.tdes_pboc(master, factors, True))
    assert np.array_equal(checks, cext.tdes_kcv(keys, method))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("n", COUNTS)
def test_wrapped_keys_are_the_derived_ones_under_the_kek(n, own):
    masters, factors, kek, iv = data(n, 16), data(n, 2, 8), data(16, seed=2), data(n, 8)
    master, vector = (masters, iv) if own else (masters[0], iv[0])
    keys, checks = cext.tdes_pboc(master, factors, own, kcv="zero-block")
    ecb = cext.tdes_pboc_wrapped(master, factors, own, kek)
    cbc = cext.tdes_pboc_wrapped(master, factors, own, kek, mode="cbc", iv=vector, kcv="cmac")
    zero = cext.tdes_pboc_wrapped(master, factors, own, kek, mode="cbc")
    assert ecb[0].tobytes() == encrypt(kek, keys.tobytes())
    assert np.array_equal(ecb[1], checks)
    assert np.array_equal(cbc[0], cext.tdes_cbc(kek, keys, vector))
    assert np.array_equal(cbc[1], cext.tdes_kcv(keys, "cmac"))
    assert np.array_equal(zero[0], cext.tdes_cbc(kek, keys))


def test_given_outputs_are_filled_and_nothing_beside_them():
    master, factors, kek = data(16), data(9, 8), data(16, seed=2)
    wrapped, checks = np.full((11, 16), 0xA5, np.uint8), np.full((11, 3), 0xA5, np.uint8)
    result = cext.tdes_pboc_wrapped(master, factors, True, kek, out=wrapped[1:10], kcv_out=checks[1:10])
    expected = cext.tdes_pboc_wrapped(master, factors, True, kek)
    assert all(np.array_equal(a, b) for a, b in zip(result, expected, strict=True))
    for guarded in (wrapped, checks):
        assert np.all(guarded[[0, 10]] == 0xA5)


def test_cbc_may_work_in_place():
    key, plain = data(16), data(600, 24)
    expected = cext.tdes_cbc(key, plain)
    assert cext.tdes_cbc(key, plain, out=plain) is plain
    assert np.array_equal(plain, expected)


KEY, ROWS, FACTORS = np.zeros(16, np.uint8), np.zeros((4, 16), np.uint8), np.zeros((4, 8), np.uint8)
FROZEN = np.frombuffer(bytes(64), np.uint8).reshape(4, 16)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "plain has no rows", lambda: cext.tdes_cbc(KEY, ROWS[:0])),
        (ValueError, "multiple of 8 bytes, not 9", lambda: cext.tdes_cbc(KEY, np.zeros((4, 9), np.uint8))),
        (ValueError, "multiple of 8 bytes, not 0", lambda: cext.tdes_retail_mac(KEY, np.zeros((4, 0), np.uint8))),
        (ValueError, "multiple of 1 bytes, not 0", lambda: cext.tdes_cmac(KEY, np.zeros((4, 0), np.uint8))),
        (ValueError, r"shape \(n, length\)", lambda: cext.tdes_cmac(KEY, KEY)),
        (ValueError, "iv must have shape", lambda: cext.tdes_cbc(KEY, ROWS, np.zeros(7, np.uint8))),
        (ValueError, "iv has 3 rows", lambda: cext.tdes_retail_mac(KEY, ROWS, np.zeros((3, 8), np.uint8))),
        (TypeError, "iv must be a numpy array", lambda: cext.tdes_cbc(KEY, ROWS, bytes(8))),
        (ValueError, "C-contiguous", lambda: cext.tdes_cmac(KEY, np.asfortranarray(ROWS))),
        (ValueError, "overlaps the input in part", lambda: cext.tdes_cbc(KEY, ROWS[:3], out=ROWS[1:])),
        (ValueError, "read-only", lambda: cext.tdes_cbc(KEY, ROWS, out=FROZEN)),
        (ValueError, "keys has no rows", lambda: cext.tdes_kcv(ROWS[:0])),
        (ValueError, "no check value method 'two-block'", lambda: cext.tdes_kcv(ROWS, "two-block")),
        (ValueError, "no check value method None", lambda: cext.tdes_kcv(ROWS, None)),
        (ValueError, "factors has no rows", lambda: cext.tdes_pboc(KEY, FACTORS[:0], True)),
        (ValueError, "1 to 8", lambda: cext.tdes_pboc(KEY, np.zeros((4, 9, 8), np.uint8), True)),
        (ValueError, "1 to 8", lambda: cext.tdes_pboc(KEY, np.zeros((4, 0, 8), np.uint8), True)),
        (ValueError, "1 to 8", lambda: cext.tdes_pboc(KEY, np.zeros((4, 2, 7), np.uint8), True)),
        (ValueError, "masters has 3 rows", lambda: cext.tdes_pboc(ROWS[:3], FACTORS, True)),
        (ValueError, "no check value method ''", lambda: cext.tdes_pboc(KEY, FACTORS, True, kcv="")),
        (ValueError, "kek must have shape", lambda: cext.tdes_pboc_wrapped(KEY, FACTORS, True, np.zeros(24, np.uint8))),
        (ValueError, "kek must have shape", lambda: cext.tdes_pboc_wrapped(KEY, FACTORS, True, ROWS)),
        (ValueError, "no mode 'cfb'", lambda: cext.tdes_pboc_wrapped(KEY, FACTORS, True, KEY, mode="cfb")),
        (ValueError, "ecb takes no iv", lambda: cext.tdes_pboc_wrapped(KEY, FACTORS, True, KEY, iv=np.zeros(8, np.uint8))),
        (ValueError, "kcv must be one of", lambda: cext.tdes_pboc_wrapped(KEY, FACTORS, True, KEY, kcv=None)),
        (
            ValueError,
            "kcv_out must have shape",
            lambda: cext.tdes_pboc_wrapped(KEY, FACTORS, True, KEY, kcv_out=np.zeros((4, 5), np.uint8)),
        ),
        (ValueError, "out overlaps the keys", lambda: cext.tdes_pboc_wrapped(ROWS, FACTORS, True, KEY, out=ROWS)),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_computed(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_outputs_may_not_overlap_each_other():
    memory = np.zeros(200, np.uint8)
    with pytest.raises(ValueError, match="kcv_out overlaps"):
        cext.tdes_pboc_wrapped(KEY, FACTORS, True, KEY, out=memory[:64].reshape(4, 16), kcv_out=memory[60:72].reshape(4, 3))
