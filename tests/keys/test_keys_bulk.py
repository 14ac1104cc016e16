"""Session keys and answers of many cards: published vectors, a slow card beside each row, and every wrong byte found."""

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES, SM4

from keys import bulk, sessions
from keys.errors import InvalidInput
from keys.kcv import kcv
from keys.parity import has_odd_parity

FOLDER = Path(__file__).parents[1] / "vectors"
RNG = np.random.default_rng(20261123)
CARDS = 7


def vectors(name):
    return json.loads((FOLDER / f"{name}.json").read_text())["tests"]


def params(name):
    return [pytest.param(test, id=test["id"]) for test in vectors(name)]


def b(text):
    return bytes.fromhex(text)


def random(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


def ecb(algorithm, key, block):
    cipher = {"3des": lambda k: TripleDES(k + k[:8] if len(k) == 16 else k), "sm4": SM4, "aes": AES}[algorithm](key)
    return Cipher(cipher, modes.ECB()).encryptor().update(block)


def each_wrong_byte_shows(check, given):
    """`check(given)` is all True, and one wrong bit anywhere makes just its own row False."""
    assert check(given).tolist() == [True] * len(given)
    for column in range(given.shape[1]):
        for row in (0, len(given) // 2, len(given) - 1):
            wrong = given.copy()
            wrong[row, column] ^= 1 << column % 8
            assert check(wrong).tolist() == [at != row for at in range(len(given))]


# -- channels --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", params("scp02_session_keys"))
def test_scp02_session_key_vectors(test):
    made = sessions.scp02_session_key(b(test["key"]), test["kind"], b(test["sequence"]))
    assert made.tobytes().hex().upper() == test["session"]
    assert kcv("3des", made[0]).hex().upper() == test["kcv"]


@pytest.mark.parametrize("test", params("scp02_pysim"))
def test_scp02_cryptograms_of_a_published_session(test):
    response = b(test["initialize_update_response"])
    keys = sessions.scp02_session_keys(*(b(test[name]) for name in ("enc", "mac", "dek")), response[12:14])
    made = sessions.scp02_cryptograms(keys.s_enc, response[12:14], response[14:20], b(test["host_challenge"]))
    assert made.card.tobytes() == response[20:]
    assert made.host.tobytes() == b(test["external_authenticate"])[5:13]


def test_scp02_of_many_cards():
    enc, sequences, host, card = random(CARDS, 16), random(CARDS, 2), random(CARDS, 8), random(CARDS, 6)
    session = sessions.scp02_session_key(enc, "s_enc", sequences)
    given = sessions.scp02_cryptograms(session, sequences, card, host).card
    for row in range(CARDS):
        single = sessions.scp02_session_key(enc[row], "s_enc", sequences[row])
        assert np.array_equal(single[0], session[row])
        assert np.array_equal(sessions.scp02_cryptograms(single, sequences[row], card[row], host[row]).card[0], given[row])
    each_wrong_byte_shows(lambda answers: bulk.scp02_card_cryptograms(enc, sequences, host, card, answers), given)


@pytest.mark.parametrize("test", params("scp03_pysim"))
def test_scp03_cryptograms_of_published_sessions(test):
    response = b(test["initialize_update_response"])
    challenges = b(test["host_challenge"]), response[13:21]
    keys = sessions.scp03_session_keys(b(test["enc"]), b(test["mac"]), *challenges)
    made = sessions.scp03_cryptograms(keys.s_mac, *challenges)
    assert made.card.tobytes() == response[21:29]
    assert made.host.tobytes() == b(test["external_authenticate"])[5:13]
    assert bulk.scp03_card_cryptograms(b(test["mac"]), *challenges, response[21:29]).tolist() == [True]


@pytest.mark.parametrize("length", [16, 24, 32])
def test_scp03_of_many_cards(length):
    mac, host, card = random(CARDS, length), random(CARDS, 8), random(CARDS, 8)
    session = sessions.scp03_session_keys(mac, mac, host, card)
    assert {key.shape for key in session} == {(CARDS, length)}
    given = sessions.scp03_cryptograms(session.s_mac, host, card).card
    single = sessions.scp03_cryptograms(sessions.scp03_session_key(mac[3], "s_mac", host[3], card[3]), host[3], card[3])
    assert np.array_equal(single.card[0], given[3])
    each_wrong_byte_shows(lambda answers: bulk.scp03_card_cryptograms(mac, host, card, answers), given)


# -- applets ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "length", "block"), [("3des", 16, 8), ("sm4", 16, 16), ("aes", 16, 16), ("aes", 32, 16)])
def test_internal_authenticate(algorithm, length, block):
    keys, challenges = random(CARDS, length), random(CARDS, block)
    pairs = zip(keys, challenges, strict=True)
    given = np.frombuffer(b"".join(ecb(algorithm, k.tobytes(), c.tobytes()) for k, c in pairs), np.uint8).reshape(CARDS, block)
    each_wrong_byte_shows(lambda answers: bulk.internal_authenticate(algorithm, keys, challenges, answers), given)
    one = np.frombuffer(ecb(algorithm, keys[0].tobytes(), challenges[0].tobytes()), np.uint8)
    # one challenge for all, one key for all
    assert bulk.internal_authenticate(algorithm, keys[0], challenges[0], np.tile(one, (3, 1))).tolist() == [True] * 3


@pytest.mark.parametrize("test", params("ac_session"))
def test_pboc_session_key_vectors(test):
    assert sessions.pboc_ac_keys(test["algorithm"], b(test["key"]), b(test["atc"])).tobytes().hex().upper() == test["session"]


def test_emv_common_session_key():
    """Value of pyemv's test of the EMV common session key, which the application cryptogram of the same test confirms."""
    (ac,) = vectors("mac_emv")
    made = sessions.emv_common_session_keys(b("F84315C7B95BD3B0C74694922C3808B0"), b("1234567890123456"))
    assert made.tobytes().hex().upper() == ac["key"]
    assert has_odd_parity(made)


def pad(message, block):
    return (message + b"\x80") + bytes(-(len(message) + 1) % block)


def chain(algorithm, key, message, block):
    state = bytes(block)
    for at in range(0, len(message), block):
        state = ecb(algorithm, key, bytes(x ^ y for x, y in zip(state, message[at : at + block], strict=True)))
    return state


def slow_arqc(algorithm, key, atc, message):
    inverse = bytes(255 - x for x in atc)
    if algorithm == "sm4":
        session = ecb("sm4", key, bytes(6) + atc + bytes(6) + inverse)
        return chain("sm4", session, pad(message, 16), 16)[:8]
    session = ecb("3des", key, bytes(6) + atc) + ecb("3des", key, bytes(6) + inverse)
    padded = pad(message, 8)
    before = chain("3des", session[:8] * 3, padded[:-8], 8)
    return ecb("3des", session, bytes(x ^ y for x, y in zip(before, padded[-8:], strict=True)))


@pytest.mark.parametrize("algorithm", ["3des", "sm4"])
@pytest.mark.parametrize("length", [3, 8, 37, 64])
def test_arqc(algorithm, length):
    keys, atcs, messages = random(CARDS, 16), random(CARDS, 2), random(CARDS, length)
    rows = zip(keys, atcs, messages, strict=True)
    slow = b"".join(slow_arqc(algorithm, *(part.tobytes() for part in row)) for row in rows)
    each_wrong_byte_shows(lambda given: bulk.arqc(algorithm, keys, atcs, messages, given), np.frombuffer(slow, np.uint8).reshape(CARDS, 8))
    assert bulk.arqc(algorithm, keys[0], atcs[0], messages[0].tobytes(), slow[:8]).tolist() == [True]


(PURSE,) = vectors("virtual_purse")


def purse(*names):
    return [b(PURSE[name]) for name in names]


def row(value):
    return np.frombuffer(value, np.uint8).reshape(1, -1)


def test_purse_vectors():
    amount, terminal, when, random4, terminal_sequence = purse("amount", "terminal", "date_time", "random", "terminal_sequence")
    balance, sequence = PURSE["balance"].to_bytes(4, "big"), PURSE["sequence"].to_bytes(2, "big")
    new_balance = (PURSE["balance"] + int(PURSE["amount"], 16)).to_bytes(4, "big")
    load_card, purchase_card = balance + sequence + b"\x01\x00" + random4, balance + sequence + bytes(3) + b"\x01\x00" + random4
    dlk, dpk, dtk = purse("dlk", "dpk", "dtk")
    each_wrong_byte_shows(lambda m: bulk.load_mac1("3des", dlk, load_card, amount, terminal, m), row(b(PURSE["load_mac1"])))
    each_wrong_byte_shows(
        lambda m: bulk.purchase_mac1(dpk, purchase_card, terminal_sequence, amount, terminal, when, m), row(b(PURSE["purchase_mac1"]))
    )
    each_wrong_byte_shows(lambda m: bulk.purchase_tac(dtk, amount, terminal, terminal_sequence, when, m), row(b(PURSE["purchase_tac"])))
    each_wrong_byte_shows(lambda m: bulk.load_tac(dtk, new_balance, sequence, amount, terminal, when, m), row(b(PURSE["load_tac"])))


@pytest.mark.parametrize("algorithm", ["3des", "sm4"])
def test_load_mac1_of_many_cards(algorithm):
    keys, cards, amount, terminal = random(CARDS, 16), random(CARDS, 12), bytes(4), b"termin"
    macs = []
    for key, card in zip(keys, cards, strict=True):
        answer = card.tobytes()
        x = answer[8:12] + answer[4:6] + b"\x80\x00"
        message = answer[:4] + amount + b"\x02" + terminal
        if algorithm == "sm4":
            session = ecb("sm4", key.tobytes(), x + bytes(255 - byte for byte in x))
            macs.append(chain("sm4", session, pad(message, 16), 16)[:4])
        else:
            macs.append(chain("3des", ecb("3des", key.tobytes(), x) * 3, pad(message, 8), 8)[:4])
    given = np.frombuffer(b"".join(macs), np.uint8).reshape(CARDS, 4)
    each_wrong_byte_shows(lambda m: bulk.load_mac1(algorithm, keys, cards, amount, terminal, m), given)


# -- refusals --------------------------------------------------------------------------------------------------------------

K, K2, C8 = bytes(16), np.zeros((2, 16), np.uint8), np.zeros((3, 8), np.uint8)


@pytest.mark.parametrize(
    ("reason", "call"),
    [
        ("ALGORITHM_UNKNOWN", lambda: bulk.internal_authenticate("des", K, C8, C8)),
        ("KEY_LENGTH", lambda: bulk.internal_authenticate("sm4", K[:8], bytes(16), bytes(16))),
        ("WRONG_SHAPE", lambda: bulk.internal_authenticate("3des", K2, C8, C8)),
        ("WRONG_SHAPE", lambda: bulk.internal_authenticate("3des", K, C8[:2], C8)),
        ("WRONG_SHAPE", lambda: bulk.internal_authenticate("3des", K, C8, np.zeros((3, 7), np.uint8))),
        ("NOT_BYTES", lambda: bulk.internal_authenticate("3des", K, C8.astype(np.int16), C8)),
        ("NO_ROWS", lambda: bulk.internal_authenticate("3des", K, C8[:0], C8[:0])),
        ("METHOD_ALGORITHM", lambda: bulk.arqc("aes", K, bytes(2), b"message", bytes(8))),
        ("NO_ROWS", lambda: bulk.arqc("3des", K, bytes(2), np.zeros((0, 4), np.uint8), np.zeros((0, 8), np.uint8))),
        ("WRONG_SHAPE", lambda: bulk.arqc("3des", K, bytes(3), b"message", bytes(8))),
        ("WRONG_SHAPE", lambda: bulk.arqc("3des", K, bytes(2), np.zeros((2, 4), np.uint8), C8)),
        ("METHOD_ALGORITHM", lambda: bulk.load_mac1("aes", K, bytes(12), bytes(4), bytes(6), bytes(4))),
        ("WRONG_SHAPE", lambda: bulk.load_mac1("3des", K, bytes(11), bytes(4), bytes(6), bytes(4))),
        ("WRONG_SHAPE", lambda: bulk.purchase_tac(K2, bytes(4), bytes(6), bytes(4), bytes(7), np.zeros((3, 4), np.uint8))),
        ("KEY_LENGTH", lambda: bulk.scp02_card_cryptograms(bytes(24), bytes(2), bytes(8), bytes(6), bytes(8))),
        ("KEY_LENGTH", lambda: bulk.scp03_card_cryptograms(bytes(8), bytes(8), bytes(8), bytes(8))),
    ],
)
def test_refused(reason, call):
    with pytest.raises(InvalidInput) as error:
        call()
    assert error.value.reason == reason
