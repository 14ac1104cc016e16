"""A plain second reading of the order rules, written from the rules' text alone: strings, datetime and the csv module, no numpy.

It decides on decoded rows and reports (line, rule) pairs; it words no messages and knows nothing of encodings or speed.
"""

from __future__ import annotations

import csv
import datetime
import io
import re

FIELDS = [
    "sequence", "social_security_number", "name", "sex", "ethnicity", "birth_date", "issuing_region", "card_number", "issue_date",
    "expiry_date", "bank_code", "pan", "phone", "address", "kind", "outlet", "photo_file",
]  # fmt: skip
REGIONS = {
    "410100", "410101", "410102", "410103", "410104", "410105", "410106", "410108", "410122",
    "410181", "410182", "410183", "410184", "410185",
}  # fmt: skip
PROVINCES = {
    f"{first}{second}" for first, seconds in enumerate(["", "12345", "123", "1234567", "123456", "01234", "12345", "1", "123", "123456"])
    for second in seconds
}  # fmt: skip
KINDS = {"首次", "补卡", "换卡", "first", "replacement", "renewal"}
OPTIONAL = {"phone", "address", "photo_file"}


def _private(c: str) -> bool:
    return "\ue000" <= c <= "\uf8ff" or c >= "\U000f0000" or c == "\ufffd" or "\ufdd0" <= c <= "\ufdef" or ord(c) & 0xFFFE == 0xFFFE


def _control(c: str) -> bool:
    return (
        c < " "
        or "\x7f" <= c <= "\x9f"
        or c in "\xad\u061c\u180e\ufeff\u200b\u200c\u200d\u200e\u200f"
        or "\u2028" <= c <= "\u202e"
        or "\u2060" <= c <= "\u206f"
        or "\ufff9" <= c <= "\ufffb"
        or "\U000e0000" <= c <= "\U000e0fff"
    )


def _han(c: str) -> bool:
    ranges = ("㐀䶿", "一鿿", "\U00020000\U0002a6df", "\U0002a700\U0002ebe0", "\U0002ebf0\U0002ee5d", "\U00030000\U000323af", "〇〇")
    return any(r[0] <= c <= r[1] for r in ranges) or c in "郎凉秊裏隣兀嗀﨎﨏﨑﨓﨔礼﨟蘒﨡﨣﨤﨧﨨﨩"


def _date(text: str) -> bool:
    if not re.fullmatch("[0-9]{8}", text) or text < "1900":
        return False
    try:
        datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True


def _luhn(pan: str) -> bool:
    total = 0
    for at, c in enumerate(pan[::-1]):
        total += sum(divmod(int(c) * (1 + at % 2), 10))
    return total % 10 == 0


def _id_check(text: str) -> bool:
    # ISO 7064 MOD 11-2, not by the table of weights: the whole number with X = 10 is congruent to 1.
    total = 0
    for c in text:
        total = total * 2 + (10 if c == "X" else int(c))
    return total % 11 == 1


def _card_check(text: str) -> bool:
    value = sum(w * int(c, 36) for w, c in zip((3, 7, 9, 10, 5, 8, 4, 2), text[:8], strict=True))
    return text[8] == {10: "X", 11: "0"}.get(11 - value % 11, str(11 - value % 11))


def rules_broken(row: dict[str, str]) -> set[str]:
    """The rules one row breaks by itself."""
    broken: set[str] = set()
    usable: dict[str, str] = {}
    for field in FIELDS:
        text = row[field]
        bad = next((c for c in text if _private(c) or (_control(c) and not (field == "address" and c in "\r\n"))), None)
        if bad is not None:
            broken.add("character-unassigned" if _private(bad) else "control-character")
        elif field == "name" and not text.strip():
            broken.add("name-missing")
        elif not text and field not in OPTIONAL:
            broken.add("field-missing")
        else:
            usable[field] = text
    patterns = {
        "sequence": ("[0-9]{1,18}", "sequence-format"),
        "social_security_number": ("[0-9]{17}[0-9X]", "id-format"),
        "sex": ("[12]", "sex-unknown"),
        "ethnicity": ("0[1-9]|[1-4][0-9]|5[0-6]|97|98", "ethnicity-unknown"),
        "card_number": ("[0-9A-Z]{9}", "card-number-format"),
        "bank_code": ("[0-9A-Z]{2,12}", "bank-code-format"),
        "phone": (r"(?=.{0,15}\Z)(\+?[0-9]+(-[0-9]+)*)?", "phone-format"),
        "outlet": ("[0-9A-Za-z_-]{1,16}", "outlet-format"),
        "pan": ("[0-9]+", "pan-not-digits"),
    }
    for field, (pattern, rule) in patterns.items():
        if field in usable and not re.fullmatch(pattern, usable[field], re.ASCII):
            broken.add(rule)
            del usable[field]
    if "issuing_region" in usable and usable["issuing_region"] not in REGIONS:
        broken.add("region-unknown")
    if "kind" in usable and usable["kind"] not in KINDS:
        broken.add("kind-unknown")
    if "address" in usable and len(usable["address"].encode()) > 255:
        broken.add("field-too-long")
    photo = usable.get("photo_file", "")
    if len(photo.encode()) > 64:
        broken.add("field-too-long")
    elif photo and not re.fullmatch(r"[0-9A-Za-z_-][0-9A-Za-z._-]*[.](jpg|jpeg|png|bmp)", photo, re.IGNORECASE | re.ASCII):
        broken.add("photo-file-format")
    citizen = usable.get("social_security_number")
    if citizen:
        if not _id_check(citizen):
            broken.add("id-check-digit")
        if citizen[:2] not in PROVINCES:
            broken.add("id-region-unknown")
        if len(usable.get("birth_date", "").encode()) in range(1, 9) and usable["birth_date"] != citizen[6:14]:
            broken.add("id-birth-mismatch")
        if "sex" in usable and int(citizen[16]) % 2 != int(usable["sex"]) % 2:
            broken.add("sex-mismatch")
    for field in ("birth_date", "issue_date", "expiry_date"):
        if field in usable and not _date(usable[field]):
            broken.add("date-invalid")
            del usable[field]
    if "issue_date" in usable and usable.get("birth_date", "0") > usable["issue_date"]:
        broken.add("birth-after-issue")
    if "issue_date" in usable and usable.get("expiry_date", "9") <= usable["issue_date"]:
        broken.add("expiry-before-issue")
    if "card_number" in usable and not _card_check(usable["card_number"]):
        broken.add("card-number-check")
    if "pan" in usable:
        if not 13 <= len(usable["pan"]) <= 19:
            broken.add("pan-length")
        if len(usable["pan"]) <= 19 and not _luhn(usable["pan"]):
            broken.add("pan-luhn")
    if "name" in usable:
        broken |= _name_broken(usable["name"])
    return broken


def _name_broken(name: str) -> set[str]:
    if not all(_han(c) or c == "·" for c in name) or "" in name.split("·"):
        return {"name-character"}
    # By GB 18030: two bytes for what GBK has, four for the rest. The eight of U+9FB4.. have had two since 2022.
    sizes = [2 if "龴" <= c <= "龻" else len(c.encode("gb18030")) for c in name]
    first = 0
    while sizes and first + sizes[0] <= 30:
        first += sizes.pop(0)
    return {"name-too-long"} if sum(sizes) > 30 else set()


def validate(text: str) -> dict[int, set[str]]:
    """Line -> rules broken, for a whole decoded file with the English headings; duplicates in the file included."""
    reader = csv.reader(io.StringIO(text, newline="\n"))
    headings = next(reader)
    result: dict[int, set[str]] = {}
    seen: dict[str, set[str]] = {"social_security_number": set(), "card_number": set(), "pan": set()}
    line = reader.line_num + 1
    for values in reader:
        start, line = line, reader.line_num + 1
        if not values:
            continue
        if len(values) != len(headings):
            result[start] = {"column-missing" if len(values) < len(headings) else "column-extra"}
            continue
        row = dict(zip(headings, values, strict=True))
        broken = rules_broken(row)
        good = not broken
        for field, rule in (
            ("social_security_number", "duplicate-person"),
            ("card_number", "duplicate-card-number"),
            ("pan", "duplicate-pan"),
        ):
            # A defective row, too, repeats an earlier one, if the field in question is sound: only then can it be in the set.
            if row[field] in seen[field]:
                broken.add(rule)
        if good and not broken:
            for field, values_seen in seen.items():
                values_seen.add(row[field])
        if broken:
            result[start] = broken
    return result
