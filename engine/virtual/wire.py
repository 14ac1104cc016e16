"""What the layers of the chip pass to each other: a parsed command, a refusal, and data objects as bytes."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A short command APDU. `le` is None when absent, 0 for 256."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes
    le: int | None

    def __repr__(self) -> str:
        return f"Command({self.cla:02X} {self.ins:02X} {self.p1:02X} {self.p2:02X} Lc={len(self.data)})"


class Refused(Exception):
    """The command ends with this status word and changes nothing that is not already committed."""

    def __init__(self, sw: int) -> None:
        super().__init__(f"{sw:04X}")
        self.sw = sw


def parse(apdu: bytes) -> Command:
    """Raises Refused 6700 for anything that is not a short command APDU."""
    size = len(apdu)
    if size < 4:
        raise Refused(0x6700)
    if size == 4:
        return Command(apdu[0], apdu[1], apdu[2], apdu[3], b"", None)
    lc = apdu[4]
    if size == 5:
        return Command(apdu[0], apdu[1], apdu[2], apdu[3], b"", lc)
    if lc and size == 5 + lc:
        return Command(apdu[0], apdu[1], apdu[2], apdu[3], apdu[5:], None)
    if size == 6 + lc and lc:
        return Command(apdu[0], apdu[1], apdu[2], apdu[3], apdu[5:-1], apdu[-1])
    raise Refused(0x6700)


def tlv(tag: int, value: bytes) -> bytes:
    """One BER-TLV data object of at most 65,535 bytes."""
    size = len(value)
    length = bytes((size,)) if size < 0x80 else (b"\x81" + bytes((size,)) if size < 0x100 else b"\x82" + size.to_bytes(2, "big"))
    return tag.to_bytes((tag.bit_length() + 7) // 8, "big") + length + value


def read_tlvs(encoded: bytes) -> list[tuple[int, bytes]]:
    """Data objects on one level; Refused 6A80 for anything else."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(encoded):
        end = at + 1
        if encoded[at] & 0x1F == 0x1F:
            while end < len(encoded) and encoded[end] & 0x80:
                end += 1
            end += 1
        if end >= len(encoded) or encoded[at] == 0 or end - at > 4:
            raise Refused(0x6A80)
        tag = int.from_bytes(encoded[at:end], "big")
        length = encoded[end]
        at = end + 1
        if length >= 0x80:
            size = length & 0x7F
            if size not in (1, 2) or at + size > len(encoded):
                raise Refused(0x6A80)
            length = int.from_bytes(encoded[at : at + size], "big")
            at += size
        if at + length > len(encoded):
            raise Refused(0x6A80)
        found.append((tag, encoded[at : at + length]))
        at += length
    return found
