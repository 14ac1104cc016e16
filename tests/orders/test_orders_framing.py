"""Records out of bytes: the csv module is the measure; lines, limits and stray quotes are counted and bounded."""

from __future__ import annotations

import csv
import io
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.orders import OrderSource, Rules, framing, read_orders
from engine.orders.columns import NAMES
from engine.orders.framing import Framer, line_break_of
from engine.orders.synthetic import order_file, row
from keys.errors import InvalidInput

KEY = b"0123456789abcdef"
HEADING = ",".join(NAMES).encode()


def records(octets: bytes, terminator: int = 0x0A, slab_lines: int = 8192) -> list[tuple[int, list[bytes] | str]]:
    """Every record as (line, fields) or (line, rule)."""
    out: list[tuple[int, list[bytes] | str]] = []
    for slab in Framer(io.BytesIO(octets), terminator=terminator, line=1, slab_lines=slab_lines):
        found: list[tuple[int, list[bytes] | str]] = [(int(slab.lines[at]), slab.fields(at)) for at in range(len(slab.lines))]
        found += [(odd.line, odd.rule or odd.fields) for odd in slab.odd]
        out += sorted(found, key=lambda record: record[0])
    return out


def good_line(index: int) -> bytes:
    return ",".join(row(index)).encode()


def rejects_of(octets: bytes) -> tuple[list[int], list[tuple[int, str]]]:
    batches = list(read_orders(OrderSource(io.BytesIO(octets)), Rules(), KEY))
    return (
        [line for batch in batches for line in batch.lines.tolist()],
        [(reject.line, reject.rule) for batch in batches for reject in batch.rejects],
    )


TABLE = st.lists(st.lists(st.text(alphabet='a,"\n\r é王', max_size=6), min_size=2, max_size=4), min_size=1, max_size=12)


@settings(max_examples=400, deadline=None)
@given(
    table=TABLE,
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    ending=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    slab_lines=st.sampled_from([1, 2, 100]),
    chunk=st.sampled_from([200, 300, 1 << 20]),
)
def test_what_csv_writes_is_read(table: list[list[str]], quoting: int, ending: str, last: bool, slab_lines: int, chunk: int) -> None:
    if quoting == csv.QUOTE_MINIMAL and ending == "\n":
        # The csv module does not quote a CR then, so that it reads it back as part of CRLF itself.
        table = [[value.replace("\r", "") for value in values] for values in table]
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=quoting, lineterminator=ending)  # type: ignore[arg-type]
    lines, line = [], 1
    for values in table:
        lines.append(line)
        before = out.tell()
        writer.writerow(values)
        line += out.getvalue()[before:].count("\n")
    text = out.getvalue()
    if not last:
        text = text.removesuffix(ending)
    with pytest.MonkeyPatch.context() as patch:
        # Small enough that records fall across chunks; a chunk must hold the longest record.
        patch.setattr(framing, "CHUNK", chunk)
        patch.setattr(framing, "RECORD_LIMIT", min(framing.RECORD_LIMIT, chunk - 10))
        found = records(text.encode(), slab_lines=slab_lines)
    assert found == [(at, [value.encode() for value in values]) for at, values in zip(lines, table, strict=True)]


@settings(max_examples=400, deadline=None)
@given(octets=st.binary(max_size=400) | st.text('a,"\n\r', max_size=200).map(str.encode), slab_lines=st.sampled_from([1, 3, 100]))
def test_any_bytes_are_read_without_loss_of_lines(octets: bytes, slab_lines: int) -> None:
    """No crash, lines rise, and each non-empty line belongs to a record that begins at or before it."""
    found = [line for line, _ in records(octets, slab_lines=slab_lines)]
    assert found == sorted(set(found))
    assert found == [line for line, _ in records(octets)]
    filled = [number for number, line in enumerate(octets.split(b"\n"), start=1) if line.removesuffix(b"\r")]
    assert (not filled) == (not found)
    if filled:
        assert found[0] == filled[0]
        assert found[-1] <= len(octets.split(b"\n"))


def test_line_endings() -> None:
    assert line_break_of(b"a,b\r\n") == line_break_of(b"a,b\n") == line_break_of(b"a,b") == line_break_of(b"a,b\r") == 0x0A
    assert line_break_of(b"a,b\rc,d\r") == 0x0D
    for ending in (b"\n", b"\r\n", b"\r"):
        octets = ending.join([HEADING, *(good_line(index) for index in range(20))])
        assert rejects_of(octets) == (list(range(2, 22)), [])
        assert rejects_of(octets + ending) == (list(range(2, 22)), [])


def test_a_lone_cr_is_a_control_character_where_lines_end_in_lf() -> None:
    lines = [HEADING, good_line(0), good_line(1).replace(b"Z", b"\rZ"), good_line(2)]
    assert rejects_of(b"\n".join(lines)) == ([2, 4], [(3, "control-character")])
    mixed = b"\r".join([HEADING, good_line(0), good_line(1).replace(b"ICBC", b"IC\nBC").replace(b"CCB", b"C\nCB"), good_line(2)])
    assert rejects_of(mixed) == ([2, 4], [(3, "control-character")])


def test_empty_lines_count_and_are_nothing() -> None:
    octets = b"\r\n\n".join([HEADING, good_line(0), b"", good_line(1)]) + b"\n\n\n"
    assert rejects_of(octets) == ([3, 7], [])


def test_a_record_over_several_lines_counts_from_its_first() -> None:
    spanning = good_line(1).split(b",")
    spanning[13] = '"河南省\r\n郑州市\n1号"'.encode()
    octets = b"\r\n".join([HEADING, good_line(0), b",".join(spanning), good_line(2)[:-4], good_line(3)])
    lines, rejects = rejects_of(octets)
    assert lines == [2, 3, 7]
    assert rejects == [(6, "photo-file-format")]


def test_misplaced_quotes() -> None:
    outlet = f",{row(1)[15]},".encode()
    lines = [HEADING, *(good_line(index) for index in range(7))]
    for at, bad in ((2, b',"Z"001,'), (4, b',Z"001,'), (6, b',"Z001" ,')):
        lines[at] = good_line(1).replace(outlet, bad)
    lines[3] = good_line(1).replace(outlet, b',"Z001",')
    assert rejects_of(b"\n".join(lines)) == ([2, 4, 6, 8], [(3, "quote-misplaced"), (5, "quote-misplaced"), (7, "quote-misplaced")])
    (batch,) = read_orders(OrderSource(io.BytesIO(b"\n".join(lines))), Rules(), KEY)
    assert {reject.field for reject in batch.rejects} == {"outlet"}


def test_an_open_quote_costs_one_line_only() -> None:
    lines = [HEADING, *(good_line(index) for index in range(2000))]
    lines[1000] = lines[1000].replace(b",Z", b',"Z')
    good, rejects = rejects_of(b"\r\n".join(lines))
    assert rejects == [(1001, "quote-unterminated")]
    assert good == [line for line in range(2, 2002) if line != 1001]


def test_an_open_quote_at_the_end() -> None:
    lines = [HEADING, good_line(0), good_line(1).replace(b",Z", b',"Z'), good_line(2)]
    assert rejects_of(b"\n".join(lines)) == ([2, 4], [(3, "quote-unterminated")])
    assert rejects_of(b"\n".join([HEADING, good_line(0)]) + b'\n"') == ([2], [(3, "quote-unterminated")])


def test_a_file_of_open_quotes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "RECORD_LIMIT", 64)
    line = b'x"' + b"y" * 80 + b"\n"
    octets = b"\n".join([HEADING, *[b'"' + b"y" * 60] * 3, *[b"z" * 60]]) + b"\n"
    assert {rule for _, rule in rejects_of(octets)[1]} >= {"quote-unterminated"}
    monkeypatch.setattr(framing, "OPEN_QUOTE_LIMIT", 2)
    source = OrderSource(io.BytesIO(HEADING + b"\n" + (b'"' + b"y" * 50 + b"\n" + line) * 10))
    with pytest.raises(InvalidInput) as caught:
        list(read_orders(source, Rules(), KEY))
    assert caught.value.reason == "ORDERS_QUOTES"
    assert "line" in caught.value.message


def test_long_lines_are_rejected_and_the_rest_is_read() -> None:
    long = b"x" * (framing.RECORD_LIMIT + 1)
    quoted = b'"' + b"y,\n" * framing.RECORD_LIMIT + b'"'
    lines, rejects = rejects_of(b"\n".join([HEADING, good_line(0), long, good_line(1), quoted, good_line(2)]))
    assert lines[:2] == [2, 4]
    assert (3, "line-too-long") in rejects
    assert (5, "quote-unterminated") in rejects
    assert lines[-1] == 6 + framing.RECORD_LIMIT


class Endless:
    """A file that is one gigantic line in the middle of good rows, made while it is read."""

    def __init__(self, middle: int) -> None:
        self.head = HEADING + b"\n" + good_line(0) + b"\n"
        self.tail = b"\n" + good_line(1) + b"\n"
        self.middle = middle
        self.at = 0

    def seek(self, offset: int, /) -> int:
        self.at = offset
        return offset

    def read(self, size: int, /) -> bytes:
        begin, end = len(self.head), len(self.head) + self.middle
        if self.at < begin:
            part = self.head[self.at : self.at + size]
        elif self.at < end:
            part = b"x" * min(size, end - self.at)
        else:
            part = self.tail[self.at - end : self.at - end + size]
        self.at += len(part)
        return part


def test_a_gigabyte_in_one_line_takes_little_memory_and_time() -> None:
    begun = time.monotonic()
    tracemalloc.start()
    try:
        batches = list(read_orders(OrderSource(Endless(1 << 30)), Rules(), KEY))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [line for batch in batches for line in batch.lines.tolist()] == [2, 4]
    assert [(r.line, r.rule) for batch in batches for r in batch.rejects] == [(3, "line-too-long")]
    assert peak < 64 << 20
    assert time.monotonic() - begun < 60


def test_memory_does_not_grow_with_the_file() -> None:
    """20,000 rows need what 5,000 rows need, but for the tables of persons, cards and PANs, which do not grow at this size."""
    peaks = []
    for rows in (9_000, 27_000):
        octets = b"".join(order_file(rows))
        tracemalloc.start()
        try:
            for batch in read_orders(OrderSource(io.BytesIO(octets)), Rules(), KEY):
                del batch
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2


def test_nul_bytes() -> None:
    assert rejects_of(b"\n".join([HEADING, good_line(0), b"\0" * 20, good_line(1)])) == ([2, 4], [(3, "column-missing")])
    with_nul = good_line(1).replace(b"Z", b"\0Z")
    assert rejects_of(b"\n".join([HEADING, good_line(0), with_nul, good_line(2)])) == ([2, 4], [(3, "control-character")])
