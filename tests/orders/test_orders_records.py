"""Stored records: what goes in comes out, and damage is named."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.orders import STORED, OrderColumns, OrderSource, Rules, decode_records, encode_records, read_orders
from engine.orders.synthetic import order_file
from keys.errors import CitycardError, Corrupt, InvalidInput, Unsupported

VALUE = st.binary(max_size=255).map(lambda value: value.replace(b"\0", b"\1"))
ROWS = st.lists(st.tuples(*[VALUE] * len(STORED)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_round_trip(rows: list[tuple[bytes, ...]]) -> None:
    columns = OrderColumns.from_rows(rows)
    records = encode_records(columns)
    assert len(records) == len(rows)
    again = decode_records(records)
    assert again.rows == len(rows)
    for at, name in enumerate(STORED):
        assert again[name].tolist() == [row[at] for row in rows]


def test_records_stand_alone_and_are_compact() -> None:
    (batch,) = read_orders(OrderSource(io.BytesIO(b"".join(order_file(300)))), Rules(), bytes(16))
    records = encode_records(batch.columns)
    for at in (0, 99, 299):
        one = decode_records([records[at]])
        for name in STORED:
            assert one[name].tolist() == [batch.columns[name].tolist()[at]]
            assert len(records[at]) == 1 + sum(1 + len(one[column].tolist()[0]) for column in STORED)


def test_limits_and_formats() -> None:
    with pytest.raises(InvalidInput) as long:
        encode_records(OrderColumns.from_rows([(b"x" * 256,) * len(STORED)]))
    assert long.value.reason == "FIELD_TOO_LONG"
    record = encode_records(OrderColumns.from_rows([(b"x",) * len(STORED)]))[0]
    with pytest.raises(Unsupported) as newer:
        decode_records([record, b"\x02" + record[1:]])
    assert newer.value.reason == "RECORD_FORMAT"
    assert "record 1 has format 2" in newer.value.message
    for damaged in (b"", record[:-1], record + b"x", record[:1]):
        with pytest.raises(Corrupt) as caught:
            decode_records([record, damaged])
        assert caught.value.reason == "RECORD_CORRUPT"
        assert "record 1" in caught.value.message or len(damaged) != len(record)
    assert decode_records([]).rows == 0
    assert encode_records(decode_records([])) == []


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_any_bytes_are_refused_or_read(records: list[bytes]) -> None:
    reason = ""
    try:
        assert decode_records(records).rows == len(records)
    except CitycardError as error:
        reason = error.reason
    assert reason in {"", "RECORD_CORRUPT", "RECORD_FORMAT"}


def test_columns_print_no_content() -> None:
    (batch,) = read_orders(OrderSource(io.BytesIO(b"".join(order_file(3)))), Rules(), bytes(16))
    assert repr(batch.columns) == f"OrderColumns({len(STORED)} columns, 3 rows)"
    assert repr(batch) == "Batch(3 rows, 0 rejects)"
    with pytest.raises(InvalidInput):
        OrderColumns({"a": batch.columns["pan"], "b": batch.columns["pan"][:1]})
