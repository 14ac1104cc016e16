"""Vaults over a sealed file, where a master can be read in locked memory: the software store and the sealed custody.

A plain custody never gives a master out. The two stores here have the one door a master leaves by, and only ceremonies open them this way.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from keys.ceremony.plan import Export
from keys.ceremony.vault import Holder, Vault, not_exportable
from keys.errors import Denied
from keys.hierarchy import MasterKeyRecord, Purpose
from keys.keyblock.handover import Agreed, HandedKey, open_handed, wrap_for_export
from keys.secrets import SecretBytes


class Store(Holder, Protocol):
    """A custody with that door."""

    def record(self, key_id: str) -> MasterKeyRecord:
        """The newest active version, else the newest. Raises NotFound KEY_UNKNOWN."""

    def reveal_master(self, key_id: str, version: int) -> SecretBytes:
        """A copy of a master; raises NotFound KEY_UNKNOWN."""


class StoreVault(Vault):
    """See `keys.ceremony.vault.Vault`."""

    @property
    @abstractmethod
    def _holder(self) -> Store:
        """The custody itself."""

    @abstractmethod
    def close(self) -> None:
        """Wipes every key in memory."""

    @abstractmethod
    def _exportable(self, record: MasterKeyRecord) -> bool:
        """Whether the key's policy lets it leave."""

    def reveal(self, key_id: str, version: int) -> SecretBytes:
        """See `Vault.reveal`."""
        record = self._known(key_id, version)
        record.require_active()
        if not self._exportable(record):
            raise not_exportable(key_id, version, "its policy does not let it leave")
        return self._holder.reveal_master(key_id, version)

    def wrap(self, key_id: str, version: int, export: Export) -> str:
        """See `Vault.wrap`."""
        kek = self._kek(export.kek)
        with self._holder.reveal_master(kek.key_id, kek.version) as over, self.reveal(key_id, version) as key:
            return wrap_for_export(export.scheme, kek.algorithm, over, self._known(key_id, version), key)

    def unwrap(self, handed: HandedKey, scheme: str, kek: str, agreed: Agreed) -> SecretBytes:
        """See `Vault.unwrap`."""
        over = self._kek(kek)
        with self._holder.reveal_master(over.key_id, over.version) as raw:
            return open_handed(handed, scheme, raw, agreed)

    def _kek(self, key_id: str) -> MasterKeyRecord:
        record = self._holder.record(key_id)
        if record.purpose is not Purpose.KEY_ENCRYPTION:
            raise Denied("KEY_PURPOSE", f"key {key_id} is no key-encryption key")
        record.require_active()
        return record
