"""The three block ciphers of the key system and the array form of their keys and blocks.

The only module that hands arrays to the kernels: here outside values become contiguous uint8 arrays, and what does not fit
becomes an InvalidInput that names the argument, its length and the rule, never its content.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

import cext
from keys.errors import InvalidInput
from keys.secrets import BytesLike

Algorithm = Literal["3des", "sm4", "aes"]
ByteArray = npt.NDArray[np.uint8]

ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)
BLOCK_LEN: Final[dict[Algorithm, int]] = {"3des": 8, "sm4": 16, "aes": 16}
KEY_LENS: Final[dict[Algorithm, tuple[int, ...]]] = {"3des": (16, 24), "sm4": (16,), "aes": (16, 24, 32)}


def as_algorithm(name: str) -> Algorithm:
    """The algorithm of that name; raises InvalidInput ALGORITHM_UNKNOWN."""
    for algorithm in ALGORITHMS:
        if algorithm == name:
            return algorithm
    raise InvalidInput("ALGORITHM_UNKNOWN", f"algorithm must be one of {', '.join(ALGORITHMS)}, not {name!r}")


def byte_array(value: BytesLike | ByteArray, what: str) -> ByteArray:
    """`value` as a C-contiguous uint8 array, without a copy where possible; raises InvalidInput NOT_BYTES."""
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8:
            raise InvalidInput("NOT_BYTES", f"{what} must hold bytes (uint8), not {value.dtype}")
        return np.ascontiguousarray(value)
    return np.frombuffer(value, np.uint8)


def rows(value: BytesLike | ByteArray, widths: int | range, what: str) -> ByteArray:
    """`value` as (n, width) with n at least 1; one row of bytes is (1, width). Raises InvalidInput (NOT_BYTES, WRONG_SHAPE, NO_ROWS)."""
    array = byte_array(value, what)
    allowed = range(widths, widths + 1) if isinstance(widths, int) else widths
    if array.ndim == 1 and array.shape[0] in allowed:
        return array.reshape(1, -1)
    if array.ndim != 2 or array.shape[1] not in allowed:
        wanted = f"{allowed[0]}" if len(allowed) == 1 else f"{allowed[0]} to {allowed[-1]}"
        raise InvalidInput("WRONG_SHAPE", f"{what} must have shape (n, {wanted}), not {array.shape}")
    require_rows(array, what)
    return array


def require_rows(array: ByteArray, what: str) -> int:
    """The number of rows of a matrix; raises InvalidInput (WRONG_SHAPE, NO_ROWS) when it is none or empty."""
    if array.ndim != 2:
        raise InvalidInput("WRONG_SHAPE", f"{what} must have rows and columns, not shape {array.shape}")
    if not len(array):
        raise InvalidInput("NO_ROWS", f"{what} has no rows")
    return len(array)


def key_array(algorithm: Algorithm, value: BytesLike | ByteArray, what: str, lens: tuple[int, ...] | None = None) -> ByteArray:
    """One key (len,) or keys (n, len) of a permitted length (default: all the algorithm has). Raises InvalidInput KEY_LENGTH."""
    array = byte_array(value, what)
    lens = KEY_LENS[algorithm] if lens is None else lens
    if array.ndim not in (1, 2) or array.shape[-1] not in lens:
        wanted = " or ".join(map(str, lens))
        raise InvalidInput("KEY_LENGTH", f"{what} must be {algorithm} keys of {wanted} bytes, not of shape {array.shape}")
    return array


def encrypt(algorithm: Algorithm, keys: ByteArray, blocks: ByteArray) -> ByteArray:
    """ECB of blocks (n, block length) under one key (len,) or a key per block (n, len); raises InvalidInput (WRONG_SHAPE, NO_ROWS)."""
    require_rows(blocks, "blocks")
    # part of a wider message, as in a chain of blocks, is no contiguous array
    blocks = np.ascontiguousarray(blocks)
    if keys.ndim == 2 and keys.shape[0] != blocks.shape[0]:
        raise InvalidInput("WRONG_SHAPE", f"{keys.shape[0]} keys for {blocks.shape[0]} blocks")
    if algorithm == "3des":
        return _tdes3(keys, blocks) if keys.shape[-1] == 24 else cext.tdes_ecb(keys, blocks)
    return cext.sm4_ecb(keys, blocks) if algorithm == "sm4" else cext.aes_ecb(keys, blocks)


def _tdes3(keys: ByteArray, blocks: ByteArray) -> ByteArray:
    """Three-key 3DES: outside the kernels because no card in the field has such a key; only check values and calculations meet
    it.
    """
    out = np.empty_like(blocks)
    for i in range(len(blocks)):
        key = keys if keys.ndim == 1 else keys[i]
        out[i] = np.frombuffer(Cipher(TripleDES(key.tobytes()), modes.ECB()).encryptor().update(blocks[i].tobytes()), np.uint8)  # noqa: S305 - a single block is ECB
    return out
