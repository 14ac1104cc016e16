"""A Parquet order file over the wire: the same job as its CSV twin, rejects by row, and a damaged file refused whole."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyarrow import parquet

from keys.errors import CitycardError

if TYPE_CHECKING:
    from conftest import Works

DATA = Path(__file__).parents[1] / "data"


def test_a_parquet_order_file_is_taken_in(works: Works, tmp_path: Path) -> None:
    with (DATA / "orders-1000.csv").open(encoding="utf-8", newline="") as file:
        headings, *rows = csv.reader(file)
    rows = rows[:50]
    pan = headings.index("银行账号") if "银行账号" in headings else headings.index("pan")
    rows[29][pan] = "1234"
    path = tmp_path / "orders.parquet"
    table = {heading: [row[at] for row in rows] for at, heading in enumerate(headings)}
    parquet.write_table(pa.table(table), path)
    works.add_station("one", 60)
    job = works.submit(path)
    assert (job.accepted, job.rejected) == (49, 1)
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    assert done.good == 49
    spools = list(works.plant.server_data.rglob("*.spool"))
    assert spools == []


def test_a_cut_parquet_file_is_refused_and_leaves_nothing(works: Works, tmp_path: Path) -> None:
    path = tmp_path / "orders.parquet"
    parquet.write_table(pa.table({"a": ["1"], "b": ["2"]}), path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CitycardError) as caught:
        works.submit(path)
    assert caught.value.reason == "ORDERS_PARQUET"
    assert list(works.plant.server_data.rglob("*.spool")) == []
