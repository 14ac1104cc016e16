"""A part file on its way to disk: written and hashed by a thread of its own while the next keys are made, durable and under its name
only when it is whole.

Whole pieces go past the page cache (O_DIRECT) where the file system can: the copy into it would cost as much time as the keys.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import mmap
import os
import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keys.errors import CitycardError, Exhausted, Unavailable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# What goes to the disk at a time, and how many such buffers a file has: page-aligned, as O_DIRECT wants them.
_PIECE: Final = 4 << 20
_PIECES: Final = 4
# Buffers of finished files, for the next: fresh pages cost more than what is copied into them.
_spare: Final[list[mmap.mmap]] = []
_SPARE: Final = 32


def disk_error(error: OSError, path: Path) -> CitycardError:
    """DISK_FULL or FILE_WRITE, in plain words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Exhausted("DISK_FULL", f"no room on disk for {path.name}; what is finished stays, and the run can be resumed")
    return Unavailable("FILE_WRITE", f"{path.name}: {error.strerror}")


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_DIRECT, 0o600)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags, 0o600)


def _buffer() -> mmap.mmap:
    try:
        return _spare.pop()
    except IndexError:
        return mmap.mmap(-1, _PIECE)


class HashingSink(io.RawIOBase):
    """Writes `path`.new, readable by its owner only; `finish` makes it `path`. Leaving the context before that removes it.

    A failure of the disk shows in a later `write` or in `finish`, as OSError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".new")
        self._digest = hashlib.sha256()
        self._full: queue.Queue[tuple[mmap.mmap, int] | None] = queue.Queue()
        self._free: queue.Queue[mmap.mmap] = queue.Queue()
        self._failure: OSError | None = None
        self._finished = False
        self.size = 0
        self._fd = _create(self._temporary)
        for _ in range(_PIECES - 1):
            self._free.put(_buffer())
        self._piece, self._used = _buffer(), 0
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
        size = len(view)
        if self.closed:
            return size
        while view:
            if self._failure is not None:
                raise self._failure
            room = min(len(view), _PIECE - self._used)
            self._piece[self._used : self._used + room] = view[:room]
            self._used += room
            view = view[room:]
            if self._used == _PIECE:
                self._full.put((self._piece, _PIECE))
                self._piece, self._used = self._free.get(), 0
        self.size += size
        return size

    def tell(self) -> int:
        return self.size

    def finish(self) -> str:
        """Makes the file durable under its name; its SHA-256 in upper-case hex."""
        self._end(self._used)
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
        if not self.closed:
            self._end(0)
            os.close(self._fd)
            if not self._finished:
                self._temporary.unlink(missing_ok=True)
            while not self._free.empty() and len(_spare) < _SPARE:
                _spare.append(self._free.get())
        super().close()

    def _end(self, last: int) -> None:
        """Hands over what is in the last piece and waits for the thread; nothing the second time."""
        if self._thread.is_alive():
            self._full.put((self._piece, last))
            self._full.put(None)
            self._thread.join()

    def _drain(self) -> None:
        """Hashes and writes what comes; after a failure it only gives back, so that nobody waits for it."""
        while (next_piece := self._full.get()) is not None:
            piece, used = next_piece
            if self._failure is None:
                try:
                    self._put(memoryview(piece)[:used])
                except OSError as error:
                    self._failure = error
            self._free.put(piece)

    def _put(self, octets: memoryview) -> None:
        self._digest.update(octets)
        if len(octets) % mmap.PAGESIZE:
            # the end of the file is no whole pages, and O_DIRECT takes nothing else
            fcntl.fcntl(self._fd, fcntl.F_SETFL, fcntl.fcntl(self._fd, fcntl.F_GETFL) & ~os.O_DIRECT)
        left = octets
        while left:
            left = left[os.write(self._fd, left) :]
