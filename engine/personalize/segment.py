"""A segment: the longest run of APDUs whose bytes depend on no answer not yet received. Slabs of them travel to a station."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, NoReturn, Self

import cext
from keys.errors import Corrupt

SW_OK: Final = 0x9000
_OK: Final = b"\x90\x00"


@dataclass(frozen=True)
class Segment:
    """Commands to play in order, as the slab that travels, and how many they are. Each must answer 9000; the first other answer ends the
    playing.

    `journal_answers` is False where answers carry clear personal data, which a station's journal must not keep.
    """

    sequence: int
    slab: bytes
    count: int
    journal_answers: bool

    @classmethod
    def of(cls, sequence: int, commands: Sequence[bytes], *, journal_answers: bool) -> Self:
        return cls(sequence, to_slab(commands), len(commands), journal_answers)

    @cached_property
    def commands(self) -> tuple[bytes, ...]:
        return tuple(from_slab(self.slab))

    @property
    def expected(self) -> tuple[int, ...]:
        """The status word that each command must answer."""
        return (SW_OK,) * self.count

    def expected_slab(self) -> bytes:
        return _OK * self.count


class Answer(NamedTuple):
    """One response: data and status word."""

    data: bytes
    sw: int


def to_slab(items: Sequence[bytes]) -> bytes:
    """length[2] || item, for each item."""
    return cext.slab_join(items)


def from_slab(slab: bytes) -> list[bytes]:
    """The items of a slab; Corrupt SLAB_INVALID when lengths do not add up."""
    try:
        return cext.slab_split(slab)
    except ValueError as error:
        raise Corrupt("SLAB_INVALID", str(error)) from None


def answers_of(segment: Segment, slab: bytes) -> list[bytes]:
    """The data of every answer of a whole segment, status words checked.

    Raises Corrupt ANSWERS_MISSING when fewer or more answers came than commands were sent, ANSWER_SHORT for one without a status
    word, and ANSWER_UNEXPECTED naming the first command that was answered otherwise.
    """
    try:
        answers = cext.slab_split(slab, _OK)
    except (ValueError, LookupError):
        _refuse(segment, from_slab(slab))
    if len(answers) != segment.count:
        raise _missing(segment, answers)
    return answers


def _refuse(segment: Segment, raw: Sequence[bytes]) -> NoReturn:
    """Names the first answer that is not 9000."""
    for at, response in enumerate(raw if len(raw) <= segment.count else ()):
        if len(response) < 2:
            raise Corrupt("ANSWER_SHORT", f"command {at} of segment {segment.sequence} has no status word: outcome unknown")
        sw = response[-2] << 8 | response[-1]
        if sw != SW_OK:
            ins = segment.commands[at][1]
            raise Corrupt("ANSWER_UNEXPECTED", f"command {at} (INS {ins:02X}) of segment {segment.sequence} answered {sw:04X}")
    raise _missing(segment, raw)


def _missing(segment: Segment, answers: Sequence[bytes]) -> Corrupt:
    return Corrupt("ANSWERS_MISSING", f"{len(answers)} answers to {segment.count} commands of segment {segment.sequence}")
