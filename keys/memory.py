"""Memory for secrets: anonymous pages of our own, locked into RAM, between guard pages, out of core dumps, zeroed in a fork.

A `SecretBuffer` is a piece of it. Small ones are slots of shared slabs (powers of two from 16 bytes), large ones have a mapping of
their own; what is given back is overwritten first and then used again, so that a secret costs about a microsecond and no system
call. The overwriting hangs on the memory: it comes when the last view dies.

Locking needs room in RLIMIT_MEMLOCK (often 8 MiB) or CAP_IPC_LOCK. `raise_limit` takes what the system allows. After
`require_locked` memory that cannot be locked is refused; without it the memory is used unlocked, and `shortfall` tells.
Linux only (madvise 16 and 18; the numbers are the kernel's, older C libraries have no names for them).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import threading
import weakref
from typing import Final, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from keys.errors import Exhausted, Precondition

ByteArray = npt.NDArray[np.uint8]

MADV_DONTDUMP: Final = 16
MADV_WIPEONFORK: Final = 18
PROT_NONE: Final = 0
PAGE: Final = mmap.PAGESIZE

SMALLEST: Final = 16
LARGEST_SLOT: Final = PAGE
SLAB_LEN: Final = 16 * PAGE
# Large mappings kept for the next large secret: mapping and locking 10 MB anew costs as much as filling them.
POOL_LEN: Final = 32 << 20
LARGEST_WIPE: Final = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class _Mapping:
    """Pages of our own with a guard page on either side; unmapped when the last block in it is gone."""

    __slots__ = ("__weakref__", "_pages", "address", "locked", "size", "view")

    def __init__(self, size: int) -> None:
        self._pages = mmap.mmap(-1, size + 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        self.address = base + PAGE
        self.size = size
        self.view = memoryview(self._pages)[PAGE : PAGE + size]
        for guard in (base, self.address + size):
            _must(_libc.mprotect(guard, PAGE, PROT_NONE))
        _must(_libc.madvise(self.address, size, MADV_DONTDUMP))
        _must(_libc.madvise(self.address, size, MADV_WIPEONFORK))
        self.locked = _libc.mlock(self.address, size) == 0


def _must(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Place(NamedTuple):
    """A slot of a slab, or all of a large mapping."""

    mapping: _Mapping
    address: int
    view: memoryview


class _Block(ctypes.Array[ctypes.c_ubyte]):
    """The bytes of a place, for as long as anything looks at them; overwritten and given back at the end. One subclass a length."""

    _type_ = ctypes.c_ubyte
    _length_ = 0
    arena: _Arena
    zeros: bytes
    place: _Place

    def wipe(self) -> None:
        view, zeros = self.place.view, self.zeros
        # in pieces: zeros as long as a large secret would cost as much memory again
        for at in range(0, self._length_, len(zeros)):
            view[at : at + len(zeros)] = zeros[: self._length_ - at]

    def __del__(self) -> None:
        self.wipe()
        self.arena.give_back(self)


class _Arena:
    """All memory for secrets of this process."""

    def __init__(self) -> None:
        self._types: dict[int, type[_Block]] = {}
        # free places by length; append and pop are atomic, so that giving back, which may happen in the midst of anything, takes no lock
        self._free: dict[int, list[_Place]] = {}
        self._slab: _Place | None = None
        self._slab_used = SLAB_LEN
        self._lock = threading.Lock()
        self._mappings: weakref.WeakSet[_Mapping] = weakref.WeakSet()
        self.required = False

    def block(self, length: int) -> _Block:
        """A zeroed block of at least that many bytes; raises Exhausted LOCKED_MEMORY."""
        capacity = _capacity(length)
        kind = self._types.get(capacity) or self._new_kind(capacity)
        try:
            place = self._free[capacity].pop()
        except IndexError:
            place = self._carve(capacity) if capacity <= LARGEST_SLOT else self._map(capacity)
        block = kind.from_address(place.address)
        block.place = place
        return block

    def give_back(self, block: _Block) -> None:
        """Takes a wiped block for the next secret; of large ones only as many as the pool may hold."""
        capacity = block._length_
        if capacity <= LARGEST_SLOT or self._pooled() + capacity <= POOL_LEN:
            self._free[capacity].append(block.place)

    def mapped(self, *, locked: bool) -> int:
        """Bytes in mappings that are, or are not, locked."""
        return sum(mapping.size for mapping in list(self._mappings) if mapping.locked is locked)

    def _new_kind(self, capacity: int) -> type[_Block]:
        self._free.setdefault(capacity, [])
        zeros = bytes(min(capacity, LARGEST_WIPE))
        return self._types.setdefault(capacity, type("_Block", (_Block,), {"_length_": capacity, "arena": self, "zeros": zeros}))

    def _carve(self, capacity: int) -> _Place:
        with self._lock:
            if self._slab is None or self._slab_used + capacity > SLAB_LEN:
                self._slab = self._map(SLAB_LEN)
                self._slab_used = 0
            start = self._slab_used
            self._slab_used += capacity
            return _Place(self._slab.mapping, self._slab.address + start, self._slab.view[start : start + capacity])

    def _map(self, size: int) -> _Place:
        mapping = _Mapping(size)
        if not mapping.locked:
            # what lies in the pool is locked too, and nobody needs it
            self._empty_pool()
            mapping = _Mapping(size)
        if not mapping.locked and self.required:
            raise Exhausted("LOCKED_MEMORY", _no_room(size))
        self._mappings.add(mapping)
        return _Place(mapping, mapping.address, mapping.view)

    def _pooled(self) -> int:
        return sum(capacity * len(places) for capacity, places in list(self._free.items()) if capacity > LARGEST_SLOT)

    def _empty_pool(self) -> None:
        for capacity, places in list(self._free.items()):
            if capacity > LARGEST_SLOT:
                places.clear()


def _capacity(length: int) -> int:
    """The length of a slot for so many bytes: a power of two; of a large mapping: whole pages, at most an eighth too many."""
    if length <= SMALLEST:
        return SMALLEST
    if length <= LARGEST_SLOT:
        return 1 << (length - 1).bit_length()
    step = max(PAGE, 1 << ((length - 1).bit_length() - 4))
    return -(-length // step) * step


def _no_room(size: int) -> str:
    """What to tell a person when memory cannot be locked."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    limit = "without limit" if soft == resource.RLIM_INFINITY else f"{soft >> 10} KiB"
    return (
        f"{size >> 10} KiB for keys cannot be locked into memory (RLIMIT_MEMLOCK is {limit}): "
        "raise it (`ulimit -l`, or LimitMEMLOCK= of the service), or grant CAP_IPC_LOCK"
    )


_arena = _Arena()


def _in_a_fork() -> None:
    """The child's copy of every secret is zeros and not locked: begin anew, and let the old secrets refuse (see `SecretBuffer`)."""
    global _arena  # noqa: PLW0603 - one memory per process
    required = _arena.required
    _arena = _Arena()
    _arena.required = required


os.register_at_fork(after_in_child=_in_a_fork)


class SecretBuffer:
    """So many zeroed bytes of locked memory, to be filled through `view`; overwritten by `wipe` and when the last view dies."""

    __slots__ = ("_block", "_length")

    def __init__(self, length: int) -> None:
        """Raises Exhausted LOCKED_MEMORY after `require_locked` when the memory cannot be locked."""
        self._block = _arena.block(length)
        self._length = length

    def __len__(self) -> int:
        return self._length

    def view(self) -> memoryview:
        """The bytes themselves, writeable. Raises Precondition SECRET_NOT_INHERITED in a fork: there they are zeros."""
        self.require_own()
        return memoryview(self._block).cast("B")[: self._length]

    def array(self, shape: tuple[int, ...]) -> ByteArray:
        """The bytes as an array of that shape. Raises as `view`."""
        self.require_own()
        return np.frombuffer(memoryview(self._block), np.uint8, self._length).reshape(shape)

    def wipe(self) -> None:
        """Overwrites the bytes with zeros; views then see zeros."""
        self._block.wipe()

    def require_own(self) -> None:
        """Raises Precondition SECRET_NOT_INHERITED in a fork."""
        if self._block.arena is not _arena:
            raise Precondition("SECRET_NOT_INHERITED", "a forked process does not inherit secrets: it must open its own key store")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")


def raise_limit() -> None:
    """Raises RLIMIT_MEMLOCK: without limit where this process may, else to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for wanted in ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, wanted)
        except (ValueError, OSError):
            continue
        return


def require_locked() -> None:
    """From now on memory that cannot be locked is refused; raises Exhausted LOCKED_MEMORY when some already could not."""
    SecretBuffer(SMALLEST)
    if why := shortfall():
        raise Exhausted("LOCKED_MEMORY", why)
    _arena.required = True


def shortfall() -> str:
    """What could not be locked and what to do about it; empty when every secret is locked."""
    unlocked = _arena.mapped(locked=False)
    return _no_room(unlocked) if unlocked else ""


def locked_bytes() -> int:
    """Bytes mapped for secrets and locked."""
    return _arena.mapped(locked=True)
