"""What a ceremony needs of the place where keys live, and nothing more: the narrow interface that every custody is fitted to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from keys.ceremony.clerk import Clerk
from keys.ceremony.plan import Export, PlannedKey
from keys.custody.sealing import random_master
from keys.errors import Denied, NotFound, Unsupported
from keys.hierarchy import KeyState, MasterKeyRecord
from keys.keyblock.handover import Agreed, HandedKey
from keys.secrets import SecretBytes


class Holder(Protocol):
    """What every custody offers: its records, and their way through the states."""

    def inventory(self) -> list[MasterKeyRecord]:
        """All records."""

    def set_state(self, key_id: str, version: int, state: KeyState) -> MasterKeyRecord:
        """Moves one key on in its life."""


class Vault(ABC):
    """Every operation is all or nothing, and durable when it returns."""

    def __init__(self, clerk: Clerk) -> None:
        self.clerk = clerk

    @property
    @abstractmethod
    def _holder(self) -> Holder:
        """The custody itself."""

    def require_open(self) -> None:
        """Raises Precondition SEALED, NotFound KEYSTORE_MISSING unless keys can come in and be used."""
        self._holder.inventory()

    def find(self, key_id: str, version: int) -> MasterKeyRecord | None:
        """The record of a key, destroyed ones too; None when there never was one."""
        return next((r for r in self._holder.inventory() if (r.key_id, r.version) == (key_id, version)), None)

    def activate(self, key_id: str, version: int) -> MasterKeyRecord:
        """Makes a pre-active key usable; an active one stays so."""
        record = self._known(key_id, version)
        return record if record.state is KeyState.ACTIVE else self._holder.set_state(key_id, version, KeyState.ACTIVE)

    def destroy(self, key_id: str, version: int) -> MasterKeyRecord:
        """The key is gone; its record stays, destroyed. An active key is deactivated on the way (SP 800-57 part 1, 7)."""
        record = self._known(key_id, version)
        if record.state is KeyState.DESTROYED:
            return record
        if record.state is KeyState.ACTIVE:
            self._holder.set_state(key_id, version, KeyState.DEACTIVATED)
        return self._holder.set_state(key_id, version, KeyState.DESTROYED)

    def generate(self, key: PlannedKey, origin: str) -> MasterKeyRecord:
        """A new pre-active key that nobody sees. Made in locked memory and put in at once, because its origin must name the ceremony from
        the first moment. Raises as `install`.
        """
        with random_master(key.algorithm) as secret:
            return self.install(key, secret, origin)

    @abstractmethod
    def install(self, key: PlannedKey, secret: SecretBytes, origin: str) -> MasterKeyRecord:
        """A pre-active key with the policy of the plan. Raises Conflict KEY_EXISTS, InvalidInput (KEY_LENGTH, WEAK_KEY...)."""

    @abstractmethod
    def reveal(self, key_id: str, version: int) -> SecretBytes:
        """The key itself, for a backup. Raises Denied KEY_NOT_EXPORTABLE, Precondition KEY_NOT_ACTIVE."""

    @abstractmethod
    def wrap(self, key_id: str, version: int, export: Export) -> str:
        """The key under a key-encryption key of the vault: a key block, or hex. Raises as `reveal`, Denied KEY_PURPOSE."""

    @abstractmethod
    def unwrap(self, handed: HandedKey, scheme: str, kek: str, agreed: Agreed) -> SecretBytes:
        """A key of another house, out of its wrapping under `kek` of this vault. Raises as `keys.keyblock.handover.open_handed`, Denied
        KEY_PURPOSE, Unsupported KEK_CUSTODY.
        """

    def has_store_key(self) -> bool:
        """Whether a store key was made."""
        return False

    def install_store_key(self, secret: SecretBytes, origin: str) -> None:
        """Makes the store that rests under this 32-byte key. Raises Conflict KEY_EXISTS, Unsupported STORE_KEY."""
        raise Unsupported("STORE_KEY", f"{origin}: only custody sealed rests under a store key ({len(secret)} bytes)")

    def unseal(self, secret: SecretBytes) -> None:
        """Opens what rests under the store key. Raises Denied STORE_KEY_WRONG, Unsupported STORE_KEY."""
        raise Unsupported("STORE_KEY", f"only custody sealed is opened by a store key ({len(secret)} bytes)")

    def _known(self, key_id: str, version: int) -> MasterKeyRecord:
        record = self.find(key_id, version)
        if record is None:
            raise NotFound("KEY_UNKNOWN", f"there is no key {key_id} version {version}")
        return record


def not_exportable(key_id: str, version: int, why: str) -> Denied:
    """A key that stays where it is."""
    return Denied("KEY_NOT_EXPORTABLE", f"key {key_id} version {version}: {why}")
