"""What every way to a chip has in common: the interface, the errors, and GET RESPONSE.

Two errors matter to the card transaction, because they say different things about the piece of plastic:
CHIP_GONE    the chip gave no usable answer; what it did with the last command is unknown
READER_GONE  the reader, or the service in front of it, cannot be reached
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from keys.errors import Unavailable

# A chip that keeps announcing more bytes is broken; 256 rounds are 64 KiB.
MAX_GET_RESPONSE = 256


class Transport(Protocol):
    """One reader with at most one chip in it. Not thread-safe: a chip takes one command at a time."""

    @property
    def name(self) -> str:
        """The reader's name, for messages."""

    def connect(self) -> bytes:
        """Powers the chip and gives its ATR. Raises Unavailable CHIP_GONE or READER_GONE."""

    def transmit(self, apdu: bytes) -> bytes:
        """Sends one command, gives data || SW1 SW2 with 61xx already resolved, 6Cxx as it came. Raises as `connect`."""

    def disconnect(self) -> None:
        """Takes the power away. Never raises; calling it again does nothing."""


def chip_gone(name: str, what: str) -> Unavailable:
    return Unavailable("CHIP_GONE", f"reader {name}: {what}; what the chip did with the last command is unknown")


def reader_gone(name: str, what: str) -> Unavailable:
    return Unavailable("READER_GONE", f"reader {name}: {what}")


def exchange(send: Callable[[bytes], bytes], apdu: bytes, name: str) -> bytes:
    """One command and as many GET RESPONSE as 61xx asks for (ISO/IEC 7816-4 clause 5.3.4).

    GET RESPONSE is transport: it is sent plain and outside any secure channel's count.
    An answer too short for a status word is CHIP_GONE: PC/SC can report success for a chip that died in mid-command.
    """
    answer = _checked(send(apdu), name)
    if answer[-2] != 0x61:
        return answer
    parts: list[bytes] = []
    for _ in range(MAX_GET_RESPONSE):
        parts.append(answer[:-2])
        answer = _checked(send(bytes((apdu[0] & 0x03, 0xC0, 0x00, 0x00, answer[-1]))), name)
        if answer[-2] != 0x61:
            return b"".join(parts) + answer
    raise chip_gone(name, f"the chip announced more data {MAX_GET_RESPONSE} times in a row")


def _checked(answer: bytes, name: str) -> bytes:
    if len(answer) < 2:
        raise chip_gone(name, f"the answer has {len(answer)} bytes and no status word")
    return answer
