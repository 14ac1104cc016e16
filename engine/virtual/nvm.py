"""A chip's durable memory: names and values, kept in a log of changes, one record for each command that changed anything.

All changes of one command become durable together or not at all, as a card's transaction mechanism promises.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.virtual.recordlog import RecordLog
from keys.errors import Corrupt

Value = bytes | int
# The file holds keys in clear, as the inside of a chip does; mode 0600 is all the tamper resistance it has.

_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(dict[str, bytes | int | None]).decode


class Moved(Exception):
    """The same memory was opened and written elsewhere: this piece is no longer here. Internal to the virtual chip."""


class Nvm:
    """Memory of one chip. Reads see changes at once; `commit` makes them durable, `rollback` undoes them."""

    def __init__(self, path: Path) -> None:
        self._log = RecordLog(path)
        self._values: dict[str, Value] = {}
        self._changed: dict[str, Value | None] = {}
        self._before: dict[str, Value | None] = {}
        try:
            for payload in self._log.read_new():
                for name, value in _DECODE(payload).items():
                    self._set(name, value)
        except msgspec.DecodeError as error:
            raise Corrupt("CHIP_MEMORY_DAMAGED", f"{path.name}: a record does not decode: {error}") from None

    @property
    def blank(self) -> bool:
        """True before anything was ever written."""
        return self._log.end == 0 and not self._changed

    def get_bytes(self, name: str) -> bytes | None:
        value = self._values.get(name)
        return value if isinstance(value, bytes) else None

    def get_int(self, name: str, default: int = 0) -> int:
        value = self._values.get(name)
        return value if isinstance(value, int) else default

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def names(self, prefix: str) -> Iterator[str]:
        """Names that start with `prefix`, in the order in which they were first written."""
        return iter([name for name in self._values if name.startswith(prefix)])

    def put(self, name: str, value: Value | None) -> None:
        """Sets a value; None forgets it."""
        if name not in self._before:
            self._before[name] = self._values.get(name)
        self._changed[name] = value
        self._set(name, value)

    def drop(self, prefix: str) -> None:
        for name in self.names(prefix):
            self.put(name, None)

    def commit(self) -> None:
        """Makes this command's changes durable. Raises Moved when the file was written by somebody else meanwhile."""
        if not self._changed:
            return
        if self._log.foreign_growth():
            self.rollback()
            raise Moved
        self._log.append(_ENCODE(self._changed))
        self._changed.clear()
        self._before.clear()

    def rollback(self) -> None:
        for name, value in self._before.items():
            self._set(name, value)
        self._changed.clear()
        self._before.clear()

    def close(self) -> None:
        self._log.close()

    def _set(self, name: str, value: Value | None) -> None:
        if value is None:
            self._values.pop(name, None)
        else:
            self._values[name] = value
