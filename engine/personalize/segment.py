"""A segment: the longest run of APDUs whose bytes depend on no answer not yet received. Slabs of them travel to a station."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keys.errors import Corrupt


@dataclass(frozen=True)
class Segment:
    """Commands to play in order, and the status word each must answer; the first other answer ends the playing.

    `journal_answers` is False where answers carry clear personal data, which a station's journal must not keep.
    """

    sequence: int
    commands: tuple[bytes, ...]
    expected: tuple[int, ...]
    journal_answers: bool

    def expected_slab(self) -> bytes:
        return b"".join(sw.to_bytes(2, "big") for sw in self.expected)


class Answer(NamedTuple):
    """One response: data and status word."""

    data: bytes
    sw: int


def to_slab(items: Sequence[bytes]) -> bytes:
    """length[2] || item, for each item."""
    return b"".join(len(item).to_bytes(2, "big") + item for item in items)


def from_slab(slab: bytes) -> list[bytes]:
    """The items of a slab; Corrupt SLAB_INVALID when lengths do not add up."""
    items: list[bytes] = []
    at, whole = 0, len(slab)
    while at < whole:
        end = at + 2 + (slab[at] << 8 | slab[at + 1]) if at + 2 <= whole else whole + 1
        if end > whole:
            raise Corrupt("SLAB_INVALID", f"slab of {whole} bytes ends inside item {len(items)}")
        items.append(slab[at + 2 : end])
        at = end
    return items


def answers_of(segment: Segment, slab: bytes) -> list[Answer]:
    """Every answer of a whole segment, status words checked.

    Raises Corrupt ANSWERS_MISSING when fewer or more answers came than commands were sent, ANSWER_SHORT for one without a status
    word, and ANSWER_UNEXPECTED naming the first command that was answered otherwise.
    """
    raw = from_slab(slab)
    expected = segment.expected
    if len(raw) > len(expected):
        raise Corrupt("ANSWERS_MISSING", f"{len(raw)} answers to {len(expected)} commands of segment {segment.sequence}")
    answers: list[Answer] = []
    for response, due in zip(raw, expected, strict=False):
        if len(response) < 2:
            raise Corrupt("ANSWER_SHORT", f"command {len(answers)} of segment {segment.sequence} has no status word: outcome unknown")
        sw = response[-2] << 8 | response[-1]
        if sw != due:
            ins = segment.commands[len(answers)][1]
            raise Corrupt("ANSWER_UNEXPECTED", f"command {len(answers)} (INS {ins:02X}) of segment {segment.sequence} answered {sw:04X}")
        answers.append(Answer(response[:-2], sw))
    if len(answers) != len(expected):
        raise Corrupt("ANSWERS_MISSING", f"{len(answers)} answers to {len(expected)} commands of segment {segment.sequence}")
    return answers
