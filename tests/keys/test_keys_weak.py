"""Weak, semi-weak and equal-halves DES keys are refused wherever a master comes in, and only there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys import diversify
from keys.custody.sealing import random_master
from keys.custody.software import KeySpec, SoftwareCustody
from keys.errors import InvalidInput
from keys.hierarchy import Domain
from keys.secrets import SecretBytes
from keys.weak import refuse_weak, weak_rows

GOOD = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
# NIST SP 800-67 rev. 2, 3.3.2, as printed there.
WEAK = ["0101010101010101", "FEFEFEFEFEFEFEFE", "E0E0E0E0F1F1F1F1", "1F1F1F1F0E0E0E0E"]
SEMI_WEAK = [
    *("011F011F010E010E", "1F011F010E010E01", "01E001E001F101F1", "E001E001F101F101", "01FE01FE01FE01FE", "FE01FE01FE01FE01"),
    *("1FE01FE00EF10EF1", "E01FE01FF10EF10E", "1FFE1FFE0EFE0EFE", "FE1FFE1FFE0EFE0E", "E0FEE0FEF1FEF1FE", "FEE0FEE0FEF1FEF1"),
]


@pytest.mark.parametrize("half", [bytes.fromhex(text) for text in WEAK + SEMI_WEAK])
def test_a_weak_half_in_either_place_with_any_parity(half):
    for parity in (0x00, 0x01, 0xFF):
        part = bytes(byte ^ parity & 1 for byte in half)
        for key in (part + GOOD[8:], GOOD[:8] + part, GOOD + part, part):
            assert weak_rows(np.frombuffer(key, np.uint8).reshape(1, -1)).all()


def test_equal_neighbours_are_single_des_and_two_key_3des_is_not():
    half, other, third = GOOD[:8], GOOD[8:], b"thirdkey"
    flipped = bytes(byte ^ 1 for byte in half)
    weak = [half + half, half + flipped, half + half + third, half + other + other]
    fine = [half + other, half + other + half, half + other + third]
    assert all(weak_rows(np.frombuffer(key, np.uint8).reshape(1, -1))[0] for key in weak)
    assert not any(weak_rows(np.frombuffer(key, np.uint8).reshape(1, -1))[0] for key in fine)


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=20), st.data())
def test_rows_are_judged_one_by_one(rows, data):
    at = data.draw(st.integers(0, len(rows) - 1))
    rows[at] = GOOD[:8] * 2
    judged = weak_rows(np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 16))
    assert judged[at]
    halves = [(row[:8], row[8:]) for row in rows]
    plain = {bytes(b & 0xFE for b in bytes.fromhex(text)) for text in WEAK + SEMI_WEAK}
    for found, pair in zip(judged, halves, strict=True):
        left, right = (bytes(b & 0xFE for b in half) for half in pair)
        assert found == (left == right or left in plain or right in plain)


KDD, X = bytes(range(10)), bytes(8)
CALLS = {
    "pboc": lambda m, **k: diversify.pboc("3des", m, X, **k),
    "emv-a": lambda m, **k: diversify.emv_a("3des", m, ["9901234567890123"], "00", **k),
    "emv-b": lambda m, **k: diversify.emv_b("3des", m, ["9901234567890123"], "00", **k),
    "gp-emv": lambda m, **k: diversify.gp_emv(m, KDD, "enc", **k),
    "gp-visa2": lambda m, **k: diversify.gp_visa2(m, KDD, "enc", **k),
    "an10922": lambda m, **k: diversify.an10922("3des", m, b"uid", **k),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_3des_method_refuses_a_weak_master_unless_told(name):
    call = CALLS[name]
    assert call(GOOD).shape == (1, 16)
    for weak in (GOOD[:8] * 2, bytes(16), bytes.fromhex(WEAK[1]) + GOOD[8:]):
        with pytest.raises(InvalidInput) as error:
            call(weak)
        assert error.value.reason == "WEAK_KEY"
        assert weak.hex() not in error.value.message.lower()
        assert call(weak, allow_weak=True).shape == (1, 16)


def test_one_weak_master_among_many_is_enough():
    masters = np.frombuffer(GOOD * 3 + GOOD[:8] * 2, np.uint8).reshape(4, 16)
    with pytest.raises(InvalidInput, match="weak"):
        diversify.pboc("3des", masters, np.zeros((4, 8), np.uint8))


def test_other_ciphers_have_no_weak_keys():
    zeros = np.zeros(16, np.uint8)
    refuse_weak("aes", zeros, "key")
    refuse_weak("sm4", zeros, "key")
    assert diversify.pboc("sm4", zeros, X).shape == (1, 16)


def test_a_custody_refuses_weak_masters(tmp_path):
    spec = KeySpec("w", Domain.CITY, "3des")
    with SoftwareCustody.create(tmp_path, "test", test=True, scrypt_n=16) as store:
        for weak in (GOOD[:8] * 2, bytes(16)):
            with pytest.raises(InvalidInput) as error:
                store.import_key(spec, weak)
            assert error.value.reason == "WEAK_KEY"
        assert store.inventory() == []
        assert store.import_key(spec, bytes(16), allow_weak=True).key_id == "w"
        assert store.import_key(KeySpec("s", Domain.CITY, "sm4"), bytes(16)).key_id == "s"


def test_a_production_custody_refuses_them_whatever_it_is_told(tmp_path):
    with SoftwareCustody.create(tmp_path, "a long passphrase", test=False, scrypt_n=16) as store:
        with pytest.raises(InvalidInput) as error:
            store.import_key(KeySpec("w", Domain.CITY, "3des"), bytes(16), allow_weak=True)
        assert error.value.reason == "WEAK_KEY"


def test_random_masters_are_none_of_them(monkeypatch):
    drawn = iter([bytes(16), GOOD[:8] * 2, GOOD])
    monkeypatch.setattr("keys.custody.sealing.random_secret", lambda _: SecretBytes(next(drawn)))
    with random_master("3des").reveal() as raw:
        assert bytes(b & 0xFE for b in raw) == bytes(b & 0xFE for b in GOOD)
