"""Command and response APDUs, short form only (ISO/IEC 7816-3 clause 12.1, 7816-4 clause 5).

Extended lengths are refused, not guessed: the chips of this system and vpcd's 16-bit frame both end at short APDUs.
"""

from __future__ import annotations

from dataclasses import dataclass

from keys.errors import Corrupt, InvalidInput

MAX_DATA = 255


@dataclass(frozen=True, slots=True)
class CommandApdu:
    """One command. `data` holds 0 to 255 bytes; `le` is None (absent) or 0 to 255, where 0 asks for up to 256 bytes.

    Raises InvalidInput APDU_INVALID for a field out of range.
    """

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes = b""
    le: int | None = None

    def __post_init__(self) -> None:
        for name in ("cla", "ins", "p1", "p2"):
            value: int = getattr(self, name)
            if not 0 <= value <= 0xFF:
                raise InvalidInput("APDU_INVALID", f"APDU {name} is {value}, not one byte")
        if len(self.data) > MAX_DATA:
            raise InvalidInput("APDU_INVALID", f"APDU data has {len(self.data)} bytes, a short APDU carries at most {MAX_DATA}")
        if self.le is not None and not 0 <= self.le <= 0xFF:
            raise InvalidInput("APDU_INVALID", f"APDU Le is {self.le}, a short Le is 0 to 255 with 0 for 256")

    def __repr__(self) -> str:
        # The data may be a PIN block or a cryptogram: its length is all a log needs.
        le = "" if self.le is None else f" Le={self.le:02X}"
        return f"CommandApdu({self.cla:02X} {self.ins:02X} {self.p1:02X} {self.p2:02X} Lc={len(self.data)}{le})"

    def encode(self) -> bytes:
        """The bytes on the wire: 4 to 261 of them."""
        header = bytes((self.cla, self.ins, self.p1, self.p2))
        body = bytes((len(self.data),)) + self.data if self.data else b""
        return header + body + (b"" if self.le is None else bytes((self.le,)))

    @classmethod
    def parse(cls, apdu: bytes) -> CommandApdu:
        """The command in `apdu`; InvalidInput APDU_INVALID names what does not fit."""
        size = len(apdu)
        if size < 4:
            raise InvalidInput("APDU_INVALID", f"APDU has {size} bytes, the header alone has 4")
        cla, ins, p1, p2 = apdu[:4]
        if size == 4:
            return cls(cla, ins, p1, p2)
        if size == 5:
            return cls(cla, ins, p1, p2, le=apdu[4])
        lc = apdu[4]
        if lc == 0:
            raise InvalidInput("APDU_INVALID", f"APDU of {size} bytes has Lc 00 at offset 4: extended lengths are not used here")
        if size == 5 + lc:
            return cls(cla, ins, p1, p2, bytes(apdu[5:]))
        if size == 6 + lc:
            return cls(cla, ins, p1, p2, bytes(apdu[5:-1]), apdu[-1])
        raise InvalidInput("APDU_INVALID", f"APDU has {size} bytes, Lc {lc:02X} at offset 4 needs {5 + lc}, or {6 + lc} with Le")


@dataclass(frozen=True, slots=True)
class ResponseApdu:
    """One response: data and the two-byte status word."""

    data: bytes
    sw: int

    def __repr__(self) -> str:
        return f"ResponseApdu({len(self.data)} bytes, {self.sw:04X})"

    @property
    def ok(self) -> bool:
        """True for 9000 alone; warnings and 61xx are for the caller to judge."""
        return self.sw == 0x9000

    def encode(self) -> bytes:
        return self.data + self.sw.to_bytes(2, "big")

    @classmethod
    def parse(cls, answer: bytes) -> ResponseApdu:
        """Splits an answer; Corrupt APDU_RESPONSE_SHORT when it cannot even hold a status word."""
        if len(answer) < 2:
            raise Corrupt("APDU_RESPONSE_SHORT", f"the answer has {len(answer)} bytes, a status word alone has 2")
        return cls(bytes(answer[:-2]), int.from_bytes(answer[-2:], "big"))
