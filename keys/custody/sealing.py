"""How the software custody seals: passphrase to key, root secret to sub-keys, AES-256-GCM with the record as associated data."""

from __future__ import annotations

import ctypes
import hmac
import os
import re
from typing import Final

import msgspec
import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt as ScryptKdf

from keys.algorithms import Algorithm
from keys.custody.sealedfile import S, Scrypt, SealedKey, Store, canonical
from keys.errors import Corrupt, Denied, InvalidInput, Unavailable
from keys.hierarchy import KeyState, MasterKeyRecord
from keys.kcv import verify_kcv
from keys.parity import with_odd_parity
from keys.secrets import SecretBytes
from keys.weak import refuse_weak, weak_rows

MASTER_LEN: Final = 16
_NONCE_LEN: Final = 12
_TAG_LEN: Final = 16
_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.getrandom.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
_libc.getrandom.restype = ctypes.c_ssize_t
KEY_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def passphrase_key(passphrase: str, kdf: Scrypt) -> SecretBytes:
    """scrypt (RFC 7914), 32 bytes."""
    made = ScryptKdf(bytes.fromhex(kdf.salt_hex), 32, kdf.n, kdf.r, kdf.p)
    return SecretBytes.fill(32, lambda out: made.derive_into(passphrase.encode(), out))


def subkey(root: SecretBytes, label: str) -> SecretBytes:
    """A 32-byte key for one purpose: HKDF-Expand (RFC 5869) of the root secret, which is random and needs no extraction."""
    made = HKDFExpand(SHA256(), 32, b"citycard/" + label.encode())
    return SecretBytes.fill(32, lambda out: made.derive_into(root.reveal(), out))


def seal(kek: SecretBytes, secret: SecretBytes, context: bytes) -> str:
    """nonce || ciphertext || tag in hex."""
    nonce = os.urandom(_NONCE_LEN)
    with kek.reveal() as key, secret.reveal() as plain:
        return (nonce + AESGCM(key).encrypt(nonce, plain, context)).hex()


def unseal(kek: SecretBytes, sealed_hex: str, context: bytes) -> SecretBytes:
    """The secret; raises InvalidTag when key or context is not the one it was sealed with, Corrupt when it is not even hex."""
    try:
        sealed = bytes.fromhex(sealed_hex)
    except ValueError:
        raise Corrupt("KEYSTORE_CORRUPT", "key store: a sealed value is not hex") from None
    if len(sealed) < _NONCE_LEN + 16:
        raise Corrupt("KEYSTORE_CORRUPT", "key store: a sealed value is cut short")
    with kek.reveal() as key:
        cipher, nonce, text = AESGCM(key), sealed[:_NONCE_LEN], sealed[_NONCE_LEN:]
        return SecretBytes.fill(len(text) - 16, lambda out: cipher.decrypt_into(nonce, text, context, out))


def root_context(store_id: str, kdf: Scrypt, test: bool) -> bytes:
    """What the sealed root secret is bound to."""
    return canonical(["root", store_id, kdf, test])


def with_mac(store: S, root: SecretBytes) -> S:
    """The file with its MAC computed anew."""
    with subkey(root, "file-mac") as key, key.reveal() as raw:
        return msgspec.structs.replace(store, mac_hex=hmac.digest(raw, store.body(), "sha256").hex())


def seal_master(root: SecretBytes, store_id: str, record: MasterKeyRecord, key: SecretBytes) -> SealedKey:
    """A master bound to its record and its store."""
    with subkey(root, "master-keys") as kek:
        return SealedKey(record=record, sealed_hex=seal(kek, key, canonical(["master", store_id, record])))


def unseal_masters(root: SecretBytes, store: Store) -> dict[tuple[str, int], SecretBytes]:
    """Every master that is not destroyed, its check value compared. Raises Corrupt KEYSTORE_CORRUPT; then nothing stays in
    memory.
    """
    masters: dict[tuple[str, int], SecretBytes] = {}
    try:
        if not hmac.compare_digest(with_mac(store, root).mac_hex, store.mac_hex):
            raise Corrupt("KEYSTORE_CORRUPT", "key store: a record was changed or removed outside this program")
        with subkey(root, "master-keys") as kek:
            for sealed in store.keys:
                if sealed.sealed_hex is None:
                    continue
                record = sealed.record
                key = unseal(kek, sealed.sealed_hex, canonical(["master", store.store_id, record]))
                masters[record.key_id, record.version] = key
                verify_kcv(record.algorithm, key.reveal(), bytes.fromhex(record.kcv), record.kcv_method)
    except (InvalidTag, Denied, ValueError):
        for secret in masters.values():
            secret.close()
        raise Corrupt("KEYSTORE_CORRUPT", "key store: a master key does not fit its record") from None
    return masters


def random_secret(length: int) -> SecretBytes:
    """Random bytes from the system straight into locked memory: `os.urandom` would leave a copy in the heap."""

    def fill(view: memoryview) -> None:
        if _libc.getrandom(np.frombuffer(view, np.uint8).ctypes.data, length, 0) != length:
            raise Unavailable("RANDOM_SOURCE", "the system gave no random bytes")

    return SecretBytes.fill(length, fill)


def random_master(algorithm: Algorithm, length: int = MASTER_LEN) -> SecretBytes:
    """Random bytes; for 3DES with odd parity, and none of those keys that `keys.weak` refuses."""
    while True:
        secret = random_secret(length)
        if algorithm != "3des":
            return secret
        odd = with_odd_parity(secret)
        secret.close()
        with odd.reveal() as raw:
            weak = weak_rows(np.frombuffer(raw, np.uint8).reshape(1, -1)).any()
        if not weak:
            return odd
        odd.close()


def check_new_key(record: MasterKeyRecord, key: SecretBytes, *, allow_weak: bool = False) -> None:
    """Raises InvalidInput (KEY_ID, KEY_VERSION, KEY_LENGTH, KEY_STATE, WEAK_KEY) when a record cannot enter a store.

    `allow_weak` lets a weak DES key into a test store, and into no other.
    """
    if not KEY_ID.fullmatch(record.key_id):
        raise InvalidInput("KEY_ID", f"key id {record.key_id!r}: lower-case letters, digits and . _ - only, at most 64")
    if not 1 <= record.version <= 255:
        raise InvalidInput("KEY_VERSION", f"key {record.key_id}: version {record.version} is not within 1 to 255")
    if len(key) != MASTER_LEN:
        raise InvalidInput("KEY_LENGTH", f"key {record.key_id}: a master key has {MASTER_LEN} bytes, not {len(key)}")
    if record.state not in (KeyState.PRE_ACTIVE, KeyState.ACTIVE):
        raise InvalidInput("KEY_STATE", f"key {record.key_id}: a new key is pre-active or active, not {record.state}")
    if not (allow_weak and record.test):
        with key.reveal() as raw:
            refuse_weak(record.algorithm, np.frombuffer(raw, np.uint8), f"key {record.key_id}")
