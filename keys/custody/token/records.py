"""The records and policies of a token's keys, kept in the token itself as private data objects: what the token is, its keys are.

One CKO_DATA object per key, labelled `citycard/KEY_ID/VERSION`, holds a record and its policy as JSON with a revision. A change writes the
next revision and then destroys the last, so that a crash leaves one of the two. The record is what makes a key: an object without one is
not a key, and `TokenCustody` clears it away before that key is made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from pkcs11 import Attribute, ObjectClass

from keys.custody.policy import KeyPolicy
from keys.custody.token.session import Live
from keys.custody.working import current_records
from keys.errors import Corrupt, Unsupported
from keys.hierarchy import MasterKeyRecord

PREFIX: Final = "citycard/"
APPLICATION: Final = "citycard"
FORMAT_VERSION: Final = 1


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of a data object."""

    format: Literal["citycard-token-key"]
    format_version: int
    revision: int
    record: MasterKeyRecord
    policy: KeyPolicy


@dataclass(frozen=True)
class Entry:
    """A record in the token."""

    record: MasterKeyRecord
    policy: KeyPolicy
    revision: int = 0

    @property
    def place(self) -> tuple[str, int]:
        return self.record.key_id, self.record.version


def read_all(live: Live) -> dict[tuple[str, int], Entry]:
    """The newest revision of every record. Raises Corrupt TOKEN_RECORD, Unsupported TOKEN_NEWER."""
    newest: dict[tuple[str, int], Entry] = {}
    for found in live.python.get_objects({Attribute.CLASS: ObjectClass.DATA, Attribute.APPLICATION: APPLICATION}):
        label = found[Attribute.LABEL]
        if not label.startswith(PREFIX):
            continue
        entry = _parse(found[Attribute.VALUE], label)
        known = newest.get(entry.place)
        if known is None or known.revision < entry.revision:
            newest[entry.place] = entry
    return newest


def write(live: Live, entry: Entry) -> Entry:
    """Stores the next revision of a record, then removes the ones before; what was stored."""
    record, policy = entry.record, entry.policy
    label = f"{PREFIX}{record.key_id}/{record.version}"
    before = list(live.python.get_objects({Attribute.CLASS: ObjectClass.DATA, Attribute.LABEL: label}))
    stored = Stored(format="citycard-token-key", format_version=FORMAT_VERSION, revision=entry.revision + 1, record=record, policy=policy)
    live.python.create_object(
        {
            Attribute.CLASS: ObjectClass.DATA,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.LABEL: label,
            Attribute.APPLICATION: APPLICATION,
            Attribute.VALUE: msgspec.json.encode(stored, order="sorted"),
        }
    )
    for old in before:
        old.destroy()
    return Entry(record, policy, stored.revision)


def current(entries: dict[tuple[str, int], Entry]) -> dict[str, Entry]:
    """By key id the entry that derives."""
    chosen = current_records(entry.record for entry in entries.values())
    return {key_id: entries[key_id, record.version] for key_id, record in chosen.items()}


def _parse(value: bytes, label: str) -> Entry:
    try:
        raw: Any = msgspec.json.decode(value)
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise Unsupported("TOKEN_NEWER", f"token record {label} is of a newer version; this one reads {FORMAT_VERSION}")
        stored = msgspec.convert(raw, Stored)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt("TOKEN_RECORD", f"token record {label}: {error}") from None
    if label != f"{PREFIX}{stored.record.key_id}/{stored.record.version}":
        raise Corrupt("TOKEN_RECORD", f"token record {label} is of another key")
    return Entry(stored.record, stored.policy, stored.revision)
