"""The sealed custody: masters at rest under a root secret that a token or the custodians open; in locked memory while unsealed.

A server starts with the store sealed: the records can be listed, every key operation raises Precondition SEALED until `unseal`. What
opens the root is a `Sealer`: an AES-256 key of a token (`keys.custody.token.TokenSealer`), or the 32-byte key that custodians rebuild from
their shares (`RebuiltKey`). SM4 masters live here, because tokens have no SM4. Masters are AES-256-GCM with their records as associated
data; the file is that of `keys.custody.sealedfile`, with policies.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Final, Literal, Self

import msgspec
import numpy as np
import numpy.typing as npt

from keys import witness
from keys.algorithms import Algorithm
from keys.custody import Derivation, sealedfile, sealedstore, wrapping
from keys.custody.policy import Admitted, KeyEntry, KeyPolicy, entry, today
from keys.custody.sealedfile import FORMAT_VERSION, SealedKey
from keys.custody.sealedstore import FILE_NAME, ROOT_LEN, RebuiltKey, SealedStore, Sealer, SealState
from keys.custody.sealing import check_new_key, random_master, random_secret, seal_master, subkey, unseal_masters, with_mac
from keys.custody.working import (
    KeySpec,
    Master,
    WorkingKeys,
    current_records,
    new_record,
    require_kek,
    require_master,
    unwrap_data_key,
    wrap_data_key,
)
from keys.errors import Conflict, Corrupt, InvalidInput, NotFound, Precondition
from keys.hierarchy import KeyState, MasterKeyRecord
from keys.kcv import DEFAULT_METHOD, kcv, verify_kcv
from keys.secrets import BytesLike, SecretArray, SecretBytes

ByteArray = npt.NDArray[np.uint8]

__all__ = ["RebuiltKey", "SealState", "SealedCustody", "Sealer"]


class SealedCustody:
    """See `keys.custody.Custody`. Thread-safe; one process at a time writes a store."""

    def __init__(self, path: Path, store: SealedStore, clock: Callable[[], date]) -> None:
        """Use `create` or `open`."""
        self._path = path
        self._clock = clock
        self._lock = threading.RLock()
        self._root: SecretBytes | None = None
        self._masters: dict[tuple[str, int], SecretBytes] = {}
        self._working = WorkingKeys(lambda _, master: self._masters[master])
        self._admitted = Admitted()
        self._zeroized = False
        self._take(store)

    # -- life ------------------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, directory: Path, sealer: Sealer, *, test: bool, clock: Callable[[], date] = today) -> Self:
        """A new, empty store in `directory`/sealed.json, unsealed. Raises Conflict KEYSTORE_EXISTS, Exhausted DISK_FULL."""
        directory.mkdir(parents=True, exist_ok=True)
        root = random_secret(ROOT_LEN)
        store_id = secrets.token_hex(8)
        store = SealedStore(
            format="citycard-sealed",
            format_version=FORMAT_VERSION,
            store_id=store_id,
            test=test,
            sealed_by=sealer.name,
            root_sealed_hex=sealer.seal(root, sealedstore.root_context(store_id, test=test)).hex(),
            keys=(),
        )
        custody = cls(directory / FILE_NAME, sealedfile.write_store(directory / FILE_NAME, with_mac(store, root), fresh=True), clock)
        custody._root = root
        return custody

    @classmethod
    def open(cls, directory: Path, *, mode: Literal["test", "production"] = "production", clock: Callable[[], date] = today) -> Self:
        """A store, sealed. Raises NotFound KEYSTORE_MISSING, Corrupt KEYSTORE_CORRUPT, Unsupported KEYSTORE_NEWER, and in production mode
        Precondition TEST_KEYS_REFUSED.
        """
        store = sealedstore.read(directory / FILE_NAME)
        if mode == "production" and (store.test or any(key.record.test for key in store.keys)):
            raise Precondition("TEST_KEYS_REFUSED", "this key store holds TEST keys; a production server does not use them")
        return cls(directory / FILE_NAME, store, clock)

    def unseal(self, sealer: Sealer) -> None:
        """Opens the root and brings every master into locked memory, its check value compared. Unsealing twice does nothing.

        Raises Denied SEAL_KEY, Corrupt KEYSTORE_CORRUPT, Precondition ZEROIZED; then nothing stays in memory.
        """
        with self._lock:
            self._require_not_zeroized()
            if self._root is not None:
                return
            store = self._store
            root = sealer.unseal(sealedstore.from_hex(store.root_sealed_hex), sealedstore.root_context(store.store_id, test=store.test))
            try:
                self._masters = unseal_masters(root, store)
            except Corrupt:
                root.close()
                raise
            self._root = root

    def seal(self) -> None:
        """Wipes root and masters; `unseal` brings them back."""
        with self._lock:
            self._working.forget()
            for secret in self._masters.values():
                secret.close()
            self._masters.clear()
            if self._root is not None:
                self._root.close()
                self._root = None

    def zeroize(self) -> None:
        """Wipes everything; every key operation and every `unseal` afterwards raises Precondition ZEROIZED."""
        self._zeroized = True
        self.seal()

    def close(self) -> None:
        """The same as `seal`."""
        self.seal()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SealedCustody({str(self._path)!r}, {len(self._store.keys)} keys, {self.state}{', TEST' if self.test else ''})"

    @property
    def state(self) -> SealState:
        """Sealed, unsealed or zeroized."""
        if self._zeroized:
            return SealState.ZEROIZED
        return SealState.SEALED if self._root is None else SealState.UNSEALED

    @property
    def test(self) -> bool:
        """Whether this store is for test keys."""
        return self._store.test

    @property
    def sealed_by(self) -> str:
        """What opens the store, for people."""
        return self._store.sealed_by

    # -- keys ------------------------------------------------------------------------------------------------------------

    def import_key(
        self,
        spec: KeySpec,
        key: BytesLike | SecretBytes,
        policy: KeyPolicy,
        *,
        origin: str = "imported",
        version: int = 1,
        state: KeyState = KeyState.ACTIVE,
        expected_kcv: bytes | None = None,
        allow_weak: bool = False,
    ) -> MasterKeyRecord:
        """Seals a 16-byte master. Raises Conflict KEY_EXISTS, Denied KCV_MISMATCH, Precondition SEALED, InvalidInput (KEY_ID, KEY_LENGTH,
        KEY_POLICY, KEY_VERSION, WEAK_KEY).
        """
        held = SecretBytes(key.reveal() if isinstance(key, SecretBytes) else key)
        record = new_record(spec, version=version, state=state, origin=origin, test=self.test)
        try:
            with self._lock:
                return self._admit([(record, held)], policy, expected_kcv, allow_weak=allow_weak)[0]
        except BaseException:
            held.close()
            raise

    def generate(self, spec: KeySpec, policy: KeyPolicy, *, version: int = 1, state: KeyState = KeyState.ACTIVE) -> MasterKeyRecord:
        """A new random master; 3DES masters get odd parity. Raises as `import_key`."""
        with random_master(spec.algorithm) as key:
            return self.import_key(spec, key, policy, origin="generated", version=version, state=state)

    def generate_all(self, specs: Sequence[KeySpec], policy: KeyPolicy) -> list[MasterKeyRecord]:
        """Many new random masters, version 1, active, in one durable write. Raises as `import_key`."""
        records = [new_record(spec, version=1, state=KeyState.ACTIVE, origin="generated", test=self.test) for spec in specs]
        with self._lock:
            return self._admit([(record, random_master(record.algorithm)) for record in records], policy, None, allow_weak=False)

    def set_state(self, key_id: str, version: int, state: KeyState) -> MasterKeyRecord:
        """Moves one key on in its life; a destroyed key's bytes are gone from file and memory. NotFound KEY_UNKNOWN, Precondition
        (KEY_STATE, SEALED).
        """
        with self._lock:
            root = self._require_unsealed()
            names = [(key.record.key_id, key.record.version) for key in self._store.keys]
            if (key_id, version) not in names:
                raise NotFound("KEY_UNKNOWN", f"there is no key {key_id} version {version}")
            at = names.index((key_id, version))
            before = self._store.keys[at]
            record = before.record.in_state(state)
            changed = SealedKey(record=record, sealed_hex=None, policy=before.policy)
            if state is not KeyState.DESTROYED:
                sealed = seal_master(root, self._store.store_id, record, self._masters[key_id, version])
                changed = msgspec.structs.replace(sealed, policy=before.policy)
            self._commit(root, (*self._store.keys[:at], changed, *self._store.keys[at + 1 :]))
            if state is KeyState.DESTROYED:
                self._masters.pop((key_id, version)).close()
            return record

    def inventory(self) -> list[MasterKeyRecord]:
        """All records, by key id and version. Also while sealed; what is listed then is proven when the store is unsealed."""
        return sorted((key.record for key in self._store.keys), key=lambda record: (record.key_id, record.version))

    def entries(self) -> list[KeyEntry]:
        """All records with their policies and warnings."""
        day = self._clock()
        known = sorted(self._store.keys, key=lambda key: (key.record.key_id, key.record.version))
        return [entry(key.record, key.policy or _PLAIN, day) for key in known]

    def record(self, key_id: str) -> MasterKeyRecord:
        """The record `derive` would use: the newest active version, else the newest. Raises NotFound KEY_UNKNOWN."""
        found = self._current.get(key_id)
        if found is None:
            raise NotFound("KEY_UNKNOWN", f"there is no key {key_id!r} in this store")
        return found

    def policy(self, key_id: str) -> KeyPolicy:
        """The policy of that record. Raises NotFound KEY_UNKNOWN."""
        record = self.record(key_id)
        return self._policies[key_id, record.version]

    # -- use -------------------------------------------------------------------------------------------------------------

    def derive(self, derivations: Sequence[Derivation], factors: Sequence[ByteArray]) -> SecretArray:
        """Card keys (k, n, 16); see `keys.custody.Custody.derive`. Raises Precondition SEALED, ZEROIZED."""
        with self._lock:
            self._require_unsealed()
            day = self._clock()
            if not self._admitted.known(derivations, day):
                for derivation in derivations:
                    self._usable(derivation)
                self._admitted.add(derivations, day)
            return self._working.derive_same(derivations, self._usable, factors)

    def derive_wrapped(
        self,
        derivations: Sequence[Derivation],
        factors: Sequence[ByteArray],
        keks: Sequence[str],
        scheme: str,
        cryptograms: ByteArray,
        kcvs: ByteArray,
    ) -> None:
        """See `keys.custody.Custody.derive_wrapped`. The kernels run outside the lock, so that threads share the work."""
        wanted = wrapping.as_scheme(scheme)
        with self._lock:
            columns = [
                (derivation, self._working.upper_key(derivation, self._usable(derivation)), self._kek(kek, scheme, derivation.algorithm))
                for derivation, kek in zip(derivations, keks, strict=True)
            ]
        for at, (derivation, master, kek) in enumerate(columns):
            wrapping.wrap_column(derivation, master, kek, wanted, factors[at], cryptograms[at], kcvs[at])

    def wrap_keys(self, kek: str, scheme: str, algorithm: Algorithm, clear: ByteArray, cryptograms: ByteArray) -> None:
        """Card keys (n, 16) of another custody from locked memory under a KEK of this one. Raises as `derive_wrapped`."""
        wanted = wrapping.as_scheme(scheme)
        with self._lock:
            over = self._kek(kek, scheme, algorithm)
        with over.reveal() as raw:
            wrapping.wrap_clear(algorithm, np.frombuffer(raw, np.uint8), wanted, clear, cryptograms)

    def witness(self, derivation: Derivation, factor: BytesLike) -> SecretBytes:
        """See `keys.custody.Custody.witness`."""
        with self._lock:
            master = self._masters[self._usable(derivation)]
        return SecretBytes.move(witness.card_key(derivation, master.reveal(), factor))

    def witness_wrapped(self, derivation: Derivation, factor: BytesLike, kek: str, scheme: str) -> tuple[bytes, bytes]:
        """See `keys.custody.Custody.witness_wrapped`."""
        with self._lock:
            over = self._kek(kek, scheme, derivation.algorithm)
        with self.witness(derivation, factor) as key:
            cryptogram = witness.wrap(scheme, derivation.algorithm, over.reveal(), key.reveal())
            return cryptogram, witness.check_value(derivation.algorithm, key.reveal(), DEFAULT_METHOD[derivation.algorithm])

    def wrap_data_key(self, data_key: BytesLike) -> bytes:
        """AES-KW (RFC 3394) of a 32-byte data key, 40 bytes. Raises InvalidInput DATA_KEY_LENGTH, Precondition SEALED."""
        return wrap_data_key(subkey(self._require_unsealed(), "data-keys"), data_key)

    def unwrap_data_key(self, wrapped: BytesLike) -> SecretBytes:
        """The data key. Raises Corrupt DATA_KEY_CORRUPT, Precondition SEALED."""
        return unwrap_data_key(subkey(self._require_unsealed(), "data-keys"), wrapped)

    def hmac_key(self, purpose: str) -> SecretBytes:
        """32 bytes from the store's root and the purpose (HKDF, RFC 5869). Raises Precondition SEALED."""
        return subkey(self._require_unsealed(), f"hmac:{purpose}")

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _admit(
        self, new: Sequence[tuple[MasterKeyRecord, SecretBytes]], policy: KeyPolicy, expected_kcv: bytes | None, *, allow_weak: bool
    ) -> list[MasterKeyRecord]:
        """Checks new keys and writes them; the custody keeps them."""
        root = self._require_unsealed()
        have, sealed = set(self._policies), list[SealedKey]()
        for record, key in new:
            if policy.custody != "sealed":
                raise InvalidInput("KEY_POLICY", f"key {record.key_id}: this custody is sealed, not {policy.custody}")
            if (record.key_id, record.version) in have:
                raise Conflict("KEY_EXISTS", f"key {record.key_id} version {record.version} exists; a master is never replaced")
            have.add((record.key_id, record.version))
            check_new_key(record, key, allow_weak=allow_weak)
            if expected_kcv is not None:
                verify_kcv(record.algorithm, key.reveal(), expected_kcv)
            complete = replace(record, kcv=kcv(record.algorithm, key.reveal()).hex().upper())
            sealed.append(msgspec.structs.replace(seal_master(root, self._store.store_id, complete, key), policy=policy))
        self._commit(root, (*self._store.keys, *sealed))
        self._masters |= {(record.key_id, record.version): key for record, key in new}
        return [one.record for one in sealed]

    def _take(self, store: SealedStore) -> None:
        self._store = store
        self._current = current_records(key.record for key in store.keys)
        self._policies = {(key.record.key_id, key.record.version): key.policy or _PLAIN for key in store.keys}
        self._working.forget()
        self._admitted.clear()

    def _commit(self, root: SecretBytes, keys: tuple[SealedKey, ...]) -> None:
        """The file first; memory follows only when it is safely written."""
        if sealedstore.read(self._path).checksum_hex != self._store.checksum_hex:
            raise Conflict("KEYSTORE_CHANGED", f"{self._path} was changed by another process; open it again")
        changed = with_mac(msgspec.structs.replace(self._store, keys=keys), root)
        self._take(sealedfile.write_store(self._path, changed, fresh=False))

    def _require_not_zeroized(self) -> None:
        if self._zeroized:
            raise Precondition("ZEROIZED", "the keys of this process were zeroized; start it anew")

    def _require_unsealed(self) -> SecretBytes:
        self._require_not_zeroized()
        root = self._root
        if root is None:
            raise Precondition("SEALED", f"the key store is sealed; {self._store.sealed_by} opens it")
        return root

    def _usable(self, derivation: Derivation) -> Master:
        self._require_unsealed()
        record = self.record(derivation.key_id)
        require_master(record, derivation)
        self._policies[record.key_id, record.version].require(derivation, self._clock())
        return Master(record.key_id, record.version)

    def _kek(self, key_id: str, scheme: str, algorithm: Algorithm) -> SecretBytes:
        self._require_unsealed()
        record = self.record(key_id)
        require_kek(record, wrapping.as_scheme(scheme), algorithm)
        self._policies[record.key_id, record.version].require_day(key_id, self._clock())
        return self._masters[record.key_id, record.version]


_PLAIN: Final = KeyPolicy(custody="sealed")
