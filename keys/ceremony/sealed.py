"""The sealed custody as a ceremony's vault: SM4 masters come in, are backed up and go out here.

The store is `sealed.json`; what opens it is a token's key, or the store key that custodians hold (a ceremony of kind generate with
`store_key` makes it, and with it the store; one of kind unseal rebuilds it). Signing and pieces at rest are the clerk's, who needs the
token's PIN or the passphrase of the key store beside it and no open store.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keys.ceremony.clerk import Clerk
from keys.ceremony.plan import PlannedKey, key_policy
from keys.ceremony.stored import StoreVault
from keys.custody.sealed import RebuiltKey, SealedCustody, Sealer, SealState
from keys.custody.sealedstore import FILE_NAME
from keys.custody.working import KeySpec
from keys.errors import Conflict, Denied, NotFound, Precondition
from keys.hierarchy import KeyState, MasterKeyRecord
from keys.secrets import SecretBytes


class _Store(SealedCustody):
    """See `keys.ceremony.stored`."""

    def reveal_master(self, key_id: str, version: int) -> SecretBytes:
        """See `keys.ceremony.stored.Store.reveal_master`; also Precondition SEALED."""
        with self._lock:
            self._require_unsealed()
            master = self._masters.get((key_id, version))
            if master is None:
                raise NotFound("KEY_UNKNOWN", f"there is no key {key_id} version {version}")
            return SecretBytes(master.reveal())


class SealedVault(StoreVault):
    """See `keys.ceremony.vault.Vault`."""

    def __init__(self, clerk: Clerk, directory: Path, open_store: Callable[[SecretBytes], None] | None = None) -> None:
        """The store in `directory`, sealed, or none yet. `open_store` takes the store key in place of that store.

        Raises as `SealedCustody.open`, Precondition TEST_KEYS_REFUSED when clerk and store are not of one kind.
        """
        super().__init__(clerk)
        self._directory = directory
        self._open_store = open_store
        self._store = _Store.open(directory, mode="test") if (directory / FILE_NAME).exists() else None
        if self._store is not None and self._store.test is not clerk.test:
            raise Precondition("TEST_KEYS_REFUSED", "one of the sealed store and its clerk is for TEST keys, the other is not")

    @classmethod
    def create(cls, clerk: Clerk, directory: Path, sealer: Sealer) -> SealedVault:
        """A new, empty store, open; raises as `SealedCustody.create`."""
        SealedCustody.create(directory, sealer, test=clerk.test).close()
        made = cls(clerk, directory)
        made.open(sealer)
        return made

    def open(self, sealer: Sealer) -> None:
        """Raises as `SealedCustody.unseal`, NotFound KEYSTORE_MISSING."""
        self._holder.unseal(sealer)

    @property
    def sealed_by_token(self) -> bool:
        """Whether a token's key opens the store."""
        return self._store is not None and self._store.sealed_by.startswith("token ")

    def close(self) -> None:
        """Wipes every key in memory."""
        if self._store is not None:
            self._store.close()

    @property
    def _holder(self) -> _Store:
        if self._store is None:
            raise NotFound("KEYSTORE_MISSING", f"there is no sealed store in {self._directory}: make it under a token, or by its store key")
        return self._store

    def require_open(self) -> None:
        """See `Vault.require_open`."""
        if self._holder.state is not SealState.UNSEALED:
            raise Precondition("SEALED", f"the key store is sealed; {self._holder.sealed_by} opens it")

    def install(self, key: PlannedKey, secret: SecretBytes, origin: str) -> MasterKeyRecord:
        """See `Vault.install`."""
        spec = KeySpec(key.key_id, key.domain, key.algorithm, key.purpose, key.level)
        policy = key_policy(key, "sealed")
        return self._holder.import_key(spec, secret, policy, origin=origin, version=key.version, state=KeyState.PRE_ACTIVE)

    def _exportable(self, record: MasterKeyRecord) -> bool:
        found = next(e for e in self._holder.entries() if (e.record.key_id, e.record.version) == (record.key_id, record.version))
        return found.policy.exportable

    def has_store_key(self) -> bool:
        """See `Vault.has_store_key`: what a token sealed needs none, and gets none."""
        return self._store is not None

    def install_store_key(self, secret: SecretBytes, origin: str) -> None:
        """See `Vault.install_store_key`. Does nothing when it made the store before it was interrupted."""
        key = RebuiltKey(SecretBytes(secret.reveal()), f"custodians' shares ({origin})")
        try:
            if self._store is None:
                self._store = _Store.create(self._directory, key, test=self.clerk.test)
            self._store.unseal(key)
        except Denied:
            raise Conflict("KEY_EXISTS", "there is a sealed store already, under another key") from None
        finally:
            key.close()

    def unseal(self, secret: SecretBytes) -> None:
        """See `Vault.unseal`."""
        try:
            (self._open_store or self._open_own)(secret)
        except Denied as refused:
            if refused.reason != "SEAL_KEY":
                raise
            raise Denied("STORE_KEY_WRONG", "the shares do not make this store's key") from None

    def _open_own(self, secret: SecretBytes) -> None:
        key = RebuiltKey(SecretBytes(secret.reveal()))
        try:
            self._holder.unseal(key)
        finally:
            key.close()
