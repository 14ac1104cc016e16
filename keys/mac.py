"""CBC and the MACs made of it, for many messages of one length at once, under one key (len,) or a key per row (n, len).

Messages are (n, L) arrays of bytes; IVs None (zeros), (block,) or (n, block). What is here computes: whether a key may be used at all
is decided where it enters.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

import cext
from keys.algorithms import BLOCK_LEN, KEY_LENS, Algorithm, key_array, require_rows
from keys.errors import InvalidInput

ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# Three-key DES has no kernel: no card in the field has such a key.
_KEY_LENS: Final = {**KEY_LENS, "3des": (16,)}


def pad80(messages: ByteArray, block: int) -> ByteArray:
    """ISO/IEC 9797-1 padding method 2: 80, then 00 to whole blocks, for every row."""
    n, length = messages.shape
    padded = np.zeros((n, (length // block + 1) * block), np.uint8)
    padded[:, :length] = messages
    padded[:, length] = 0x80
    return padded


def cbc(algorithm: Algorithm, keys: ByteArray, plain: ByteArray, iv: ByteArray | None = None) -> ByteArray:
    """CBC of each row (NIST SP 800-38A 6.2), (n, L) to (n, L). Raises InvalidInput (KEY_LENGTH, NO_ROWS, WRONG_SHAPE)."""
    key, message, start = _checked(algorithm, keys, plain, iv)
    if algorithm == "3des":
        return cext.tdes_cbc(key, message, start)
    return cext.sm4_cbc(key, message, start) if algorithm == "sm4" else cext.aes_cbc(key, message, start)


def cbc_mac(algorithm: Algorithm, keys: ByteArray, messages: ByteArray, iv: ByteArray | None = None) -> ByteArray:
    """The last block of CBC over whole blocks (ISO/IEC 9797-1 algorithm 1), (n, block). Raises InvalidInput as `cbc`."""
    if algorithm == "3des":
        return np.ascontiguousarray(cbc("3des", keys, messages, iv)[:, -BLOCK_LEN["3des"] :])
    key, message, start = _checked(algorithm, keys, messages, iv)
    return cext.sm4_cbc_mac(key, message, start) if algorithm == "sm4" else cext.aes_cbc_mac(key, message, start)


def retail_mac(keys: ByteArray, messages: ByteArray, iv: ByteArray | None = None) -> ByteArray:
    """ISO/IEC 9797-1 algorithm 3 under 16-byte keys over whole blocks, (n, 8). Raises InvalidInput as `cbc`."""
    return cext.tdes_retail_mac(*_checked("3des", keys, messages, iv))


def des_cbc_mac(keys: ByteArray, messages: ByteArray) -> ByteArray:
    """Single-DES CBC-MAC under 8-byte keys over whole blocks, (n, 8): algorithm 3 with both halves alike."""
    doubled = np.ascontiguousarray(np.concatenate([keys, keys], axis=-1))
    try:
        return retail_mac(doubled, messages)
    finally:
        doubled[...] = 0


def cmac(algorithm: Algorithm, keys: ByteArray, messages: ByteArray) -> ByteArray:
    """CMAC of messages of any length from 1 (NIST SP 800-38B), (n, block). Raises InvalidInput as `cbc`."""
    key = key_array(algorithm, keys, "keys", _KEY_LENS[algorithm])
    n = require_rows(messages, "messages")
    if not messages.shape[1] or (key.ndim == 2 and len(key) != n):
        raise InvalidInput("WRONG_SHAPE", f"keys of {key.shape} for messages of {messages.shape}")
    message = np.ascontiguousarray(messages)
    if algorithm == "3des":
        return cext.tdes_cmac(key, message)
    return cext.sm4_cmac(key, message) if algorithm == "sm4" else cext.aes_cmac(key, message)


def double(blocks: ByteArray) -> ByteArray:
    """Rows (n, 8|16) doubled in the binary field (NIST SP 800-38B 6.1), without a branch on their bits."""
    constant = {8: 0x1B, 16: 0x87}[blocks.shape[1]]
    carry = blocks >> np.uint8(7)
    doubled = blocks << np.uint8(1)
    doubled[:, :-1] |= carry[:, 1:]
    doubled[:, -1] ^= carry[:, 0] * np.uint8(constant)
    return doubled


def same_rows(ours: ByteArray, theirs: ByteArray) -> BoolArray:
    """Whether each row of `theirs` is the same as ours, (n,): every byte of every row is looked at, whatever differs."""
    if ours.shape != theirs.shape:
        raise InvalidInput("WRONG_SHAPE", f"values of {theirs.shape} cannot be compared with {ours.shape}")
    found: BoolArray = np.bitwise_or.reduce(ours ^ theirs, axis=1) == 0
    return found


def _checked(
    algorithm: Algorithm, keys: ByteArray, messages: ByteArray, iv: ByteArray | None
) -> tuple[ByteArray, ByteArray, ByteArray | None]:
    """What the kernels take: contiguous, and of shapes that belong together."""
    block = BLOCK_LEN[algorithm]
    key = key_array(algorithm, keys, "keys", _KEY_LENS[algorithm])
    n = require_rows(messages, "messages")
    if not messages.shape[1] or messages.shape[1] % block:
        raise InvalidInput("WRONG_SHAPE", f"messages of {messages.shape[1]} bytes are no whole blocks of {block}")
    if key.ndim == 2 and len(key) != n:
        raise InvalidInput("WRONG_SHAPE", f"{len(key)} keys for {n} messages")
    if iv is not None and iv.shape not in ((block,), (n, block)):
        raise InvalidInput("WRONG_SHAPE", f"an iv has {block} bytes, one for all or one a row, not {iv.shape}")
    return key, np.ascontiguousarray(messages), None if iv is None else np.ascontiguousarray(iv)
