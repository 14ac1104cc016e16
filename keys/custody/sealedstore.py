"""The file of the sealed custody, and what opens it.

A random root secret seals the masters. The root itself is sealed by a `Sealer`: an AES-256 key of a token
(`keys.custody.token.TokenSealer`), or the 32-byte key that custodians rebuild from their shares (`RebuiltKey`).
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final, Literal, Protocol

from cryptography.exceptions import InvalidTag

from keys.custody import sealedfile
from keys.custody.sealedfile import Store
from keys.custody.sealing import seal, unseal
from keys.errors import Corrupt, Denied, InvalidInput
from keys.secrets import SecretBytes

FILE_NAME: Final = "sealed.json"
FORMAT: Final = "citycard-sealed"
ROOT_LEN: Final = 32


class SealState(StrEnum):
    """Whether the masters are in memory."""

    SEALED = "sealed"
    UNSEALED = "unsealed"
    ZEROIZED = "zeroized"


class Sealer(Protocol):
    """What opens the root secret of a store."""

    @property
    def name(self) -> str:
        """For people, and kept in the store; no secret."""

    def seal(self, secret: SecretBytes, context: bytes) -> bytes:
        """Authenticated encryption bound to `context`."""

    def unseal(self, sealed: bytes, context: bytes) -> SecretBytes:
        """The secret; raises Denied SEAL_KEY."""


class RebuiltKey:
    """A 32-byte key rebuilt from custodians' shares, wiped by `close`. `name` says whose. Raises InvalidInput KEY_LENGTH."""

    def __init__(self, key: SecretBytes, name: str = "custodians' shares") -> None:
        self.name = name
        if len(key) != ROOT_LEN:
            raise InvalidInput("KEY_LENGTH", f"the key that opens a sealed store has {ROOT_LEN} bytes, not {len(key)}")
        self._key = key

    def seal(self, secret: SecretBytes, context: bytes) -> bytes:
        """AES-256-GCM: nonce || ciphertext || tag."""
        return bytes.fromhex(seal(self._key, secret, context))

    def unseal(self, sealed: bytes, context: bytes) -> SecretBytes:
        """The secret; raises Denied SEAL_KEY."""
        try:
            return unseal(self._key, sealed.hex(), context)
        except (InvalidTag, Corrupt):
            raise Denied("SEAL_KEY", "the rebuilt key does not open this store, or the store was changed") from None

    def close(self) -> None:
        """Wipes the key."""
        self._key.close()


class SealedStore(Store, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file. `sealed_by` names what opens it."""

    format: Literal["citycard-sealed"]
    sealed_by: str


def read(path: Path) -> SealedStore:
    """Raises NotFound KEYSTORE_MISSING, Corrupt KEYSTORE_CORRUPT, Unsupported KEYSTORE_NEWER."""
    return sealedfile.parse_as(SealedStore, FORMAT, sealedfile.read_bytes(path), str(path))


def root_context(store_id: str, *, test: bool) -> bytes:
    """What the sealed root is bound to."""
    return sealedfile.canonical(["sealed-root", store_id, test])


def from_hex(text: str) -> bytes:
    """Raises Corrupt KEYSTORE_CORRUPT."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Corrupt("KEYSTORE_CORRUPT", "key store: a sealed value is not hex") from None
