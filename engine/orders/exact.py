"""One record, checked exactly: every rule it breaks, in plain words. The slow way, and the only one that words messages.

Messages name places, lengths and character codes, never content; citizen numbers and PANs appear masked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.orders import characters, gb18030
from engine.orders.columns import COLUMNS, INDEX, NAMES, Layout
from engine.orders.rules import (
    ALPHANUMERIC,
    ID_CHECK,
    KINDS,
    NAME_SEPARATOR,
    Reject,
    Rules,
    card_check_character,
    id_check_character,
    is_date,
    is_digits,
    luhn_fits,
    masked_id,
    masked_pan,
    provinces,
)

_ALPHANUMERIC: Final = frozenset(ALPHANUMERIC.decode("ascii"))
_BANK: Final = re.compile(r"[0-9A-Z]{2,12}")
_PHONE: Final = re.compile(r"\+?[0-9]+(?:-[0-9]+)*")
_OUTLET: Final = re.compile(r"[0-9A-Za-z_-]{1,16}")
_PHOTO: Final = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]*\.(?:jpe?g|png|bmp)", re.IGNORECASE)
_DATES: Final = ("birth_date", "issue_date", "expiry_date")
# A value that is too long breaks its column's own rule; only free text has none.
_LONG_RULES: Final = {
    "sequence": "sequence-format",
    "social_security_number": "id-format",
    "sex": "sex-unknown",
    "ethnicity": "ethnicity-unknown",
    "birth_date": "date-invalid",
    "issue_date": "date-invalid",
    "expiry_date": "date-invalid",
    "issuing_region": "region-unknown",
    "card_number": "card-number-format",
    "bank_code": "bank-code-format",
    "pan": "pan-not-digits",
    "phone": "phone-format",
    "kind": "kind-unknown",
    "outlet": "outlet-format",
}


@dataclass(slots=True, repr=False)
class CheckedRecord:
    """What became of one record. `values`: in the order of STORED, when it broke no rule. The three keys, where the field itself
    is sound, let a defective row still be found to repeat another; they are UTF-8."""

    line: int
    rejects: list[Reject] = field(default_factory=list)
    values: tuple[bytes, ...] | None = None
    person: bytes | None = None
    card: bytes | None = None
    pan: bytes | None = None


def check_record(line: int, fields: Sequence[bytes], layout: Layout, encoding: str, rules: Rules) -> CheckedRecord:
    """Checks the raw fields of one record. `encoding`: "utf-8" or "gb18030"; UnicodeDecodeError when the file is not that."""
    checked = CheckedRecord(line)
    if len(fields) != layout.width:
        checked.rejects.append(_wrong_count(line, len(fields), layout))
        return checked
    _Check(checked, encoding, rules).run([fields[place] for place in layout.places])
    return checked


def _wrong_count(line: int, count: int, layout: Layout) -> Reject:
    if count > layout.width:
        message = f"the record has {count} fields, {count - layout.width} more than the heading line"
        return Reject(line, NAMES[-1], "column-extra", message)
    lost = [(place, name) for place, name in zip(layout.places, NAMES, strict=True) if place >= count]
    first_lost = min(lost)[1] if lost else NAMES[-1]
    return Reject(line, first_lost, "column-missing", f"the record has {count} fields, the heading line has {layout.width}")


class _Check:
    """The checks of one record. A field that is broken as text is not checked for its meaning."""

    def __init__(self, checked: CheckedRecord, encoding: str, rules: Rules) -> None:
        self._checked = checked
        self._gb = encoding == "gb18030"
        self._rules = rules
        self._sound: set[str] = set()
        self._text: dict[str, str] = {}

    def run(self, fields: Sequence[bytes]) -> None:
        for column, octets in zip(COLUMNS, fields, strict=True):
            text = gb18030.decode(octets) if self._gb else octets.decode("utf-8")
            self._text[column.name] = text
            if self._is_text(column.name, octets, text) and self._is_filled(column.name, column.optional, text):
                if column.name != "name" and len(text.encode("utf-8")) > column.max_bytes:
                    message = f"the value is longer than {column.max_bytes} bytes in UTF-8"
                    self._say(column.name, _long_rule(column.name, text), message)
                else:
                    self._sound.add(column.name)
        self._formats()
        self._citizen_number()
        self._dates()
        self._card_and_account()
        name = self._name()
        if not self._checked.rejects:
            self._accept(*name)

    def _say(self, column: str, rule: str, message: str) -> None:
        self._sound.discard(column)
        self._checked.rejects.append(Reject(self._checked.line, column, rule, message))

    def _differs(self, column: str, rule: str, message: str) -> None:
        """Two fields contradict each other. Which of them is wrong cannot be known, so both stay open to further checks."""
        self._checked.rejects.append(Reject(self._checked.line, column, rule, message))

    # Text

    def _is_text(self, column: str, octets: bytes, text: str) -> bool:
        if text.isascii() and text.isprintable():
            return True
        table = characters.classes()
        breaks = column == "address"
        for place, character in enumerate(text, start=1):
            bits = int(table[ord(character)])
            if bits & characters.UNASSIGNED:
                self._say(column, "character-unassigned", f"character {place} is {self._unassigned(octets, character)}")
                return False
            if bits & characters.CONTROL and not (breaks and character in "\r\n"):
                shown = f"U+{ord(character):04X}"
                self._say(column, "control-character", f"character {place} is the control or invisible character {shown}")
                return False
        return True

    def _unassigned(self, octets: bytes, character: str) -> str:
        shown = f"U+{ord(character):04X}"
        if not self._gb:
            return f"{shown}, to which no character is assigned"
        if character == gb18030.REPLACEMENT:
            code = gb18030.unassigned_code(octets) or gb18030.code_of(character)
            return f"the GB 18030 code {code}, to which no character is assigned"
        return f"the GB 18030 code {gb18030.code_of(character)} ({shown}, private use), to which no character is assigned"

    def _is_filled(self, column: str, optional: bool, text: str) -> bool:
        if text and not (column == "name" and text.isspace()):
            return True
        if column == "name":
            self._say(column, "name-missing", "there is no name")
        elif not optional:
            self._say(column, "field-missing", "the field is empty")
        return optional

    # Single fields

    def _formats(self) -> None:
        text, sound = self._text, self._sound
        if "sequence" in sound and not is_digits(text["sequence"]):
            self._say("sequence", "sequence-format", "the sequence number is not 1 to 18 digits")
        if "sex" in sound and text["sex"] not in ("1", "2"):
            self._say("sex", "sex-unknown", "sex is neither 1 (male) nor 2 (female)")
        if "ethnicity" in sound and not _is_ethnicity(text["ethnicity"]):
            self._say("ethnicity", "ethnicity-unknown", "not a code of GB/T 3304: 01 to 56, 97 or 98")
        if "issuing_region" in sound and text["issuing_region"] not in self._rules.regions:
            self._say("issuing_region", "region-unknown", "not a region this bureau takes orders for")
        if "bank_code" in sound and not _BANK.fullmatch(text["bank_code"]):
            self._say("bank_code", "bank-code-format", "a bank code is 2 to 12 digits and capital letters")
        if "phone" in sound and text["phone"] and not _PHONE.fullmatch(text["phone"]):
            self._say("phone", "phone-format", "a phone number is digits, with single hyphens between and + in front at most")
        if "kind" in sound and text["kind"] not in KINDS:
            self._say("kind", "kind-unknown", f"the order kind is none of {', '.join(KINDS)}")
        if "outlet" in sound and not _OUTLET.fullmatch(text["outlet"]):
            self._say("outlet", "outlet-format", "an outlet code is 1 to 16 letters, digits, hyphens and underscores")
        if "photo_file" in sound and text["photo_file"] and not _PHOTO.fullmatch(text["photo_file"]):
            self._say("photo_file", "photo-file-format", "not a plain file name that ends in jpg, jpeg, png or bmp")

    def _citizen_number(self) -> None:
        column = "social_security_number"
        if column not in self._sound:
            return
        number = self._text[column]
        if len(number) != 18 or not is_digits(number[:17]) or ord(number[17]) not in ID_CHECK:
            hint = "; the last character must be a capital X" if number[17:] == "x" else ""
            message = f"a citizen number is 17 digits, then a digit or X; this has {len(number)} characters{hint}"
            self._say(column, "id-format", message)
            return
        if self._text["birth_date"] != number[6:14] and "birth_date" in self._sound:
            self._differs("birth_date", "id-birth-mismatch", f"not the birth date in citizen number {masked_id(number)}")
        if "sex" in self._sound and (int(number[16]) % 2 == 1) != (self._text["sex"] == "1"):
            self._differs("sex", "sex-mismatch", f"not the sex in citizen number {masked_id(number)}")
        if number[:2] not in provinces():
            self._say(column, "id-region-unknown", f"citizen number {masked_id(number)} does not begin with a province's code")
        if id_check_character(number[:17]) != number[17]:
            self._say(column, "id-check-digit", f"the check character of citizen number {masked_id(number)} does not fit")
        if column in self._sound:
            self._checked.person = number.encode("ascii")

    def _dates(self) -> None:
        text = self._text
        for column in _DATES:
            if column in self._sound and not is_date(text[column]):
                self._say(column, "date-invalid", "not a real date of the form YYYYMMDD, 1900 or later")
        if {"birth_date", "issue_date"} <= self._sound and text["birth_date"] > text["issue_date"]:
            self._say("birth_date", "birth-after-issue", "the birth date is after the issue date")
        if {"expiry_date", "issue_date"} <= self._sound and text["expiry_date"] <= text["issue_date"]:
            self._say("expiry_date", "expiry-before-issue", "the expiry date is not after the issue date")

    def _card_and_account(self) -> None:
        if "card_number" in self._sound:
            number = self._text["card_number"]
            if len(number) != 9 or not _ALPHANUMERIC.issuperset(number):
                self._say("card_number", "card-number-format", "a card number is 9 digits and capital letters")
            elif card_check_character(number[:8]) != number[8]:
                self._say("card_number", "card-number-check", "the check character of the card number does not fit")
            else:
                self._checked.card = number.encode("ascii")
        if "pan" in self._sound:
            pan = self._text["pan"]
            least, most = self._rules.pan_digits
            if not is_digits(pan):
                self._say("pan", "pan-not-digits", f"the PAN holds something other than digits; it has {len(pan)} characters")
                return
            if not least <= len(pan) <= most:
                self._say("pan", "pan-length", f"the PAN has {len(pan)} digits, not {least} to {most}")
            if not luhn_fits(pan):
                self._say("pan", "pan-luhn", f"the check digit of PAN {masked_pan(pan)} does not fit")
            if "pan" in self._sound:
                self._checked.pan = pan.encode("ascii")

    # The name

    def _name(self) -> tuple[bytes, bytes]:
        """The name as it goes on the card: name field and extension."""
        if "name" not in self._sound:
            return b"", b""
        name = self._text["name"]
        table = characters.classes(self._rules.extra_name_characters)
        for place, character in enumerate(name, start=1):
            if not table[ord(character)] & characters.NAME:
                self._say("name", "name-character", _bad_name_character(place, character))
                return b"", b""
        if name.startswith(NAME_SEPARATOR) or name.endswith(NAME_SEPARATOR) or NAME_SEPARATOR * 2 in name:
            self._say("name", "name-character", "the separator U+00B7 must stand singly between two parts of the name")
            return b"", b""
        octets = gb18030.encode(name)
        at = gb18030.cut(octets, name, self._rules.name_bytes)
        if len(octets) - at > self._rules.extension_bytes:
            room = f"{self._rules.name_bytes} and {self._rules.extension_bytes}"
            self._say("name", "name-too-long", f"the name has {len(octets)} bytes in GB 18030, more than the {room} the card has")
        return octets[:at], octets[at:]

    def _accept(self, name_field: bytes, name_extension: bytes) -> None:
        values = [self._text[name].encode("utf-8") for name in NAMES]
        values[INDEX["kind"]] = KINDS[self._text["kind"]]
        self._checked.values = (*values, name_field, name_extension)


def _long_rule(column: str, text: str) -> str:
    if column == "pan" and is_digits(text):
        return "pan-length"
    return _LONG_RULES.get(column, "field-too-long")


def _is_ethnicity(code: str) -> bool:
    return len(code) == 2 and is_digits(code) and (1 <= int(code) <= 56 or code in ("97", "98"))


def _bad_name_character(place: int, character: str) -> str:
    shown = f"character {place} of the name is U+{ord(character):04X}"
    if character in "•‧・・⋅∙●.．":
        return f"{shown}; the only separator between parts of a name is U+00B7"
    if character.isspace():
        return f"{shown}; a name has no spaces"
    return f"{shown}, which is not allowed in a name"
