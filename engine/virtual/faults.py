"""What can be wrong with a chip, as data, so that tests and demonstrations can order it per chip.

APDU indexes count every command a `VirtualChip` object receives, from 0, across resets: the object stands for the piece while
it lies in one head.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from engine.virtual.speed import Speed
from keys.errors import InvalidInput

Lie = Literal[
    "internal-authenticate",
    "initialize-for-load",
    "generate-ac",
    "read-record",
    "external-authenticate",
    "credit-for-load",
    "debit-for-purchase",
    "get-balance",
]
ChipId = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{20}$")]
Index = Annotated[int, msgspec.Meta(ge=0)]

# INS of the commands a chip can be told to answer wrongly.
_LIES: dict[int, Lie] = {
    0x88: "internal-authenticate",
    0x50: "initialize-for-load",
    0xAE: "generate-ac",
    0xB2: "read-record",
    0x82: "external-authenticate",
    0x52: "credit-for-load",
    0x54: "debit-for-purchase",
    0x5C: "get-balance",
}


class Death(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The chip stops answering at command `at`: before it is processed, or after, when only the answer is lost."""

    at: Index
    when: Literal["before", "after"] = "before"
    # True: it answers again after the next power-on. False: it is dead for good, in its memory file too.
    revive: bool = False


class Garbage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to command `at` is replaced: random bytes, one byte too few, or a status word of 6F00."""

    at: Index
    kind: Literal["random", "length", "sw"]


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that is wrong with one chip; the default is a good one."""

    die: Death | None = None
    garbage: list[Garbage] = []
    wrong_transport_keys: bool = False
    # Came off another line: issuer keys under another key version, SECURED, all applets personalized.
    already_personalized: bool = False
    # Still under transport keys, but one applet (or more) is personalized: instance AIDs in hex.
    personalized_applets: list[str] = []
    lies: list[Lie] = []
    slow_ms: Annotated[float, msgspec.Meta(ge=0, le=60000)] = 0.0
    locked_key_set: bool = False

    @property
    def any_per_command(self) -> bool:
        """True when commands must be looked at one by one; a good chip skips all of that."""
        return bool(self.die or self.garbage or self.lies or self.slow_ms)

    def spoil(self, index: int, apdu: bytes, answer: bytes) -> bytes:
        """The answer as the faulty chip gives it."""
        for garbage in self.garbage:
            if garbage.at == index:
                return _garbage(garbage.kind, index, answer)
        if self.lies and len(apdu) > 3 and _LIES.get(apdu[1]) in self.lies:
            return _lie(apdu, answer)
        return answer


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Faults for a whole magazine: by chip id, else for every n-th serial number, else the default."""

    chips: dict[ChipId, Faults] = {}
    every: Annotated[int, msgspec.Meta(ge=1)] | None = None
    every_nth: Faults = Faults()
    default: Faults = Faults()
    # of the reader rather than of a chip: how fast commands and answers go through it
    speed: Speed | None = None

    def for_chip(self, chip_id: str) -> Faults:
        """Faults of one chip; the serial number's last 8 hex digits decide about every n-th."""
        if chip_id in self.chips:
            return self.chips[chip_id]
        if self.every and int(chip_id[-8:], 16) % self.every == 0:
            return self.every_nth
        return self.default


GOOD = Faults()
GOOD_PLAN = Plan()


def load_plan(path: Path) -> Plan:
    """Reads a plan from a JSON file; InvalidInput FAULT_PLAN_INVALID names the file and the place in it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except OSError as error:
        raise InvalidInput("FAULT_PLAN_INVALID", f"fault plan {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("FAULT_PLAN_INVALID", f"fault plan {path}: {error}") from None


def _garbage(kind: str, index: int, answer: bytes) -> bytes:
    if kind == "random":
        # Seeded by the index: a failing run must fail the same way again.
        return random.Random(index).randbytes(max(2, len(answer)))  # noqa: S311 - noise, not a secret
    return answer[:-1] if kind == "length" else answer[:-2] + b"\x6f\x00"


def _lie(apdu: bytes, answer: bytes) -> bytes:
    if answer[-2:] != b"\x90\x00":
        return answer
    if apdu[1] == 0x82:
        # To the security domain (CLA 84) it is the channel's business; an applet's verifier simply denies.
        return answer if apdu[0] & 0x04 else b"\x63\xc2"
    if apdu[1] == 0x50 and apdu[2:4] != b"\x00\x02":
        return answer
    if len(answer) < 3:
        return answer
    # The end of the data is where cryptograms and MACs are; for a read it is simply one wrong byte.
    spoiled = bytearray(answer)
    spoiled[-3] ^= 0x01
    return bytes(spoiled)
