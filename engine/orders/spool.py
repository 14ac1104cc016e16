"""An upload on disk until it is read: encrypted in frames under the job's key, so the disk never holds personal data in clear.

File: an 8-byte magic, a random 16-byte file id, then frames of nonce (12), ciphertext (1 MiB, the last one shorter) and tag (16),
AES-256-GCM. Authenticated with each frame: file id, frame number, and whether it is the last. So frames cannot be dropped,
swapped or taken from another file, and a file cut anywhere is noticed. A file that was cut off while it was written can be gone on with
behind its last whole frame.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag

from engine.orders.pii import NONCE_LEN, TAG_LEN, aead
from keys.errors import CitycardError, Conflict, Corrupt, Exhausted, NotFound, Precondition, Unavailable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAGIC: Final = b"CCSPOOL1"
FRAME: Final = 1024 * 1024
_ID_LEN: Final = 16
_HEADER: Final = len(MAGIC) + _ID_LEN
_OVERHEAD: Final = NONCE_LEN + TAG_LEN
_KEPT_FRAMES: Final = 2
# Frames that may be lost with the power: more often than that a long upload would wait for the disk.
_SYNC_FRAMES: Final = 16


def _context(file_id: bytes, number: int, *, last: bool) -> bytes:
    return b"citycard spool" + file_id + number.to_bytes(8, "big") + (b"\x01" if last else b"\x00")


def _disk_error(error: OSError, path: Path) -> CitycardError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Exhausted("DISK_FULL", f"no room on disk for spool file {path.name}")
    return Unavailable("SPOOL_WRITE", f"spool file {path.name}: {error.strerror}")


def _read(file: io.FileIO, size: int) -> bytes:
    octets = b""
    while len(octets) < size and (part := file.read(size - len(octets))):
        octets += part
    return octets


class SpoolWriter:
    """Writes one upload to a new file, readable by its owner only. At most two frames of it are in memory.

    `finish` makes it durable; without it the file is no spool, and leaving the context removes it. `suspend` keeps what is whole of it
    for a later writer, which `resume` makes: it goes on behind the last whole frame, also after a crash. Raises Conflict SPOOL_EXISTS,
    NotFound SPOOL_MISSING, Corrupt SPOOL_CORRUPT where nothing of the file can be gone on with, Exhausted DISK_FULL, Unavailable
    SPOOL_WRITE.
    """

    def __init__(self, path: Path, key: bytes | bytearray | memoryview, *, resume: bool = False) -> None:
        self.path = path
        self._aead = aead(key)
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._frames = 0
        self.size = 0
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (0 if resume else os.O_CREAT | os.O_EXCL), 0o600)
        except FileExistsError:
            raise Conflict("SPOOL_EXISTS", f"spool file {path.name} is there already") from None
        except FileNotFoundError as error:
            if not resume:
                raise _disk_error(error, path) from None
            raise NotFound("SPOOL_MISSING", f"spool file {path.name}: {error.strerror}") from None
        except OSError as error:
            raise _disk_error(error, path) from None
        self._open = True
        try:
            if resume:
                self._file_id = self._take_up()
            else:
                self._file_id = os.urandom(_ID_LEN)
                self._put(MAGIC + self._file_id)
        except CitycardError:
            if resume:
                self._close()
            else:
                self.discard()
            raise

    @classmethod
    def resume(cls, path: Path, key: bytes | bytearray | memoryview) -> SpoolWriter:
        """Goes on with a file behind its last whole frame; `size` and `sha256` speak of what is kept."""
        return cls(path, key, resume=True)

    def _take_up(self) -> bytes:
        """Reads every whole frame that is not the last one, cuts off what follows, and stands at the end; the file's id."""
        try:
            with os.fdopen(os.dup(self._fd), "rb", buffering=0) as file:
                header = file.read(_HEADER)
                if len(header) < _HEADER or not header.startswith(MAGIC):
                    raise Corrupt("SPOOL_CORRUPT", f"{self.path.name} is not a spool file")
                file_id = header[len(MAGIC) :]
                while (frame := self._whole(file, file_id)) is not None:
                    self._digest.update(frame)
                    self.size += len(frame)
                    self._frames += 1
            end = _HEADER + self._frames * (FRAME + _OVERHEAD)
            os.ftruncate(self._fd, end)
            os.lseek(self._fd, end, os.SEEK_SET)
        except OSError as error:
            raise _disk_error(error, self.path) from None
        return file_id

    def _whole(self, file: io.FileIO, file_id: bytes) -> bytes | None:
        sealed = _read(file, FRAME + _OVERHEAD)
        try:
            context = _context(file_id, self._frames, last=False)
            return self._aead.decrypt(sealed[:NONCE_LEN], sealed[NONCE_LEN:], context) if len(sealed) == FRAME + _OVERHEAD else None
        except InvalidTag:
            return None

    def __repr__(self) -> str:
        return f"SpoolWriter({self.path.name!r}, {self.size} bytes)"

    def __enter__(self) -> SpoolWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._open:
            self.discard()

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the plaintext written so far."""
        return self._digest.digest()

    def write(self, octets: bytes) -> None:
        """Adds plaintext, in pieces of any size."""
        self._must_be_open()
        self._digest.update(octets)
        self.size += len(octets)
        view = memoryview(octets)
        while view:
            # A full frame is written only once there is more, because the last frame is marked as such.
            if len(self._buffer) == FRAME:
                self._frame(last=False)
            room = FRAME - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]

    def finish(self) -> bytes:
        """Writes the last frame, makes file and name durable, and returns the SHA-256 of the plaintext."""
        self._must_be_open()
        self._frame(last=True)
        self._sync()
        self._close()
        return self.sha256

    def suspend(self) -> int:
        """Leaves what is whole for `resume`, and nothing where no frame is; how many bytes of the upload are kept."""
        if self._open:
            if len(self._buffer) == FRAME:
                self._frame(last=False)
            self._sync()
            self._close()
        self._buffer.clear()
        if not self._frames:
            self.path.unlink(missing_ok=True)
        return self._frames * FRAME

    def _sync(self) -> None:
        """What was written outlives a loss of power, and so does the file's name."""
        try:
            os.fsync(self._fd)
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise _disk_error(error, self.path) from None

    def discard(self) -> None:
        """Removes what was written."""
        self._close()
        self._buffer.clear()
        self.path.unlink(missing_ok=True)

    def _must_be_open(self) -> None:
        if not self._open:
            raise Precondition("SPOOL_CLOSED", f"spool file {self.path.name} is closed")

    def _close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._fd)

    def _frame(self, *, last: bool) -> None:
        nonce = os.urandom(NONCE_LEN)
        sealed = self._aead.encrypt(nonce, bytes(self._buffer), _context(self._file_id, self._frames, last=last))
        self._put(nonce + sealed)
        self._buffer.clear()
        self._frames += 1
        if self._frames % _SYNC_FRAMES == 0:
            self._sync()

    def _put(self, octets: bytes) -> None:
        view = memoryview(octets)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise _disk_error(error, self.path) from None


def plain_size(size: int) -> int:
    """How many bytes of plaintext the whole frames of an unfinished spool file of `size` bytes hold."""
    return max(0, size - _HEADER) // (FRAME + _OVERHEAD) * FRAME


class SpoolReader(io.RawIOBase):
    """A finished spool as a seekable binary file of the plaintext. At most three frames of it are in memory.

    Raises NotFound SPOOL_MISSING; Corrupt SPOOL_CORRUPT naming the frame, also for a file that was cut or never finished.
    """

    def __init__(self, path: Path, key: bytes | bytearray | memoryview) -> None:
        self._name = path.name
        self._aead = aead(key)
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise NotFound("SPOOL_MISSING", f"spool file {self._name}: {error.strerror}") from None
        body = os.fstat(self._file.fileno()).st_size - _HEADER
        header = self._file.read(_HEADER)
        if len(header) < _HEADER or not header.startswith(MAGIC):
            self._file.close()
            raise Corrupt("SPOOL_CORRUPT", f"{self._name} is not a spool file")
        self._file_id = header[len(MAGIC) :]
        self._frames = max(1, -(-body // (FRAME + _OVERHEAD)))
        self.size = body - self._frames * _OVERHEAD
        self._at = 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        try:
            self._frame(self._frames - 1)  # a file cut at the end of a frame shows here
        except CitycardError:
            self._file.close()
            raise

    def __repr__(self) -> str:
        return f"SpoolReader({self._name!r}, {self.size} bytes)"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._at < self.size:
            number, offset = divmod(self._at, FRAME)
            part = self._frame(number)[offset : offset + len(view) - done]
            view[done : done + len(part)] = part
            done += len(part)
            self._at += len(part)
        return done

    def close(self) -> None:
        if not self.closed:
            self._kept.clear()
            self._file.close()
        super().close()

    def _frame(self, number: int) -> bytes:
        if number in self._kept:
            return self._kept[number]
        self._file.seek(_HEADER + number * (FRAME + _OVERHEAD))
        sealed = _read(self._file, FRAME + _OVERHEAD)
        try:
            last = number == self._frames - 1
            octets = self._aead.decrypt(sealed[:NONCE_LEN], sealed[NONCE_LEN:], _context(self._file_id, number, last=last))
        except (InvalidTag, ValueError):  # ValueError: less than a nonce is left
            message = f"frame {number + 1} of {self._frames} of spool file {self._name} is damaged, cut, or under another key"
            raise Corrupt("SPOOL_CORRUPT", message) from None
        self._kept[number] = octets
        while len(self._kept) > _KEPT_FRAMES:
            self._kept.popitem(last=False)
        return octets
