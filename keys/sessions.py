"""Session keys and cryptograms of many cards at once: SCP02, SCP03, and the application cryptogram's session keys.

Static keys are one key (len,) for all cards or a key per card (n, len); everything else is a row per card, or one row for all. Results
are plain arrays of key bytes, the caller's to wipe. All raise InvalidInput (NOT_BYTES, KEY_LENGTH, WRONG_SHAPE, NO_ROWS).
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from keys.algorithms import KEY_LENS, Algorithm, as_algorithm, encrypt, key_array, rows
from keys.diversify import counter_mode, pboc
from keys.errors import InvalidInput
from keys.mac import cbc, cbc_mac, pad80
from keys.parity import odd_parity
from keys.secrets import BytesLike

ByteArray = npt.NDArray[np.uint8]
BytesOrArray = BytesLike | ByteArray

# GPCS E.4.1.
Scp02Kind = Literal["s_enc", "c_mac", "dek"]
_SCP02_CONSTANTS: Final[dict[Scp02Kind, bytes]] = {"s_enc": b"\x01\x82", "c_mac": b"\x01\x01", "dek": b"\x01\x81"}
# GPC Amendment D 4.1.5.
Scp03Kind = Literal["s_enc", "s_mac", "s_rmac"]
SCP03_CONSTANTS: Final[dict[Scp03Kind, int]] = {"s_enc": 0x04, "s_mac": 0x06, "s_rmac": 0x07}
CARD_CRYPTOGRAM: Final = 0x00
HOST_CRYPTOGRAM: Final = 0x01


class Scp02Keys(NamedTuple):
    """Session keys, each (n, 16)."""

    s_enc: ByteArray
    c_mac: ByteArray
    dek: ByteArray


class Scp03Keys(NamedTuple):
    """Session keys, each (n, length of the static keys)."""

    s_enc: ByteArray
    s_mac: ByteArray
    s_rmac: ByteArray


class Cryptograms(NamedTuple):
    """What card and host prove themselves with, each (n, 8)."""

    card: ByteArray
    host: ByteArray


def columns(n: int, *wanted: tuple[BytesOrArray, int, str]) -> list[ByteArray]:
    """Each (value, width, name) as (n, width): a row per card, or one row for all."""
    found = []
    for value, width, what in wanted:
        array = rows(value, width, what)
        if len(array) not in (1, n):
            raise InvalidInput("WRONG_SHAPE", f"{len(array)} {what} for {n} cards")
        found.append(np.ascontiguousarray(np.broadcast_to(array, (n, width))))
    return found


def card_keys(algorithm: Algorithm, value: BytesOrArray, n: int, what: str, lens: tuple[int, ...] = (16,)) -> ByteArray:
    """One key (len,) or n keys (n, len)."""
    keys = key_array(algorithm, value, what, lens)
    if keys.ndim == 2 and len(keys) != n:
        raise InvalidInput("WRONG_SHAPE", f"{len(keys)} {what} for {n} cards")
    return keys


def scp02_session_key(static: BytesOrArray, kind: Scp02Kind, sequences: BytesOrArray) -> ByteArray:
    """GPCS E.4.1: 3DES-CBC, zero IV, of constant || sequence counter (n, 2) || 12 x 00 under the static key of that kind, (n, 16)."""
    sequence = rows(sequences, 2, "sequences")
    n = len(sequence)
    block = np.zeros((n, 16), np.uint8)
    block[:, :2] = np.frombuffer(_SCP02_CONSTANTS[kind], np.uint8)
    block[:, 2:4] = sequence
    return cbc("3des", card_keys("3des", static, n, "static keys"), block)


def scp02_session_keys(enc: BytesOrArray, mac: BytesOrArray, dek: BytesOrArray, sequences: BytesOrArray) -> Scp02Keys:
    """All three session keys, from the three static keys."""
    return Scp02Keys(
        scp02_session_key(enc, "s_enc", sequences), scp02_session_key(mac, "c_mac", sequences), scp02_session_key(dek, "dek", sequences)
    )


def scp02_cryptograms(
    s_enc: BytesOrArray, sequences: BytesOrArray, card_challenges: BytesOrArray, host_challenges: BytesOrArray
) -> Cryptograms:
    """GPCS E.4.2: full triple-DES MACs under S-ENC of sequences (n, 2), card challenges (n, 6) and host challenges (n, 8)."""
    card_challenge = rows(card_challenges, 6, "card challenges")
    n = len(card_challenge)
    sequence, host_challenge = columns(n, (sequences, 2, "sequences"), (host_challenges, 8, "host challenges"))
    keys = card_keys("3des", s_enc, n, "session keys")
    card = np.concatenate([host_challenge, sequence, card_challenge], axis=1)
    host = np.concatenate([sequence, card_challenge, host_challenge], axis=1)
    return Cryptograms(*(cbc_mac("3des", keys, pad80(message, 8)) for message in (card, host)))


def scp03_session_key(static: BytesOrArray, kind: Scp03Kind, host_challenges: BytesOrArray, card_challenges: BytesOrArray) -> ByteArray:
    """GPC Amendment D 6.2.1: S-ENC from the static ENC key, S-MAC and S-RMAC from the MAC key, by both challenges (n, 8)."""
    context = _context(host_challenges, card_challenges)
    keys = card_keys("aes", static, len(context), "static keys", KEY_LENS["aes"])
    return _scp03_kdf(keys, SCP03_CONSTANTS[kind], context, keys.shape[-1])


def scp03_session_keys(enc: BytesOrArray, mac: BytesOrArray, host_challenges: BytesOrArray, card_challenges: BytesOrArray) -> Scp03Keys:
    """All three session keys, from the static ENC and MAC keys."""
    challenges = host_challenges, card_challenges
    return Scp03Keys(
        scp03_session_key(enc, "s_enc", *challenges),
        scp03_session_key(mac, "s_mac", *challenges),
        scp03_session_key(mac, "s_rmac", *challenges),
    )


def scp03_cryptograms(s_mac: BytesOrArray, host_challenges: BytesOrArray, card_challenges: BytesOrArray) -> Cryptograms:
    """GPC Amendment D 6.2.2: cryptograms in S8 mode under S-MAC."""
    context = _context(host_challenges, card_challenges)
    keys = card_keys("aes", s_mac, len(context), "session keys", KEY_LENS["aes"])
    return Cryptograms(*(_scp03_kdf(keys, constant, context, 8) for constant in (CARD_CRYPTOGRAM, HOST_CRYPTOGRAM)))


def pboc_ac_keys(algorithm: str, masters: BytesOrArray, atcs: BytesOrArray) -> ByteArray:
    """Session keys (n, 16) of application cryptograms in the PBOC form: of X = 00 x 6 || ATC (n, 2) and 00 x 6 || ~ATC."""
    cipher = as_algorithm(algorithm)
    if cipher == "aes":
        raise InvalidInput("METHOD_ALGORITHM", "PBOC session keys are defined for 3des and sm4, not for aes")
    atc = rows(atcs, 2, "atcs")
    n = len(atc)
    keys = card_keys(cipher, masters, n, "card keys")
    x = np.zeros((n, 2, 8), np.uint8)
    x[:, 0, 6:] = atc
    x[:, 1, 6:] = ~atc
    if cipher == "sm4":
        return encrypt("sm4", keys, x.reshape(n, 16))
    return np.concatenate([encrypt("3des", keys, np.ascontiguousarray(x[:, half])) for half in (0, 1)], axis=1)


def emv_common_session_keys(masters: BytesOrArray, diversifiers: BytesOrArray) -> ByteArray:
    """EMV Book 2 A1.3.1, 3DES: keys (n, 16) of odd parity by R (n, 8), its third byte F0 and 0F; R is ATC || 00 x 6 for cryptograms."""
    r = rows(diversifiers, 8, "diversifiers")
    keys = card_keys("3des", masters, len(r), "card keys")
    halves = []
    for third in (0xF0, 0x0F):
        block = r.copy()
        block[:, 2] = third
        halves.append(encrypt("3des", keys, block))
    return odd_parity(np.concatenate(halves, axis=1))


def purse_session_keys(algorithm: str, keys: BytesOrArray, blocks: BytesOrArray) -> ByteArray:
    """Session keys of the electronic purse by 8-byte blocks: DES keys (n, 8) with 3des; with sm4 (n, 16), by X || ~X."""
    cipher = as_algorithm(algorithm)
    x = rows(blocks, 8, "blocks")
    if cipher == "sm4":
        return pboc("sm4", keys, x)
    if cipher == "aes":
        raise InvalidInput("METHOD_ALGORITHM", "the electronic purse is defined for 3des and sm4, not for aes")
    return encrypt("3des", card_keys("3des", keys, len(x), "card keys"), x)


def _context(host_challenges: BytesOrArray, card_challenges: BytesOrArray) -> ByteArray:
    card = rows(card_challenges, 8, "card challenges")
    (host,) = columns(len(card), (host_challenges, 8, "host challenges"))
    return np.concatenate([host, card], axis=1)


def _scp03_kdf(keys: ByteArray, constant: int, context: ByteArray, length: int) -> ByteArray:
    """GPC Amendment D 4.1.5: `length` bytes by label 11 x 00 || constant, 00, length in bits, counter, context."""
    before = bytes(11) + bytes([constant, 0]) + (8 * length).to_bytes(2, "big")
    head = np.broadcast_to(np.frombuffer(before, np.uint8), (len(context), len(before)))
    return counter_mode(keys, head, 1, context, length)
