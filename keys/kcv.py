"""Key check values, one key or a column of keys at a time. A check value is stored with its method: the bytes alone do not
tell it.

zero-block  first 3 bytes of the encrypted block 00.. (GlobalPlatform Card Specification B.6 for 3DES; PBOC; SM4 likewise)
one-block   first 3 bytes of the encrypted block 01.. (GlobalPlatform Amendment D for AES)
cmac        first 5 bytes of the CMAC of one zero block (ANSI X9.24-1, X9.143; NIST SP 800-38B)
"""

from __future__ import annotations

import hmac
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

import cext
from keys.algorithms import Algorithm, as_algorithm, encrypt, key_array, require_rows
from keys.errors import Denied, InvalidInput
from keys.mac import double
from keys.secrets import BytesLike

KcvMethod = Literal["zero-block", "one-block", "cmac"]
ByteArray = npt.NDArray[np.uint8]

KCV_METHODS: Final[tuple[KcvMethod, ...]] = get_args(KcvMethod)
DEFAULT_METHOD: Final[dict[Algorithm, KcvMethod]] = {"3des": "zero-block", "sm4": "zero-block", "aes": "one-block"}
KCV_LEN: Final[dict[KcvMethod, int]] = {"zero-block": 3, "one-block": 3, "cmac": 5}


def kcv(algorithm: str, key: BytesLike | ByteArray, method: KcvMethod | None = None) -> bytes:
    """Check value of one key, 3 or 5 bytes; raises InvalidInput (KEY_LENGTH, ALGORITHM_UNKNOWN, KCV_METHOD_UNKNOWN)."""
    keys = key_array(as_algorithm(algorithm), key, "key")
    if keys.ndim != 1:
        raise InvalidInput("WRONG_SHAPE", f"one key has one dimension, not {keys.ndim}")
    return kcv_array(algorithm, keys.reshape(1, -1), method).tobytes()


def kcv_array(algorithm: str, keys: ByteArray, method: KcvMethod | None = None) -> ByteArray:
    """Check values (n, 3) or (n, 5) of keys (n, len); `method` None takes the algorithm's usual one. Raises as `kcv`."""
    cipher = as_algorithm(algorithm)
    checked = key_array(cipher, keys, "keys")
    if checked.ndim != 2:
        raise InvalidInput("WRONG_SHAPE", "keys must have shape (n, key length)")
    method = DEFAULT_METHOD[cipher] if method is None else method
    if method not in KCV_METHODS:
        raise InvalidInput("KCV_METHOD_UNKNOWN", f"kcv method must be one of {', '.join(KCV_METHODS)}, not {method!r}")
    require_rows(checked, "keys")
    if cipher == "3des" and checked.shape[1] == 24:
        return _three_key(checked, method)
    if cipher == "3des":
        return cext.tdes_kcv(checked, method)
    return cext.sm4_kcv(checked, method) if cipher == "sm4" else cext.aes_kcv(checked, method)


def _three_key(keys: ByteArray, method: KcvMethod) -> ByteArray:
    """Outside the kernels, as three-key DES is."""
    block = np.full((len(keys), 8), 1 if method == "one-block" else 0, np.uint8)
    if method == "cmac":
        block = double(encrypt("3des", keys, block))
    return np.ascontiguousarray(encrypt("3des", keys, block)[:, : KCV_LEN[method]])


def verify_kcv(algorithm: str, key: BytesLike | ByteArray, expected: bytes, method: KcvMethod | None = None) -> None:
    """Raises Denied KCV_MISMATCH unless the key has the check value `expected` (3 bytes or more as the method gives)."""
    actual = kcv(algorithm, key, method)
    if len(expected) < 3 or not hmac.compare_digest(actual[: len(expected)], expected):
        raise Denied("KCV_MISMATCH", "the key does not have the expected check value")
