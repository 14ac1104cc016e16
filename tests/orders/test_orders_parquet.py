"""Parquet order files say the same as the CSV files they were made from, line by line; what is no order file is refused by name."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from engine.orders import OrderColumns, OrderSource, Reject, Rules, read_orders
from engine.orders.parquet import csv_of, is_parquet, row_count
from keys.errors import InvalidInput

DATA = Path(__file__).parents[1] / "data"
KEY = b"key of the tests, not of a site."


def table_of(name: str, encoding: str = "utf-8") -> dict[str, list[str]]:
    with (DATA / name).open(encoding=encoding, newline="") as file:
        headings, *rows = csv.reader(file)
    return {heading: [row[at] if at < len(row) else "" for row in rows] for at, heading in enumerate(headings)}


def parquet_bytes(columns: Mapping[str, object]) -> io.BytesIO:
    out = io.BytesIO()
    parquet.write_table(pa.table(dict(columns)), out, row_group_size=100)
    out.seek(0)
    return out


def read(file: io.BytesIO) -> tuple[list[int], OrderColumns, list[Reject]]:
    batches = list(read_orders(OrderSource(io.BytesIO(b"".join(csv_of(file)))), Rules(), KEY))
    lines = [line for batch in batches for line in batch.lines.tolist()]
    columns = OrderColumns.concatenate([batch.columns for batch in batches])
    return lines, columns, [reject for batch in batches for reject in batch.rejects]


def read_csv(octets: bytes) -> tuple[list[int], OrderColumns, list[Reject]]:
    batches = list(read_orders(OrderSource(io.BytesIO(octets)), Rules(), KEY))
    lines = [line for batch in batches for line in batch.lines.tolist()]
    return (
        lines,
        OrderColumns.concatenate([batch.columns for batch in batches]),
        [reject for batch in batches for reject in batch.rejects],
    )


def test_the_sample_as_parquet_gives_the_same_rows() -> None:
    lines, columns, rejects = read(parquet_bytes(table_of("orders-1000.csv")))
    _, expected, _ = read_csv((DATA / "orders-1000.csv").read_bytes())
    assert lines == list(range(2, 1002))
    assert rejects == []
    for name in expected:
        assert columns[name].tolist() == expected[name].tolist(), name


def test_row_n_is_line_n_plus_1_even_behind_an_address_of_three_lines() -> None:
    table = table_of("orders-1000.csv")
    address = next(heading for heading in table if heading in ("通讯地址", "address"))
    table[address][1] = 'first, "quoted"\r\nsecond\rthird'
    lines, columns, rejects = read(parquet_bytes(table))
    assert lines == list(range(2, 1002))
    assert rejects == []
    assert columns["address"][1] == b'first, "quoted"\nsecond\nthird'


def test_a_defect_is_reported_at_its_row() -> None:
    table = table_of("orders-1000.csv")
    pan = next(heading for heading in table if heading in ("银行账号", "pan"))
    table[pan][499] = "12"
    _, _, rejects = read(parquet_bytes(table))
    assert {(reject.line, reject.field) for reject in rejects} == {(501, "pan")}


def test_numbers_dates_and_dictionaries_become_text() -> None:
    table: dict[str, object] = dict(table_of("orders-1000.csv"))
    chinese = {"issue_date": "发卡日期", "pan": "银行账号", "sex": "性别", "phone": "联系电话"}
    found = {name: next(h for h in table if h in (name, heading)) for name, heading in chinese.items()}
    expected = read(parquet_bytes(table))[1]

    def texts(name: str) -> Sequence[str]:
        values = table[found[name]]
        assert isinstance(values, list)
        return values

    dates = [datetime.datetime.strptime(text, "%Y%m%d").astimezone().date() for text in texts("issue_date")]
    table[found["issue_date"]] = pa.array(dates, pa.date32())
    table[found["pan"]] = pa.array([int(text) for text in texts("pan")], pa.int64())
    table[found["sex"]] = pa.array(texts("sex")).dictionary_encode()
    table[found["phone"]] = pa.array([text or None for text in texts("phone")], pa.large_string())
    lines, columns, rejects = read(parquet_bytes(table))
    assert (len(lines), rejects) == (1000, [])
    for name in expected:
        assert columns[name].tolist() == expected[name].tolist(), name


def test_a_column_that_is_no_text_is_refused_by_name_and_a_foreign_one_is_left_out() -> None:
    table: dict[str, object] = dict(table_of("orders-1000.csv"))
    table["score"] = pa.array([0.5] * 1000)
    assert len(read(parquet_bytes(table))[0]) == 1000
    pan = next(h for h in table if h in ("银行账号", "pan"))
    table[pan] = pa.array([1.0] * 1000)
    with pytest.raises(InvalidInput, match=f"{pan} has type double"):
        read(parquet_bytes(table))


@pytest.mark.parametrize("cut", [4, 5, 100, 3000, -1])
def test_a_damaged_file_is_refused(cut: int) -> None:
    whole = parquet_bytes(table_of("orders-1000.csv")).getvalue()
    broken = io.BytesIO(whole[:cut])
    assert is_parquet(broken)
    with pytest.raises(InvalidInput) as caught:
        read(broken)
    assert caught.value.reason == "ORDERS_PARQUET"


def test_no_rows_are_said_to_be_no_rows() -> None:
    with pytest.raises(InvalidInput) as caught:
        read(parquet_bytes({name: pa.array([], pa.string()) for name in table_of("orders-1000.csv")}))
    assert caught.value.reason == "ORDERS_NO_ROWS"


def test_rows_are_counted_from_the_footer(tmp_path: Path) -> None:
    path = tmp_path / "orders.parquet"
    path.write_bytes(parquet_bytes(table_of("orders-1000.csv")).getvalue())
    assert row_count(path) == 1000
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InvalidInput):
        row_count(path)
