"""Odd parity of DES key bytes (FIPS 46-3: the least significant bit of each byte makes its count of ones odd)."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from keys.algorithms import byte_array
from keys.secrets import SecretArray, SecretBytes

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


def with_odd_parity(key: SecretBytes) -> SecretBytes:
    """The same as `odd_parity` for one secret, in locked memory throughout."""
    with key.reveal() as raw, SecretArray.empty((len(key),)) as fold:
        high = np.frombuffer(raw, np.uint8)

        def write(view: memoryview) -> None:
            made = np.frombuffer(view, np.uint8)
            np.bitwise_and(high, np.uint8(0xFE), out=made)
            _fold(made, fold.array)
            np.invert(fold.array, out=fold.array)
            np.bitwise_and(fold.array, np.uint8(_PARITY_BIT), out=fold.array)
            np.bitwise_or(made, fold.array, out=made)

        return SecretBytes.fill(len(key), write)


def has_odd_parity(keys: ByteArray) -> bool:
    """Whether every byte has odd parity."""
    with SecretArray.empty(keys.shape) as fold:
        _fold(keys, fold.array)
        return bool(np.bitwise_and(fold.array, np.uint8(_PARITY_BIT)).all())


def _fold(keys: ByteArray, into: ByteArray) -> None:
    """The exclusive or of a byte's bits, in the lowest bit."""
    with SecretArray.empty(keys.shape) as step:
        np.copyto(into, keys)
        for width in (4, 2, 1):
            np.right_shift(into, np.uint8(width), out=step.array)
            np.bitwise_xor(into, step.array, out=into)
