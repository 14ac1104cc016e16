"""DES keys that are refused: weak and semi-weak keys (NIST SP 800-67 rev. 2, 3.3.2), and triple-DES keys whose neighbouring parts are
equal, which are single DES.

Parity bits do not count. Columns are looked at as wholes, without a branch on a row's bits: only that a column holds such a key, or
one of the same pattern (one random key in 2^27), shows in the time.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from keys.algorithms import Algorithm
from keys.errors import InvalidInput

ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

DES_KEY_LEN: Final = 8
_WEAK: Final = """
    0101010101010101 FEFEFEFEFEFEFEFE E0E0E0E0F1F1F1F1 1F1F1F1F0E0E0E0E
    011F011F010E010E 1F011F010E010E01 01E001E001F101F1 E001E001F101F101
    01FE01FE01FE01FE FE01FE01FE01FE01 1FE01FE00EF10EF1 E01FE01FF10EF10E
    1FFE1FFE0EFE0EFE FE1FFE1FFE0EFE0E E0FEE0FEF1FEF1FE FEE0FEE0FEF1FEF1
"""
_NOT_PARITY: Final = np.frombuffer(b"\xfe" * DES_KEY_LEN, np.uint64)[0]
_PAIRS: Final = np.uint64(0x0000FFFF0000FFFF)
_REFUSED: Final = np.frombuffer(bytes.fromhex(_WEAK), np.uint64) & _NOT_PARITY


def weak_rows(keys: ByteArray) -> BoolArray:
    """Which rows of DES keys (n, 8), (n, 16) or (n, 24) are weak, semi-weak in any part, or single DES by equal parts: (n,)."""
    parts = np.ascontiguousarray(keys).view(np.uint64) & _NOT_PARITY
    # in all of them the second and fourth pair of bytes repeat the first and third: the list is gone through only when a key does that
    refused = ((parts ^ (parts >> np.uint64(16))) & _PAIRS) == 0
    if refused.any():
        refused &= (parts[:, :, None] == _REFUSED).any(axis=2)
    weak: BoolArray = refused[:, 0]
    for at in range(1, parts.shape[1]):
        weak = weak | refused[:, at] | (parts[:, at] == parts[:, at - 1])
    return weak


def refuse_weak(algorithm: Algorithm, keys: ByteArray, what: str) -> None:
    """Raises InvalidInput WEAK_KEY when a 3DES key, (len,) or any of (n, len), is one of those; other ciphers have none."""
    if algorithm == "3des" and weak_rows(keys.reshape(-1, keys.shape[-1])).any():
        raise InvalidInput("WEAK_KEY", f"{what}: a DES key is weak, semi-weak or has equal halves")
