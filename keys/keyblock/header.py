"""The header of a key block (ANSI X9.143:2022, 6.2 and 6.3): read with the place of every fault, checked for sense, and enforced.

The header travels in clear and is protected by the block's MAC. A fault of its form is nobody's secret and is named by the character it
begins at; whether MAC and key are right is told by `keys.keyblock.blocks`, with one error for all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keys.algorithms import Algorithm
from keys.errors import Denied, InvalidInput

HEADER_LEN: Final = 16
MAX_BLOCK_LEN: Final = 9999
# Characters of a MAC and bytes of a cipher block, by version.
MAC_LEN: Final = {"B": 8, "C": 4, "D": 16, "S": 16}
CIPHER_BLOCK: Final = {"B": 8, "C": 8, "D": 16, "S": 16}
# X9.143 table 3; digits are left to private agreement, where "4" is SM4 here.
ALGORITHM_CODES: Final[dict[Algorithm, str]] = {"3des": "T", "aes": "A", "sm4": "4"}
KEY_LENS: Final = {"T": (16, 24), "A": (16, 24, 32), "4": (16,)}
_ENCIPHER: Final = "BDEN"
_MAC: Final = "CGVN"
# X9.143 table 2 with the modes of table 4 that make sense for it: one key, one purpose.
MODES_OF_USAGE: Final = {
    **dict.fromkeys(("B0", "B1", "B2", "E0", "E1", "E2", "E3", "E4", "E5", "E6"), "XN"),
    **dict.fromkeys(("C0", "M0", "M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8", "V0", "V1", "V2", "V3", "V4"), _MAC),
    **dict.fromkeys(("D0", "D1", "D2", "K0", "K1", "K2", "K3", "K4", "P0", "P1"), _ENCIPHER),
}


@dataclass(frozen=True, kw_only=True)
class Header:
    """The fields of X9.143 table 1. `optional_blocks` are (id, ASCII data), without the padding block PB."""

    version_id: str
    key_usage: str
    algorithm: str
    mode_of_use: str
    key_version: str = "00"
    exportability: str = "N"
    optional_blocks: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Raises InvalidInput KEY_BLOCK_SYNTAX naming the character at which a field is wrong."""
        _require(self.version_id in MAC_LEN, 1, f"version {self.version_id!r} is not one of {', '.join(MAC_LEN)}")
        _require(len(self.key_usage) == 2 and _alphanumeric(self.key_usage), 6, "the key usage is two letters or digits")
        _require(len(self.algorithm) == 1 and _alphanumeric(self.algorithm), 8, "the algorithm is a letter or digit")
        _require(len(self.mode_of_use) == 1 and _alphanumeric(self.mode_of_use), 9, "the mode of use is a letter or digit")
        _require(len(self.key_version) == 2 and _alphanumeric(self.key_version), 10, "the key version is two letters or digits")
        _require(self.exportability in {"E", "N", "S"}, 12, "exportability is E, N or S")
        for name, text in self.optional_blocks:
            _require(len(name) == 2 and _alphanumeric(name), HEADER_LEN + 1, "an optional block is named by two letters or digits")
            short = text.isascii() and text.isprintable() and len(text) < 252
            _require(short, HEADER_LEN + 1, f"optional block {name} is no short ASCII text")

    def require_sense(self, key_len: int) -> None:
        """Raises InvalidInput (KEY_USAGE, KEY_LENGTH) where usage, mode, algorithm and key length do not go together."""
        modes = MODES_OF_USAGE.get(self.key_usage)
        if modes is None and not self.key_usage.isdigit():
            raise InvalidInput("KEY_USAGE", f"key usage {self.key_usage} is not known")
        if modes is not None and self.mode_of_use not in modes:
            raise InvalidInput("KEY_USAGE", f"mode of use {self.mode_of_use} does not go with key usage {self.key_usage}")
        lens = KEY_LENS.get(self.algorithm)
        if lens is None:
            raise InvalidInput("KEY_USAGE", f"key algorithm {self.algorithm} is not one of {', '.join(KEY_LENS)}")
        if key_len not in lens:
            raise InvalidInput("KEY_LENGTH", f"a key of algorithm {self.algorithm} has {' or '.join(map(str, lens))} bytes, not {key_len}")

    def require(self, key_usage: str, mode_of_use: str, algorithm: Algorithm) -> None:
        """Raises Denied KEY_USAGE unless the block is for exactly that; mode N in the block allows every mode of its usage."""
        code = ALGORITHM_CODES[algorithm]
        if self.key_usage != key_usage or self.algorithm != code or self.mode_of_use not in {mode_of_use, "N"}:
            found = f"{self.key_usage} {self.algorithm} {self.mode_of_use}"
            raise Denied("KEY_USAGE", f"the block is for {found} (usage, algorithm, mode), wanted is {key_usage} {code} {mode_of_use}")

    def require_exportable(self) -> None:
        """Raises Denied KEY_NOT_EXPORTABLE unless the key may leave again under a key block protection key (X9.143 table 6)."""
        if self.exportability == "N":
            raise Denied("KEY_NOT_EXPORTABLE", "the key's own block says that it must not be exported")

    def text(self, block_len: int) -> str:
        """The header of a block of `block_len` characters, padding block included."""
        blocks, count = self._blocks()
        fields = f"{self.version_id}{block_len:04d}{self.key_usage}{self.algorithm}{self.mode_of_use}{self.key_version}{self.exportability}"
        return f"{fields}{count:02d}00{blocks}"

    def _blocks(self) -> tuple[str, int]:
        text = "".join(f"{name}{len(data) + 4:02X}{data}" for name, data in self.optional_blocks)
        count = len(self.optional_blocks)
        unit = CIPHER_BLOCK[self.version_id]
        if len(text) % unit:
            pad = unit - (len(text) + 4) % unit
            return f"{text}PB{pad + 4:02X}{'0' * pad}", count + 1
        return text, count


def parse_header(block: str) -> tuple[Header, int]:
    """The header and its length in characters. Raises InvalidInput KEY_BLOCK_SYNTAX with the character it fails at."""
    _require(block.isascii(), 1, "a key block is ASCII")
    _require(len(block) >= HEADER_LEN, len(block) + 1, f"a key block has at least {HEADER_LEN} characters")
    _require(block[0] in MAC_LEN, 1, f"version {block[0]!r} is not one of {', '.join(MAC_LEN)}")
    _require(_digits(block[1:5]), 2, "the length is four digits")
    _require(int(block[1:5]) == len(block), 2, f"the length says {block[1:5]}, the block has {len(block)} characters")
    _require(_digits(block[12:14]), 13, "the number of optional blocks is two digits")
    blocks, end = _parse_blocks(block, int(block[12:14]))
    header = Header(
        version_id=block[0],
        key_usage=block[5:7],
        algorithm=block[7],
        mode_of_use=block[8],
        key_version=block[9:11],
        exportability=block[11],
        optional_blocks=blocks,
    )
    return header, end


def _parse_blocks(block: str, count: int) -> tuple[tuple[tuple[str, str], ...], int]:
    found = []
    at = HEADER_LEN
    for _ in range(count):
        name, size = block[at : at + 2], block[at + 2 : at + 4]
        _require(len(size) == 2 and _hex(size), at + 3, "an optional block's length is two hex digits")
        start, length = at + 4, int(size, 16)
        if length == 0:
            # X9.143 6.3.4: 00, then the length of the length in bytes, then the length itself
            extent = block[at + 4 : at + 6]
            _require(extent == "02", at + 5, "an extended length has four hex digits, announced by 02")
            size = block[at + 6 : at + 10]
            _require(len(size) == 4 and _hex(size), at + 7, "an extended length is four hex digits")
            start, length = at + 10, int(size, 16)
        end = at + length
        _require(start <= end <= len(block), at + 3, "an optional block ends outside the key block")
        if name != "PB":
            found.append((name, block[start:end]))
        at = end
    return tuple(found), at


def _require(condition: bool, character: int, rule: str) -> None:
    if not condition:
        raise InvalidInput("KEY_BLOCK_SYNTAX", f"key block, character {character}: {rule}")


def _alphanumeric(text: str) -> bool:
    return text.isascii() and text.isalnum()


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _hex(text: str) -> bool:
    return all(character in "0123456789ABCDEFabcdef" for character in text)
