"""SCP02 segments at every level: the published session, and cards as lanes against the one-card channel."""

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

import cext

FOLDER = Path(__file__).parents[1] / "vectors"

pytestmark = pytest.mark.usefixtures("level")


def data(*shape, seed=1):
    return np.random.default_rng([seed, *shape]).integers(0, 256, shape, dtype=np.uint8)


def apdus(*rows):
    """(offset, length, cla, ins, p1, p2, encrypt, le)"""
    return np.array([(*row, 0) for row in rows], dtype=cext.APDU)


def pad80(message):
    return message + b"\x80" + bytes(-(len(message) + 1) % 8)


def tdes(key, mode, plain):
    return Cipher(TripleDES(key), mode).encryptor().update(plain)


def retail_mac(key, iv, message):
    """ISO/IEC 9797-1 algorithm 3 from its parts."""
    left, right = key[:8], key[8:]
    last = tdes(left * 3, modes.CBC(iv), message)[-8:]
    return tdes(left * 3, modes.ECB(), Cipher(TripleDES(right * 3), modes.ECB()).decryptor().update(last))


def wrap(enc, mac, chain, commands, plain):
    """GPCS E.4.4 and E.4.6, one card."""
    out = b""
    for index, command in enumerate(commands):
        offset, length, cla, ins, p1, p2, encrypted, le, _ = command.tolist()
        body = plain[offset : offset + length]
        icv = bytes(8) if index == 0 and chain == bytes(8) else tdes(mac[:8] * 3, modes.ECB(), chain)
        chain = retail_mac(mac, icv, pad80(bytes([cla | 4, ins, p1, p2, length + 8]) + body))
        if encrypted and body:
            body = tdes(enc + enc[:8], modes.CBC(bytes(8)), pad80(body))
        out += bytes([cla | 4, ins, p1, p2, len(body) + 8]) + body + chain + (bytes([le]) if le >= 0 else b"")
    return out, chain


SEGMENT = apdus(
    (0, 16, 0x80, 0x82, 1, 0, 0, -1),
    (16, 0, 0x80, 0xF2, 0x20, 2, 1, 0),
    (3, 1, 0x80, 0xE2, 0, 0, 1, -1),
    (0, 3, 0x80, 0xE2, 0, 1, 1, 255),
    (5, 8, 0x80, 0xE2, 0, 2, 0, -1),
    (1, 239, 0x80, 0xE2, 0x80, 3, 1, 7),
    (0, 247, 0x84, 0xE2, 0x80, 4, 0, -1),
)


@pytest.mark.parametrize("test", json.loads((FOLDER / "scp02_pysim.json").read_text())["tests"], ids=lambda test: test["id"])
def test_published_session(test):
    """EXTERNAL AUTHENTICATE and the commands after it, with session keys from their definition."""
    response = bytes.fromhex(test["initialize_update_response"])
    sequence = response[12:14]
    session = {
        name: tdes(key + key[:8], modes.CBC(bytes(8)), constant + sequence + bytes(12))
        for name, constant, key in (
            ("enc", b"\x01\x82", bytes.fromhex(test["enc"])),
            ("mac", b"\x01\x01", bytes.fromhex(test["mac"])),
        )
    }
    host = bytes.fromhex(test["external_authenticate"])[5:13]
    level = int(test["level"], 16)
    plain = [bytes([0x80, 0x82, level, 0]) + bytes([8]) + host] + [bytes.fromhex(command["plain"]) for command in test["commands"]]
    bodies = b"".join(command[5:] for command in plain)
    rows, at = [], 0
    for index, command in enumerate(plain):
        rows.append((at, len(command[5:]), *command[:4], int(index > 0 and level & 2 > 0), -1))
        at += len(command[5:])
    enc, mac = (np.frombuffer(session[name], np.uint8).reshape(1, 16) for name in ("enc", "mac"))
    expected = test["external_authenticate"] + "".join(command["wrapped"] for command in test["commands"])
    found = cext.scp02_wrap(enc, mac, np.zeros((1, 8), np.uint8), apdus(*rows), np.frombuffer(bodies, np.uint8).reshape(1, -1))
    assert found.tobytes().hex().upper() == expected


@pytest.mark.parametrize("n", [1, 2, 127, 128, 129, 257, 513])
def test_cards_as_lanes_equal_the_definition(n):
    enc, mac, chain, plain = data(n, 16), data(n, 16, seed=2), data(n, 8), data(n, 300)
    chain[::2] = 0
    before = chain.copy()
    result = cext.scp02_wrap(enc, mac, chain, SEGMENT, plain)
    for i in range(n):
        row, last = wrap(enc[i].tobytes(), mac[i].tobytes(), before[i].tobytes(), SEGMENT, plain[i].tobytes())
        assert result[i].tobytes() == row
        assert chain[i].tobytes() == last


def test_as_a_slab_each_command_stands_behind_its_length():
    enc, mac, chain, plain = (data(3, width, seed=i) for i, width in enumerate((16, 16, 8, 300)))
    again = chain.copy()
    made = [cext.slab_split(row.tobytes()) for row in cext.scp02_wrap(enc, mac, chain, SEGMENT, plain, slab=True)]
    plainly = cext.scp02_wrap(enc, mac, again, SEGMENT, plain)
    assert [b"".join(commands) for commands in made] == [row.tobytes() for row in plainly]
    assert [len(commands) for commands in made] == [len(SEGMENT)] * 3
    assert np.array_equal(chain, again)


def test_a_segment_in_two_parts_is_the_segment():
    enc, mac, plain = data(3, 16), data(3, 16, seed=2), data(3, 300)
    whole, parts = np.zeros((3, 8), np.uint8), np.zeros((3, 8), np.uint8)
    expected = cext.scp02_wrap(enc, mac, whole, SEGMENT, plain)
    found = [cext.scp02_wrap(enc, mac, parts, commands, plain) for commands in (SEGMENT[:3], SEGMENT[3:])]
    assert np.array_equal(np.concatenate(found, axis=1), expected)
    assert np.array_equal(parts, whole)


KEYS, CHAIN, PLAIN = np.zeros((2, 16), np.uint8), np.zeros((2, 8), np.uint8), np.zeros((2, 300), np.uint8)
ONE = SEGMENT[:1]
FROZEN = np.frombuffer(bytes(16), np.uint8).reshape(2, 8)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "cext.APDU", lambda: cext.scp02_wrap(KEYS, KEYS, CHAIN, [(0, 1)], PLAIN)),
        (TypeError, "cext.APDU", lambda: cext.scp02_wrap(KEYS, KEYS, CHAIN, np.zeros(3, np.uint8), PLAIN)),
        (ValueError, r"shape \(count,\)", lambda: cext.scp02_wrap(KEYS, KEYS, CHAIN, SEGMENT[:0], PLAIN)),
        (ValueError, "reads beyond", lambda: cext.scp02_wrap(KEYS, KEYS, CHAIN, apdus((299, 2, 0, 0, 0, 0, 0, -1)), PLAIN)),
        (ValueError, "le 256", lambda: cext.scp02_wrap(KEYS, KEYS, CHAIN, apdus((0, 2, 0, 0, 0, 0, 0, 256)), PLAIN)),
        (ValueError, "256 bytes of secured data", lambda: cext.scp02_wrap(KEYS, KEYS, CHAIN, apdus((0, 248, 0, 0, 0, 0, 0, -1)), PLAIN)),
        (ValueError, "256 bytes of secured data", lambda: cext.scp02_wrap(KEYS, KEYS, CHAIN, apdus((0, 240, 0, 0, 0, 0, 1, -1)), PLAIN)),
        (ValueError, "enc_keys has 1 rows", lambda: cext.scp02_wrap(KEYS[:1], KEYS, CHAIN, ONE, PLAIN)),
        (ValueError, "mac_keys must have shape", lambda: cext.scp02_wrap(KEYS, KEYS[0], CHAIN, ONE, PLAIN)),
        (ValueError, "chain must have shape", lambda: cext.scp02_wrap(KEYS, KEYS, KEYS, ONE, PLAIN)),
        (ValueError, "plain has no rows", lambda: cext.scp02_wrap(KEYS[:0], KEYS[:0], CHAIN[:0], ONE, PLAIN[:0])),
        (ValueError, "out must have shape", lambda: cext.scp02_wrap(KEYS, KEYS, CHAIN, ONE, PLAIN, out=np.zeros((2, 28), np.uint8))),
        (ValueError, "chain is read-only", lambda: cext.scp02_wrap(KEYS, KEYS, FROZEN, ONE, PLAIN)),
        (ValueError, "chain overlaps", lambda: cext.scp02_wrap(KEYS, KEYS, KEYS.reshape(-1)[:16].reshape(2, 8), ONE, PLAIN)),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_computed(error, message, call):
    with pytest.raises(error, match=message):
        call()
    assert not CHAIN.any()
