"""What an order must be: the parameters a bureau sets, the catalogue of rules, and the arithmetic of the check digits.

A rule's name is stable; programs match on it. The rules themselves are applied in two places that must agree: `exact`, a record
at a time, which words the messages, and `matrix`, thousands of records at a time, which only finds the rows that break none.
"""

from __future__ import annotations

import calendar
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from keys.errors import InvalidInput, NotFound

# Rule -> what it asks for. Documentation and the closed list of names at once.
RULES: Final[Mapping[str, str]] = {
    "column-missing": "a record has as many fields as the heading line",
    "column-extra": "a record has no more fields than the heading line",
    "line-too-long": "a record is at most 64 KiB long",
    "quote-unterminated": "a quoted field is closed before the record is 64 KiB long and before the file ends",
    "quote-misplaced": "quotes stand around a whole field; inside one they are doubled (RFC 4180)",
    "character-unassigned": "text holds assigned characters only, none of a private-use area",
    "control-character": "no control or invisible format characters; line breaks only inside the address",
    "field-missing": "a column that must be filled is filled",
    "field-too-long": "a value is no longer than its column allows",
    "sequence-format": "1 to 18 digits",
    "id-format": "17 digits, then a digit or capital X (GB 11643)",
    "id-check-digit": "the check character of the citizen number fits (GB 11643, ISO 7064 MOD 11-2)",
    "id-region-unknown": "the citizen number begins with a known province (GB/T 2260)",
    "id-birth-mismatch": "digits 7 to 14 of the citizen number are the birth date",
    "sex-mismatch": "the 17th digit of the citizen number is odd for male, even for female",
    "name-missing": "there is a name",
    "name-character": "a name is Chinese characters, its parts separated by single U+00B7",
    "name-too-long": "a name fits the name field and the name extension of the card, in GB 18030 bytes",
    "sex-unknown": "1 male, 2 female",
    "ethnicity-unknown": "01 to 56, 97 or 98 (GB/T 3304)",
    "date-invalid": "a real date, YYYYMMDD, 1900 or later",
    "birth-after-issue": "the birth date is not after the issue date",
    "expiry-before-issue": "the expiry date is after the issue date",
    "region-unknown": "the issuing region is one this bureau takes orders for (GB/T 2260)",
    "card-number-format": "9 characters 0-9 and A-Z",
    "card-number-check": "the check character of the card number fits (as GB 11714)",
    "bank-code-format": "2 to 12 characters 0-9 and A-Z",
    "pan-not-digits": "a PAN is digits only",
    "pan-length": "a PAN has as many digits as the bureau's range of lengths allows (ISO/IEC 7812-1: at most 19)",
    "pan-luhn": "the check digit of the PAN fits (ISO/IEC 7812-1, Luhn)",
    "phone-format": "digits, with single hyphens between them and + in front at most; 15 characters",
    "kind-unknown": "首次, 补卡, 换卡, or first, replacement, renewal",
    "outlet-format": "1 to 16 letters, digits, hyphens and underscores",
    "photo-file-format": "a plain file name of letters, digits, dots, hyphens and underscores that ends in jpg, jpeg, png or bmp",
    "duplicate-person": "one file orders one card for a person",
    "duplicate-card-number": "one file uses a card number once",
    "duplicate-pan": "one file uses a PAN once: two cards with one PAN would share the finance keys",
    "duplicate-person-issued": "a first card is for a person who has none; others are 补卡 or 换卡",
    "duplicate-card-number-issued": "a card number issued before stays with its person",
}

KINDS: Final[Mapping[str, bytes]] = {
    "首次": b"first",
    "补卡": b"replacement",
    "换卡": b"renewal",
    "first": b"first",
    "replacement": b"replacement",
    "renewal": b"renewal",
}
NAME_SEPARATOR: Final = "·"

# GB 11643: weights 2^(17-i) mod 11, and the check character by the sum mod 11.
ID_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
ID_CHECK: Final = b"10X98765432"
# LD/T 32, the same scheme as GB 11714: weights over 8 characters, c = 11 - sum mod 11, 10 is X, 11 is 0.
CARD_WEIGHTS: Final = (3, 7, 9, 10, 5, 8, 4, 2)
CARD_CHECK: Final = b"0X987654321"
ALPHANUMERIC: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Reject:
    """One rule that one row breaks. `line`: physical line on which the record starts, 1 is the heading.

    `field`: English name of the column; empty when the record as a whole is at fault.
    """

    line: int
    field: str
    rule: str
    message: str

    def as_dict(self) -> dict[str, Any]:
        return {"line": self.line, "field": self.field, "rule": self.rule, "message": self.message}


def _region_data() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "data" / "regions.toml").read_text(encoding="utf-8"))


@cache
def region_set(name: str) -> frozenset[str]:
    """A shipped set of issuing regions. NotFound REGION_SET_UNKNOWN."""
    accepted = _region_data()["accepted"]
    if name not in accepted:
        raise NotFound("REGION_SET_UNKNOWN", f"there is no set of regions {name!r}; there are: {', '.join(sorted(accepted))}")
    return frozenset(accepted[name])


@cache
def provinces() -> frozenset[str]:
    """First two digits a citizen number may have."""
    return frozenset(_region_data()["provinces"])


@dataclass(frozen=True, slots=True)
class Rules:
    """What one bureau accepts.

    `regions`: six-digit issuing regions (default: Zhengzhou and its districts). `name_bytes` and `extension_bytes`: room for the
    name on the card in GB 18030 bytes (LD/T 32 EF06: 30, and 30 in the extension record). `extra_name_characters`: allowed in
    names besides Chinese characters and U+00B7. `pan_digits`: least and most digits of a PAN.
    InvalidInput RULES_INVALID when a parameter makes no sense.
    """

    regions: frozenset[str] = field(default_factory=lambda: region_set("zhengzhou"))
    name_bytes: int = 30
    extension_bytes: int = 30
    extra_name_characters: str = ""
    pan_digits: tuple[int, int] = (13, 19)

    def __post_init__(self) -> None:
        if not self.regions or any(len(code) != 6 or not is_digits(code) for code in self.regions):
            raise InvalidInput("RULES_INVALID", "accepted regions must be six-digit codes, at least one")
        if self.name_bytes < 4 or self.extension_bytes < 0 or self.name_bytes + self.extension_bytes > 160:
            raise InvalidInput("RULES_INVALID", "the name field must have at least 4 bytes, with the name extension at most 160")
        if not 8 <= self.pan_digits[0] <= self.pan_digits[1] <= 19:
            raise InvalidInput("RULES_INVALID", "PAN lengths must lie between 8 and 19 digits")
        if any(not c.isprintable() or "\ue000" <= c <= "\uf8ff" or c == "\ufffd" for c in self.extra_name_characters):
            raise InvalidInput("RULES_INVALID", "extra name characters must be printable and assigned")


def is_digits(text: str) -> bool:
    """Only 0-9, at least one; str.isdigit would let other scripts' digits pass."""
    return text.isascii() and text.isdigit()


def id_check_character(seventeen: str) -> str:
    """GB 11643 check character of the first 17 digits.

    >>> id_check_character("11010519491231002")
    'X'
    """
    return chr(ID_CHECK[sum(w * int(d) for w, d in zip(ID_WEIGHTS, seventeen, strict=True)) % 11])


def card_check_character(eight: str) -> str:
    """Check character of the first 8 characters of a social security card number.

    >>> card_check_character("12345678"), card_check_character("A1234567")
    ('8', '4')
    """
    values = (ALPHANUMERIC.index(c) for c in eight.encode("ascii"))
    return chr(CARD_CHECK[sum(w * v for w, v in zip(CARD_WEIGHTS, values, strict=True)) % 11])


def luhn_fits(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the rest (ISO/IEC 7812-1 annex B)."""
    total = 0
    for place, character in enumerate(reversed(digits)):
        value = int(character)
        total += value if place % 2 == 0 else (2 * value - 9 if value > 4 else 2 * value)
    return total % 10 == 0


def is_date(text: str) -> bool:
    """A real Gregorian date YYYYMMDD, 1900 or later."""
    if len(text) != 8 or not is_digits(text):
        return False
    year, month, day = int(text[:4]), int(text[4:6]), int(text[6:])
    return year >= 1900 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]


def masked_id(number: str) -> str:
    """A citizen number fit for messages: province and the last two characters."""
    return f"{number[:2]}{'*' * (len(number) - 4)}{number[-2:]}" if len(number) > 8 else "*" * len(number)


def masked_pan(pan: str) -> str:
    """A PAN fit for messages: the first six and the last four digits (PCI DSS 3.4.1)."""
    return f"{pan[:6]}{'*' * (len(pan) - 10)}{pan[-4:]}" if len(pan) >= 13 else "*" * len(pan)
