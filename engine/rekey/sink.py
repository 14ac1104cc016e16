"""A part file on its way to disk: hashed while it is written, durable and under its name only when it is whole."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from keys.errors import CitycardError, Exhausted, Unavailable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def disk_error(error: OSError, path: Path) -> CitycardError:
    """DISK_FULL or FILE_WRITE, in plain words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Exhausted("DISK_FULL", f"no room on disk for {path.name}; what is finished stays, and the run can be resumed")
    return Unavailable("FILE_WRITE", f"{path.name}: {error.strerror}")


class HashingSink(io.RawIOBase):
    """Writes `path`.new, readable by its owner only; `finish` makes it `path`. Leaving the context before that removes it."""

    def __init__(self, path: Path) -> None:
        """Raises Exhausted DISK_FULL, Unavailable FILE_WRITE."""
        self._path = path
        self._temporary = path.with_name(path.name + ".new")
        self._digest = hashlib.sha256()
        self._open = threading.Lock()
        self._synced = 0
        self.size = 0
        try:
            self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise disk_error(error, path) from None
        self._finished = False

    def writable(self) -> bool:
        return True

    def write(self, octets: ReadableBuffer, /) -> int:
        """All of it, hashed.

        After `close` it goes nowhere: a format's writer that was given up flushes once more when it is collected, and by then the
        descriptor may be another file's.
        """
        view = memoryview(octets).cast("B")
        if self.closed:
            return len(view)
        self._digest.update(view)
        left = view
        while left:
            left = left[os.write(self._fd, left) :]
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    @property
    def unsynced(self) -> int:
        """Bytes written since the last `sync` began."""
        return self.size - self._synced

    def sync(self) -> None:
        """Brings to disk what is written so far, from another thread than the writer's: the disk works while keys are made."""
        with self._open:
            if not self.closed:
                self._synced = self.size
                os.fdatasync(self._fd)

    def finish(self) -> str:
        """Makes the file durable under its name; its SHA-256 in upper-case hex. Raises as the constructor."""
        try:
            os.fsync(self._fd)
            self._temporary.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise disk_error(error, self._path) from None
        self._finished = True
        self.close()
        return self._digest.hexdigest().upper()

    def close(self) -> None:
        with self._open:
            if not self.closed:
                os.close(self._fd)
                if not self._finished:
                    self._temporary.unlink(missing_ok=True)
            super().close()
