"""Types for secret bytes: they print nothing, compare in constant time, and are overwritten when released.

Owns the one way to hold a key: in locked memory (see `keys.memory`). No copy is left behind by these types, nothing prints a
secret by accident, and every raw use is a visible call (`reveal`, `array`). The overwriting hangs on the memory, not on the secret
object: a view keeps the memory alive, so a view that outlives its secret (`custody.hmac_key("x").reveal()` in one expression) still
shows the key and never, silently, zeros.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn, Self

import numpy as np
import numpy.typing as npt

from keys.errors import Precondition
from keys.memory import SecretBuffer

ByteArray = npt.NDArray[np.uint8]
BytesLike = bytes | bytearray | memoryview
_NOTHING = np.empty(0, np.uint8)


class SecretBytes:
    """Secret bytes in memory of their own, wiped by `close`, at the end of a `with` block, or when the last view of them dies."""

    __slots__ = ("_buffer",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: BytesLike) -> None:
        """Copies `value`; wiping the source is the caller's business (see `move`)."""
        self._buffer: SecretBuffer | None = SecretBuffer(len(value))
        self._buffer.view()[:] = value

    @classmethod
    def move(cls, source: bytearray) -> Self:
        """A secret from `source`, which is wiped."""
        secret = cls(source)
        source[:] = bytes(len(source))
        return secret

    @classmethod
    def fill(cls, length: int, write: Callable[[memoryview], object]) -> Self:
        """A secret that `write` puts into locked memory itself: for what can compute into a buffer, so that no copy is made."""
        secret = cls.__new__(cls)
        buffer = SecretBuffer(length)
        write(buffer.view())
        secret._buffer = buffer  # noqa: SLF001 - a constructor
        return secret

    def reveal(self) -> memoryview:
        """The raw bytes, read-only, without a copy; usable as `with secret.reveal() as raw`.

        Raises Precondition SECRET_WIPED; SECRET_NOT_INHERITED in a fork.
        """
        if self._buffer is None:
            raise Precondition("SECRET_WIPED", "this secret was already wiped")
        return self._buffer.view().toreadonly()

    def close(self) -> None:
        """Overwrites the memory with zeros. Views taken by `reveal` then see zeros. May be called twice."""
        if self._buffer is not None:
            self._buffer.wipe()
            self._buffer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return 0 if self._buffer is None else len(self._buffer)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretBytes):
            return NotImplemented
        return hmac.compare_digest(self.reveal(), other.reveal())

    def __repr__(self) -> str:
        return "SecretBytes(wiped)" if self._buffer is None else f"SecretBytes({len(self._buffer)} bytes)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")


class SecretArray:
    """A uint8 array of secrets, wiped by `close`, at the end of a `with` block, or when the last view of it dies.

    Made from an array it moves the bytes into memory of its own and wipes the source; `empty` gives memory to be filled in place.
    """

    __slots__ = ("_array", "_buffer")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, source: ByteArray) -> None:
        """Moves `source`. Raises TypeError unless it is a writeable uint8 array."""
        if source.dtype != np.uint8 or not source.flags.writeable:
            raise TypeError("SecretArray needs a writeable uint8 array")
        self._hold(source.shape)[...] = source
        source[...] = 0

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Self:
        """Zeros of that shape, to be filled through `array`."""
        secret = cls.__new__(cls)
        secret._hold(shape)  # noqa: SLF001 - a constructor
        return secret

    def _hold(self, shape: tuple[int, ...]) -> ByteArray:
        self._buffer: SecretBuffer | None = SecretBuffer(math.prod(shape))
        self._array = self._buffer.array(shape)
        return self._array

    @property
    def array(self) -> ByteArray:
        """The raw array itself. Raises Precondition SECRET_WIPED; SECRET_NOT_INHERITED in a fork."""
        if self._buffer is None:
            raise Precondition("SECRET_WIPED", "this secret was already wiped")
        self._buffer.require_own()
        return self._array

    def reveal(self) -> ByteArray:
        """The raw array itself: the same as `array`, for symmetry with SecretBytes."""
        return self.array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array; () after `close`."""
        return () if self._buffer is None else self._array.shape

    def secret(self, *index: int) -> SecretBytes:
        """One row as a SecretBytes of its own (a copy)."""
        return SecretBytes(np.ascontiguousarray(self.array[index]).data)

    def close(self) -> None:
        """Overwrites the array with zeros. May be called twice."""
        if self._buffer is not None:
            self._buffer.wipe()
            self._buffer = None
            self._array = _NOTHING

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return 0 if self._buffer is None else len(self._array)

    def __repr__(self) -> str:
        return "SecretArray(wiped)" if self._buffer is None else f"SecretArray(shape={self._array.shape})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")
