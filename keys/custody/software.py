"""The software custody: master keys sealed in one file under a passphrase, used in ordinary process memory.

scrypt(passphrase) opens a random root secret; from the root, HKDF makes the key that seals masters, the key that wraps data
keys, the MAC key of the file, and every `hmac_key`. A store is made for test keys or for real ones, once and for all; it is
not a hardware module, and opening a test store needs `mode="test"` so that a production line cannot run on test keys by
oversight.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, Self

import msgspec
import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag

from keys import selftest, witness
from keys.algorithms import Algorithm
from keys.custody import Derivation, sealedfile, wrapping
from keys.custody.sealedfile import FORMAT, FORMAT_VERSION, Keystore, Scrypt, SealedKey
from keys.custody.sealing import (
    check_new_key,
    passphrase_key,
    random_master,
    root_context,
    seal,
    seal_master,
    subkey,
    unseal,
    unseal_masters,
    with_mac,
)
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
from keys.custody.wrapping import WrapScheme
from keys.errors import Conflict, Corrupt, Denied, InvalidInput, NotFound, Precondition
from keys.hierarchy import KeyState, MasterKeyRecord
from keys.kcv import DEFAULT_METHOD, kcv, verify_kcv
from keys.secrets import BytesLike, SecretArray, SecretBytes

ByteArray = npt.NDArray[np.uint8]
Mode = Literal["test", "production"]
__all__ = ["KeySpec", "Mode", "SoftwareCustody", "provision_test_keys"]

SCRYPT_N: Final = 1 << 15
PRODUCTION_PASSPHRASE_LEN: Final = 12


class SoftwareCustody:
    """See `keys.custody.Custody`. Thread-safe; one process at a time writes a store."""

    def __init__(self, directory: Path, store: Keystore, root: SecretBytes, masters: dict[tuple[str, int], SecretBytes]) -> None:
        """Use `create` or `open`. Raises Corrupt SELF_TEST."""
        selftest.require()
        self._directory = directory
        self._store = store
        self._root = root
        self._masters = masters
        self._working = WorkingKeys(lambda _, master: self._masters[master])
        self._current: dict[str, MasterKeyRecord] = {}
        self._lock = threading.RLock()
        self._refresh()

    # -- life of a store -------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, directory: Path, passphrase: str, *, test: bool, scrypt_n: int = SCRYPT_N) -> Self:
        """A new, empty store in `directory`/keystore.json. Raises Conflict KEYSTORE_EXISTS, InvalidInput PASSPHRASE_SHORT."""
        if len(passphrase) < (1 if test else PRODUCTION_PASSPHRASE_LEN):
            wanted = "is not empty" if test else f"of a production store has at least {PRODUCTION_PASSPHRASE_LEN} characters"
            raise InvalidInput("PASSPHRASE_SHORT", f"the passphrase {wanted}")
        kdf = Scrypt(n=scrypt_n, r=8, p=1, salt_hex=secrets.token_hex(16))
        kdf.check()
        store_id = secrets.token_hex(8)
        root = SecretBytes.move(bytearray(os.urandom(32)))
        with passphrase_key(passphrase, kdf) as kek:
            root_sealed = seal(kek, root, root_context(store_id, kdf, test))
        store = Keystore(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            store_id=store_id,
            test=test,
            scrypt=kdf,
            root_sealed_hex=root_sealed,
            keys=(),
        )
        directory.mkdir(parents=True, exist_ok=True)
        written = sealedfile.write(directory, with_mac(store, root), None)
        return cls(directory, written, root, {})

    @classmethod
    def open(cls, directory: Path, passphrase: str, *, mode: Mode = "production") -> Self:
        """Opens and checks a whole store: every key is unsealed and its check value compared.

        Raises NotFound KEYSTORE_MISSING, Denied WRONG_PASSPHRASE, Corrupt KEYSTORE_CORRUPT, Unsupported KEYSTORE_NEWER, and in
        production mode Precondition TEST_KEYS_REFUSED.
        """
        store = sealedfile.read(directory)
        if mode == "production" and (store.test or any(key.record.test for key in store.keys)):
            raise Precondition("TEST_KEYS_REFUSED", "this key store holds TEST keys; a production server does not use them")
        with passphrase_key(passphrase, store.scrypt) as kek:
            try:
                root = unseal(kek, store.root_sealed_hex, root_context(store.store_id, store.scrypt, store.test))
            except InvalidTag:
                raise Denied("WRONG_PASSPHRASE", "the passphrase does not open this key store") from None
        try:
            masters = unseal_masters(root, store)
        except Corrupt:
            root.close()
            raise
        return cls(directory, store, root, masters)

    def close(self) -> None:
        """Wipes every key in memory. The object cannot be used afterwards (Precondition SECRET_WIPED)."""
        with self._lock:
            self._working.forget()
            for secret in (self._root, *self._masters.values()):
                secret.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SoftwareCustody({str(self._directory)!r}, {len(self._store.keys)} keys{', TEST' if self._store.test else ''})"

    # -- keys ------------------------------------------------------------------------------------------------------------

    def import_key(
        self,
        spec: KeySpec,
        key: BytesLike,
        *,
        origin: str = "imported",
        version: int = 1,
        state: KeyState = KeyState.ACTIVE,
        expected_kcv: bytes | None = None,
        allow_weak: bool = False,
    ) -> MasterKeyRecord:
        """Seals a 16-byte master. Raises Conflict KEY_EXISTS, Denied KCV_MISMATCH, InvalidInput (KEY_ID, KEY_LENGTH,
        KEY_VERSION, WEAK_KEY). `allow_weak` lets a weak DES key into a test store, for tests; a production store refuses it still.
        """
        return self._import([(spec, SecretBytes(key), origin, version, state, expected_kcv)], allow_weak=allow_weak)[0]

    def generate(self, spec: KeySpec, *, version: int = 1, state: KeyState = KeyState.ACTIVE) -> MasterKeyRecord:
        """A new random master; 3DES masters get odd parity."""
        return self._import([(spec, random_master(spec.algorithm), "generated", version, state, None)])[0]

    def generate_all(self, specs: Iterable[KeySpec]) -> list[MasterKeyRecord]:
        """Many new random masters, version 1, active, in one durable write."""
        return self._import([(spec, random_master(spec.algorithm), "generated", 1, KeyState.ACTIVE, None) for spec in specs])

    def set_state(self, key_id: str, version: int, state: KeyState) -> MasterKeyRecord:
        """Moves one key on in its life; a destroyed key's bytes are gone from file and memory. NotFound KEY_UNKNOWN,
        Precondition KEY_STATE.
        """
        with self._lock:
            names = [(key.record.key_id, key.record.version) for key in self._store.keys]
            if (key_id, version) not in names:
                raise NotFound("KEY_UNKNOWN", f"there is no key {key_id} version {version}")
            at = names.index((key_id, version))
            record = self._store.keys[at].record.in_state(state)
            if state is KeyState.DESTROYED:
                changed = SealedKey(record=record, sealed_hex=None)
            else:
                changed = seal_master(self._root, self._store.store_id, record, self._masters[key_id, version])
            self._commit((*self._store.keys[:at], changed, *self._store.keys[at + 1 :]))
            if state is KeyState.DESTROYED:
                self._masters.pop((key_id, version)).close()
            return record

    @property
    def test(self) -> bool:
        """Whether this store is for test keys."""
        return self._store.test

    def inventory(self) -> list[MasterKeyRecord]:
        """All records, by key id and version."""
        return sorted((key.record for key in self._store.keys), key=lambda record: (record.key_id, record.version))

    def record(self, key_id: str) -> MasterKeyRecord:
        """The record `derive` would use: the newest active version, else the newest. Raises NotFound KEY_UNKNOWN."""
        record = self._current.get(key_id)
        if record is None:
            raise NotFound("KEY_UNKNOWN", f"there is no key {key_id!r} in this store")
        return record

    # -- use -------------------------------------------------------------------------------------------------------------

    def derive(self, derivations: Sequence[Derivation], factors: Sequence[ByteArray]) -> SecretArray:
        """Card keys (k, n, 16); see `keys.custody.Custody.derive`."""
        with self._lock:
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
                (derivation, self._working.upper_key(derivation, self._usable(derivation)), self._kek(kek, wanted, derivation.algorithm))
                for derivation, kek in zip(derivations, keks, strict=True)
            ]
        for at, (derivation, master, kek) in enumerate(columns):
            wrapping.wrap_column(derivation, master, kek, wanted, factors[at], cryptograms[at], kcvs[at])

    def witness(self, derivation: Derivation, factor: BytesLike) -> SecretBytes:
        """See `keys.custody.Custody.witness`."""
        with self._lock:
            master = self._masters[self._usable(derivation)]
        return SecretBytes.move(witness.card_key(derivation, master.reveal(), factor))

    def witness_wrapped(self, derivation: Derivation, factor: BytesLike, kek: str, scheme: str) -> tuple[bytes, bytes]:
        """See `keys.custody.Custody.witness_wrapped`."""
        wanted = wrapping.as_scheme(scheme)
        with self._lock:
            over = self._kek(kek, wanted, derivation.algorithm)
        with self.witness(derivation, factor) as key:
            cryptogram = witness.wrap(wanted, derivation.algorithm, over.reveal(), key.reveal())
            return cryptogram, witness.check_value(derivation.algorithm, key.reveal(), DEFAULT_METHOD[derivation.algorithm])

    def wrap_data_key(self, data_key: BytesLike) -> bytes:
        """AES-KW (RFC 3394) of a 32-byte data key, 40 bytes. Raises InvalidInput DATA_KEY_LENGTH."""
        return wrap_data_key(subkey(self._root, "data-keys"), data_key)

    def unwrap_data_key(self, wrapped: BytesLike) -> SecretBytes:
        """The data key. Raises Corrupt DATA_KEY_CORRUPT."""
        return unwrap_data_key(subkey(self._root, "data-keys"), wrapped)

    def hmac_key(self, purpose: str) -> SecretBytes:
        """32 bytes from the store's root and the purpose (HKDF, RFC 5869)."""
        return subkey(self._root, f"hmac:{purpose}")

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _import(
        self, wanted: list[tuple[KeySpec, SecretBytes, str, int, KeyState, bytes | None]], *, allow_weak: bool = False
    ) -> list[MasterKeyRecord]:
        with self._lock:
            have = {(key.record.key_id, key.record.version) for key in self._store.keys}
            added: list[SealedKey] = []
            for spec, key, origin, version, state, expected in wanted:
                if (spec.key_id, version) in have:
                    raise Conflict("KEY_EXISTS", f"key {spec.key_id} version {version} exists; a master is never replaced")
                have.add((spec.key_id, version))
                record = self._new_record(spec, key, origin, version, state, allow_weak=allow_weak)
                if expected is not None:
                    verify_kcv(spec.algorithm, key.reveal(), expected)
                added.append(seal_master(self._root, self._store.store_id, record, key))
            self._commit((*self._store.keys, *added))
            for sealed, (_, key, *_) in zip(added, wanted, strict=True):
                self._masters[sealed.record.key_id, sealed.record.version] = key
            return [sealed.record for sealed in added]

    def _new_record(
        self, spec: KeySpec, key: SecretBytes, origin: str, version: int, state: KeyState, *, allow_weak: bool
    ) -> MasterKeyRecord:
        record = new_record(spec, version=version, state=state, origin=origin, test=self._store.test)
        check_new_key(record, key, allow_weak=allow_weak)
        return replace(record, kcv=kcv(record.algorithm, key.reveal()).hex().upper())

    def _commit(self, keys: tuple[SealedKey, ...]) -> None:
        """The file first; memory follows only when it is safely written."""
        changed = with_mac(msgspec.structs.replace(self._store, keys=keys), self._root)
        self._store = sealedfile.write(self._directory, changed, self._store)
        self._refresh()

    def _refresh(self) -> None:
        self._working.forget()
        self._current = current_records(key.record for key in self._store.keys)

    def _usable(self, wanted: Derivation) -> Master:
        record = self.record(wanted.key_id)
        require_master(record, wanted)
        return Master(record.key_id, record.version)

    def _kek(self, key_id: str, scheme: WrapScheme, algorithm: Algorithm) -> SecretBytes:
        record = self.record(key_id)
        require_kek(record, scheme, algorithm)
        return self._masters[record.key_id, record.version]


def provision_test_keys(store: SoftwareCustody, keys: Iterable[KeySpec]) -> list[MasterKeyRecord]:
    """Random masters marked TEST for every key the store does not have yet; returns the new records.

    Raises Precondition TEST_KEYS_REFUSED when the store is not a test store.
    """
    have = {record.key_id for record in store.inventory()}
    wanted = [KeySpec(*spec) for spec in keys]
    missing = [spec for spec in dict.fromkeys(wanted) if spec.key_id not in have]
    if not store.test:
        raise Precondition("TEST_KEYS_REFUSED", "this store is for production keys; test keys need a store of their own")
    return store.generate_all(missing) if missing else []
