"""GB 18030 text, by the 2022 edition.

Python's codec follows an older edition: nineteen two-byte codes that have had a regular Unicode character since 2005 or 2022
still come out of it as private-use characters. They are put right here, in both directions. Everything that lands in the
private-use area after that, and every well-formed four-byte code without a character, is *unassigned*: it is reported with its
code, never replaced. Six two-byte codes (FE51, FE52, FE53, FE6C, FE76, FE91) stay private-use in the 2022 edition, because
their characters have four-byte codes; they are refused like the rest.

The 2022 edition swaps places: 82359037, the old code of U+9FB4, now is private-use. The Unicode Technical Committee (L2/23-003)
recommends to go on reading it as U+9FB4, which is what every older program meant by it, and to write FE59 only; this module does.
"""

from __future__ import annotations

import codecs
from typing import Final

# Two-byte code -> (what Python's codec makes of it, its character by GB 18030-2022; A8BC since the 2005 edition).
CORRECTIONS: Final[dict[bytes, tuple[int, int]]] = {
    bytes.fromhex(code): (old, new)
    for code, old, new in (
        ("A6D9", 0xE78D, 0xFE10),
        ("A6DA", 0xE78E, 0xFE12),
        ("A6DB", 0xE78F, 0xFE11),
        ("A6DC", 0xE790, 0xFE13),
        ("A6DD", 0xE791, 0xFE14),
        ("A6DE", 0xE792, 0xFE15),
        ("A6DF", 0xE793, 0xFE16),
        ("A6EC", 0xE794, 0xFE17),
        ("A6ED", 0xE795, 0xFE18),
        ("A6F3", 0xE796, 0xFE19),
        ("A8BC", 0xE7C7, 0x1E3F),
        ("FE59", 0xE81E, 0x9FB4),
        ("FE61", 0xE826, 0x9FB5),
        ("FE66", 0xE82B, 0x9FB6),
        ("FE67", 0xE82C, 0x9FB7),
        ("FE6D", 0xE832, 0x9FB8),
        ("FE7E", 0xE843, 0x9FB9),
        ("FE90", 0xE854, 0x9FBA),
        ("FEA0", 0xE864, 0x9FBB),
    )
}
CORRECTED: Final = frozenset(new for _, new in CORRECTIONS.values())
_TO_2022: Final = dict(CORRECTIONS.values())
_TO_CODEC: Final = {new: old for old, new in CORRECTIONS.values()}

REPLACEMENT: Final = "�"
_HANDLER: Final = "citycard-gb18030-unassigned"


def is_four_byte_form(code: bytes) -> bool:
    """Whether these are four bytes of the form 81-FE, 30-39, 81-FE, 30-39 (GB 18030, 4-byte part)."""
    return len(code) == 4 and 0x81 <= code[0] <= 0xFE and 0x30 <= code[1] <= 0x39 and 0x81 <= code[2] <= 0xFE and 0x30 <= code[3] <= 0x39


def _on_error(error: UnicodeError) -> tuple[str, int]:
    """A well-formed code without a character becomes U+FFFD, to be refused by name later; anything else is not GB 18030."""
    if isinstance(error, UnicodeDecodeError) and is_four_byte_form(error.object[error.start : error.start + 4]):
        return REPLACEMENT, error.start + 4
    raise error


codecs.register_error(_HANDLER, _on_error)


def incremental_decoder() -> codecs.IncrementalDecoder:
    """A decoder that finds out whether bytes are GB 18030 at all; what it returns is not yet corrected to 2022."""
    return codecs.getincrementaldecoder("gb18030")(_HANDLER)


def decode_raw(octets: bytes) -> str:
    """Fast decode without corrections: unassigned codes become U+FFFD, corrected codes stay private-use. UnicodeDecodeError."""
    return octets.decode("gb18030", _HANDLER)


def decode(octets: bytes) -> str:
    """Text by GB 18030-2022; unassigned four-byte codes become U+FFFD. UnicodeDecodeError when the bytes are not GB 18030."""
    return octets.decode("gb18030", _HANDLER).translate(_TO_2022)


def encode(text: str) -> bytes:
    """Bytes by GB 18030-2022. UnicodeEncodeError for surrogates only."""
    return text.translate(_TO_CODEC).encode("gb18030")


def code_of(character: str) -> str:
    """The GB 18030 code of one character, upper-case hex, for messages."""
    return encode(character).hex().upper()


def unassigned_code(octets: bytes) -> str:
    """The first four-byte code in GB 18030 bytes that has no character, upper-case hex; empty when there is none."""
    try:
        octets.decode("gb18030")
    except UnicodeDecodeError as error:
        return octets[error.start : error.start + 4].hex().upper()
    return ""


def cut(octets: bytes, text: str, limit: int) -> int:
    """How many of the leading bytes of `octets` (= encode(text)) fit `limit` without cutting a character."""
    if len(octets) <= limit:
        return len(octets)
    taken = 0
    for character in text:
        size = len(encode(character))
        if taken + size > limit:
            break
        taken += size
    return taken
