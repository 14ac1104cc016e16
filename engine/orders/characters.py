"""Which characters an order may hold: one table over all of Unicode, used by both ways of checking.

Names: the CJK unified ideographs with all their extensions, U+3007, the ideographs GB 18030 has in the compatibility block, and
the separator U+00B7. Other text: everything but control characters, invisible format characters, and what no character is
assigned to (private use, noncharacters, U+FFFD as a sign of earlier damage).
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.orders import gb18030

CONTROL: Final = 1
UNASSIGNED: Final = 2
NAME: Final = 4
# Has a two-byte code that Python's codec does not know: the exact way must encode it.
CORRECTED: Final = 8

_CONTROL: Final = (
    (0x00, 0x1F),
    (0x7F, 0x9F),
    (0xAD, 0xAD),
    (0x061C, 0x061C),
    (0x180E, 0x180E),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFB),
    (0xE0000, 0xE0FFF),
)
_UNASSIGNED: Final = (
    (0xD800, 0xDFFF),
    (0xE000, 0xF8FF),
    (0xFDD0, 0xFDEF),
    (0xFFFD, 0xFFFD),
    (0xF0000, 0x10FFFF),
    *((plane << 16 | 0xFFFE, plane << 16 | 0xFFFF) for plane in range(17)),
)
_NAME: Final = (
    (0x00B7, 0x00B7),
    (0x3007, 0x3007),
    (0x3400, 0x4DBF),  # extension A
    (0x4E00, 0x9FFF),
    (0x20000, 0x2A6DF),  # B
    (0x2A700, 0x2EBE0),  # C to F
    (0x2EBF0, 0x2EE5D),  # I
    (0x30000, 0x323AF),  # G and H
)
# The 21 ideographs of the compatibility block that GBK and GB 18030 encode in two bytes; 12 of them are unified ideographs.
_NAME_COMPATIBILITY: Final = (
    0xF92C, 0xF979, 0xF995, 0xF9E7, 0xF9F1, 0xFA0C, 0xFA0D, 0xFA0E, 0xFA0F, 0xFA11, 0xFA13, 0xFA14, 0xFA18, 0xFA1F,
    0xFA20, 0xFA21, 0xFA23, 0xFA24, 0xFA27, 0xFA28, 0xFA29,
)  # fmt: skip


@cache
def classes(extra_name_characters: str = "") -> npt.NDArray[np.uint8]:
    """Class bits of every code point, (0x110000,) uint8."""
    table = np.zeros(0x110000, np.uint8)
    for ranges, bit in ((_CONTROL, CONTROL), (_UNASSIGNED, UNASSIGNED), (_NAME, NAME)):
        for first, last in ranges:
            table[first : last + 1] |= bit
    table[list(_NAME_COMPATIBILITY)] |= NAME
    table[[ord(c) for c in extra_name_characters]] |= NAME
    table[list(gb18030.CORRECTED)] |= CORRECTED
    table.setflags(write=False)
    return table
