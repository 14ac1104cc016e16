"""The growing end of the audit chain: hash = SHA-256(previous hash || canonical leaf), the first previous hash being 32 zero
bytes.

Leaves are gathered while a group of functions runs and inserted just before their common commit: a leaf and the change it tells
of become durable together or not at all.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from typing import TypeAlias

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from engine.ledger.prepared import Prepared
from engine.ledger.schema import audit_head, audit_leaves
from keys.errors import Corrupt, InvalidInput

Fact: TypeAlias = str | int | bool | list[str] | list[int] | dict[str, int] | None

GENESIS = bytes(32)
MAX_LEAF = 16 * 1024

_encoder = msgspec.json.Encoder(order="sorted")
_insert_leaves = Prepared(insert(audit_leaves), "leaf_index", "leaf", "hash")
_update_head = Prepared(
    update(audit_head).where(audit_head.c.chain == 1).values(count=bindparam("new_count"), hash=bindparam("new_hash")),
    "new_count",
    "new_hash",
)


def leaf_hash(previous: bytes, leaf: bytes) -> bytes:
    """SHA-256 over the previous leaf's hash and the canonical bytes of this one."""
    return hashlib.sha256(previous + leaf).digest()


class AuditChain:
    """Length and head of the chain in memory, with the leaves not yet inserted. Used by the writer thread alone."""

    def __init__(self, count: int, head: bytes) -> None:
        self.count = count
        self.head = head
        self._pending: list[tuple[int, str, bytes]] = []

    @classmethod
    def load(cls, conn: Connection) -> AuditChain:
        """The chain as the last commit left it. Raises Corrupt where its recorded end is missing or is not its last leaf."""
        recorded = conn.execute(select(audit_head.c.count.label("leaves"), audit_head.c.hash).where(audit_head.c.chain == 1)).one_or_none()
        if recorded is None:
            raise Corrupt("AUDIT_HEAD_MISSING", "the audit chain's recorded end is missing from the ledger")
        last = conn.execute(
            select(audit_leaves.c.leaf_index, audit_leaves.c.hash).order_by(audit_leaves.c.leaf_index.desc()).limit(1)
        ).one_or_none()
        count, head = (0, GENESIS) if last is None else (last.leaf_index + 1, last.hash)
        if (count, head) != (recorded.leaves, recorded.hash):
            raise Corrupt(
                "AUDIT_TRUNCATED",
                f"the audit chain has {count} leaves, its recorded end says {recorded.leaves}, or their hashes differ",
            )
        return cls(count, head)

    def append(self, kind: str, subject: str, at_us: int, facts: Mapping[str, Fact]) -> None:
        """Adds one leaf. Raises InvalidInput for a leaf above 16 KiB."""
        index = self.count
        leaf = _encoder.encode({"at_us": at_us, "facts": facts, "index": index, "kind": kind, "subject": subject})
        if len(leaf) > MAX_LEAF:
            raise InvalidInput("AUDIT_LEAF_TOO_LONG", f"an audit leaf of kind {kind} has {len(leaf)} bytes, at most {MAX_LEAF} are allowed")
        self.head = leaf_hash(self.head, leaf)
        self.count = index + 1
        self._pending.append((index, leaf.decode(), self.head))

    def mark(self) -> tuple[int, bytes, int]:
        """A point to come back to with `rewind`."""
        return self.count, self.head, len(self._pending)

    def rewind(self, mark: tuple[int, bytes, int]) -> None:
        """Forgets every leaf appended since `mark`."""
        self.count, self.head, kept = mark
        del self._pending[kept:]

    def flush(self, db: sqlite3.Connection) -> None:
        """Inserts the gathered leaves and moves the recorded end, in the caller's transaction."""
        if not self._pending:
            return
        _insert_leaves.many(db, self._pending)
        _update_head.run(db, self.count, self.head)

    def committed(self) -> None:
        """The gathered leaves are durable."""
        self._pending.clear()
