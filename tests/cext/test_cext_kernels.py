"""The kernels of every level against published vectors and, on random data of every lane count, against OpenSSL."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES, SM4
from hypothesis import given, settings
from hypothesis import strategies as st

import cext

FOLDER = Path(__file__).parents[1] / "vectors"
BLOCK = {"3des": 8, "sm4": 16, "aes": 16}
ECB = {"3des": cext.tdes_ecb, "sm4": cext.sm4_ecb, "aes": cext.aes_ecb}
KEY_LENS = [("3des", 16), ("sm4", 16), ("aes", 16), ("aes", 24), ("aes", 32)]
# Around the sizes of half a pass, a pass and two passes of 64, 128, 256 and 512 lanes.
COUNTS = [1, 2, 3, 63, 64, 65, 100, 127, 128, 129, 191, 255, 256, 257, 511, 512, 513, 1025]

pytestmark = pytest.mark.usefixtures("level")


def openssl(algorithm, key, data):
    cipher = {"3des": lambda k: TripleDES(k + k[:8]), "sm4": SM4, "aes": AES}[algorithm](bytes(key))
    return Cipher(cipher, modes.ECB()).encryptor().update(bytes(data))


def random_bytes(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def vectors():
    for name in ("block_3des", "block_sm4", "block_aes"):
        content = json.loads((FOLDER / f"{name}.json").read_text())
        for test in content["tests"]:
            yield pytest.param(content["algorithm"], test, id=test["id"])


@pytest.mark.parametrize(("algorithm", "test"), list(vectors()))
def test_published_vector(algorithm, test):
    key = np.frombuffer(bytes.fromhex(test["key"]), np.uint8)
    blocks = np.frombuffer(bytes.fromhex(test["plaintext"]), np.uint8).reshape(-1, BLOCK[algorithm])
    assert ECB[algorithm](key, blocks).tobytes() == bytes.fromhex(test["ciphertext"])


@pytest.mark.parametrize(("algorithm", "key_len"), KEY_LENS)
@pytest.mark.parametrize("n", COUNTS)
def test_one_key_equals_openssl(algorithm, key_len, n):
    key, blocks = random_bytes(n, key_len), random_bytes(n + 1, n, BLOCK[algorithm])
    assert ECB[algorithm](key, blocks).tobytes() == openssl(algorithm, key, blocks)


@pytest.mark.parametrize(("algorithm", "key_len"), KEY_LENS)
@pytest.mark.parametrize("n", COUNTS)
def test_a_key_per_lane_equals_openssl(algorithm, key_len, n):
    keys, blocks = random_bytes(n, n, key_len), random_bytes(n + 1, n, BLOCK[algorithm])
    expected = b"".join(openssl(algorithm, keys[i], blocks[i]) for i in range(n))
    assert ECB[algorithm](keys, blocks).tobytes() == expected


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("per_lane", [False, True])
def test_pboc_equals_its_definition(n, per_lane):
    masters, x = random_bytes(n, max(n, 1), 16), random_bytes(n + 1, n, 8)
    masters = masters[:n] if per_lane else masters[0]
    wide = np.concatenate([x, ~x], axis=1)
    tdes = cext.tdes_pboc(masters, x, False)
    sm4 = cext.sm4_pboc(masters, x)
    for i in range(n):
        master = masters[i] if per_lane else masters
        assert tdes[i].tobytes() == openssl("3des", master, wide[i])
        assert sm4[i].tobytes() == openssl("sm4", master, wide[i])


@given(st.binary(min_size=16, max_size=16), st.lists(st.binary(min_size=8, max_size=8), min_size=1, max_size=5))
def test_parity_makes_every_byte_odd_and_changes_only_the_lowest_bit(master, factors):
    x = np.frombuffer(b"".join(factors), np.uint8).reshape(-1, 8)
    key = np.frombuffer(master, np.uint8)
    raw, odd = cext.tdes_pboc(key, x, False), cext.tdes_pboc(key, x, True)
    assert np.all(np.bitwise_count(odd) % 2 == 1)
    assert np.array_equal(raw & 0xFE, odd & 0xFE)


@pytest.mark.parametrize("n", COUNTS)
def test_check_values_equal_their_definition(n):
    keys = random_bytes(n, n, 16)
    zero8, zero16, one16 = bytes(8), bytes(16), b"\x01" * 16
    assert cext.tdes_kcv(keys).tobytes() == b"".join(openssl("3des", k, zero8)[:3] for k in keys)
    assert cext.sm4_kcv(keys).tobytes() == b"".join(openssl("sm4", k, zero16)[:3] for k in keys)
    for length in (16, 24, 32):
        keys = random_bytes(n, n, length)
        assert cext.aes_kcv(keys).tobytes() == b"".join(openssl("aes", k, one16)[:3] for k in keys)


def test_des_ignores_parity_bits():
    key, blocks = random_bytes(1, 16), random_bytes(2, 70, 8)
    assert np.array_equal(cext.tdes_ecb(key, blocks), cext.tdes_ecb(key ^ 1, blocks))


def test_read_only_input_is_taken_and_not_changed():
    key, blocks = random_bytes(1, 16), random_bytes(2, 520, 16)
    key.flags.writeable = blocks.flags.writeable = False
    before = blocks.copy()
    cext.sm4_ecb(key, blocks)
    assert np.array_equal(blocks, before)


@pytest.mark.parametrize(("algorithm", "key_len"), KEY_LENS)
def test_out_receives_the_result_and_may_be_the_input(algorithm, key_len):
    key, blocks = random_bytes(1, key_len), random_bytes(2, 1100, BLOCK[algorithm])
    expected = ECB[algorithm](key, blocks)
    out = np.empty_like(blocks)
    assert ECB[algorithm](key, blocks, out=out) is out
    assert np.array_equal(out, expected)
    ECB[algorithm](key, blocks, out=blocks)
    assert np.array_equal(blocks, expected)


def test_out_never_writes_outside_its_rows():
    guard = np.full((5, 16), 0xA5, np.uint8)
    cext.tdes_pboc(random_bytes(1, 16), random_bytes(2, 3, 8), True, out=guard[1:4])
    assert np.all(guard[0] == 0xA5)
    assert np.all(guard[4] == 0xA5)


def test_out_may_not_overlap_in_part():
    memory = random_bytes(1, 20, 16)
    with pytest.raises(ValueError, match="overlaps the input in part"):
        cext.sm4_ecb(random_bytes(2, 16), memory[0:10], out=memory[1:11])
    with pytest.raises(ValueError, match="overlaps the keys"):
        cext.sm4_ecb(memory[0:10], random_bytes(3, 10, 16), out=memory[9:19])
    factors = np.frombuffer(memory, np.uint8)[:80].reshape(10, 8)
    with pytest.raises(ValueError, match="overlaps the input in part"):
        cext.sm4_pboc(random_bytes(2, 16), factors, out=memory[0:10])


KEY, BLOCKS = np.zeros(16, np.uint8), np.zeros((4, 16), np.uint8)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "keys must be a numpy array", lambda: cext.sm4_ecb(bytes(16), BLOCKS)),
        (TypeError, "dtype uint8", lambda: cext.sm4_ecb(KEY.astype(np.uint16), BLOCKS)),
        (TypeError, "blocks must be a numpy array", lambda: cext.sm4_ecb(KEY, [[0] * 16])),
        (ValueError, "C-contiguous", lambda: cext.sm4_ecb(KEY, np.zeros((4, 32), np.uint8)[:, ::2])),
        (ValueError, r"shape \(n, 16\)", lambda: cext.sm4_ecb(KEY, np.zeros((4, 15), np.uint8))),
        (ValueError, r"shape \(n, 16\)", lambda: cext.sm4_ecb(KEY, np.zeros(16, np.uint8))),
        (ValueError, r"\(16,\) or \(n, 16\)", lambda: cext.sm4_ecb(np.zeros(15, np.uint8), BLOCKS)),
        (ValueError, "3 rows for 4 lanes", lambda: cext.sm4_ecb(np.zeros((3, 16), np.uint8), BLOCKS)),
        (ValueError, "16 or 24 or 32", lambda: cext.aes_ecb(np.zeros(20, np.uint8), BLOCKS)),
        (ValueError, r"\(n, 8\)", lambda: cext.tdes_ecb(KEY, BLOCKS)),
        (ValueError, r"\(n, 8\)", lambda: cext.tdes_pboc(KEY, BLOCKS, False)),
        (ValueError, "out has 5 rows", lambda: cext.sm4_ecb(KEY, BLOCKS, out=np.zeros((5, 16), np.uint8))),
        (ValueError, "out must have shape", lambda: cext.sm4_pboc(KEY, BLOCKS[:, :8].copy(), out=np.zeros((4, 8), np.uint8))),
        (ValueError, "read-only", lambda: cext.sm4_ecb(KEY, BLOCKS, out=np.frombuffer(bytes(64), np.uint8).reshape(4, 16))),
        (ValueError, r"\(n, 16\)", lambda: cext.tdes_kcv(np.zeros((2, 24), np.uint8))),
        (ValueError, "16 or 24 or 32", lambda: cext.aes_kcv(np.zeros((2, 8), np.uint8))),
    ],
)
def test_wrong_arrays_are_refused_before_anything_is_read(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_threads_do_not_disturb_each_other():
    jobs = [(random_bytes(i, 16), random_bytes(i + 100, 2000, 8)) for i in range(4)]
    expected = [cext.tdes_pboc(key, x, True) for key, x in jobs]
    results = [None] * len(jobs)

    def work(i):
        for _ in range(20):
            results[i] = cext.tdes_pboc(*jobs[i], True)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))


@settings(max_examples=25)
@given(st.sampled_from(KEY_LENS), st.integers(1, 600), st.integers(0, 2**32))
def test_one_key_and_that_key_in_every_lane_agree(kind, n, seed):
    algorithm, key_len = kind
    key, blocks = random_bytes(seed, key_len), random_bytes(seed + 1, n, BLOCK[algorithm])
    assert np.array_equal(ECB[algorithm](key, blocks), ECB[algorithm](np.tile(key, (n, 1)), blocks))
