"""A part file on its way to disk: written and hashed by a thread of its own while the next keys are made, durable and under its name
only when it is whole.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keys.errors import CitycardError, Exhausted, Unavailable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# What goes to the thread at a time, and how many of these may wait for it.
_PIECE: Final = 4 << 20
_WAITING: Final = 4


def disk_error(error: OSError, path: Path) -> CitycardError:
    """DISK_FULL or FILE_WRITE, in plain words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Exhausted("DISK_FULL", f"no room on disk for {path.name}; what is finished stays, and the run can be resumed")
    return Unavailable("FILE_WRITE", f"{path.name}: {error.strerror}")


class HashingSink(io.RawIOBase):
    """Writes `path`.new, readable by its owner only; `finish` makes it `path`. Leaving the context before that removes it.

    A failure of the disk shows in a later `write` or in `finish`, as OSError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".new")
        self._digest = hashlib.sha256()
        self._open = threading.Lock()
        self._piece = bytearray()
        self._pieces: queue.Queue[bytearray | None] = queue.Queue(_WAITING)
        self._failure: OSError | None = None
        self._written = self._synced = 0
        self._finished = False
        self.size = 0
        self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._thread = threading.Thread(target=self._drain, name=f"write {path.name}", daemon=True)
        self._thread.start()

    def writable(self) -> bool:
        return True

    def write(self, octets: ReadableBuffer, /) -> int:
        """All of it, copied.

        After `close` it goes nowhere: a format's writer that was given up flushes once more when it is collected, and by then the
        descriptor may be another file's.
        """
        view = memoryview(octets).cast("B")
        if not self.closed:
            if self._failure is not None:
                raise self._failure
            self._piece += view
            self.size += len(view)
            if len(self._piece) >= _PIECE:
                self._pieces.put(self._piece)
                self._piece = bytearray()
        return len(view)

    def tell(self) -> int:
        return self.size

    @property
    def unsynced(self) -> int:
        """Bytes written since the last `sync` began."""
        return self._written - self._synced

    def sync(self) -> None:
        """Brings to disk what is written so far: the disk works while keys are made, and has little left to do in the end."""
        with self._open:
            if not self.closed:
                self._synced = self._written
                os.fdatasync(self._fd)

    def finish(self) -> str:
        """Makes the file durable under its name; its SHA-256 in upper-case hex."""
        self._end(self._piece)
        if self._failure is not None:
            raise self._failure
        os.fsync(self._fd)
        self._temporary.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._finished = True
        self.close()
        return self._digest.hexdigest().upper()

    def close(self) -> None:
        self._end(bytearray())
        with self._open:
            if not self.closed:
                os.close(self._fd)
                if not self._finished:
                    self._temporary.unlink(missing_ok=True)
            super().close()

    def _end(self, last: bytearray) -> None:
        """Hands over what is left and waits for the thread; nothing the second time."""
        if self._thread.is_alive():
            self._pieces.put(last)
            self._pieces.put(None)
            self._thread.join()

    def _drain(self) -> None:
        """Hashes and writes what comes; after a failure it only takes, so that nobody waits for it."""
        while (piece := self._pieces.get()) is not None:
            if self._failure is not None:
                continue
            try:
                self._digest.update(piece)
                left = memoryview(piece)
                while left:
                    left = left[os.write(self._fd, left) :]
                self._written += len(piece)
            except OSError as error:
                self._failure = error
