"""The software store as a ceremony's vault: real for software custody, the clerk of a sealed store, and thrown away after a rehearsal.

That a key may leave is part of its origin, which the store seals with the key; other policy the software custody has none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from keys.ceremony.clerk import SoftwareClerk
from keys.ceremony.plan import PlannedKey
from keys.ceremony.stored import StoreVault
from keys.custody.software import KeySpec, SoftwareCustody
from keys.errors import NotFound
from keys.hierarchy import KeyState, MasterKeyRecord
from keys.secrets import SecretBytes

EXPORTABLE: Final = "; exportable"


class _Store(SoftwareCustody):
    """See `keys.ceremony.stored`."""

    def reveal_master(self, key_id: str, version: int) -> SecretBytes:
        """See `keys.ceremony.stored.Store.reveal_master`."""
        with self._lock:
            master = self._masters.get((key_id, version))
            if master is None:
                raise NotFound("KEY_UNKNOWN", f"there is no key {key_id} version {version}")
            return SecretBytes(master.reveal())


class SoftwareVault(StoreVault):
    """See `keys.ceremony.vault.Vault`."""

    def __init__(self, directory: Path, store: _Store) -> None:
        """Use `create` or `open`."""
        super().__init__(SoftwareClerk(directory, store))
        self._directory = directory
        self._store = store

    @classmethod
    def open(cls, directory: Path, passphrase: str) -> SoftwareVault:
        """A store that exists, test or production; raises as `SoftwareCustody.open`."""
        return cls(directory, _Store.open(directory, passphrase, mode="test"))

    @classmethod
    def create(cls, directory: Path, passphrase: str, *, test: bool) -> SoftwareVault:
        """A new store; raises as `SoftwareCustody.create`."""
        return cls(directory, _Store.create(directory, passphrase, test=test))

    def close(self) -> None:
        """Wipes every key in memory."""
        self._store.close()

    @property
    def _holder(self) -> _Store:
        return self._store

    def install(self, key: PlannedKey, secret: SecretBytes, origin: str) -> MasterKeyRecord:
        """See `Vault.install`."""
        spec = KeySpec(key.key_id, key.domain, key.algorithm, key.purpose, key.level)
        marked = origin + (EXPORTABLE if key.exportable else "")
        with secret.reveal() as raw:
            return self._store.import_key(spec, raw, origin=marked, version=key.version, state=KeyState.PRE_ACTIVE)

    def _exportable(self, record: MasterKeyRecord) -> bool:
        return record.origin.endswith(EXPORTABLE)
