"""Where every byte of a card image comes from, worked out once per compiled profile as numpy indexes.

A card's texts are laid side by side in one source row: a slot for each field, then constants. Bytes of the image are then gathered
from that row, two characters a byte where the codec is BCD. Keys and check values lie at even distances, so a key set is one run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.profiles.fields import BINARY_FIELDS
from engine.profiles.model import Codec, Item
from keys.errors import InvalidInput

Places = npt.NDArray[np.intp]

# What a source row starts with: the filler of text and of cn fields, the filler of n fields; then constant texts, then slots.
_FILLERS: Final = b"\x000"
_NUL: Final = 0
_ZERO: Final = 1


@dataclass(frozen=True)
class TextFill:
    """Text written at image[offset:offset+length]. `full`: the text must have its whole width, for nothing may shift."""

    offset: int
    length: int
    items: tuple[Item, ...]
    codec: Codec
    full: bool


@dataclass(frozen=True)
class Slot:
    """A field's place in the source row; text longer than `width` is an error, shorter text too if `full`."""

    field: str
    start: int
    width: int
    full: bool


@dataclass(frozen=True)
class TextPlan:
    """How columns become bytes of an image. Index arrays are of one length within each group."""

    constants: bytes
    slots: tuple[Slot, ...]
    width: int
    # image[byte_to] = row[byte_from]
    byte_to: Places
    byte_from: Places
    # image[bcd_to] = nibble(row[bcd_high]) << 4 | nibble(row[bcd_low])
    bcd_to: Places
    bcd_high: Places
    bcd_low: Places
    # GB 18030 text that is cut at a character's end, which depends on the text.
    cuts: tuple[TextFill, ...]

    @cached_property
    def fields(self) -> frozenset[str]:
        """Names of the columns that the texts are made of."""
        return frozenset([*(slot.field for slot in self.slots), *(item.field for fill in self.cuts for item in fill.items if item.field)])


@dataclass(frozen=True)
class Run:
    """`count` keys from number `first` on, at `offset` and every `stride` bytes after it."""

    offset: int
    stride: int
    first: int
    count: int


def capacity(codec: Codec, length: int) -> int:
    """Characters that `length` bytes hold."""
    return 2 * length if codec in ("cn", "n") else length


def plan_texts(fills: Iterable[TextFill], known: Mapping[str, int]) -> TextPlan:
    """The plan for these fills; `known` is the width of each field, 0 where it varies.

    Raises InvalidInput TEXT_TOO_LONG for text of fixed width that does not fit, and TEXT_VARIES where a varying text may not stand.
    """
    fills = list(fills)
    constants = bytearray(_FILLERS)
    for item in (item for fill in fills for item in fill.items):
        constants += (item.text or "").encode("ascii")
    slots: dict[tuple[str, int, bool], Slot] = {}
    width, constant_at = len(constants), len(_FILLERS)
    byte_to: list[int] = []
    byte_from: list[int] = []
    bcd_to: list[int] = []
    digits: list[int] = []
    for fill in fills:
        if fill.codec == "gb":
            continue
        room = capacity(fill.codec, fill.length)
        chars: list[int] = []
        for item in fill.items:
            if item.text is not None:
                chars += range(constant_at, constant_at + len(item.text))
                constant_at += len(item.text)
                continue
            name = item.field or ""
            if not known[name] and (len(fill.items) > 1 or fill.codec == "n"):
                raise InvalidInput("TEXT_VARIES", f"field {name} varies in length: it stands alone, and not as a number")
            key = name, known[name] or room, fill.full and name not in BINARY_FIELDS
            if key not in slots:
                slots[key] = Slot(name, width, key[1], key[2])
                width += key[1]
            slot = slots[key]
            first, after = item.slice or (0, slot.width)
            chars += range(slot.start + first, slot.start + after)
        if len(chars) > room:
            raise InvalidInput("TEXT_TOO_LONG", f"{len(chars)} characters do not fit in {fill.length} bytes of codec {fill.codec}")
        filler = [_ZERO if fill.codec == "n" else _NUL] * (room - len(chars))
        chars = filler + chars if fill.codec == "n" else chars + filler
        places = range(fill.offset, fill.offset + fill.length)
        if fill.codec in ("cn", "n"):
            bcd_to += places
            digits += chars
        else:
            byte_to += places
            byte_from += chars
    return TextPlan(
        constants=bytes(constants),
        slots=tuple(slots.values()),
        width=width,
        byte_to=np.array(byte_to, np.intp),
        byte_from=np.array(byte_from, np.intp),
        bcd_to=np.array(bcd_to, np.intp),
        bcd_high=np.array(digits[0::2], np.intp),
        bcd_low=np.array(digits[1::2], np.intp),
        cuts=tuple(fill for fill in fills if fill.codec == "gb"),
    )


def plan_runs(places: Iterable[tuple[int, int]]) -> tuple[Run, ...]:
    """Runs of evenly spaced (offset, key number) places."""
    runs: list[Run] = []
    for offset, number in places:
        last = runs[-1] if runs else None
        if last is not None and number == last.first + last.count:
            stride = offset - last.offset if last.count == 1 else last.stride
            if offset == last.offset + last.count * stride:
                runs[-1] = Run(last.offset, stride, last.first, last.count + 1)
                continue
        runs.append(Run(offset, 16, number, 1))
    return tuple(runs)
