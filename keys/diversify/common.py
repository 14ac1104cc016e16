"""What all methods share: masters checked on the way in, parity, and the purposes of card keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from keys.algorithms import Algorithm, key_array
from keys.errors import InvalidInput
from keys.secrets import BytesLike
from keys.weak import refuse_weak

ByteArray = npt.NDArray[np.uint8]
BytesOrArray = BytesLike | ByteArray
Purpose = Literal["enc", "mac", "dek"]
Purposes = Purpose | Sequence[Purpose]
Digits = Sequence[str] | npt.NDArray[Any]

PURPOSES: Final[dict[Purpose, int]] = {"enc": 1, "mac": 2, "dek": 3}


def check_parity(algorithm: Algorithm, parity: str) -> bool:
    """Whether to set odd parity; raises InvalidInput PARITY for an unknown value or a cipher whose keys have none."""
    if parity not in ("none", "odd"):
        raise InvalidInput("PARITY", f"parity must be none or odd, not {parity!r}")
    if parity == "odd" and algorithm != "3des":
        raise InvalidInput("PARITY", f"{algorithm} keys have no parity")
    return parity == "odd"


def require_algorithm(method: str, algorithm: Algorithm, allowed: tuple[Algorithm, ...]) -> None:
    """Raises InvalidInput METHOD_ALGORITHM."""
    if algorithm not in allowed:
        raise InvalidInput("METHOD_ALGORITHM", f"method {method} is defined for {' and '.join(allowed)}, not for {algorithm}")


def check_masters(
    algorithm: Algorithm, value: BytesOrArray, n: int, lens: tuple[int, ...] = (16,), *, allow_weak: bool = False
) -> ByteArray:
    """Masters (len,) or (n, len) fit to derive n keys with; raises InvalidInput (NOT_BYTES, KEY_LENGTH, WRONG_SHAPE, WEAK_KEY)."""
    keys = key_array(algorithm, value, "masters", lens)
    if keys.ndim == 2 and keys.shape[0] != n:
        raise InvalidInput("WRONG_SHAPE", f"{keys.shape[0]} masters for {n} factors")
    if not allow_weak:
        refuse_weak(algorithm, keys, "masters")
    return keys
