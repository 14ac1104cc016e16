"""Verifying and exporting the audit chain, offline: needs the file alone, no key and no running engine.

A chain whose end was cut, together with its recorded end, is a valid shorter chain. Whoever keeps an earlier `Head` elsewhere,
in a signed report for example, finds that too: `verify(..., anchor=head)`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from engine.ledger import schema
from engine.ledger.chain import GENESIS, leaf_hash
from engine.ledger.errors import translate
from engine.ledger.sqlite import reader_engine
from keys.errors import Conflict, Corrupt, NotFound

_leaves = select(schema.audit_leaves).order_by(schema.audit_leaves.c.leaf_index)
_head = select(schema.audit_head.c.count.label("leaves"), schema.audit_head.c.hash).where(schema.audit_head.c.chain == 1)


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ended: how many leaves, and the hash of the last one (32 bytes)."""

    count: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class _Leaf:
    index: int
    leaf: bytes
    hash: bytes


def _bad(index: int, what: str) -> Corrupt:
    return Corrupt("AUDIT_BROKEN", f"audit leaf {index}: {what}")


def _check(leaves: Iterable[_Leaf], ends: list[Head], anchor: Head | None) -> Head:
    """Walks the chain; raises Corrupt AUDIT_BROKEN naming the first bad index, AUDIT_TRUNCATED where the end is not the
    recorded one.

    `ends` holds the recorded end, if there is one, once the leaves are read to their last.
    """
    count, head = 0, GENESIS
    for one in leaves:
        if one.index != count:
            raise _bad(count, f"is missing or out of order, leaf {one.index} stands in its place")
        head = leaf_hash(head, one.leaf)
        if head != one.hash:
            raise _bad(count, "its content or its hash was changed")
        if _index_of(one.leaf) != count:
            raise _bad(count, "it names another index")
        count += 1
        if anchor is not None and anchor.count == count and anchor.hash != head:
            raise _bad(count - 1, "the chain was rewritten: an earlier record of its head differs")
    if not ends:
        raise Corrupt("AUDIT_HEAD_MISSING", f"audit leaf {count}: the recorded end of the chain is missing")
    recorded = ends[0]
    if recorded.count != count:
        raise Corrupt("AUDIT_TRUNCATED", f"audit leaf {count}: the chain ends here, its recorded end says {recorded.count} leaves")
    if recorded.hash != head:
        raise Corrupt("AUDIT_TRUNCATED", f"audit leaf {max(count - 1, 0)}: the recorded end has another hash")
    if anchor is not None and anchor.count > count:
        raise Corrupt("AUDIT_TRUNCATED", f"audit leaf {count}: the chain ends here, an earlier record saw {anchor.count} leaves")
    return Head(count, head)


def _index_of(leaf: bytes) -> object:
    try:
        return msgspec.json.decode(leaf)["index"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return None


def _stored(conn: Connection) -> Iterator[_Leaf]:
    for row in conn.execution_options(yield_per=5000).execute(_leaves):
        yield _Leaf(row.leaf_index, row.leaf.encode("utf-8", "surrogatepass"), row.hash)


def head(conn: Connection) -> Head:
    """The recorded end of the chain. Raises Corrupt AUDIT_HEAD_MISSING."""
    row = conn.execute(_head).one_or_none()
    if row is None:
        raise Corrupt("AUDIT_HEAD_MISSING", "audit leaf 0: the recorded end of the chain is missing")
    return Head(row.leaves, row.hash)


def verify(source: Connection | Path, anchor: Head | None = None) -> Head:
    """Walks the whole chain of a ledger, open or not.

    Raises Corrupt AUDIT_BROKEN | AUDIT_TRUNCATED | AUDIT_HEAD_MISSING with the first bad index, NotFound LEDGER_MISSING.
    """
    if isinstance(source, Connection):
        row = source.execute(_head).one_or_none()
        return _check(_stored(source), [] if row is None else [Head(row.leaves, row.hash)], anchor)
    if not source.is_file():
        raise NotFound("LEDGER_MISSING", f"there is no ledger {source.name}")
    engine = reader_engine(source)
    try:
        with engine.connect() as conn, conn.begin():
            return verify(conn, anchor)
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise translate(error) or Corrupt("LEDGER_CORRUPT", f"{source.name} is not a ledger") from None
    finally:
        engine.dispose()


def export(conn: Connection, path: Path) -> Head:
    """Writes the chain as JSON lines: one object per leaf with its exact text and hash, and a last one with the recorded end.

    Raises Conflict EXPORT_EXISTS rather than overwrite a file.
    """
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        raise Conflict("EXPORT_EXISTS", f"{path.name} exists already: an export is never overwritten") from None
    with file:
        for one in _stored(conn):
            line = {"hash": one.hash.hex().upper(), "index": one.index, "leaf": one.leaf.decode("utf-8", "surrogatepass")}
            file.write(json.dumps(line, sort_keys=True) + "\n")
        end = head(conn)
        file.write(json.dumps({"count": end.count, "head": end.hash.hex().upper()}, sort_keys=True) + "\n")
    return end


def verify_export(path: Path, anchor: Head | None = None) -> Head:
    """`verify` over an exported file. Raises Corrupt as there, and AUDIT_EXPORT for a line that is none of an export's."""
    ends: list[Head] = []
    with path.open("rb") as file:
        return _check(_exported(file, ends), ends, anchor)


def _exported(lines: Iterable[bytes], ends: list[Head]) -> Iterator[_Leaf]:
    """The leaves of an export; its last line, the recorded end, goes to `ends`."""
    for number, text in enumerate(lines, start=1):
        if ends:
            raise Corrupt("AUDIT_EXPORT", f"line {number}: something stands after the recorded end of the chain")
        try:
            line = msgspec.json.decode(text)
            if "head" in line:
                ends.append(Head(int(line["count"]), bytes.fromhex(line["head"])))
            else:
                yield _Leaf(line["index"], line["leaf"].encode("utf-8", "surrogatepass"), bytes.fromhex(line["hash"]))
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError):
            raise Corrupt("AUDIT_EXPORT", f"line {number}: not a line of an audit export") from None
