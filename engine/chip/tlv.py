"""BER-TLV (ISO/IEC 7816-4 clause 5.2.2, EMV Book 3 annex B) and data groupings, DGI (EMV CPS 1.1, STORE DATA).

Every decoder names the offset at which the bytes stop making sense. Indefinite lengths are not used on cards and are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from keys.errors import InvalidInput

MAX_TAG_BYTES = 4
MAX_DGI_LENGTH = 0xFFFF


@dataclass(frozen=True, slots=True)
class Tlv:
    """One data object; `offset` is where its tag starts in the bytes that were decoded."""

    tag: int
    value: bytes
    offset: int = 0

    def __repr__(self) -> str:
        return f"Tlv({self.tag:02X}, {len(self.value)} bytes at {self.offset})"

    @property
    def constructed(self) -> bool:
        """Bit 6 of the first tag byte: the value is itself made of data objects."""
        return bool(tag_bytes(self.tag)[0] & 0x20)


@dataclass(frozen=True, slots=True)
class DataGrouping:
    """One DGI and its value; `offset` is where its number starts."""

    dgi: int
    value: bytes
    offset: int = 0

    def __repr__(self) -> str:
        return f"DataGrouping({self.dgi:04X}, {len(self.value)} bytes at {self.offset})"


def tag_bytes(tag: int) -> bytes:
    """A tag as its bytes; InvalidInput TLV_INVALID when the number is no BER tag of up to four bytes."""
    if tag < 0:
        raise InvalidInput("TLV_INVALID", "a tag cannot be negative")
    encoded = tag.to_bytes(max(1, (tag.bit_length() + 7) // 8), "big")
    if len(encoded) > MAX_TAG_BYTES or encoded[0] == 0 or _tag_end(encoded, 0) != len(encoded):
        raise InvalidInput("TLV_INVALID", f"{tag:X} is not a BER tag")
    return encoded


def encode(tag: int, value: bytes) -> bytes:
    """tag || length || value with the shortest length form."""
    return tag_bytes(tag) + length_bytes(len(value)) + value


def length_bytes(length: int) -> bytes:
    if length < 0x80:
        return bytes((length,))
    body = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(body),)) + body


def decode(encoded: bytes, base: int = 0) -> list[Tlv]:
    """All data objects on one level. `base` is added to offsets, so that nested levels report places in the whole.

    Raises InvalidInput TLV_INVALID.
    """
    found: list[Tlv] = []
    at = 0
    while at < len(encoded):
        start = at
        if encoded[at] == 0:
            raise _bad(base + at, "a tag cannot be 00")
        at = _tag_end(encoded, at)
        if at < 0:
            raise _bad(base + start, "the tag does not end")
        tag = int.from_bytes(encoded[start:at], "big")
        length, at = _length(encoded, at, base)
        if at + length > len(encoded):
            raise _bad(base + start, f"tag {tag:02X} announces {length} bytes, {len(encoded) - at} are left")
        found.append(Tlv(tag, bytes(encoded[at : at + length]), base + start))
        at += length
    return found


def walk(encoded: bytes) -> Iterator[Tlv]:
    """Every data object at every level, outer before inner. Offsets of inner objects count from their own template's value."""
    for item in decode(encoded):
        yield item
        if item.constructed:
            yield from walk(item.value)


def find(encoded: bytes, tag: int) -> bytes | None:
    """The value of the first `tag` at any level, or None."""
    return next((item.value for item in walk(encoded) if item.tag == tag), None)


def encode_dgi(dgi: int, value: bytes) -> bytes:
    """DGI[2] || length || value; the length is one byte below 255, otherwise FF and two bytes."""
    if not 0 <= dgi <= 0xFFFF:
        raise InvalidInput("DGI_INVALID", f"DGI {dgi:X} is not two bytes")
    size = len(value)
    if size > MAX_DGI_LENGTH:
        raise InvalidInput("DGI_INVALID", f"DGI {dgi:04X} has {size} bytes, at most {MAX_DGI_LENGTH} can be announced")
    length = bytes((size,)) if size < 0xFF else b"\xff" + size.to_bytes(2, "big")
    return dgi.to_bytes(2, "big") + length + value


def encode_dgis(groupings: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(encode_dgi(dgi, value) for dgi, value in groupings)


def decode_dgis(encoded: bytes) -> list[DataGrouping]:
    """All groupings of a complete run of bytes; InvalidInput DGI_INVALID."""
    found: list[DataGrouping] = []
    at = 0
    while at < len(encoded):
        start = at
        if len(encoded) - at < 3:
            raise InvalidInput("DGI_INVALID", f"offset {start}: a DGI header needs 3 bytes, {len(encoded) - at} are left")
        dgi = int.from_bytes(encoded[at : at + 2], "big")
        size = encoded[at + 2]
        at += 3
        if size == 0xFF:
            if len(encoded) - at < 2:
                raise InvalidInput("DGI_INVALID", f"offset {start}: DGI {dgi:04X} has length FF without two bytes after it")
            size = int.from_bytes(encoded[at : at + 2], "big")
            at += 2
        if at + size > len(encoded):
            raise InvalidInput("DGI_INVALID", f"offset {start}: DGI {dgi:04X} announces {size} bytes, {len(encoded) - at} left")
        found.append(DataGrouping(dgi, bytes(encoded[at : at + size]), start))
        at += size
    return found


def _tag_end(encoded: bytes, at: int) -> int:
    """Offset after the tag that starts at `at`, or -1."""
    if encoded[at] & 0x1F != 0x1F:
        return at + 1
    for end in range(at + 1, min(len(encoded), at + MAX_TAG_BYTES)):
        if not encoded[end] & 0x80:
            return end + 1
    return -1


def _length(encoded: bytes, at: int, base: int) -> tuple[int, int]:
    if at >= len(encoded):
        raise _bad(base + at, "the length is missing")
    first = encoded[at]
    if first < 0x80:
        return first, at + 1
    size = first & 0x7F
    if size == 0:
        raise _bad(base + at, "indefinite lengths are not used on cards")
    if size > 4 or at + 1 + size > len(encoded):
        raise _bad(base + at, f"a length of {size} bytes does not fit")
    return int.from_bytes(encoded[at + 1 : at + 1 + size], "big"), at + 1 + size


def _bad(offset: int, rule: str) -> InvalidInput:
    return InvalidInput("TLV_INVALID", f"offset {offset}: {rule}")
