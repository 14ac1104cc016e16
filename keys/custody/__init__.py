"""Where master keys live, behind one narrow interface: a custody lists records and derives; it never gives a master out.

`Custody` is the interface, `Derivation` the request.

    software    a file under a passphrase: for tests and development
    sealed      a file under a token's key or the custodians' rebuilt key; opened at unseal
    token       objects of a PKCS#11 token
    composite   several of them as one
    policy      what each key may be used for
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from keys.algorithms import Algorithm, as_algorithm
from keys.diversify import AN10922_INPUT_LENS, KDD_LEN, PURPOSES, Purpose, check_parity
from keys.errors import InvalidInput
from keys.hierarchy import MasterKeyRecord
from keys.parity import Parity
from keys.secrets import BytesLike, SecretArray, SecretBytes

ByteArray = npt.NDArray[np.uint8]
Method = Literal["pboc", "gp-emv", "gp-visa2", "gp-kdf3", "emv-c", "an10922", "sp800-108"]


@dataclass(frozen=True)
class _Rule:
    """What a method needs: ciphers, and bytes of the card's own factor."""

    algorithms: tuple[Algorithm, ...]
    factor_lens: range
    purpose: bool = False


_RULES: Final[dict[Method, _Rule]] = {
    "pboc": _Rule(("3des", "sm4"), range(8, 9)),
    "gp-emv": _Rule(("3des",), range(KDD_LEN, KDD_LEN + 1), purpose=True),
    "gp-visa2": _Rule(("3des",), range(KDD_LEN, KDD_LEN + 1), purpose=True),
    "gp-kdf3": _Rule(("aes",), range(KDD_LEN, KDD_LEN + 1), purpose=True),
    "emv-c": _Rule(("aes",), range(16, 17)),
    "an10922": _Rule(("aes", "3des"), AN10922_INPUT_LENS["aes"]),
    "sp800-108": _Rule(("aes",), range(256)),
}


@dataclass(frozen=True)
class Derivation:
    """One card key to be made: from which master, by which factors above the card, by which method.

    `upper_factors` are 8 bytes each, root first, applied by `pboc` before the card's factor; no other method has any. The gp methods
    need `purpose`; `label` is that of `sp800-108`. EMV option A and B are `pboc` with Y (`keys.diversify.emv_y`) as card factor and
    odd parity. Raises InvalidInput (ALGORITHM_UNKNOWN, METHOD_UNKNOWN, METHOD_ALGORITHM, FACTOR_LENGTH, PARITY, PURPOSE, LABEL)
    when made wrongly.
    """

    key_id: str
    method: Method
    algorithm: Algorithm
    upper_factors: tuple[bytes, ...] = ()
    parity: Parity = "none"
    purpose: Purpose | None = None
    label: bytes = b""

    def __post_init__(self) -> None:
        as_algorithm(self.algorithm)
        rule = _RULES.get(self.method)
        if rule is None:
            known = ", ".join(_RULES)
            raise InvalidInput("METHOD_UNKNOWN", f"key {self.key_id}: method must be one of {known}, not {self.method!r}")
        if self.algorithm not in rule.algorithms:
            raise InvalidInput("METHOD_ALGORITHM", f"key {self.key_id}: method {self.method} is not defined for {self.algorithm}")
        check_parity(self.algorithm, self.parity)
        if rule.purpose and self.purpose not in PURPOSES:
            raise InvalidInput("PURPOSE", f"key {self.key_id}: method {self.method} needs purpose enc, mac or dek")
        if not rule.purpose and self.purpose is not None:
            raise InvalidInput("PURPOSE", f"key {self.key_id}: method {self.method} takes no purpose")
        if self.upper_factors and self.method != "pboc":
            raise InvalidInput("FACTOR_LENGTH", f"key {self.key_id}: method {self.method} takes no upper factors")
        if any(len(factor) != 8 for factor in self.upper_factors):
            raise InvalidInput("FACTOR_LENGTH", f"key {self.key_id}: a dispersion factor has exactly 8 bytes")
        if self.label and self.method != "sp800-108":
            raise InvalidInput("LABEL", f"key {self.key_id}: method {self.method} takes no label")

    @property
    def factor_lens(self) -> range:
        """How many bytes the card's own factor may have."""
        if self.method == "an10922":
            return AN10922_INPUT_LENS[self.algorithm]
        return _RULES[self.method].factor_lens


class Custody(Protocol):
    """What every holder of master keys does. Thread-safe."""

    def inventory(self) -> list[MasterKeyRecord]:
        """All records, by key id and version."""

    def record(self, key_id: str) -> MasterKeyRecord:
        """The record `derive` uses: the newest active version, else the newest. Raises NotFound KEY_UNKNOWN."""

    def derive(self, derivations: Sequence[Derivation], factors: Sequence[ByteArray]) -> SecretArray:
        """Card keys (k, n, 16) for k derivations; factors[i] are (n, 8) for pboc, KDDs (n, 10) for the gp methods, Y (n, 16) for
        emv-c, inputs (n, 1..31) for an10922, contexts (n, any) for sp800-108; the same n, at least 1, in all.

        Raises NotFound KEY_UNKNOWN, Precondition KEY_NOT_ACTIVE, InvalidInput (WRONG_SHAPE, NO_ROWS, KEY_ALGORITHM, KEY_LENGTH).
        """

    def derive_wrapped(
        self,
        derivations: Sequence[Derivation],
        factors: Sequence[ByteArray],
        keks: Sequence[str],
        scheme: str,
        cryptograms: ByteArray,
        kcvs: ByteArray,
    ) -> None:
        """Card keys for outside: each under the key-encryption key named in `keks`, into `cryptograms` (k, n, 16 or 24), their
        check values into `kcvs` (k, n, 3). `scheme`: see `keys.custody.wrapping`.

        Raises as `derive`, and InvalidInput (WRAP_UNKNOWN, KEK_ALGORITHM), Denied KEY_PURPOSE for a KEK that is none.
        """

    def witness(self, derivation: Derivation, factor: BytesLike) -> SecretBytes:
        """One card key by `keys.witness`, which shares no code with `derive`; raises as `derive`."""

    def witness_wrapped(self, derivation: Derivation, factor: BytesLike, kek: str, scheme: str) -> tuple[bytes, bytes]:
        """Cryptogram and check value of one card key by `keys.witness`; raises as `derive_wrapped`."""

    def wrap_data_key(self, data_key: BytesLike) -> bytes:
        """A 32-byte data key under the custody's own key-encryption key; raises InvalidInput DATA_KEY_LENGTH."""

    def unwrap_data_key(self, wrapped: BytesLike) -> SecretBytes:
        """The data key; raises Corrupt DATA_KEY_CORRUPT when it was not wrapped here or was changed."""

    def hmac_key(self, purpose: str) -> SecretBytes:
        """A 32-byte key that depends on the custody and the purpose only: the same after every restart."""
