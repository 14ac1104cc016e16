"""Several custodies as one: every key id belongs to one of them, and engine code does not see which.

The first custody of the list is the root: data keys and HMAC keys are its. A card key of one custody under a key-encryption key of
another passes through a block of locked memory; from a token-only master it does not, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from keys.algorithms import Algorithm
from keys.custody import Custody, Derivation
from keys.custody.plan import check_factors
from keys.custody.policy import KeyEntry, KeyPolicy
from keys.custody.token.custody import TokenCustody, holder_of
from keys.errors import CitycardError, Conflict, InvalidInput, NotFound
from keys.hierarchy import MasterKeyRecord
from keys.kcv import DEFAULT_METHOD, kcv, kcv_array
from keys.secrets import BytesLike, SecretArray, SecretBytes

ByteArray = npt.NDArray[np.uint8]

# Clear keys in hand between two custodies: they stay in a core's cache.
_ROWS: Final = 4096
_MAX_SPLIT: Final = 64


class Part(Custody, Protocol):
    """What a custody must do to be one of several."""

    def entries(self) -> list[KeyEntry]:
        """All records with their policies."""

    def policy(self, key_id: str) -> KeyPolicy:
        """The policy of the record that `record` gives. Raises NotFound KEY_UNKNOWN."""

    def wrap_keys(self, kek: str, scheme: str, algorithm: Algorithm, clear: ByteArray, cryptograms: ByteArray) -> None:
        """Card keys (n, 16) in locked memory under a KEK of this custody, into `cryptograms`."""

    def zeroize(self) -> None:
        """Wipes every secret; key operations afterwards raise Precondition ZEROIZED."""


class _Share(NamedTuple):
    """What one part derives of a request: the derivations, and their places in it."""

    part: Part
    derivations: tuple[Derivation, ...]
    places: list[int]


class CompositeCustody:
    """See `keys.custody.Custody`. Thread-safe if its parts are."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """Raises InvalidInput CUSTODY_NONE, Conflict KEY_EXISTS when two custodies have a key of the same name."""
        if not parts:
            raise InvalidInput("CUSTODY_NONE", "a composite custody has at least one part")
        self._parts = tuple(parts)
        self._split: dict[int, tuple[Sequence[Derivation], Sequence[_Share]]] = {}
        owners: dict[str, Part] = {}
        for part in parts:
            for record in part.inventory():
                if owners.setdefault(record.key_id, part) is not part:
                    raise Conflict("KEY_EXISTS", f"key {record.key_id} is in two custodies; destroy it in one of them")

    def inventory(self) -> list[MasterKeyRecord]:
        """All records of all parts, by key id and version."""
        return sorted((record for part in self._parts for record in part.inventory()), key=lambda record: (record.key_id, record.version))

    def entries(self) -> list[KeyEntry]:
        """All records with their policies and warnings, by key id and version."""
        found = (known for part in self._parts for known in part.entries())
        return sorted(found, key=lambda known: (known.record.key_id, known.record.version))

    def record(self, key_id: str) -> MasterKeyRecord:
        """See `keys.custody.Custody.record`."""
        return self._part(key_id).record(key_id)

    def policy(self, key_id: str) -> KeyPolicy:
        """The policy of that record. Raises NotFound KEY_UNKNOWN."""
        return self._part(key_id).policy(key_id)

    def inside(self, key_id: str) -> TokenCustody | None:
        """See `keys.custody.token.custody.HoldsInside`."""
        return holder_of(self._part(key_id), key_id)

    def derive(self, derivations: Sequence[Derivation], factors: Sequence[ByteArray]) -> SecretArray:
        """See `keys.custody.Custody.derive`."""
        try:
            return self._derive(self._shares(derivations), derivations, factors)
        except NotFound:  # a key went elsewhere since it was looked up
            self._split.clear()
            return self._derive(self._shares(derivations), derivations, factors)

    def _derive(self, shares: Sequence[_Share], derivations: Sequence[Derivation], factors: Sequence[ByteArray]) -> SecretArray:
        if len(shares) == 1:
            return shares[0].part.derive(derivations, factors)
        n = check_factors(derivations, factors)
        result = SecretArray.empty((len(derivations), n, 16))
        for part, mine, places in shares:
            with part.derive(mine, [factors[at] for at in places]) as made:
                result.array[places] = made.array
        return result

    def _shares(self, derivations: Sequence[Derivation]) -> Sequence[_Share]:
        """Who derives what. A profile's hundred derivations are one tuple: it is divided once, and its parts are tuples that stay."""
        known = self._split.get(id(derivations))
        if known is not None and known[0] is derivations:
            return known[1]
        places: dict[int, list[int]] = {}
        for at, derivation in enumerate(derivations):
            places.setdefault(self._parts.index(self._part(derivation.key_id)), []).append(at)
        shares = [_Share(self._parts[number], tuple(derivations[at] for at in mine), mine) for number, mine in places.items()]
        if isinstance(derivations, tuple):
            if len(self._split) >= _MAX_SPLIT:
                self._split.clear()
            self._split[id(derivations)] = derivations, shares
        return shares or [_Share(self._parts[0], (), [])]

    def derive_wrapped(
        self,
        derivations: Sequence[Derivation],
        factors: Sequence[ByteArray],
        keks: Sequence[str],
        scheme: str,
        cryptograms: ByteArray,
        kcvs: ByteArray,
    ) -> None:
        """See `keys.custody.Custody.derive_wrapped`; Denied TOKEN_ONLY for a token-only master under a KEK of another custody."""
        for at, (derivation, kek) in enumerate(zip(derivations, keks, strict=True)):
            master, over = self._part(derivation.key_id), self._part(kek)
            if master is over:
                part = slice(at, at + 1)
                master.derive_wrapped([derivation], [factors[at]], [kek], scheme, cryptograms[part], kcvs[part])
                continue
            for first in range(0, len(factors[at]), _ROWS):
                rows = slice(first, first + _ROWS)
                with master.derive([derivation], [factors[at][rows]]) as keys:
                    kcvs[at, rows] = kcv_array(derivation.algorithm, keys.array[0])
                    over.wrap_keys(kek, scheme, derivation.algorithm, keys.array[0], cryptograms[at, rows])

    def witness(self, derivation: Derivation, factor: BytesLike) -> SecretBytes:
        """See `keys.custody.Custody.witness`."""
        return self._part(derivation.key_id).witness(derivation, factor)

    def witness_wrapped(self, derivation: Derivation, factor: BytesLike, kek: str, scheme: str) -> tuple[bytes, bytes]:
        """See `keys.custody.Custody.witness_wrapped`. Between two custodies the witness makes the key, and the KEK's custody wraps it."""
        master, over = self._part(derivation.key_id), self._part(kek)
        if master is over:
            return master.witness_wrapped(derivation, factor, kek, scheme)
        with master.witness(derivation, factor) as key:
            clear = np.frombuffer(key.reveal(), np.uint8).reshape(1, 16)
            cryptogram = np.empty((1, 24 if scheme.startswith("aes-kw") else 16), np.uint8)
            over.wrap_keys(kek, scheme, derivation.algorithm, clear, cryptogram)
            return cryptogram.tobytes(), kcv(derivation.algorithm, key.reveal(), DEFAULT_METHOD[derivation.algorithm])

    def wrap_data_key(self, data_key: BytesLike) -> bytes:
        """See `keys.custody.Custody.wrap_data_key`."""
        return self._parts[0].wrap_data_key(data_key)

    def unwrap_data_key(self, wrapped: BytesLike) -> SecretBytes:
        """See `keys.custody.Custody.unwrap_data_key`."""
        return self._parts[0].unwrap_data_key(wrapped)

    def hmac_key(self, purpose: str) -> SecretBytes:
        """See `keys.custody.Custody.hmac_key`."""
        return self._parts[0].hmac_key(purpose)

    def zeroize(self) -> None:
        """Zeroizes every part, whatever happens in one of them; raises the first error afterwards."""
        errors: list[CitycardError] = []
        for part in self._parts:
            try:
                part.zeroize()
            except CitycardError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _part(self, key_id: str) -> Part:
        """The custody that has the key: looked up anew, because keys come and go."""
        for part in self._parts:
            try:
                part.record(key_id)
            except NotFound:
                continue
            return part
        raise NotFound("KEY_UNKNOWN", f"there is no key {key_id!r} in any custody")
