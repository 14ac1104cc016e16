"""Where master keys live, behind one narrow interface: a custody lists records and derives; it never gives a master out.

`Custody` is the interface, `Derivation` the request. `keys.custody.software` is the sealed file store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from keys.algorithms import Algorithm, as_algorithm
from keys.diversify import PURPOSES, Purpose, check_parity
from keys.errors import InvalidInput
from keys.hierarchy import MasterKeyRecord
from keys.parity import Parity
from keys.secrets import BytesLike, SecretArray, SecretBytes

ByteArray = npt.NDArray[np.uint8]
Method = Literal["pboc", "gp-emv", "gp-visa2", "gp-kdf3"]

FACTOR_LEN: Final[dict[Method, int]] = {"pboc": 8, "gp-emv": 10, "gp-visa2": 10, "gp-kdf3": 10}
_ALGORITHMS: Final[dict[Method, tuple[Algorithm, ...]]] = {
    "pboc": ("3des", "sm4"),
    "gp-emv": ("3des",),
    "gp-visa2": ("3des",),
    "gp-kdf3": ("aes",),
}


@dataclass(frozen=True)
class Derivation:
    """One card key to be made: from which master, by which factors above the card, by which method.

    `upper_factors` are 8 bytes each, root first, applied by `pboc` before the card's factor; the gp methods have none and need
    `purpose`. EMV option A and B are `pboc` with Y (`keys.diversify.emv_y`) as card factor and odd parity.
    Raises InvalidInput (ALGORITHM_UNKNOWN, METHOD_UNKNOWN, METHOD_ALGORITHM, FACTOR_LENGTH, PARITY, PURPOSE) when made wrongly.
    """

    key_id: str
    method: Method
    algorithm: Algorithm
    upper_factors: tuple[bytes, ...] = ()
    parity: Parity = "none"
    purpose: Purpose | None = None

    def __post_init__(self) -> None:
        as_algorithm(self.algorithm)
        if self.method not in FACTOR_LEN:
            known = ", ".join(FACTOR_LEN)
            raise InvalidInput("METHOD_UNKNOWN", f"key {self.key_id}: method must be one of {known}, not {self.method!r}")
        if self.algorithm not in _ALGORITHMS[self.method]:
            raise InvalidInput("METHOD_ALGORITHM", f"key {self.key_id}: method {self.method} is not defined for {self.algorithm}")
        check_parity(self.algorithm, self.parity)
        if self.method == "pboc":
            if self.purpose is not None:
                raise InvalidInput("PURPOSE", f"key {self.key_id}: method pboc takes no purpose")
            if any(len(factor) != 8 for factor in self.upper_factors):
                raise InvalidInput("FACTOR_LENGTH", f"key {self.key_id}: a dispersion factor has exactly 8 bytes")
        else:
            if self.purpose not in PURPOSES:
                raise InvalidInput("PURPOSE", f"key {self.key_id}: method {self.method} needs purpose enc, mac or dek")
            if self.upper_factors:
                raise InvalidInput("FACTOR_LENGTH", f"key {self.key_id}: method {self.method} takes no upper factors")


class Custody(Protocol):
    """What every holder of master keys does. Thread-safe."""

    def inventory(self) -> list[MasterKeyRecord]:
        """All records, by key id and version."""

    def record(self, key_id: str) -> MasterKeyRecord:
        """The record `derive` uses: the newest active version, else the newest. Raises NotFound KEY_UNKNOWN."""

    def derive(self, derivations: Sequence[Derivation], factors: Sequence[ByteArray]) -> SecretArray:
        """Card keys (k, n, 16) for k derivations; factors[i] is (n, 8) for pboc, (n, 10) KDDs for the gp methods, the same n
        in all.

        Raises NotFound KEY_UNKNOWN, Precondition KEY_NOT_ACTIVE, InvalidInput (WRONG_SHAPE, KEY_ALGORITHM, KEY_LENGTH).
        """

    def wrap_data_key(self, data_key: BytesLike) -> bytes:
        """A 32-byte data key under the custody's own key-encryption key; raises InvalidInput DATA_KEY_LENGTH."""

    def unwrap_data_key(self, wrapped: BytesLike) -> SecretBytes:
        """The data key; raises Corrupt DATA_KEY_CORRUPT when it was not wrapped here or was changed."""

    def hmac_key(self, purpose: str) -> SecretBytes:
        """A 32-byte key that depends on the custody and the purpose only: the same after every restart."""
