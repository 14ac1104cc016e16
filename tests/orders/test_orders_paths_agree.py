"""The fast way, the exact way and a plain reading of the rules agree on every file, in either encoding, however it is cut up."""

from __future__ import annotations

import csv
import io
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.orders import STORED, OrderColumns, OrderSource, Rules, gb18030, read_orders, reading
from engine.orders.columns import NAMES
from engine.orders.framing import Slab
from engine.orders.matrix import sound_rows
from engine.orders.synthetic import row as synthetic_row
from tests.orders.reference_validator import validate

KEY = b"0123456789abcdef"
ODD_TEXT = st.one_of(
    st.text(max_size=12),
    st.text("0123456789X", min_size=1, max_size=19),
    st.text("王芳·•.〇\u3007𬭎龴\u3400\ue000\ufeff ", max_size=20),
    st.sampled_from(["", " ", '"', '""', ",", "\n", "\r\n", "\r", "\0", "\x07", "𬭎" * 8, "王" * 16]),
    st.sampled_from(["19000229", "20000229", "00", "999999"]),
    st.text("0123456789", min_size=12, max_size=20),
)


@st.composite
def files(draw: st.DrawFn) -> list[list[str]]:
    """A few rows, each good but for nothing, one or several values taken from elsewhere."""
    rows = []
    for _ in range(draw(st.integers(1, 8))):
        row = list(synthetic_row(draw(st.integers(0, 5))))
        for at in draw(st.lists(st.integers(0, 16), max_size=3)):
            kind = draw(st.integers(0, 4))
            if kind == 0:
                row[at] = draw(ODD_TEXT)
            elif kind == 1:
                row[at] = synthetic_row(draw(st.integers(0, 5)))[draw(st.integers(0, 16))]
            elif kind == 2 and row[at]:
                place = draw(st.integers(0, len(row[at]) - 1))
                row[at] = row[at][:place] + draw(st.sampled_from("0129XAx王· -")) + row[at][place + 1 :]
            elif kind == 3:
                row[at] = row[at] + draw(st.sampled_from("01X王 ·"))
            else:
                row[at] = row[at][:-1]
        if draw(st.integers(0, 12)) == 0:
            row = row[: draw(st.integers(1, 17))]
        if draw(st.integers(0, 12)) == 0:
            row.append("more")
        rows.append(row)
    return rows


def text_of(rows: list[list[str]], quoting: int) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(NAMES)
    writer.writerows(rows)
    return out.getvalue()


def run(octets: bytes, encoding: str, batch_lines: int) -> tuple[list[int], OrderColumns, dict[int, set[str]]]:
    batches = list(read_orders(OrderSource(io.BytesIO(octets), encoding=encoding), Rules(), KEY, batch_lines=batch_lines))  # type: ignore[arg-type]
    rejects: dict[int, set[str]] = {}
    for batch in batches:
        for reject in batch.rejects:
            rejects.setdefault(reject.line, set()).add(reject.rule)
    lines = [line for batch in batches for line in batch.lines.tolist()]
    return lines, OrderColumns.concatenate([batch.columns for batch in batches]), rejects


def same(one: OrderColumns, other: OrderColumns) -> bool:
    return all(one[name].tolist() == other[name].tolist() for name in STORED)


def only_exact(slab: Slab, *_: object) -> tuple[np.ndarray, OrderColumns]:
    return np.zeros(0, np.int64), OrderColumns.concatenate([])


@settings(max_examples=300, deadline=None)
@given(rows=files(), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), batch_lines=st.sampled_from([1, 2, 3, 8192]))
def test_three_ways_agree(rows: list[list[str]], quoting: int, batch_lines: int) -> None:
    text = text_of(rows, quoting)
    expected = validate(text)
    results = []
    for encoding, octets in (("utf-8", text.encode()), ("gb18030", gb18030.encode(text))):
        fast = run(octets, encoding, batch_lines)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reading, "sound_rows", only_exact)
            exact = run(octets, encoding, 8192)
        assert fast[0] == exact[0]
        assert same(fast[1], exact[1])
        assert fast[2] == exact[2]
        results.append(fast)
        # An empty last line and the like leave no rows: both say so by having neither a row nor a reject.
        assert fast[2] == expected
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1])


def test_the_fast_way_takes_ordinary_rows() -> None:
    """Otherwise the agreement above would be that of one way with itself."""
    rows = [list(synthetic_row(index)) for index in range(2000)]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        source = OrderSource(io.BytesIO(text_of(rows, quoting).encode()))
        taken = sum(len(sound_rows(slab, source.layout, "utf-8", Rules())[0]) for slab in source.slabs(8192))
        assert taken == 2000


@pytest.mark.parametrize("seed", range(3))
def test_many_rows_with_random_damage(seed: int) -> None:
    """Whole batches, so that good and bad rows stand side by side in one matrix."""
    chance = random.Random(seed)
    rows = [list(synthetic_row(index)) for index in range(3000)]
    for row in chance.sample(rows, 600):
        at = chance.randrange(17)
        row[at] = chance.choice([row[at][:-1], row[at] + "1", "", row[at][::-1], rows[chance.randrange(3000)][at], "王\x01"])
    text = text_of(rows, csv.QUOTE_MINIMAL)
    for encoding, octets in (("utf-8", text.encode()), ("gb18030", gb18030.encode(text))):
        lines, columns, rejects = run(octets, encoding, 1000)
        assert rejects == validate(text)
        assert sorted([*lines, *rejects]) == list(range(2, 3002))
        assert columns["social_security_number"].tolist() == [rows[line - 2][1].encode() for line in lines]


def test_any_column_order_and_extra_columns() -> None:
    order = list(range(17))
    random.Random(5).shuffle(order)
    rows = [list(synthetic_row(index)) for index in range(50)]
    text = ",".join(["remark", *(NAMES[at] for at in order), "x"]) + "\n"
    text += "".join(",".join(["备注", *(row[at] for at in order), ""]) + "\n" for row in rows)
    plain = run(text_of(rows, csv.QUOTE_MINIMAL).encode(), "utf-8", 8192)
    mixed = run(text.encode(), "utf-8", 8192)
    assert mixed[0] == plain[0]
    assert same(mixed[1], plain[1])
