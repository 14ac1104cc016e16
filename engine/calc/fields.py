"""Strict reading of one request's fields: every field known, every needed field there, every value of the right kind.

Errors are `InvalidInput` and `Unsupported` whose reason is the answer's code in upper case (BAD_HEX is `bad-hex`). Messages
name the field and the rule and never repeat a value: the value may be a key in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NoReturn

from keys.errors import InvalidInput, Unsupported

_HEX: Final = re.compile(r"[0-9A-Fa-f]*")


def bad_value(message: str) -> NoReturn:
    raise InvalidInput("BAD_VALUE", message)


def bad_length(message: str) -> NoReturn:
    raise InvalidInput("BAD_LENGTH", message)


def unsupported(message: str) -> NoReturn:
    raise Unsupported("UNSUPPORTED", message)


class Fields:
    """The fields of one JSON object; `place` is put before field names in messages."""

    def __init__(self, values: Mapping[str, object], place: str = "") -> None:
        self._values = values
        self._place = place

    def require_known(self, required: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Raises unknown-field for a field of no use here, then missing-field."""
        required = tuple(required)
        known = {*required, *optional}
        for name in self._values:
            if name not in known:
                raise InvalidInput("UNKNOWN_FIELD", f"field {self._place}{_shown(name)} is not used here")
        for name in required:
            if name not in self._values:
                raise InvalidInput("MISSING_FIELD", f"field {self._place}{name} is missing")

    def has(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str:
        """A string; missing-field, bad-value."""
        if name not in self._values:
            raise InvalidInput("MISSING_FIELD", f"field {self._place}{name} is missing")
        return _text(self._values[name], self._place + name)

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        """One of the allowed words."""
        value = self.text(name)
        if value not in allowed:
            bad_value(f"{self._place}{name} must be one of {', '.join(allowed)}")
        return value

    def integer(self, name: str) -> int:
        """A whole number."""
        value = self._values.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            bad_value(f"{self._place}{name} must be a whole number")
        return value

    def hex(self, name: str, lengths: Sequence[int] | None = None) -> bytes:
        """Hex text of one of the given lengths in bytes."""
        return parse_hex(self.text(name), self._place + name, lengths)

    def hex_list(self, name: str, lengths: Sequence[int] | None = None) -> list[bytes]:
        """A list of hex texts."""
        value = self._values.get(name)
        if not isinstance(value, list):
            bad_value(f"{self._place}{name} must be a list of hex strings")
        places = [f"{self._place}{name}[{index}]" for index in range(len(value))]
        return [parse_hex(_text(item, place), place, lengths) for item, place in zip(value, places, strict=True)]

    def digits(self, name: str, shortest: int, longest: int) -> str:
        """Decimal digits, as many as allowed."""
        value = self.text(name)
        if not value.isascii() or not value.isdecimal():
            bad_value(f"{self._place}{name} must be decimal digits")
        if not shortest <= len(value) <= longest:
            wanted = str(shortest) if shortest == longest else f"{shortest} to {longest}"
            bad_length(f"{self._place}{name} must have {wanted} digits, not {len(value)}")
        return value

    def fields(self, name: str) -> Fields:
        """A nested object."""
        value = self._values.get(name)
        if not isinstance(value, dict):
            bad_value(f"{self._place}{name} must be an object")
        return Fields(value, f"{self._place}{name}.")


def parse_hex(value: str, place: str, lengths: Sequence[int] | None) -> bytes:
    """Bytes from hex digits in either case without separators; bad-hex, bad-length."""
    if not _HEX.fullmatch(value) or len(value) % 2:
        raise InvalidInput("BAD_HEX", f"{place} must be an even number of hex digits and nothing else")
    data = bytes.fromhex(value)
    if lengths is not None and len(data) not in lengths:
        bad_length(f"{place} must have {' or '.join(map(str, lengths))} bytes, not {len(data)}")
    return data


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        bad_value(f"{place} must be a string")
    return value


def _shown(name: str) -> str:
    """A field name fit for a message: somebody may have pasted a key where a name belongs."""
    return repr(name) if len(name) <= 24 else f"of {len(name)} characters"
