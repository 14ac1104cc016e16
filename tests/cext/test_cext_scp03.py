"""Whole SCP03 segments from the kernels: pySim's published sessions, the session of one card, and the definition; every level."""

import json
from pathlib import Path

import numpy as np
import pytest

import cext
from engine.personalize import scp03
from tests.cext.openssl import cbc, cmac, ecb, random_bytes, rows

FOLDER = Path(__file__).parents[1] / "vectors"
PUBLISHED = json.loads((FOLDER / "scp03_pysim.json").read_text())["tests"]

pytestmark = pytest.mark.usefixtures("level")


def segment(commands, encrypt):
    """APDU descriptors and one row of plain data for (header, data, le) commands, counters from 1."""
    apdus, data = np.zeros(len(commands), cext.APDU), b""
    for i, (header, body, le) in enumerate(commands):
        apdus[i] = (len(data), len(body), *header, encrypt, le, i + 1)
        data += body
    return apdus, np.frombuffer(data or b"\x00", np.uint8)


def parsed(apdu):
    """(header, data, le) of a short APDU."""
    header, rest = apdu[:4], apdu[4:]
    if len(rest) <= 1:
        return header, b"", rest[0] if rest else -1
    body, tail = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    return header, body, tail[0] if tail else -1


@pytest.mark.parametrize("test", PUBLISHED, ids=[test["id"] for test in PUBLISHED])
@pytest.mark.parametrize("n", [1, 37])
def test_published_session(test, n):
    """The chain starts as EXTERNAL AUTHENTICATE left it: here that command is wrapped first, with its header as it stands."""
    level = int(test["level"], 16)
    enc, mac = bytes.fromhex(test["enc"]), bytes.fromhex(test["mac"])
    context = bytes.fromhex(test["host_challenge"] + test["initialize_update_response"][26:42])
    s_enc, s_mac = (scp03.kdf(key, constant, context, 8 * len(key)) for key, constant in ((enc, scp03.S_ENC), (mac, scp03.S_MAC)))
    keys = [np.tile(np.frombuffer(key, np.uint8), (n, 1)) for key in (s_enc, s_mac)]
    chain = np.zeros((n, 16), np.uint8)
    host_cryptogram = scp03.kdf(s_mac, scp03.HOST_CRYPTOGRAM, context, 64)
    apdus, data = segment([(bytes([0x84, 0x82, level, 0]), host_cryptogram, -1)], encrypt=0)
    authenticate = cext.scp03_wrap(*keys, chain, apdus, np.tile(data, (n, 1)))
    assert rows(authenticate) == [bytes.fromhex(test["external_authenticate"])] * n
    apdus, data = segment([parsed(bytes.fromhex(command["plain"])) for command in test["commands"]], encrypt=bool(level & 2))
    wrapped = cext.scp03_wrap(*keys, chain, apdus, np.tile(data, (n, 1)))
    assert rows(wrapped) == [bytes.fromhex("".join(command["wrapped"] for command in test["commands"]))] * n


def by_definition(enc, mac, chain, apdus, plain):
    """Amendment D 6.2.4 and 6.2.6 for one card; also gives the chaining value."""
    out = b""
    for apdu in apdus:
        body = plain[apdu["offset"] : apdu["offset"] + apdu["length"]].tobytes()
        if apdu["encrypt"] and body:
            padded = body + b"\x80" + bytes(-(len(body) + 1) % 16)
            body = cbc("aes", enc, ecb("aes", enc, int(apdu["counter"]).to_bytes(16, "big")), padded)
        command = bytes([apdu["cla"] | 4, apdu["ins"], apdu["p1"], apdu["p2"], len(body) + 8]) + body
        chain = cmac("aes", mac, bytes(chain) + command)
        out += command + chain[:8] + (bytes([apdu["le"]]) if apdu["le"] >= 0 else b"")
    return out, chain


@pytest.mark.parametrize("n", [1, 2, 4, 5, 8, 9, 31, 32, 33, 65, 130])
@pytest.mark.parametrize("key_len", [16, 24, 32])
def test_cards_with_keys_and_data_of_their_own(n, key_len):
    """Every length that ends a block or begins one, encrypted and plain, with and without Le, data in any order and shared."""
    lengths = [0, 1, 15, 16, 17, 31, 32, 239, 100]
    apdus = np.zeros(2 * len(lengths), cext.APDU)
    for i, length in enumerate(lengths + lengths):
        le = -1 if i % 3 else 17 * i % 256
        apdus[i] = ((37 * i) % 200, length, 0x80 | i % 4, 0xE2, i, 255 - i, i < len(lengths), le, 0xFFFFFFF0 + i % 16)
    enc, mac, chain, plain = (random_bytes(n + i, n, width) for i, width in enumerate((key_len, key_len, 16, 440)))
    wanted = [by_definition(*card, apdus, data) for *card, data in zip(enc, mac, chain, plain, strict=True)]
    assert rows(cext.scp03_wrap(enc, mac, chain, apdus, plain)) == [out for out, _ in wanted]
    assert rows(chain) == [last for _, last in wanted]


@pytest.mark.parametrize("test", PUBLISHED, ids=[test["id"] for test in PUBLISHED])
def test_a_whole_segment_as_the_session_of_one_card_wraps_it(test):
    level = int(test["level"], 16)
    static = [np.frombuffer(bytes.fromhex(test[name]), np.uint8) for name in ("enc", "mac", "dek")]
    answer, challenge = bytes.fromhex(test["initialize_update_response"]), bytes.fromhex(test["host_challenge"])
    context = challenge + answer[13:21]
    with scp03.Scp03Session.open(static, challenge, answer, level=level) as session:
        keys = [
            np.frombuffer(scp03.kdf(key.tobytes(), constant, context, 8 * len(key)), np.uint8).reshape(1, -1)
            for key, constant in zip(static, (scp03.S_ENC, scp03.S_MAC), strict=False)
        ]
        chain = np.frombuffer(cmac("aes", keys[1], bytes(16) + session.external_authenticate()[:-8]), np.uint8).reshape(1, 16).copy()
        commands = [(bytes([0x80, 0xE2, i, 255 - i]), random_bytes(i, 4 * i).tobytes(), -1 if i % 2 else 0) for i in range(55)]
        wanted = [session.wrap(*header, body, None if le < 0 else le) for header, body, le in commands]
    apdus, data = segment(commands, encrypt=bool(level & scp03.C_DECRYPTION))
    assert rows(cext.scp03_wrap(*keys, chain, apdus, data.reshape(1, -1))) == [b"".join(wanted)]


@pytest.mark.parametrize("n", [1, 33])
def test_as_a_slab_each_command_stands_behind_its_length(n):
    enc, mac, chain, plain = (random_bytes(i, n, width) for i, width in enumerate((16, 16, 16, 300)))
    apdus = np.array([(i, 40 * i, 0x80, 0xE2, 0, i, i % 2, -i % 3 - 1, i + 1) for i in range(6)], cext.APDU)
    chains, again = np.empty((6 * n, 16), np.uint8), chain.copy()
    made = [cext.slab_split(row) for row in rows(cext.scp03_wrap(enc, mac, chain, apdus, plain, chains=chains, slab=True))]
    assert [b"".join(commands) for commands in made] == rows(cext.scp03_wrap(enc, mac, again, apdus, plain))
    assert all(
        command[4] + 5 == len(command) - (apdu["le"] >= 0) for commands in made for command, apdu in zip(commands, apdus, strict=True)
    )
    assert np.array_equal(chains.reshape(n, 6, 16)[:, -1], again)


def test_two_segments_are_one():
    enc, mac, plain = random_bytes(1, 3, 16), random_bytes(2, 3, 16), random_bytes(3, 3, 200)
    apdus = np.array([(i * 20, 20, 0x80, 0xE2, 0, i, 1, -1, i + 1) for i in range(6)], cext.APDU)
    whole, parts = np.zeros((3, 16), np.uint8), np.zeros((3, 16), np.uint8)
    expected = cext.scp03_wrap(enc, mac, whole, apdus, plain)
    halves = [cext.scp03_wrap(enc, mac, parts, half, plain) for half in (apdus[:2], apdus[2:])]
    assert np.array_equal(np.concatenate(halves, axis=1), expected)
    assert np.array_equal(whole, parts)


def arguments(**changes):
    given = {
        "enc_keys": np.zeros((4, 16), np.uint8),
        "mac_keys": np.zeros((4, 16), np.uint8),
        "chain": np.zeros((4, 16), np.uint8),
        "apdus": np.array([(0, 32, 0x80, 0xE2, 0, 0, 1, -1, 1)], cext.APDU),
        "plain": np.zeros((4, 32), np.uint8),
    }
    return given | changes


def apdu(**fields):
    array = arguments()["apdus"]
    for name, value in fields.items():
        array[name] = value
    return array


LONG = np.zeros((4, 248), np.uint8)


@pytest.mark.parametrize(
    ("error", "message", "changes"),
    [
        (TypeError, "cext.APDU", {"apdus": np.zeros((1, 17), np.uint8)}),
        (TypeError, "cext.APDU", {"apdus": [(0, 1)]}),
        (ValueError, r"shape \(count,\)", {"apdus": arguments()["apdus"][:0]}),
        (ValueError, "beyond the 32 bytes", {"apdus": apdu(offset=1)}),
        (ValueError, "beyond the 32 bytes", {"apdus": apdu(offset=0xFFFFFFFF)}),
        (ValueError, "le 256", {"apdus": apdu(le=256)}),
        (ValueError, "le -2", {"apdus": apdu(le=-2)}),
        (ValueError, "264 bytes of secured data, more than 255", {"apdus": apdu(length=240), "plain": LONG}),
        (ValueError, "256 bytes of secured data, more than 255", {"apdus": apdu(length=248, encrypt=0), "plain": LONG}),
        (ValueError, "enc_keys must have shape", {"enc_keys": np.zeros(16, np.uint8)}),
        (ValueError, "enc_keys has 3 rows for 4", {"enc_keys": np.zeros((3, 16), np.uint8)}),
        (ValueError, "mac_keys must have shape", {"mac_keys": np.zeros((4, 32), np.uint8)}),
        (ValueError, "chain", {"chain": np.zeros((4, 8), np.uint8)}),
        (ValueError, "chain", {"chain": np.zeros((3, 16), np.uint8)}),
        (ValueError, "read-only", {"chain": np.frombuffer(bytes(64), np.uint8).reshape(4, 16)}),
        (ValueError, "no rows", {"plain": np.zeros((0, 32), np.uint8)}),
        (ValueError, "out must have shape", {"out": np.zeros((4, 60), np.uint8)}),
        (TypeError, "dtype uint8", {"plain": np.zeros((4, 32), np.int8)}),
    ],
)
def test_bad_input_is_refused_before_the_chain_moves(error, message, changes):
    given = arguments(**changes)
    before = given["chain"].copy()
    with pytest.raises(error, match=message):
        cext.scp03_wrap(**given)
    assert np.array_equal(given["chain"], before)


def test_chain_and_output_may_not_lie_in_other_arguments():
    memory = np.zeros(4096, np.uint8)
    with pytest.raises(ValueError, match="overlaps"):
        cext.scp03_wrap(**arguments(chain=memory[:64].reshape(4, 16), enc_keys=memory[32:96].reshape(4, 16)))
    with pytest.raises(ValueError, match="overlaps"):
        cext.scp03_wrap(**arguments(plain=memory[:128].reshape(4, 32), out=memory[100 : 100 + 4 * 61].reshape(4, 61)))
