"""What a profile may put on a card: the named texts of an order line, of the chip and of the ledger, and how text becomes bytes.

Widths are characters. A width of 0 means the text varies, so the profile must give a length in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.profiles.model import Item, Part, Profile

PAN_DIGITS: Final = range(12, 20)
ORDER_FIELDS: Final[Mapping[str, int]] = {
    "social_security_number": 18,
    "name_field": 0,
    "name_extension": 0,
    "sex": 1,
    "ethnicity": 2,
    "birth_date": 8,
    "issuing_region": 6,
    "card_number": 9,
    "issue_date": 8,
    "expiry_date": 8,
    "pan": 0,
    "phone": 0,
}
# Bytes, not characters: any value may occur in them, 00 included.
BINARY_FIELDS: Final = frozenset({"chip_serial"})
# Text with letters or signs in it. The first 17 characters of an identity number are digits.
LETTER_FIELDS: Final[Mapping[str, int]] = {
    "social_security_number": 17,
    "name_field": 0,
    "name_extension": 0,
    "card_number": 0,
    "phone": 0,
    "chip_serial": 0,
}
ATTEMPT_FIELDS: Final[Mapping[str, int]] = {"psn": 2, "chip_serial": 8}


def widths(profile: Profile, pan_digits: int) -> dict[str, int]:
    """Character width of every field of this profile for cards whose PAN has `pan_digits` digits; 0 where it varies."""
    known = {**ORDER_FIELDS, **ATTEMPT_FIELDS, "pan": pan_digits}
    known.update({f"{pool.name}_serial": pool.digits for pool in profile.serials})
    return known


def items_of(part: Part) -> list[Item]:
    """The texts a `field` or `concat` part is made of; empty for every other kind."""
    if part.field is not None:
        return [Item(field=part.field, slice=part.slice)]
    return part.concat or []


def text_width(items: list[Item], known: Mapping[str, int]) -> int:
    """Characters of the joined items; 0 when any of them varies or is unknown."""
    total = 0
    for item in items:
        if item.text is not None:
            total += len(item.text)
            continue
        width = known.get(item.field or "", 0)
        if item.slice is not None:
            width = item.slice[1] - item.slice[0]
        if width == 0:
            return 0
        total += width
    return total


def byte_length(part: Part, known: Mapping[str, int]) -> int:
    """Bytes of a `field` or `concat` part: its own length, else as many as the text needs; 0 when that is not fixed."""
    if part.length is not None:
        return part.length
    width = text_width(items_of(part), known)
    return (width + 1) // 2 if part.codec in ("cn", "n") else width
