"""Who and what was seen before: within one file, and against cards issued earlier.

Persons and card numbers are known by keyed hashes only (BLAKE2b under a key of the site, 16 bytes). Within a file 64 bits of them
are kept, with the line: 12 bytes in a table that is at most 65% full, for persons, card numbers and PANs: about 80 MB for a
million rows. Two different persons share 64 bits with a chance of 3 in 10^8 for a million rows and 4 in 10^6 for twelve
million; the later one would be rejected, with the line it was taken for, never lost. PANs are kept the same way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from engine.orders.columns import Bytes1D, Bytes2D, OrderColumns, as_matrix
from engine.orders.exact import CheckedRecord
from engine.orders.rules import Reject

HASH_LEN: Final = 16
_FULLEST: Final = 0.65
Int1D = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]


class Issued(Protocol):
    """What the ledger knows of cards issued by earlier jobs. Called once for every batch, from the reading thread.

    Given the 16-byte hashes of persons and of card numbers, it returns those persons who have been issued a card, and for those
    card numbers that have been issued the hash of the person who got them. Hashes it does not know it leaves out.
    """

    def __call__(
        self, person_hashes: Sequence[bytes], card_hashes: Sequence[bytes]
    ) -> tuple[AbstractSet[bytes] | Mapping[bytes, object], Mapping[bytes, bytes]]: ...


def nothing_issued(person_hashes: Sequence[bytes], card_hashes: Sequence[bytes]) -> tuple[AbstractSet[bytes], Mapping[bytes, bytes]]:
    """The answer of a ledger without earlier cards."""
    del person_hashes, card_hashes
    return frozenset(), {}


def field_hashes(values: Iterable[bytes], key: bytes | bytearray | memoryview) -> bytes:
    """Keyed 16-byte hashes of UTF-8 field values, one after the other: BLAKE2b (RFC 7693) with key and digest_size=16."""
    keyed = hashlib.blake2b(key=key, digest_size=HASH_LEN).copy
    out = []
    for value in values:
        state = keyed()
        state.update(value)
        out.append(state.digest())
    return b"".join(out)


def hash_matrix(joined: bytes) -> Bytes2D:
    """Hashes one after the other as (rows, 16) uint8."""
    return np.frombuffer(joined, np.uint8).reshape(-1, HASH_LEN)


class KeyTable:
    """64-bit keys already seen, each with the line it came from. Open addressing, linear probing; a key of 0 means none."""

    def __init__(self, capacity: int = 1 << 17) -> None:
        self._keys: U64 = np.zeros(capacity, np.uint64)
        self._lines: U32 = np.zeros(capacity, np.uint32)
        self.count = 0

    @property
    def nbytes(self) -> int:
        return self._keys.nbytes + self._lines.nbytes

    def _first_slots(self, keys: U64) -> npt.NDArray[np.int64]:
        # Scales the upper half of a key to the capacity, which so need not be a power of two (and stays below 2^32).
        return ((keys >> np.uint64(32)) * np.uint64(len(self._keys)) >> np.uint64(32)).view(np.int64)

    def _next_slots(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        onward = slots + 1
        onward[onward == len(self._keys)] = 0
        return onward

    def lines(self, keys: U64) -> U32:
        """The line of each key, 0 for keys not seen (and for key 0)."""
        found = np.zeros(len(keys), np.uint32)
        open_rows = np.flatnonzero(keys)
        slots = self._first_slots(keys[open_rows])
        while len(open_rows):
            held = self._keys[slots]
            same = held == keys[open_rows]
            if same.any():
                found[open_rows[same]] = self._lines[slots[same]]
            onward = np.flatnonzero(~same & (held != 0))
            open_rows, slots = open_rows[onward], self._next_slots(slots[onward])
        return found

    def add(self, keys: U64, lines: npt.NDArray[np.int64]) -> None:
        """Adds keys that differ from each other and from those seen; key 0 is passed over."""
        real = keys != 0
        keys, marks = keys[real], np.minimum(lines[real], 0xFFFFFFFF).astype(np.uint32)
        while self.count + len(keys) > _FULLEST * len(self._keys):
            self._grow()
        self._put(keys, marks)
        self.count += len(keys)

    def _put(self, keys: U64, lines: U32) -> None:
        slots = self._first_slots(keys)
        while len(keys):
            free = np.flatnonzero(self._keys[slots] == 0)
            # Of several keys for one free slot the last one written stays; the others find it taken and move on.
            self._keys[slots[free]] = keys[free]
            here = self._keys[slots] == keys
            self._lines[slots[here]] = lines[here]
            away = np.flatnonzero(~here)
            keys, lines, slots = keys[away], lines[away], self._next_slots(slots[away])

    def _grow(self) -> None:
        keys, lines = self._keys, self._lines
        capacity = len(keys) * 3 // 2
        self._keys, self._lines = np.zeros(capacity, np.uint64), np.zeros(capacity, np.uint32)
        for at in range(0, len(keys), 1 << 16):
            part = keys[at : at + (1 << 16)]
            held = part != 0
            self._put(part[held], lines[at : at + (1 << 16)][held])


@dataclass(slots=True, repr=False)
class _Rows:
    """The rows of one batch, sound and defective, in file order. Keys are 0 where a field is not sound."""

    lines: npt.NDArray[np.int64]
    sound: Mask
    keys: tuple[U64, U64, U64]


_SAID: Final = (
    ("social_security_number", "duplicate-person", "the person of this row has a card in line {line} already"),
    ("card_number", "duplicate-card-number", "the card number of this row is used in line {line} already"),
    ("pan", "duplicate-pan", "the PAN of this row is used in line {line} already"),
)


class Duplicates:
    """Finds the rows of one file that repeat an earlier good row, batch by batch."""

    def __init__(self, key: bytes | bytearray | memoryview, issued: Issued) -> None:
        self._key = key
        self._issued = issued
        self._tables = (KeyTable(), KeyTable(), KeyTable())
        # PANs are digits, not hashes: an odd multiplier spreads them and loses nothing.
        self._spread = np.uint64(int.from_bytes(hashlib.blake2b(b"pan", key=key, digest_size=8).digest(), "big") | 1)

    def check(
        self, lines: npt.NDArray[np.int64], columns: OrderColumns, defective: Sequence[CheckedRecord]
    ) -> tuple[Bytes2D, Bytes2D, list[Reject]]:
        """Hashes of the sound rows' persons and card numbers, (rows, 16) each, and the rejects of all rows, sound or not."""
        persons = field_hashes(columns["social_security_number"].tolist(), self._key)
        cards = field_hashes(columns["card_number"].tolist(), self._key)
        known = [row for row in defective if row.person or row.card or row.pan]
        rejects = self._check_issued(lines, columns, persons, cards)
        spoilt = {reject.line for reject in rejects}
        sound = np.ones(len(lines), np.bool_)
        if spoilt:
            sound &= ~np.isin(lines, list(spoilt))
        rows = self._rows(lines, sound, (_keys(persons), _keys(cards), self._pan_keys(columns["pan"])), known)
        rejects += self._check_file(rows)
        return hash_matrix(persons), hash_matrix(cards), rejects

    def _pan_keys(self, pans: Bytes1D) -> U64:
        digits = as_matrix(pans)
        # Begins with a 1, which keeps 0123 and 123 apart; what the 20 digits of a long PAN exceed 64 bits by wraps round.
        keys = np.ones(len(digits), np.uint64)
        for place in range(digits.shape[1]):
            digit = digits[:, place]
            keys = np.where(digit == 0, keys, keys * np.uint64(10) + (digit & 0x0F))
        return keys * self._spread

    def _rows(self, lines: Int1D, sound: Mask, keys: tuple[U64, U64, U64], known: Sequence[CheckedRecord]) -> _Rows:
        if not known:
            return _Rows(lines, sound, keys)
        persons = _keys(b"".join(field_hashes([row.person], self._key) if row.person else bytes(HASH_LEN) for row in known))
        cards = _keys(b"".join(field_hashes([row.card], self._key) if row.card else bytes(HASH_LEN) for row in known))
        pans = self._pan_keys(np.array([row.pan or b"" for row in known], np.bytes_))
        pans[[row.pan is None for row in known]] = 0
        all_lines = np.concatenate((lines, np.array([row.line for row in known], np.int64)))
        order = np.argsort(all_lines, kind="stable")
        both = tuple(np.concatenate(pair)[order] for pair in zip(keys, (persons, cards, pans), strict=True))
        all_sound = np.concatenate((sound, np.zeros(len(known), np.bool_)))
        return _Rows(all_lines[order], all_sound[order], (both[0], both[1], both[2]))

    def _check_file(self, rows: _Rows) -> list[Reject]:
        """Rows that stand alone are taken in bulk; those that share a key with any other row are gone through in file order."""
        earlier = tuple(table.lines(keys) for table, keys in zip(self._tables, rows.keys, strict=True))
        suspect = np.zeros(len(rows.lines), np.bool_)
        for found, keys in zip(earlier, rows.keys, strict=True):
            suspect |= found != 0
            ordered = np.sort(keys)
            twice = ordered[1:][(ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)]
            if len(twice):
                suspect |= np.isin(keys, twice)
        rejects: list[Reject] = []
        taken: tuple[dict[int, int], ...] = ({}, {}, {})
        accepted = rows.sound & ~suspect
        for row in np.flatnonzero(suspect):
            line = int(rows.lines[row])
            keys_of_row = [int(keys[row]) for keys in rows.keys]
            first = [int(earlier[at][row]) or taken[at].get(key, 0) for at, key in enumerate(keys_of_row)]
            for said, before in zip(_SAID, first, strict=True):
                if before:
                    rejects.append(Reject(line, said[0], said[1], said[2].format(line=before)))
            if rows.sound[row] and not any(first):
                accepted[row] = True
                for at, key in enumerate(keys_of_row):
                    taken[at][key] = line
        for table, keys in zip(self._tables, rows.keys, strict=True):
            table.add(keys[accepted], rows.lines[accepted])
        return rejects

    def _check_issued(self, lines: npt.NDArray[np.int64], columns: OrderColumns, persons: bytes, cards: bytes) -> list[Reject]:
        """Only sound rows are held against the ledger: the order kind of others may be part of their defect."""
        if self._issued is nothing_issued or not len(lines):
            return []
        person_hashes, card_hashes = _split(persons), _split(cards)
        issued_persons, issued_cards = self._issued(person_hashes, card_hashes)
        if not issued_persons and not issued_cards:
            return []
        rejects = []
        for line, person, card, kind in zip(lines.tolist(), person_hashes, card_hashes, columns["kind"].tolist(), strict=True):
            if kind == b"first" and person in issued_persons:
                message = "the person of this row was issued a card before; a further one is 补卡 (replacement) or 换卡 (renewal)"
                rejects.append(Reject(line, "social_security_number", "duplicate-person-issued", message))
            if issued_cards.get(card, person) != person:
                message = "the card number of this row was issued to another person before"
                rejects.append(Reject(line, "card_number", "duplicate-card-number-issued", message))
        return rejects


def _split(joined: bytes) -> list[bytes]:
    return [joined[at : at + HASH_LEN] for at in range(0, len(joined), HASH_LEN)]


def _keys(joined: bytes) -> U64:
    """The leading 64 bits of every hash."""
    return np.ascontiguousarray(np.frombuffer(joined, np.uint64)[::2])
