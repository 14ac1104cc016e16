"""Odd parity of DES key bytes (FIPS 46-3: the least significant bit of each byte makes its count of ones odd)."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from keys.algorithms import byte_array

ByteArray = npt.NDArray[np.uint8]
Parity = Literal["none", "odd"]

_PARITY_BIT: Final = 1


def odd_parity(keys: ByteArray) -> ByteArray:
    """A copy of any uint8 array with odd parity in every byte. Computed, not looked up: key bytes must not steer memory
    access.
    """
    high = byte_array(keys, "keys") & np.uint8(0xFE)
    fold = high ^ (high >> np.uint8(4))
    fold ^= fold >> np.uint8(2)
    fold ^= fold >> np.uint8(1)
    return high | (~fold & np.uint8(_PARITY_BIT))


def has_odd_parity(keys: ByteArray) -> bool:
    """Whether every byte has odd parity."""
    return bool(np.array_equal(odd_parity(keys), keys))
