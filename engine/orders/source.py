"""An order file as it lies: which encoding it is in, which columns it has, where its records begin.

The encoding is found out exactly, by decoding the whole file before any row is looked at: UTF-8 strictly, then GB 18030. A file
that is neither is refused with the place of the first byte that fits neither; nothing is ever replaced or guessed. Text that is
UTF-8 for many characters and then breaks is damaged UTF-8, not GB 18030, even where its bytes could be read as such.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Final, Literal

from engine.orders import gb18030
from engine.orders.columns import Layout, layout_of
from engine.orders.framing import RECORD_LIMIT, BinaryReader, Framer, Slab, line_break_of, scan_record
from keys.errors import InvalidInput

Encoding = Literal["utf-8", "gb18030"]

_CHUNK: Final = 1024 * 1024
_BOMS: Final = {"utf-8": codecs.BOM_UTF8, "gb18030": bytes.fromhex("84319533")}
# Chinese text in GB 18030 is well-formed UTF-8 for this many characters in a row with a chance of less than 10^-11.
_SURELY_UTF8: Final = 16


class OrderSource:
    """An order file over a seekable binary reader, which is read twice and not closed.

    `encoding`: "utf-8" or "gb18030". `layout`: where its columns are. `notes`: remarks for the operator, such as ignored columns.
    Raises InvalidInput: ORDERS_EMPTY, ORDERS_ENCODING, ORDERS_HEADING_TOO_LONG, ORDERS_HEADING_QUOTES,
    ORDERS_HEADING_DUPLICATE, ORDERS_HEADING_MISSING; the message names line and byte offset or column.
    """

    def __init__(self, reader: BinaryReader, *, encoding: Encoding | None = None) -> None:
        self._reader = reader
        head = self._head()
        self._refuse_other_unicode(head)
        self._terminator = line_break_of(head)
        self.encoding: Encoding = self._find_encoding(encoding)
        bom = _BOMS[self.encoding]
        self._begin = len(bom) if head.startswith(bom) else 0
        self.layout: Layout = self._read_heading(head)
        self.notes: tuple[str, ...] = self.layout.notes

    def slabs(self, slab_lines: int) -> Iterator[Slab]:
        """Everything behind the heading line, from the start each time. One iteration at a time: the reader has one position."""
        self._reader.seek(self._rows_begin)
        return iter(Framer(self._reader, terminator=self._terminator, line=self._rows_line, slab_lines=slab_lines))

    def _head(self) -> bytes:
        self._reader.seek(0)
        head = b""
        # Enough for the longest heading line with its line break and a byte order mark.
        while len(head) < RECORD_LIMIT + 8 and (part := self._reader.read(RECORD_LIMIT + 8 - len(head))):
            head += part
        if not head:
            raise InvalidInput("ORDERS_EMPTY", "the order file is empty")
        return head

    @staticmethod
    def _refuse_other_unicode(head: bytes) -> None:
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
            raise InvalidInput("ORDERS_ENCODING", "line 1, byte 0: the file is UTF-16 or UTF-32; save it as UTF-8 or GB 18030")

    # Encoding

    def _find_encoding(self, wanted: Encoding | None) -> Encoding:
        if wanted is not None and wanted not in _BOMS:
            raise InvalidInput("ORDERS_ENCODING", f"an order file is utf-8 or gb18030, not {wanted!r}")
        failures: list[str] = []
        if wanted in (None, "utf-8"):
            failure, sure = self._decode_all(codecs.getincrementaldecoder("utf-8")())
            if failure is None:
                return "utf-8"
            failures.append(f"not UTF-8 ({self._place(failure)})")
            if sure:
                raise InvalidInput("ORDERS_ENCODING", f"the file is UTF-8 with damage: {self._place(failure)}")
        if wanted in (None, "gb18030"):
            failure, _ = self._decode_all(gb18030.incremental_decoder())
            if failure is None:
                return "gb18030"
            failures.append(f"not GB 18030 ({self._place(failure)})")
        raise InvalidInput("ORDERS_ENCODING", "the file is " + " and ".join(failures))

    def _decode_all(self, decoder: codecs.IncrementalDecoder) -> tuple[int | None, bool]:
        """Offset of the first byte that does not decode, or None; and whether what came before surely was in this encoding."""
        self._reader.seek(0)
        offset = 0
        extra = 0
        final = False
        while not final:
            chunk = self._reader.read(_CHUNK) or b""
            final = not chunk
            held = len(decoder.getstate()[0])
            try:
                extra += len(chunk) - len(decoder.decode(chunk, final))
            except UnicodeDecodeError as error:
                before = error.object[: error.start]
                # Each character beyond ASCII has at least one byte more than characters; Chinese ones have two more in UTF-8.
                extra += len(before) - len(before.decode("utf-8", "ignore"))
                return offset - held + error.start, extra >= 2 * _SURELY_UTF8
            offset += len(chunk)
        return None, True

    def _place(self, offset: int) -> str:
        """Line, counted in line breaks, and byte offset of a place in the file."""
        self._reader.seek(0)
        mark = bytes([self._terminator])
        line, left = 1, offset
        while left > 0 and (chunk := self._reader.read(min(left, _CHUNK))):
            line += chunk.count(mark)
            left -= len(chunk)
        return f"line {line}, byte {offset}"

    # Heading

    def _read_heading(self, head: bytes) -> Layout:
        start, line = self._begin, 1
        # Empty lines above the heading are nothing, as everywhere.
        while head[start : start + 1] in (b"\r", b"\n"):
            line += head[start] == self._terminator
            start += 1
        if start >= len(head):
            raise InvalidInput("ORDERS_EMPTY", "the order file holds nothing but line breaks")
        final = len(head) < RECORD_LIMIT + 8
        scan = scan_record(head, start, len(head), self._terminator, final=final)
        if scan is None:
            if final:
                raise InvalidInput("ORDERS_HEADING_QUOTES", f"line {line}: a quote in the heading line is never closed")
            raise InvalidInput("ORDERS_HEADING_TOO_LONG", f"line {line}: the heading line is longer than {RECORD_LIMIT} bytes")
        if scan.misplaced:
            raise InvalidInput("ORDERS_HEADING_QUOTES", f"line {line}: heading {scan.misplaced} has a quote where none may stand")
        self._rows_begin = scan.after
        self._rows_line = line + head[start : scan.after].count(bytes([self._terminator]))
        if scan.after > len(head):  # no line break behind the heading
            self._rows_line = line + 1
        decode = gb18030.decode if self.encoding == "gb18030" else (lambda octets: octets.decode("utf-8"))
        return layout_of([decode(octets) for octets in scan.fields], line)
