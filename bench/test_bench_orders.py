"""Orders: rows a second through reading and checking, through storing, and through sealing; one core.

Each figure's context (CPU, Python, numpy) is in the benchmark's own report; rows per second are in `extra_info`.
"""

from __future__ import annotations

import io
from typing import Literal

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from engine.orders import Batch, JobSeal, OrderSource, Rules, decode_records, encode_records, read_orders
from engine.orders.synthetic import order_file

ROWS = 200_000
KEY = bytes(range(32))
Encoding = Literal["utf-8", "gb18030"]


@pytest.fixture(scope="module", params=["utf-8", "gb18030"])
def octets(request: pytest.FixtureRequest) -> bytes:
    encoding: Encoding = request.param
    return b"".join(order_file(ROWS, encoding=encoding))


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    return list(read_orders(OrderSource(io.BytesIO(b"".join(order_file(ROWS // 4)))), Rules(), KEY))


def rows_per_second(benchmark: BenchmarkFixture, rows: int) -> None:
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info |= {"batch": rows}
        benchmark.extra_info["rows_per_second"] = round(rows / benchmark.stats["min"])


def test_read_and_check(benchmark: BenchmarkFixture, octets: bytes) -> None:
    """All of it: detecting the encoding, framing, every rule, hashes of persons and card numbers, duplicates."""

    def run() -> int:
        return sum(len(batch.lines) for batch in read_orders(OrderSource(io.BytesIO(octets)), Rules(), KEY))

    assert benchmark(run) == ROWS
    rows_per_second(benchmark, ROWS)


def test_encode_records(benchmark: BenchmarkFixture, batches: list[Batch]) -> None:
    records = benchmark(lambda: [encode_records(batch.columns) for batch in batches])
    assert sum(map(len, records)) == ROWS // 4
    rows_per_second(benchmark, ROWS // 4)


def test_decode_records(benchmark: BenchmarkFixture, batches: list[Batch]) -> None:
    records = [encode_records(batch.columns) for batch in batches]
    columns = benchmark(lambda: [decode_records(part) for part in records])
    assert sum(part.rows for part in columns) == ROWS // 4
    rows_per_second(benchmark, ROWS // 4)


def test_seal_rows(benchmark: BenchmarkFixture, batches: list[Batch]) -> None:
    records = [encode_records(batch.columns) for batch in batches]
    with JobSeal(KEY, "bench") as seal:
        blobs = benchmark(lambda: [seal.seal_rows(batch.lines, part) for batch, part in zip(batches, records, strict=True)])
    assert sum(map(len, blobs)) == ROWS // 4
    rows_per_second(benchmark, ROWS // 4)
