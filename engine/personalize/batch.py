"""Whole personalization segments for many cards at once: session keys, cryptograms, secrets under the DEK, every command wrapped.

What a card's answer to INITIALIZE UPDATE says goes in as a row of each array; a row of secured commands comes out. Cards whose
cryptogram is wrong get no commands: their rows are zero and `proven` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

import cext
from engine.personalize.script import Script, secured_lengths
from keys import sessions
from keys.errors import InvalidInput
from keys.kcv import kcv_array
from keys.secrets import SecretArray

ByteArray = npt.NDArray[np.uint8]

# Cards whose secrets are under way at a time: what their keys, one for each span, take stays in a core's cache.
_SPAN_ROWS: Final = 64
_AUTHENTICATE: Final = np.frombuffer(bytes.fromhex("8482000010"), np.uint8)


@dataclass(frozen=True)
class Segments:
    """`authenticate` (n, 21): EXTERNAL AUTHENTICATE; `commands` (n, width): everything after it; `lengths` of those commands."""

    proven: npt.NDArray[np.bool_]
    authenticate: ByteArray
    commands: ByteArray
    lengths: npt.NDArray[np.intp]


def scp03_segments(
    script: Script, level: int, static_keys: ByteArray, challenges: ByteArray, responses: ByteArray, images: ByteArray, issuer: ByteArray
) -> Segments:
    """Segments over SCP03, AES-128 (GPC Amendment D). static_keys and issuer (3, n, 16) are ENC, MAC, DEK; host challenges (n, 8),
    INITIALIZE UPDATE responses (n, 29 or 32), images (n, image_len) in the clear.

    Raises InvalidInput WRONG_SHAPE.
    """
    n = len(images)
    check(n, static_keys, challenges, responses, issuer)
    enc, mac, dek = static_keys
    card = np.ascontiguousarray(responses[:, 13:21])
    keys = sessions.scp03_session_keys(enc, mac, challenges, card)
    proofs = sessions.scp03_cryptograms(keys.s_mac, challenges, card)
    proven = same_rows(proofs.card, responses[:, 21:29])
    with SecretArray(keys.s_enc) as s_enc, SecretArray(keys.s_mac) as s_mac, SecretArray(keys.s_rmac):
        authenticate = np.empty((n, 21), np.uint8)
        authenticate[:, :5], authenticate[:, 2] = _AUTHENTICATE, level
        authenticate[:, 5:13] = proofs.host
        chain = np.zeros((n, 16), np.uint8)
        chain[:] = cext.aes_cmac(s_mac.array, np.ascontiguousarray(np.concatenate([chain, authenticate[:, :13]], axis=1)))
        authenticate[:, 13:] = chain[:, :8]
        with SecretArray(script.rows(images)) as rows:
            _under_aes_dek(script, rows.array, dek, issuer)
            commands = cext.scp03_wrap(s_enc.array, s_mac.array, chain, script.apdus, rows.array)
    _drop(proven, authenticate, commands)
    return Segments(proven, authenticate, commands, secured_lengths(script.apdus, 16))


def scp02_segments(
    script: Script, level: int, static_keys: ByteArray, challenges: ByteArray, responses: ByteArray, images: ByteArray, issuer: ByteArray
) -> Segments:
    """The same over SCP02 (GPCS annex E), two-key 3DES; responses are (n, 28)."""
    n = len(images)
    check(n, static_keys, challenges, responses, issuer)
    sequence, card = np.ascontiguousarray(responses[:, 12:14]), np.ascontiguousarray(responses[:, 14:20])
    keys = sessions.scp02_session_keys(static_keys[0], static_keys[1], static_keys[2], sequence)
    proofs = sessions.scp02_cryptograms(keys.s_enc, sequence, card, challenges)
    proven = same_rows(proofs.card, responses[:, 20:28])
    with SecretArray(keys.s_enc) as s_enc, SecretArray(keys.c_mac) as c_mac, SecretArray(keys.dek) as dek:
        authenticate = np.empty((n, 21), np.uint8)
        authenticate[:, :5], authenticate[:, 2] = _AUTHENTICATE, level
        authenticate[:, 5:13] = proofs.host
        padded = np.zeros((n, 16), np.uint8)
        padded[:, :13], padded[:, 13] = authenticate[:, :13], 0x80
        chain = cext.tdes_retail_mac(c_mac.array, padded)
        authenticate[:, 13:] = chain
        with SecretArray(script.rows(images)) as rows:
            _under_des_dek(script, rows.array, dek.array, issuer)
            commands = cext.scp02_wrap(s_enc.array, c_mac.array, chain, script.apdus, rows.array)
    _drop(proven, authenticate, commands)
    return Segments(proven, authenticate, commands, secured_lengths(script.apdus, 8))


def same_rows(a: ByteArray, b: ByteArray) -> npt.NDArray[np.bool_]:
    """Which rows are equal, in a time that does not depend on where they differ."""
    same: npt.NDArray[np.bool_] = np.bitwise_or.reduce(a ^ b, axis=1) == 0
    return same


def check(n: int, static_keys: ByteArray, challenges: ByteArray, responses: ByteArray, issuer: ByteArray) -> None:
    """Raises InvalidInput WRONG_SHAPE unless everything is for n cards."""
    shapes = static_keys.shape, challenges.shape, issuer.shape, responses.shape[:1]
    if n == 0 or shapes != ((3, n, 16), (n, 8), (3, n, 16), (n,)):
        raise InvalidInput(
            "WRONG_SHAPE", f"keys {static_keys.shape}, challenges {challenges.shape}, issuer keys {issuer.shape}, {n} images"
        )


def _drop(proven: npt.NDArray[np.bool_], authenticate: ByteArray, commands: ByteArray) -> None:
    authenticate[~proven] = 0
    commands[~proven] = 0


def _secrets(script: Script, rows: ByteArray, issuer: ByteArray) -> SecretArray:
    """The spans of one block or key and the issuer's keys of each row, (n, count, 16)."""
    count = len(script.single)
    secrets = SecretArray.empty((len(rows), count + 3, 16))
    for row, target in zip(rows, secrets.array, strict=True):
        script.gather(row, target[:count])
    secrets.array[:, count:] = issuer.swapaxes(0, 1)
    return secrets


def _put_back(script: Script, rows: ByteArray, cryptograms: ByteArray, kcvs: ByteArray) -> None:
    count = len(script.single)
    rows[:, script.single] = cryptograms[:, :count]
    for i in range(3):
        rows[:, script.keys_at[i] : script.keys_at[i] + 16] = cryptograms[:, count + i]
        rows[:, script.kcvs_at[i] : script.kcvs_at[i] + 3] = kcvs[i]


def _under_aes_dek(script: Script, rows: ByteArray, dek: ByteArray, issuer: ByteArray) -> None:
    """Every span by AES-CBC with zero IV under the card's static DEK, which over one block is the bare block."""
    for first in range(0, len(rows), _SPAN_ROWS):
        part = slice(first, first + _SPAN_ROWS)
        over, mine = np.ascontiguousarray(dek[part]), rows[part]
        with _secrets(script, mine, issuer[:, part]) as secrets, SecretArray(np.repeat(over, secrets.shape[1], axis=0)) as each:
            made = cext.aes_ecb(each.array, secrets.array.reshape(-1, 16)).reshape(secrets.shape)
        _put_back(script, mine, made, _kcvs("aes", issuer[:, part]))
        for offset, length in script.longer:
            with _span(mine, offset, length) as span:
                mine[:, offset : offset + length] = cext.aes_cbc(over, span.array)


def _under_des_dek(script: Script, rows: ByteArray, dek: ByteArray, issuer: ByteArray) -> None:
    """Every span in 3DES-ECB under the session's DEK (GPCS E.4.7)."""
    for first in range(0, len(rows), _SPAN_ROWS):
        part = slice(first, first + _SPAN_ROWS)
        mine = rows[part]
        with _secrets(script, mine, issuer[:, part]) as secrets:
            made = _des_blocks(dek[part], secrets.array.reshape(len(mine), -1)).reshape(secrets.shape)
        _put_back(script, mine, made, _kcvs("3des", issuer[:, part]))
        for offset, length in script.longer:
            with _span(mine, offset, length) as span:
                mine[:, offset : offset + length] = _des_blocks(dek[part], span.array)


def _span(rows: ByteArray, offset: int, length: int) -> SecretArray:
    """A span of every row, close together, (n, length)."""
    span = SecretArray.empty((len(rows), length))
    span.array[:] = rows[:, offset : offset + length]
    return span


def _des_blocks(keys: ByteArray, plain: ByteArray) -> ByteArray:
    """ECB of (n, length) under a key per row."""
    with SecretArray(np.repeat(keys, plain.shape[1] // 8, axis=0)) as each:
        return cext.tdes_ecb(each.array, plain.reshape(-1, 8)).reshape(plain.shape)


def _kcvs(algorithm: str, issuer: ByteArray) -> ByteArray:
    """Check values (3, n, 3) of the issuer's keys, a key at a time: each is contiguous, all three of a part are not."""
    return np.stack([kcv_array(algorithm, key) for key in issuer])
