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
from typing import Final, Literal, NamedTuple, Self

import msgspec
import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from keys import diversify
from keys.algorithms import Algorithm, as_algorithm
from keys.custody import Derivation, sealedfile
from keys.custody.plan import Plan
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
from keys.errors import Conflict, Corrupt, Denied, InvalidInput, NotFound, Precondition
from keys.hierarchy import Domain, KeyState, Level, MasterKeyRecord, Purpose
from keys.kcv import DEFAULT_METHOD, kcv, verify_kcv
from keys.secrets import BytesLike, SecretArray, SecretBytes

ByteArray = npt.NDArray[np.uint8]
Mode = Literal["test", "production"]

SCRYPT_N: Final = 1 << 15
PRODUCTION_PASSPHRASE_LEN: Final = 12
DATA_KEY_LEN: Final = 32
_MAX_PLANS: Final = 64


class KeySpec(NamedTuple):
    """What a test key shall be."""

    key_id: str
    domain: Domain
    algorithm: Algorithm
    purpose: Purpose = Purpose.APPLICATION
    level: Level = Level.CITY


class SoftwareCustody:
    """See `keys.custody.Custody`. Thread-safe; one process at a time writes a store."""

    def __init__(self, directory: Path, store: Keystore, root: SecretBytes, masters: dict[tuple[str, int], SecretBytes]) -> None:
        """Use `create` or `open`."""
        self._directory = directory
        self._store = store
        self._root = root
        self._masters = masters
        self._upper: dict[tuple[str, int, tuple[bytes, ...]], SecretBytes] = {}
        self._plans: dict[tuple[Derivation, ...], Plan] = {}
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
            self._forget()
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
    ) -> MasterKeyRecord:
        """Seals a 16-byte master. Raises Conflict KEY_EXISTS, Denied KCV_MISMATCH, InvalidInput (KEY_ID, KEY_LENGTH,
        KEY_VERSION).
        """
        return self._import([(spec, SecretBytes(key), origin, version, state, expected_kcv)])[0]

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
        wanted = tuple(derivations)
        with self._lock:
            plan = self._plans.get(wanted)
            if plan is None:
                plan = Plan(wanted, self._upper_key)
                if len(self._plans) >= _MAX_PLANS:
                    self._plans.pop(next(iter(self._plans))).close()
                self._plans[wanted] = plan
            return plan.run(factors)

    def wrap_data_key(self, data_key: BytesLike) -> bytes:
        """AES-KW (RFC 3394) of a 32-byte data key, 40 bytes. Raises InvalidInput DATA_KEY_LENGTH."""
        if len(data_key) != DATA_KEY_LEN:
            raise InvalidInput("DATA_KEY_LENGTH", f"a data key has {DATA_KEY_LEN} bytes, not {len(data_key)}")
        with subkey(self._root, "data-keys") as kek:
            return aes_key_wrap(bytes(kek.reveal()), bytes(data_key))

    def unwrap_data_key(self, wrapped: BytesLike) -> SecretBytes:
        """The data key. Raises Corrupt DATA_KEY_CORRUPT."""
        try:
            with subkey(self._root, "data-keys") as kek:
                return SecretBytes(aes_key_unwrap(bytes(kek.reveal()), bytes(wrapped)))
        except InvalidUnwrap:
            raise Corrupt("DATA_KEY_CORRUPT", "a data key was not wrapped by this store or was changed since") from None

    def hmac_key(self, purpose: str) -> SecretBytes:
        """32 bytes from the store's root and the purpose (HKDF, RFC 5869)."""
        return subkey(self._root, f"hmac:{purpose}")

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _import(self, wanted: list[tuple[KeySpec, SecretBytes, str, int, KeyState, bytes | None]]) -> list[MasterKeyRecord]:
        with self._lock:
            have = {(key.record.key_id, key.record.version) for key in self._store.keys}
            added: list[SealedKey] = []
            for spec, key, origin, version, state, expected in wanted:
                if (spec.key_id, version) in have:
                    raise Conflict("KEY_EXISTS", f"key {spec.key_id} version {version} exists; a master is never replaced")
                have.add((spec.key_id, version))
                record = self._new_record(spec, key, origin, version, state)
                if expected is not None:
                    verify_kcv(spec.algorithm, key.reveal(), expected)
                added.append(seal_master(self._root, self._store.store_id, record, key))
            self._commit((*self._store.keys, *added))
            for sealed, (_, key, *_) in zip(added, wanted, strict=True):
                self._masters[sealed.record.key_id, sealed.record.version] = key
            return [sealed.record for sealed in added]

    def _new_record(self, spec: KeySpec, key: SecretBytes, origin: str, version: int, state: KeyState) -> MasterKeyRecord:
        algorithm = as_algorithm(spec.algorithm)
        record = MasterKeyRecord(
            key_id=spec.key_id,
            domain=Domain(spec.domain),
            purpose=Purpose(spec.purpose),
            algorithm=algorithm,
            level=Level(spec.level),
            version=version,
            state=state,
            kcv="",
            kcv_method=DEFAULT_METHOD[algorithm],
            origin=origin,
            test=self._store.test,
        )
        check_new_key(record, key)
        return replace(record, kcv=kcv(algorithm, key.reveal()).hex().upper())

    def _commit(self, keys: tuple[SealedKey, ...]) -> None:
        """The file first; memory follows only when it is safely written."""
        changed = with_mac(msgspec.structs.replace(self._store, keys=keys), self._root)
        self._store = sealedfile.write(self._directory, changed, self._store)
        self._refresh()

    def _refresh(self) -> None:
        self._forget()
        self._current = {}
        for record in self.inventory():
            known = self._current.get(record.key_id)
            if known is None or known.state is not KeyState.ACTIVE or record.state is KeyState.ACTIVE:
                self._current[record.key_id] = record

    def _forget(self) -> None:
        for plan in self._plans.values():
            plan.close()
        for secret in self._upper.values():
            secret.close()
        self._plans.clear()
        self._upper.clear()

    def _upper_key(self, wanted: Derivation) -> SecretBytes:
        """The master after the upper factors of a derivation. Shared prefixes (same province, same city) are computed once."""
        record = self.record(wanted.key_id)
        record.require_active()
        if record.algorithm != wanted.algorithm:
            raise InvalidInput("KEY_ALGORITHM", f"key {wanted.key_id} is a {record.algorithm} key, not {wanted.algorithm}")
        key = self._masters[record.key_id, record.version]
        for depth in range(1, len(wanted.upper_factors) + 1):
            at = (record.key_id, record.version, wanted.upper_factors[:depth])
            if at not in self._upper:
                made = diversify.pboc(wanted.algorithm, key.reveal(), wanted.upper_factors[depth - 1], wanted.parity)
                self._upper[at] = SecretBytes(made.data.cast("B"))
                made[...] = 0
            key = self._upper[at]
        return key


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
