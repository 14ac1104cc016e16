"""An append-only file of records that survives kill -9 at any byte.

Record: length[4] || CRC-32 of the payload[4] || payload, written by one write(2). A file may end inside a record, because its
writer died; that record never happened and is cut off. Damage anywhere else is not a crash, and is refused.
No fsync: the promise is against the death of processes, as a chip's is, not against the loss of the machine's power.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keys.errors import Corrupt

_HEADER = struct.Struct(">II")
# No record here comes near this; a length above it can only be damage.
MAX_RECORD = 16 * 1024 * 1024


class RecordLog:
    """One log file. `end` is the offset after the last complete record this object has read or written."""

    def __init__(self, path: Path, *, writable: bool = True) -> None:
        self.path = path
        flags = (os.O_RDWR | os.O_CREAT | os.O_APPEND) if writable else os.O_RDONLY
        self._fd = os.open(path, flags, 0o600)
        self.end = 0

    def read_new(self, *, repair: bool = True) -> list[bytes]:
        """Records after `end`, which moves forward. `repair` cuts an unfinished record off: only for the sole writer.

        Raises Corrupt LOG_DAMAGED, naming file and offset, for damage that no crash explains.
        """
        size = os.fstat(self._fd).st_size
        if size == self.end:
            return []
        tail = os.pread(self._fd, size - self.end, self.end)
        payloads, used = self._split(tail)
        self.end += used
        if repair and used < len(tail):
            os.ftruncate(self._fd, self.end)
        return payloads

    def append(self, payload: bytes) -> None:
        """Adds one record by one write. The caller holds the file alone, or holds `locked`."""
        record = _HEADER.pack(len(payload), zlib.crc32(payload)) + payload
        written = os.write(self._fd, record)
        if written != len(record):
            # A full disk can take part of it: that part is a torn record, which readers drop; here it must not stay.
            os.ftruncate(self._fd, self.end)
            raise OSError(28, "no space left on device", str(self.path))
        self.end += written

    def foreign_growth(self) -> bool:
        """True when the file is longer than what this object read and wrote: somebody else has it."""
        return os.fstat(self._fd).st_size != self.end

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the file against other processes that lock it too."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __del__(self) -> None:
        # Dropped without close, as when its owner dies in a test: the descriptor must not leak.
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    def _split(self, tail: bytes) -> tuple[list[bytes], int]:
        payloads: list[bytes] = []
        at = 0
        while len(tail) - at >= _HEADER.size:
            length, crc = _HEADER.unpack_from(tail, at)
            end = at + _HEADER.size + length
            if length > MAX_RECORD:
                raise self._damaged(at, "impossible record length")
            if end > len(tail):
                break
            payload = tail[at + _HEADER.size : end]
            if zlib.crc32(payload) != crc:
                if end == len(tail):
                    break
                raise self._damaged(at, "checksum does not fit")
            payloads.append(payload)
            at = end
        return payloads, at

    def _damaged(self, at: int, what: str) -> Corrupt:
        return Corrupt("LOG_DAMAGED", f"{self.path.name}: {what} at offset {self.end + at}")
