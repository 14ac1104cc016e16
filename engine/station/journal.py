"""A head's durable journal: what was last done with the piece that lies in it.

One small file per head, one record per step, each `length[4] crc32[4] msgpack`, written with one call. A torn last record (process
killed in the write) is dropped: the step it spoke of is then unknown, and the step before it stands. Steps whose loss with the power
would make a wrong piece look right are synced to the disk; the others only need to outlive the process, and are worth less than they cost.
Answers are kept only for segments whose answers are ciphertext; names, numbers and public files never get here.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Literal

import msgspec

Step = Literal["leased", "playing", "played", "printing", "printed", "ejecting"]
_HEADER = 8
# leased: else an older card's end could be taken for this piece's. played: the answers. printing: never print twice. ejecting: the bin.
SYNCED: frozenset[Step] = frozenset({"leased", "played", "printing", "ejecting"})


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One step. `sequence` and `responses` belong to playing and played, `bin` to ejecting."""

    step: Step
    token: int
    sequence: int = 0
    responses: bytes = b""
    bin: str = ""


class Journal:
    """Append-only within one card; emptied when the next card is leased."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        records, good = self._read()
        os.ftruncate(self._fd, good)
        os.lseek(self._fd, good, os.SEEK_SET)
        self.records = records

    def _read(self) -> tuple[list[Record], int]:
        raw = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        records, at = [], 0
        while at + _HEADER <= len(raw):
            size = int.from_bytes(raw[at : at + 4], "big")
            body = raw[at + _HEADER : at + _HEADER + size]
            if len(body) < size or zlib.crc32(body) != int.from_bytes(raw[at + 4 : at + _HEADER], "big"):
                break
            records.append(msgspec.msgpack.decode(body, type=Record))
            at += _HEADER + size
        return records, at

    @property
    def last(self) -> Record | None:
        """The last durable step; None when nothing was ever leased here."""
        return self.records[-1] if self.records else None

    def answers(self, sequence: int) -> bytes:
        """The kept answers of a segment of the current card; empty when none were kept."""
        return next((r.responses for r in reversed(self.records) if r.step == "played" and r.sequence == sequence), b"")

    def write(self, record: Record) -> None:
        """Makes one step durable. A "leased" record empties the journal first: the card before it is settled."""
        body = msgspec.msgpack.encode(record)
        entry = len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body
        if record.step == "leased":
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            self.records = []
        os.write(self._fd, entry)
        if record.step in SYNCED:
            os.fdatasync(self._fd)
        self.records.append(record)

    def close(self) -> None:
        os.close(self._fd)
