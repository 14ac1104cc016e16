"""Bytes to records, by RFC 4180, in bounded memory.

All the marks of CSV (comma, quote, CR, LF) are bytes below 30 hex, which never occur inside a character of UTF-8 or GB 18030, so
records are found in the undecoded file. Plain lines are only located: those without a quote, and those in which quotes do nothing
but stand around whole fields. Other lines with quotes are read one record at a time. Line breaks are LF or CRLF; a file whose
heading line ends in a lone CR has CR line breaks throughout.

A record that is too long, or a quote that never closes, costs one physical line: reading goes on with the next one, so that one
stray quote cannot swallow the rest of the file. Empty lines count as lines and are otherwise nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from keys.errors import InvalidInput

RECORD_LIMIT: Final = 64 * 1024
CHUNK: Final = 3 * 512 * 1024
# Each costs a look at RECORD_LIMIT bytes; a file with more of them is not CSV, and reading it must not take for ever.
OPEN_QUOTE_LIMIT: Final = 1000

_QUOTE: Final = 0x22
_COMMA: Final = 0x2C
Int1D = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class BinaryReader(Protocol):
    """As much of a binary file as order files need: a file, a BytesIO, a spool."""

    def read(self, size: int, /) -> bytes | None: ...

    def seek(self, offset: int, /) -> int: ...


@dataclass(slots=True, repr=False)
class OddRecord:
    """A record read singly: its fields, or the rule that it breaks as a record, and in which field (0 the first), if in one."""

    line: int
    fields: list[bytes] = field(default_factory=list)
    rule: str = ""
    message: str = ""
    place: int | None = None


@dataclass(slots=True, repr=False)
class Slab:
    """A stretch of the file: its bytes, where the plain lines lie in it, and the odd records, both in file order."""

    octets: bytes
    terminator: int
    lines: Int1D
    starts: Int1D
    ends: Int1D
    odd: list[OddRecord]

    def fields(self, at: int) -> list[bytes]:
        """The fields of plain line `at` of this slab."""
        values = self.octets[int(self.starts[at]) : int(self.ends[at])].split(b",")
        return [value[1:-1] if value.startswith(b'"') else value for value in values]


@dataclass(slots=True, repr=False)
class _Scan:
    """A record found by reading its quotes. `after`: offset of the first byte behind its line break."""

    fields: list[bytes]
    after: int
    misplaced: int


def scan_record(octets: bytes, start: int, bound: int, terminator: int, *, final: bool) -> _Scan | None:
    """Reads one record from `start`. None when it does not end before `bound`; `final`: the end of `octets` ends it too."""
    mark = bytes([terminator])
    fields: list[bytes] = []
    misplaced = 0
    at, line_end = start, -1
    while True:
        value = b""
        was_quoted = octets[at : at + 1] == b'"'
        if was_quoted:
            close = _closing_quote(octets, at + 1, bound)
            if close < 0:
                return None
            value = octets[at + 1 : close].replace(b'""', b'"')
            at = close + 1
        if line_end < at:
            line_end = octets.find(mark, at, bound)
            if line_end < 0:
                if not final or bound < len(octets):
                    return None
                line_end = len(octets)
        comma = octets.find(b",", at, line_end)
        rest = octets[at : comma if comma >= 0 else without_cr(octets, at, line_end, terminator)]
        if b'"' in rest or (was_quoted and rest):
            misplaced = misplaced or len(fields) + 1
        fields.append(value + rest)
        if comma < 0:
            return _Scan(fields, line_end + 1, misplaced)
        at = comma + 1


def _closing_quote(octets: bytes, at: int, bound: int) -> int:
    """Offset of the quote that closes a field, passing over doubled ones; -1 when there is none before `bound`."""
    while True:
        quote = octets.find(b'"', at, bound)
        if quote < 0 or octets[quote + 1 : quote + 2] != b'"':
            return quote
        at = quote + 2


def without_cr(octets: bytes, start: int, line_end: int, terminator: int) -> int:
    """End of a line's content: before the CR of CRLF."""
    has_cr = terminator == 0x0A and line_end > start and octets[line_end - 1] == 0x0D
    return line_end - 1 if has_cr else line_end


def line_break_of(head: bytes) -> int:
    """LF (0x0A), or CR (0x0D) when the first line break in the file is a lone CR."""
    carriage, feed = head.find(b"\r"), head.find(b"\n")
    lone = carriage >= 0 and (feed < 0 or feed > carriage + 1) and carriage + 1 < len(head)
    return 0x0D if lone else 0x0A


class Framer:
    """Cuts a file into slabs of at most `slab_lines` lines, from its current position on, which is the start of line `line`."""

    def __init__(self, reader: BinaryReader, *, terminator: int, line: int, slab_lines: int) -> None:
        self._reader = reader
        self._terminator = terminator
        self._line = line
        self._slab_lines = slab_lines
        self._pending = b""
        self._final = False
        self._open_quotes = 0

    def __iter__(self) -> Iterator[Slab]:
        while True:
            self._fill()
            if not self._pending:
                return
            breaks = np.flatnonzero(np.frombuffer(self._pending, np.uint8) == self._terminator)
            if self._final and not (len(breaks) and breaks[-1] == len(self._pending) - 1):
                breaks = np.append(breaks, len(self._pending))
            if len(breaks):
                yield from self._slabs(breaks)
            else:
                yield self._endless_line()

    def _fill(self) -> None:
        parts, held = [self._pending], len(self._pending)
        while held < CHUNK and not self._final:
            part = self._reader.read(CHUNK - held) or b""
            self._final = not part
            parts.append(part)
            held += len(part)
        self._pending = b"".join(parts)

    def _endless_line(self) -> Slab:
        """No line break in a whole chunk: drops the line up to its end, however far that is."""
        odd = self._too_long(self._line)
        mark = bytes([self._terminator])
        self._pending = b""
        while part := self._reader.read(CHUNK):
            at = part.find(mark)
            if at >= 0:
                self._pending = part[at + 1 :]
                break
        self._line += 1
        nothing = np.zeros(0, np.int64)
        return Slab(b"", self._terminator, nothing, nothing, nothing, [odd])

    def _too_long(self, line: int) -> OddRecord:
        return OddRecord(line, rule="line-too-long", message=f"the line is longer than {RECORD_LIMIT} bytes")

    def _slabs(self, breaks: Int1D) -> Iterator[Slab]:
        """Slabs of the pending bytes; what does not fill one stays pending, as long as there is more to read."""
        octets = self._pending
        at = base = 0
        while at < len(breaks) and (at == 0 or self._final or len(breaks) - at >= self._slab_lines):
            shown = breaks[at : at + self._slab_lines]
            starts = np.concatenate((np.array([base], np.int64), shown[:-1] + 1))
            slab, consumed = self._slab(octets, breaks[at:], starts)
            yield slab
            at += consumed
            self._line += consumed
            base = int(breaks[at - 1]) + 1 if at else 0
            if consumed < len(shown):
                break
        self._pending = octets[base:]

    def _slab(self, octets: bytes, breaks: Int1D, starts: Int1D) -> tuple[Slab, int]:
        """The lines from `starts`, and how many lines of `breaks` they are: more when a quoted record ends behind the last."""
        ends = breaks[: len(starts)].copy()
        array = np.frombuffer(octets, np.uint8)
        if self._terminator == 0x0A:
            ends -= (ends > starts) & (array[np.maximum(ends - 1, 0)] == 0x0D)
        plain = ends > starts
        odd: list[OddRecord] = []
        for at in np.flatnonzero(ends - starts > RECORD_LIMIT):
            odd.append(self._too_long(self._line + int(at)))
            plain[at] = False
        consumed = len(starts)
        if octets.find(b'"', int(starts[0]), int(ends[-1])) >= 0:
            consumed = self._quoted(octets, breaks, starts, plain, odd)
        kept = np.flatnonzero(plain[:consumed])
        odd.sort(key=lambda record: record.line)
        return Slab(octets, self._terminator, self._line + kept, starts[kept], ends[kept], odd), consumed

    def _quoted(self, octets: bytes, breaks: Int1D, starts: Int1D, plain: Mask, odd: list[OddRecord]) -> int:
        """Reads the records whose quotes are not simple, and takes their lines out of `plain`. Returns how many are done."""
        ends = breaks[: len(starts)]
        simple = _simply_quoted(np.frombuffer(octets, np.uint8), starts, ends, self._terminator)
        done = 0
        for index in np.flatnonzero(plain & ~simple):
            at = int(index)
            if at < done:
                continue
            start = int(starts[at])
            scan = scan_record(octets, start, min(len(octets), start + RECORD_LIMIT), self._terminator, final=self._final)
            if scan is not None:
                done = int(np.searchsorted(breaks, scan.after - 1)) + 1
                plain[at:done] = False
                odd.append(_record(self._line + at, scan, done - at))
            elif self._final or len(octets) - start >= RECORD_LIMIT:
                plain[at] = False
                odd.append(self._open_quote(self._line + at))
            else:
                # The rest of the record is not read yet: the slab ends before it, and the next one begins with it.
                return at
        return max(done, len(starts))

    def _open_quote(self, line: int) -> OddRecord:
        self._open_quotes += 1
        if self._open_quotes > OPEN_QUOTE_LIMIT:
            message = f"line {line}: more than {OPEN_QUOTE_LIMIT} quotes are never closed; the file is not CSV"
            raise InvalidInput("ORDERS_QUOTES", message)
        message = f"a quote opens here and is not closed within {RECORD_LIMIT} bytes; reading goes on with the next line"
        return OddRecord(line, rule="quote-unterminated", message=message)


def _simply_quoted(octets: npt.NDArray[np.uint8], starts: Int1D, ends: Int1D, terminator: int) -> Mask:
    """Lines whose quotes, if any, stand in pairs around whole fields without comma or quote inside. (lines,) bool.

    Such a line is a whole record, provided that a record begins with it; the caller knows, since it takes the others one by one.
    """
    lowest = int(starts[0])
    window = octets[lowest : int(ends[-1])]
    quotes = np.flatnonzero(window == _QUOTE) + lowest
    commas = np.flatnonzero(window == _COMMA) + lowest
    line_of = np.searchsorted(starts, quotes, side="right") - 1
    counts = np.bincount(line_of, minlength=len(starts))
    order = np.arange(len(quotes)) - (np.cumsum(counts) - counts)[line_of]
    opens = order % 2 == 0
    begins = (quotes == starts[line_of]) | (octets[np.maximum(quotes - 1, 0)] == _COMMA)
    after = np.minimum(quotes + 1, len(octets) - 1)
    finishes = (quotes + 1 == ends[line_of]) | (octets[after] == _COMMA)
    if terminator == 0x0A:
        finishes |= (quotes + 2 == ends[line_of]) & (octets[after] == 0x0D)
    before = np.searchsorted(commas, quotes)
    # A closing quote's opener is the quote before it; the first of all is an opener, so rolling round is never looked at.
    fine = np.where(opens, begins, finishes & (before == np.roll(before, 1)))
    simple: Mask = counts % 2 == 0
    simple[line_of[~fine]] = False
    return simple


def _record(line: int, scan: _Scan, lines: int) -> OddRecord:
    if not scan.misplaced:
        return OddRecord(line, scan.fields)
    span = f"; the record goes on to line {line + lines - 1}" if lines > 1 else ""
    message = f"field {scan.misplaced} has a quote where none may stand{span}"
    return OddRecord(line, rule="quote-misplaced", message=message, place=scan.misplaced - 1)
