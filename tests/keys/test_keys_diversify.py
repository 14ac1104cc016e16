"""Diversification, check values and parity: published vectors, independent programs, and the plain definitions."""

import json
from pathlib import Path

import numpy as np
import psec
import pyemv
import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.algorithms import AES, SM4
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode
from hypothesis import given
from hypothesis import strategies as st

from keys import diversify
from keys.errors import Denied, InvalidInput
from keys.kcv import kcv, kcv_array, verify_kcv
from keys.parity import has_odd_parity, odd_parity

FOLDER = Path(__file__).parents[1] / "vectors"
# psec and pyemv, the oracles, still import 3DES from its old place.
old_import = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
MASTER = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")


def load(name):
    return [pytest.param(test, id=f"{name}-{test['id']}") for test in json.loads((FOLDER / f"{name}.json").read_text())["tests"]]


key16 = st.binary(min_size=16, max_size=16)
pan = st.text("0123456789", min_size=12, max_size=19)
psn = st.text("0123456789", min_size=2, max_size=2)


@pytest.mark.parametrize("test", load("kcv_published") + load("kcv_definition"))
def test_check_value_vectors(test):
    assert kcv(test["algorithm"], bytes.fromhex(test["key"]), test["method"]).hex().upper() == test["kcv"]


@pytest.mark.parametrize("test", load("diversify_pboc"))
def test_pboc_vectors(test):
    key = bytes.fromhex(test["key"])
    for factor in test["factors"]:
        key = diversify.pboc(test["algorithm"], key, bytes.fromhex(factor)).tobytes()
    assert key.hex().upper() == test["derived"]


@pytest.mark.parametrize("test", load("diversify_emv"))
def test_emv_vectors(test):
    derive = diversify.emv_a if test["method"] == "emv-a" else diversify.emv_b
    key = derive("3des", bytes.fromhex(test["key"]), [test["pan"]], test["psn"])
    assert kcv("3des", key[0]).hex().upper().startswith(test["kcv_prefix"])
    assert has_odd_parity(key)


@pytest.mark.parametrize("test", load("diversify_gp"))
def test_gp_vectors(test):
    derive = {"gp-emv": diversify.gp_emv, "gp-visa2": diversify.gp_visa2, "gp-kdf3": diversify.gp_kdf3}[test["method"]]
    key = derive(bytes.fromhex(test["key"]), bytes.fromhex(test["kdd"]), test["purpose"])[0]
    if "derived" in test:
        assert key.tobytes().hex().upper() == test["derived"]
    else:
        assert kcv(test["algorithm"], key).hex().upper() == test["kcv"]


@old_import
@given(key16, pan, psn)
def test_option_a_and_b_equal_pyemv(master, number, sequence):
    for ours, theirs in ((diversify.emv_a, pyemv.kd.derive_icc_mk_a), (diversify.emv_b, pyemv.kd.derive_icc_mk_b)):
        assert ours("3des", master, [number], [sequence], allow_weak=True)[0].tobytes() == theirs(master, number, sequence)


@given(st.lists(st.tuples(pan, psn), min_size=1, max_size=12), st.sampled_from("ab"))
def test_a_column_of_pans_equals_its_rows(rows, option):
    pans, psns = [row[0] for row in rows], [row[1] for row in rows]
    column = diversify.emv_y(pans, psns, option)
    assert np.array_equal(column, np.concatenate([diversify.emv_y([p], s, option) for p, s in rows]))
    assert np.array_equal(column, diversify.emv_y(np.array(pans, "S19"), np.array(psns, "S2"), option))
    matrix = np.array(pans, "S25").view(np.uint8).reshape(len(pans), 25)
    assert np.array_equal(column, diversify.emv_y(matrix, np.array(psns, "S2").view(np.uint8).reshape(-1, 2), option))


@old_import
@given(key16)
def test_3des_check_value_equals_psec(key):
    assert kcv("3des", key) == psec.des.generate_kcv(key, 3)
    assert kcv("3des", key + key[:8]) == psec.des.generate_kcv(key, 3)


@old_import
@given(st.binary(min_size=24, max_size=24))
def test_three_key_check_values(key):
    assert kcv("3des", key) == psec.des.generate_kcv(key, 3)
    mac = CMAC(TripleDES(key))
    mac.update(bytes(8))
    assert kcv("3des", key, "cmac") == mac.finalize()[:5]


@given(st.sampled_from([("3des", 16), ("sm4", 16), ("aes", 16), ("aes", 24), ("aes", 32)]), st.binary(min_size=96, max_size=96))
def test_cmac_check_value_equals_cmac(kind, data):
    algorithm, length = kind
    keys = np.frombuffer(data, np.uint8).reshape(-1, length)
    cipher = {"3des": lambda k: TripleDES(k + k[:8]), "sm4": SM4, "aes": AES}[algorithm]
    for key, value in zip(keys, kcv_array(algorithm, keys, "cmac"), strict=True):
        mac = CMAC(cipher(key.tobytes()))
        mac.update(bytes(8 if algorithm == "3des" else 16))
        assert value.tobytes() == mac.finalize()[:5]


@given(st.sampled_from([16, 24, 32]), st.binary(min_size=32, max_size=32), st.binary(min_size=10, max_size=10))
def test_kdf3_equals_kbkdf(length, data, kdd):
    master = data[:length]
    for number, purpose in ((1, "enc"), (2, "mac"), (3, "dek")):
        fixed = bytes([0, 0, 0, number, 0]) + kdd
        before = CounterLocation.BeforeFixed
        oracle = KBKDFCMAC(AES, Mode.CounterMode, length, 1, None, before, label=None, context=None, fixed=fixed)
        assert diversify.gp_kdf3(master, kdd, purpose).tobytes() == oracle.derive(master)


def test_a_master_and_a_purpose_per_row_equal_single_rows():
    rng = np.random.default_rng(5)
    masters, kdds = rng.integers(0, 256, (150, 16), np.uint8), rng.integers(0, 256, (150, 10), np.uint8)
    purposes = [("enc", "mac", "dek")[i % 3] for i in range(150)]
    for derive in (diversify.gp_emv, diversify.gp_visa2, diversify.gp_kdf3):
        rows = derive(masters, kdds, purposes)
        for i in (0, 1, 2, 77, 128, 149):
            assert np.array_equal(rows[i], derive(masters[i], kdds[i], purposes[i])[0])


@given(st.binary(min_size=1, max_size=64))
def test_parity(data):
    array = np.frombuffer(data, np.uint8)
    odd = odd_parity(array)
    assert np.all(np.bitwise_count(odd) % 2 == 1)
    assert np.array_equal(odd & 0xFE, array & 0xFE)
    assert has_odd_parity(odd)
    assert not has_odd_parity(odd ^ 1)


@given(key16, st.binary(min_size=8, max_size=8))
def test_parity_of_pboc_equals_psec(master, factor):
    raw = diversify.pboc("3des", master, factor, allow_weak=True)
    assert diversify.pboc("3des", master, factor, "odd", allow_weak=True).tobytes() == psec.des.adjust_key_parity(raw.tobytes())


def test_verify_kcv_raises():
    verify_kcv("3des", MASTER, bytes.fromhex("08D7B4"))
    for wrong in ("08D7B5", "08D7", "", "08D7B400"):
        with pytest.raises(Denied) as caught:
            verify_kcv("3des", MASTER, bytes.fromhex(wrong))
        assert caught.value.reason == "KCV_MISMATCH"
        assert "08D7" not in str(caught.value)


FACTOR, KDD = bytes(8), bytes(10)


@pytest.mark.parametrize(
    ("reason", "call"),
    [
        ("METHOD_ALGORITHM", lambda: diversify.pboc("aes", MASTER, FACTOR)),
        ("ALGORITHM_UNKNOWN", lambda: diversify.pboc("des", MASTER, FACTOR)),
        ("PARITY", lambda: diversify.pboc("sm4", MASTER, FACTOR, "odd")),
        ("PARITY", lambda: diversify.pboc("3des", MASTER, FACTOR, "even")),
        ("KEY_LENGTH", lambda: diversify.pboc("3des", MASTER[:15], FACTOR)),
        ("KEY_LENGTH", lambda: diversify.pboc("3des", MASTER + MASTER[:8], FACTOR)),
        ("WRONG_SHAPE", lambda: diversify.pboc("3des", MASTER, FACTOR[:7])),
        ("WRONG_SHAPE", lambda: diversify.pboc("3des", np.zeros((2, 16), np.uint8), np.zeros((3, 8), np.uint8))),
        ("NOT_BYTES", lambda: diversify.pboc("3des", MASTER, np.zeros((3, 8), np.int64))),
        ("WRONG_SHAPE", lambda: diversify.gp_kdf3(MASTER, KDD[:9], "enc")),
        ("PURPOSE", lambda: diversify.gp_kdf3(MASTER, KDD, "ENC")),
        ("PURPOSE", lambda: diversify.gp_emv(MASTER, KDD, ["enc", "x"])),
        ("WRONG_SHAPE", lambda: diversify.gp_emv(MASTER, KDD, ["enc", "mac"])),
        ("KEY_LENGTH", lambda: diversify.gp_visa2(MASTER + MASTER, KDD, "enc")),
        ("PAN_INVALID", lambda: diversify.emv_y(["12345678901"], "00", "a")),
        ("PAN_INVALID", lambda: diversify.emv_y(["12345678901234567890"], "00", "a")),
        ("PAN_INVALID", lambda: diversify.emv_y(["1234567890123x"], "00", "b")),
        ("PAN_INVALID", lambda: diversify.emv_y(["１２３４５６７８９０１２３"], "00", "b")),
        ("PAN_INVALID", lambda: diversify.emv_y(np.array([[49] * 6 + [0] + [49] * 8], np.uint8), "00", "a")),
        ("PSN_INVALID", lambda: diversify.emv_y(["1234567890123"], "0", "a")),
        ("PSN_INVALID", lambda: diversify.emv_y(["1234567890123"], "000", "a")),
        ("PSN_INVALID", lambda: diversify.emv_y(["1234567890123"], "0a", "a")),
        ("WRONG_SHAPE", lambda: diversify.emv_y(["1234567890123"], ["00", "01"], "a")),
        ("EMV_OPTION", lambda: diversify.emv_y(["1234567890123"], "00", "c")),
        ("KCV_METHOD_UNKNOWN", lambda: kcv("aes", MASTER, "sha")),
        ("KEY_LENGTH", lambda: kcv("sm4", MASTER + b"1")),
        ("WRONG_SHAPE", lambda: kcv("sm4", np.zeros((2, 16), np.uint8))),
        ("WRONG_SHAPE", lambda: kcv_array("sm4", np.zeros(16, np.uint8))),
    ],
)
def test_wrong_input_is_named(reason, call):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert caught.value.reason == reason
    assert MASTER.hex()[:8] not in str(caught.value)


def test_emv_option_b_digits_follow_sha1_of_the_standard():
    digest = hashes.Hash(hashes.SHA1())
    digest.update(bytes.fromhex("0" + "12345678901234567" + "45"))
    assert digest.finalize().hex() == "ddd8760c3ca7dfe015fc7a48051aaa8899c7f850"
    assert diversify.emv_y(["12345678901234567"], "45", "b").tobytes().hex() == "8760370157480518"
