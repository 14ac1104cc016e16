"""The file of the software custody: its form, its checks, and writing it so that a crash leaves the old file or the new one.

One JSON object, `keystore.json`, mode 0600. `checksum` (SHA-256 of everything else) tells damage from a wrong passphrase;
`mac` (HMAC under a key only the passphrase gives) covers every record, so that a state or a version cannot be edited and no
key removed unseen. A whole old file put back in place cannot be told from the current one; that is the audit log's business.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

import msgspec

from keys.custody.policy import KeyPolicy
from keys.errors import Conflict, Corrupt, Exhausted, InvalidInput, NotFound, Unsupported
from keys.hierarchy import MasterKeyRecord

FILE_NAME: Final = "keystore.json"
FORMAT: Final = "citycard-keystore"
FORMAT_VERSION: Final = 1


class Scrypt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """RFC 7914 parameters. Bounded, so that a damaged file cannot make opening it hang or fill memory."""

    n: int
    r: int
    p: int
    salt_hex: str

    def check(self) -> None:
        """Raises Corrupt KEYSTORE_CORRUPT for parameters no store is made with."""
        sound = 2 <= self.n <= 1 << 20 and self.n & (self.n - 1) == 0 and 1 <= self.r <= 16 and 1 <= self.p <= 4
        if not sound:
            raise Corrupt("KEYSTORE_CORRUPT", f"key store: scrypt parameters n={self.n} r={self.r} p={self.p} are out of range")


class SealedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A record and its key under AES-256-GCM (nonce || ciphertext || tag) with the record as associated data; null once
    destroyed. Only the sealed custody keeps policies.
    """

    record: MasterKeyRecord
    sealed_hex: str | None
    policy: KeyPolicy | None = None


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every file of sealed keys has, whatever opens its random root secret, which is in `root_sealed_hex`."""

    format_version: int
    store_id: str
    test: bool
    root_sealed_hex: str
    keys: tuple[SealedKey, ...]
    mac_hex: str = ""
    checksum_hex: str = ""

    def body(self) -> bytes:
        """What `mac` covers: canonical JSON without `mac` and `checksum`."""
        return canonical(msgspec.structs.replace(self, mac_hex="", checksum_hex=""))

    def with_checksum(self) -> Self:
        bare = msgspec.structs.replace(self, checksum_hex="")
        return msgspec.structs.replace(bare, checksum_hex=hashlib.sha256(canonical(bare)).hexdigest())


class Keystore(Store, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The software custody's file: its root is under the key that scrypt makes from the passphrase."""

    format: Literal["citycard-keystore"]
    scrypt: Scrypt


S = TypeVar("S", bound=Store)


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces: the same bytes for the same value."""
    return msgspec.json.encode(value, order="sorted")


def read(directory: Path) -> Keystore:
    """Reads and checks `keystore.json`; NotFound KEYSTORE_MISSING, Corrupt KEYSTORE_CORRUPT, Unsupported KEYSTORE_NEWER."""
    return parse(read_bytes(directory / FILE_NAME), str(directory / FILE_NAME))


def read_bytes(path: Path) -> bytes:
    """Raises NotFound KEYSTORE_MISSING."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound("KEYSTORE_MISSING", f"there is no key store at {path}") from None


def parse(text: bytes, place: str) -> Keystore:
    """The file's content from its bytes; `place` names it in messages. Raises as `read`."""
    store = parse_as(Keystore, FORMAT, text, place)
    store.scrypt.check()
    return store


def parse_as(kind: type[S], name: str, text: bytes, place: str) -> S:
    """A file of sealed keys of one kind, its checksum compared. Raises Corrupt KEYSTORE_CORRUPT, Unsupported KEYSTORE_NEWER."""
    try:
        raw = msgspec.json.decode(text)
        found = raw.get("format_version") if isinstance(raw, dict) and raw.get("format") == name else None
        if isinstance(found, int) and found > FORMAT_VERSION:
            raise Unsupported("KEYSTORE_NEWER", f"{place}: format {found} is of a newer version; this one reads {FORMAT_VERSION}")
        store = msgspec.convert(raw, kind)
    except (msgspec.MsgspecError, InvalidInput, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt("KEYSTORE_CORRUPT", f"{place}: not a key store: {error}") from None
    if store.format_version != FORMAT_VERSION or store.with_checksum().checksum_hex != store.checksum_hex:
        raise Corrupt("KEYSTORE_CORRUPT", f"{place}: damaged, its checksum does not fit; restore it from a copy")
    return store


def write(directory: Path, store: Keystore, replaces: Keystore | None) -> Keystore:
    """Writes durably and returns what was written, with its checksum.

    `replaces` is what this process read or wrote last; None means there must be no file. Raises Conflict (KEYSTORE_EXISTS,
    KEYSTORE_CHANGED), Exhausted DISK_FULL; on any error the old file stands.
    """
    path = directory / FILE_NAME
    if replaces is not None and read(directory).checksum_hex != replaces.checksum_hex:
        raise Conflict("KEYSTORE_CHANGED", f"{path} was changed by another process; open it again")
    return write_store(path, store, fresh=replaces is None)


def write_store(path: Path, store: S, *, fresh: bool) -> S:
    """Temporary file, fsync, rename, fsync of the directory; what was written. A `fresh` one replaces nothing. Raises as `write`."""
    if fresh and path.exists():
        raise Conflict("KEYSTORE_EXISTS", f"{path} exists; a key store is never overwritten")
    sealed = store.with_checksum()
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(canonical(sealed), indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if fresh:
            os.link(temporary, path)  # unlike rename, link refuses to replace a file made meanwhile
        else:
            temporary.replace(path)
        _sync_directory(path.parent)
    except FileExistsError:
        raise Conflict("KEYSTORE_EXISTS", f"{path} exists; a key store is never overwritten") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Exhausted("DISK_FULL", f"no room to write {path}") from None
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return sealed


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
