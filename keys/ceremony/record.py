"""The record of a ceremony: one signed entry a line, each bound to the line before it.

A line is canonical JSON, `{"entry":{...},"signature":"..."}`: the Ed25519 signature (RFC 8032) is over the entry, and `prev` in the entry
is the SHA-256 of the whole line before. Only one spelling of a line is accepted, so that a changed byte anywhere is found, in the first
line that holds one. The first entry carries the public key: compare its fingerprint with the one written down when the store was made.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keys.errors import Conflict, Corrupt, Denied, NotFound

Entry = dict[str, Any]
Clock = Callable[[], datetime]

FORMAT: Final = "citycard-ceremony-record 1"
_CONTEXT: Final = b"citycard ceremony record 1\0"
_END: Final = frozenset({"closed", "aborted"})
_OWN: Final = frozenset({"seq", "prev", "time", "type"})


def utc_now() -> datetime:
    """The clock of a real ceremony."""
    return datetime.now(UTC)


def canonical(value: object) -> bytes:
    """JSON with sorted keys, no spaces, UTF-8: the one spelling that is signed."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def fingerprint(public_key_hex: str) -> str:
    """What people compare: the first 16 bytes of SHA-256 of the public key, in groups of four digits."""
    digits = hashlib.sha256(bytes.fromhex(public_key_hex)).hexdigest()[:32].upper()
    return " ".join(digits[at : at + 4] for at in range(0, 32, 4))


@dataclass(frozen=True)
class Record:
    """A record that verified: its entries, and whether it came to an end (closed or aborted)."""

    entries: tuple[Entry, ...]
    complete: bool

    @property
    def public_key(self) -> str:
        """The key that signed it, hex."""
        return str(self.entries[0]["public_key"])

    @property
    def ceremony_id(self) -> str:
        """The number of the ceremony."""
        return str(self.entries[0]["ceremony"])


def verify_record(content: bytes, *, public_key: str | None = None, complete: bool = True) -> Record:
    """Checks every line. `public_key` (hex) is the key it must be signed with; `complete=False` also takes one still running.

    Raises Corrupt RECORD_BAD naming the first bad entry, Denied RECORD_KEY for another signer.
    """
    entries: list[Entry] = []
    previous = "0" * 64
    ended = False
    lines = content.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        if ended:
            raise _bad(number, "it comes after the end of the ceremony")
        entry, signature = _parse(number, line)
        if entry["seq"] != number or entry["prev"] != previous:
            raise _bad(number, "it does not follow the entry before it")
        if number == 1:
            signer = _signer(entry)
            if public_key is not None and public_key != entry["public_key"]:
                raise Denied("RECORD_KEY", f"the record is signed by another key: {fingerprint(entry['public_key'])}")
        try:
            signer.verify(signature, _CONTEXT + canonical(entry))
        except InvalidSignature:
            raise _bad(number, "its signature does not fit") from None
        entries.append(entry)
        previous = hashlib.sha256(line).hexdigest()
        ended = entry["type"] in _END
    if lines[-1]:
        raise _bad(len(lines), "it is cut short")
    if not entries or (complete and not ended):
        raise _bad(len(lines), "it is missing: the record ends before the ceremony does")
    return Record(tuple(entries), ended)


def _parse(number: int, line: bytes) -> tuple[Entry, bytes]:
    try:
        parsed = json.loads(line)
        entry, signature = parsed["entry"], bytes.fromhex(parsed["signature"])
        same = canonical({"entry": entry, "signature": signature.hex()}) == line
        known = entry.keys() >= _OWN
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _bad(number, "it is no entry of a record") from None
    if not (same and known):
        raise _bad(number, "it is not written as records are")
    return entry, signature


def _signer(entry: Entry) -> Ed25519PublicKey:
    try:
        if entry["format"] != FORMAT:
            raise _bad(1, f"it does not open a record of format {FORMAT!r}")
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(entry["public_key"]))
    except (KeyError, ValueError, TypeError):
        raise _bad(1, "it carries no public key") from None


def _bad(number: int, why: str) -> Corrupt:
    return Corrupt("RECORD_BAD", f"record entry {number} (line {number}): {why}")


class RecordWriter:
    """Appends signed entries durably: an entry is on disk before what follows it happens."""

    def __init__(self, path: Path, sign: Callable[[bytes], bytes], clock: Clock, entries: list[Entry], previous: str) -> None:
        """Use `create` or `reopen`."""
        self._path = path
        self._sign = sign
        self._clock = clock
        self._previous = previous
        self.entries = entries

    @classmethod
    def create(cls, path: Path, public_key: bytes, sign: Callable[[bytes], bytes], clock: Clock, **opening: object) -> RecordWriter:
        """A new record with its first entry. Raises Conflict RECORD_EXISTS."""
        writer = cls(path, sign, clock, [], "0" * 64)
        if path.exists():
            raise Conflict("RECORD_EXISTS", f"{path} exists; a record is never overwritten")
        writer.add("opened", format=FORMAT, public_key=public_key.hex(), **opening)
        return writer

    @classmethod
    def reopen(cls, path: Path, public_key: bytes, sign: Callable[[bytes], bytes], clock: Clock) -> RecordWriter:
        """An interrupted record, verified. A last line that a crash cut short was never acted on and is dropped.

        Raises NotFound RECORD_MISSING, and as `verify_record`.
        """
        content = read_record(path)
        whole = content[: content.rfind(b"\n") + 1]
        record = verify_record(whole, public_key=public_key.hex(), complete=False)
        if whole != content:
            with path.open("r+b") as file:
                file.truncate(len(whole))
                os.fsync(file.fileno())
        last = whole[:-1].rsplit(b"\n", 1)[-1]
        return cls(path, sign, clock, list(record.entries), hashlib.sha256(last).hexdigest())

    def add(self, entry_type: str, /, **fields: object) -> Entry:
        """Signs and stores one entry."""
        time = self._clock().astimezone(UTC).isoformat(timespec="milliseconds")
        entry: Entry = {**fields, "seq": len(self.entries) + 1, "prev": self._previous, "time": time, "type": entry_type}
        signature = self._sign(_CONTEXT + canonical(entry))
        line = canonical({"entry": entry, "signature": signature.hex()})
        new = not self.entries
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_directory(self._path.parent)
        self._previous = hashlib.sha256(line).hexdigest()
        self.entries.append(entry)
        return entry

    def of(self, *kinds: str) -> Iterator[Entry]:
        """The entries of these types, oldest first."""
        return (entry for entry in self.entries if entry["type"] in kinds)

    @property
    def ended(self) -> bool:
        """Whether the ceremony was closed or aborted."""
        return bool(self.entries) and self.entries[-1]["type"] in _END


def read_record(path: Path) -> bytes:
    """The bytes of a record; raises NotFound RECORD_MISSING."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotFound("RECORD_MISSING", f"there is no record {path}") from None


def sync_directory(directory: Path) -> None:
    """Makes names in a directory durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, content: bytes) -> None:
    """Replaces a file: all or nothing, and on disk when this returns."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
