"""Policy `host-clear`: card keys of thousands of cards in one C_Encrypt, straight into locked memory of the host; and wrapping them
under a key-encryption key of the token by the same means.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from keys.algorithms import BLOCK_LEN, Algorithm
from keys.custody import Derivation
from keys.custody.token import compose, objects
from keys.custody.token.session import Live
from keys.parity import odd_parity
from keys.secrets import SecretArray, SecretBytes

ByteArray = npt.NDArray[np.uint8]

# Keys in one C_Encrypt: 512 KiB, beyond which nothing is gained and the wait of others grows.
CHUNK: Final = 32_768
# RFC 3394 2.2.3.1 and RFC 5649 3 (of 16 bytes).
_KW_IV: Final = bytes.fromhex("A6A6A6A6A6A6A6A6")
_KWP_IV: Final = bytes.fromhex("A65959A600000010")


def encrypt(live: Live, handle: int, algorithm: Algorithm, blocks: ByteArray, out: ByteArray) -> None:
    """ECB of contiguous bytes into contiguous bytes (not the same ones)."""
    live.cryptoki.encrypt(live.session, handle, objects.ECB[algorithm], blocks.ctypes.data, blocks.nbytes, out.ctypes.data, out.nbytes)


def derive(live: Live, handle: int, derivation: Derivation, factors: ByteArray, out: ByteArray) -> None:
    """Card keys (n, 16) into `out`, contiguous, from factors (n, f)."""
    algorithm = derivation.algorithm
    zero = _zero(live, handle, algorithm) if compose.needs_zero(derivation) else None

    def ecb(blocks: ByteArray) -> ByteArray:
        source = np.ascontiguousarray(blocks)
        answer = np.empty_like(source)
        encrypt(live, handle, algorithm, source, answer)
        return answer

    blocks = compose.last_blocks(derivation, factors, ecb, zero)
    encrypt(live, handle, algorithm, blocks, out)
    if derivation.parity == "odd":
        out[...] = odd_parity(out)


def wrap(live: Live, kek: int, scheme: str, algorithm: Algorithm, clear: ByteArray, out: ByteArray) -> None:
    """Keys (n, 16) under a KEK that encrypts, into `out` (n, 16 or 24): ECB, CBC with zero IV, AES-KW (RFC 3394), AES-KWP (RFC 5649)."""
    if scheme == "ecb" or (scheme == "cbc" and algorithm == "aes"):  # one block under a zero IV
        encrypt(live, kek, algorithm, clear, out)
        return
    if scheme == "cbc":
        first, second = np.ascontiguousarray(clear[:, :8]), np.empty((len(clear), 8), np.uint8)
        encrypt(live, kek, algorithm, first, second)
        out[:, :8] = second
        np.bitwise_xor(clear[:, 8:], second, out=first)
        encrypt(live, kek, algorithm, first, second)
        out[:, 8:] = second
        first[...] = 0
        return
    _key_wrap(live, kek, _KW_IV if scheme == "aes-kw" else _KWP_IV, clear, out)


def _key_wrap(live: Live, kek: int, iv: bytes, clear: ByteArray, out: ByteArray) -> None:
    """RFC 3394 2.2.1 for two 64-bit blocks: twelve ECB calls for all keys."""
    n = len(clear)
    with SecretArray.empty((n, 16)) as source, SecretArray.empty((n, 16)) as answer:
        out[:, :8] = np.frombuffer(iv, np.uint8)
        out[:, 8:] = clear
        for step in range(12):
            at = 8 + 8 * (step % 2)
            source.array[:, :8] = out[:, :8]
            source.array[:, 8:] = out[:, at : at + 8]
            encrypt(live, kek, "aes", source.array, answer.array)
            out[:, :8] = answer.array[:, :8]
            out[:, 7] ^= step + 1
            out[:, at : at + 8] = answer.array[:, 8:]


def _zero(live: Live, handle: int, algorithm: Algorithm) -> ByteArray:
    """The encrypted zero block, of which CMAC makes its sub-keys: asked once a session."""
    known = live.secrets.get(("zero", handle))
    if known is None:
        size = BLOCK_LEN[algorithm]
        answer = np.empty(size, np.uint8)
        encrypt(live, handle, algorithm, np.zeros(size, np.uint8), answer)
        known = live.secrets["zero", handle] = SecretBytes(answer.data)
        answer[...] = 0
    return np.frombuffer(known.reveal(), np.uint8)
