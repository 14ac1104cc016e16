"""A chip as slow as a real one: the time that a command and its answer take on the contacts, and the chip's own work.

On the contacts a byte takes 11 elementary time units with T=1 (ISO/IEC 7816-3 clause 11.2: start, 8 data bits, parity, one of guard
time), and a block carries 4 bytes around its content (clause 11.3). A rate of f * D / F bits per second: 9600 at the default
F/D = 372/1 and 3.57 MHz, 38400 at 93, 154839 at 23. How long a chip works on a command nobody but its maker knows: `fixed_ms` is
an assumption of whoever sets it, and nothing unless set.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec

Kind = Literal["select", "initialize-update", "external-authenticate", "store-data", "put-key", "set-status", "other"]

_ETU_PER_BYTE: Final = 11
_BLOCK_BYTES: Final = 4
_KINDS: Final[dict[int, Kind]] = {
    0xA4: "select",
    0x50: "initialize-update",
    0x82: "external-authenticate",
    0xE2: "store-data",
    0xD8: "put-key",
    0xF0: "set-status",
}


class Speed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How fast contacts and chip are. `fixed_ms`: milliseconds a chip works on each command of a kind."""

    bits_per_s: Annotated[int, msgspec.Meta(ge=1)]
    fixed_ms: dict[Kind, Annotated[float, msgspec.Meta(ge=0, le=60000)]] = {}

    def seconds(self, apdu: bytes, answer: bytes) -> float:
        """The least time from a command's first bit to its answer's last."""
        wire = (len(apdu) + len(answer) + 2 * _BLOCK_BYTES) * _ETU_PER_BYTE / self.bits_per_s
        kind = _KINDS.get(apdu[1], "other") if len(apdu) > 1 else "other"
        return wire + self.fixed_ms.get(kind, 0.0) / 1000

    def paced(self, send: Callable[[bytes], bytes], apdu: bytes) -> bytes:
        """Sends a command, and gives the answer when a chip of this speed would have. No answer takes no time."""
        began = time.monotonic()
        answer = send(apdu)
        if answer:
            time.sleep(max(0.0, began + self.seconds(apdu, answer) - time.monotonic()))
        return answer
