"""Derivation with check values and wrapping in one go, for SM4 and AES, and AES key wrap: every level against OpenSSL."""

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

import cext
from tests.cext.openssl import KCV_METHODS, cbc, cmac, ecb, kcv, random_bytes, rows

FOLDER = Path(__file__).parents[1] / "vectors"
COUNTS = [1, 2, 4, 5, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129, 257]

pytestmark = pytest.mark.usefixtures("level")


def dispersed(master, factors):
    for x in factors.reshape(-1, 8):
        master = ecb("sm4", master, np.concatenate([x, ~x]))
    return master


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("levels", [1, 2, 3, 8])
@pytest.mark.parametrize("per_row", [False, True])
def test_sm4_dispersion_level_upon_level(n, levels, per_row):
    masters = random_bytes(n, n, 16) if per_row else random_bytes(n, 16)
    factors = random_bytes(n + 1, n, levels, 8)
    wanted = [dispersed(master, row) for master, row in zip(np.broadcast_to(masters, (n, 16)), factors, strict=True)]
    assert rows(cext.sm4_pboc(masters, factors if levels > 1 else factors[:, 0].copy())) == wanted
    assert rows(cext.sm4_pboc(masters, factors)) == wanted


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("method", KCV_METHODS)
@pytest.mark.parametrize("levels", [1, 3])
def test_sm4_keys_with_check_values_clear_and_wrapped(n, method, levels):
    master, factors, kek = random_bytes(n, 16), random_bytes(n + 1, n, levels, 8), random_bytes(n + 2, 16)
    keys = [dispersed(master, row) for row in factors]
    checks = [kcv("sm4", key, method) for key in keys]
    clear, clear_checks = cext.sm4_pboc(master, factors, kcv=method)
    assert (rows(clear), rows(clear_checks)) == (keys, checks)
    wrapped, wrapped_checks = cext.sm4_pboc_wrapped(master, factors, kek, kcv=method)
    assert (rows(wrapped), rows(wrapped_checks)) == ([ecb("sm4", kek, key) for key in keys], checks)
    for iv in (random_bytes(n + 3, 16), random_bytes(n + 4, n, 16)):
        wrapped, wrapped_checks = cext.sm4_pboc_wrapped(master, factors, kek, mode="cbc", iv=iv, kcv=method)
        each = zip(np.broadcast_to(iv, (n, 16)), keys, strict=True)
        assert (rows(wrapped), rows(wrapped_checks)) == ([cbc("sm4", kek, start, key) for start, key in each], checks)


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("method", KCV_METHODS)
@pytest.mark.parametrize(("master_len", "kek_len"), [(16, 16), (16, 32), (24, 24), (32, 16)])
@pytest.mark.parametrize("per_row", [False, True])
def test_aes_cmac_keys_wrapped(n, method, master_len, kek_len, per_row):
    masters = random_bytes(n, n, master_len) if per_row else random_bytes(n, master_len)
    kek, iv = random_bytes(n + 1, kek_len), random_bytes(n + 2, 16)
    for length in (16, 27, 32):
        messages = random_bytes(length, n, length)
        keys = [cmac("aes", master, row) for master, row in zip(np.broadcast_to(masters, (n, master_len)), messages, strict=True)]
        checks = [kcv("aes", key, method) for key in keys]
        wrapped, made = cext.aes_cmac_wrapped(masters, messages, kek, kcv=method)
        assert (rows(wrapped), rows(made)) == ([ecb("aes", kek, key) for key in keys], checks)
        wrapped, made = cext.aes_cmac_wrapped(masters, messages, kek, mode="cbc", iv=iv, kcv=method)
        assert (rows(wrapped), rows(made)) == ([cbc("aes", kek, iv, key) for key in keys], checks)


def kw_vectors():
    for test in json.loads((FOLDER / "kw_aes.json").read_text())["tests"]:
        yield pytest.param(test, id=test["id"])


@pytest.mark.parametrize("test", list(kw_vectors()))
@pytest.mark.parametrize("n", [1, 40])
def test_published_key_wrap(test, n):
    kek, key = (np.frombuffer(bytes.fromhex(test[name]), np.uint8) for name in ("kek", "key"))
    assert rows(cext.aes_kw(kek, np.tile(key, (n, 1)))) == [bytes.fromhex(test["wrapped"])] * n


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("kek_len", [16, 24, 32])
@pytest.mark.parametrize("key_len", [16, 24, 32])
def test_key_wrap_equals_openssl(n, kek_len, key_len):
    kek, keys = random_bytes(n, kek_len), random_bytes(n + 1, n, key_len)
    assert rows(cext.aes_kw(kek, keys)) == [aes_key_wrap(kek.tobytes(), key) for key in rows(keys)]


@pytest.mark.parametrize("n", [1, 5, 33, 70])
def test_outputs_stay_in_their_rows(n):
    guard, checks = np.full((n + 2, 24), 0xA5, np.uint8), np.full((n + 2, 3), 0xA5, np.uint8)
    cext.aes_kw(random_bytes(1, 16), random_bytes(2, n, 16), out=guard[1:-1])
    keys = np.full((n + 2, 16), 0xA5, np.uint8)
    cext.aes_cmac_wrapped(random_bytes(1, 16), random_bytes(2, n, 32), random_bytes(3, 16), out=keys[1:-1], kcv_out=checks[1:-1])
    cext.sm4_pboc_wrapped(random_bytes(1, 16), random_bytes(2, n, 8), random_bytes(3, 16), out=keys[1:-1], kcv_out=checks[1:-1])
    for array in (guard, checks, keys):
        assert np.all(array[0] == 0xA5)
        assert np.all(array[-1] == 0xA5)


KEY, FACTORS, MESSAGES = np.zeros(16, np.uint8), np.zeros((4, 8), np.uint8), np.zeros((4, 32), np.uint8)
KEYS, SHARED = np.zeros((4, 16), np.uint8), np.zeros(128, np.uint8)
CHECKS = KEYS.reshape(-1)[:12].reshape(4, 3)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "factors has no rows", lambda: cext.sm4_pboc(KEY, FACTORS[:0])),
        (ValueError, "1 to 8, 8", lambda: cext.sm4_pboc(KEY, np.zeros((4, 9, 8), np.uint8))),
        (ValueError, "1 to 8, 8", lambda: cext.sm4_pboc(KEY, np.zeros((4, 0, 8), np.uint8))),
        (ValueError, "1 to 8, 8", lambda: cext.sm4_pboc(KEY, np.zeros((4, 7), np.uint8))),
        (ValueError, "no check value method 'sha'", lambda: cext.sm4_pboc(KEY, FACTORS, kcv="sha")),
        (ValueError, "kcv must be one of", lambda: cext.sm4_pboc_wrapped(KEY, FACTORS, KEY, kcv=None)),
        (ValueError, "no mode 'ctr'", lambda: cext.sm4_pboc_wrapped(KEY, FACTORS, KEY, mode="ctr")),
        (ValueError, "ecb takes no iv", lambda: cext.sm4_pboc_wrapped(KEY, FACTORS, KEY, iv=KEY)),
        (ValueError, r"kek must have shape \(16,\)", lambda: cext.sm4_pboc_wrapped(KEY, FACTORS, KEYS)),
        (ValueError, "kcv_out", lambda: cext.sm4_pboc_wrapped(KEY, FACTORS, KEY, kcv_out=np.zeros((4, 5), np.uint8))),
        (ValueError, "kcv_out overlaps", lambda: cext.sm4_pboc_wrapped(KEY, FACTORS, KEY, out=KEYS, kcv_out=CHECKS)),
        (ValueError, "messages has no rows", lambda: cext.aes_cmac_wrapped(KEY, MESSAGES[:0], KEY)),
        (ValueError, "no check value method None", lambda: cext.aes_cmac_wrapped(KEY, MESSAGES, KEY, kcv=None)),
        (ValueError, "no mode 'gcm'", lambda: cext.aes_cmac_wrapped(KEY, MESSAGES, KEY, mode="gcm")),
        (ValueError, "ecb takes no iv", lambda: cext.aes_cmac_wrapped(KEY, MESSAGES, KEY, iv=KEY)),
        (ValueError, "kek must have shape", lambda: cext.aes_cmac_wrapped(KEY, MESSAGES, np.zeros(20, np.uint8))),
        (ValueError, "out overlaps", lambda: cext.aes_cmac_wrapped(KEYS[0], MESSAGES, KEY, out=KEYS)),
        (ValueError, "kcv_out overlaps", lambda: cext.aes_cmac_wrapped(KEY, MESSAGES, KEY, out=KEYS, kcv_out=CHECKS)),
        (ValueError, "keys has no rows", lambda: cext.aes_kw(KEY, KEYS[:0])),
        (ValueError, "keys must have shape", lambda: cext.aes_kw(KEY, np.zeros((4, 8), np.uint8))),
        (ValueError, "kek must have shape", lambda: cext.aes_kw(KEYS, KEYS)),
        (ValueError, "out must have shape", lambda: cext.aes_kw(KEY, KEYS, out=np.zeros((4, 16), np.uint8))),
        (ValueError, "out overlaps", lambda: cext.aes_kw(KEY, SHARED[:64].reshape(4, 16), out=SHARED[32:].reshape(4, 24))),
        (TypeError, "kek must be a numpy array", lambda: cext.aes_kw(bytes(16), KEYS)),
    ],
)
def test_bad_input_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()
