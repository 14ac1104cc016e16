"""The sample files: every good row is taken, every defective one is rejected by its rule, and both encodings say the same."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from engine.orders import STORED, OrderColumns, OrderSource, Reject, Rules, read_orders

DATA = Path(__file__).parents[1] / "data"
KEY = b"key of the tests, not of a site."


def read(name: str) -> tuple[OrderSource, list[int], OrderColumns, list[Reject]]:
    with (DATA / name).open("rb") as reader:
        source = OrderSource(reader)
        batches = list(read_orders(source, Rules(), KEY))
    lines = [line for batch in batches for line in batch.lines.tolist()]
    columns = OrderColumns.concatenate([batch.columns for batch in batches])
    return source, lines, columns, [reject for batch in batches for reject in batch.rejects]


def test_good_samples_are_good_in_both_encodings() -> None:
    utf8, gb = read("orders-1000.csv"), read("orders-1000.gb18030.csv")
    assert (utf8[0].encoding, gb[0].encoding) == ("utf-8", "gb18030")
    for source, lines, columns, rejects in (utf8, gb):
        assert lines == list(range(2, 1002))
        assert columns.rows == 1000
        assert rejects == []
        assert source.notes == ()
    for name in STORED:
        assert utf8[2][name].tolist() == gb[2][name].tolist(), name


def test_columns_are_the_file() -> None:
    with (DATA / "orders-1000.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    columns = read("orders-1000.csv")[2]
    kinds = {"首次": "first", "补卡": "replacement", "换卡": "renewal"}
    for at, name in enumerate(STORED[:17]):
        expected = [kinds[row[at]] if name == "kind" else row[at] for row in rows]
        assert [value.decode() for value in columns[name].tolist()] == expected, name


def test_names_fit_the_card_and_are_whole() -> None:
    columns = read("orders-1000.gb18030.csv")[2]
    continued = 0
    for name, field, extension in zip(
        columns["name"].tolist(), columns["name_field"].tolist(), columns["name_extension"].tolist(), strict=True
    ):
        assert len(field) <= 30
        assert len(extension) <= 30
        assert (field + extension).decode("gb18030") == name.decode()
        assert field.decode("gb18030") + extension.decode("gb18030") == name.decode()  # no character is cut
        continued += bool(extension)
    assert continued == 1
    assert "阿卜杜热依木江·麦麦提吐尔逊·阿卜力米提".encode() in columns["name"].tolist()


def test_defects_are_found_and_nothing_else() -> None:
    with (DATA / "orders-defects.expected.csv").open(encoding="utf-8", newline="") as file:
        expected = {int(row["line"]): row["defect"] for row in csv.DictReader(file)}
    _, lines, _, rejects = read("orders-defects.gb18030.csv")
    found: defaultdict[int, set[str]] = defaultdict(set)
    for reject in rejects:
        found[reject.line].add(reject.rule)
    assert set(found) == set(expected)
    assert len(lines) == 258
    assert set(lines) | set(expected) == set(range(2, 302))
    for line, defect in expected.items():
        assert defect in found[line], line
        # Nothing beyond the defect, but that an impossible birth date also differs from the citizen number.
        assert found[line] - {defect} <= ({"id-birth-mismatch"} if defect == "date-invalid" else set())


def test_hashes_are_keyed_blake2b_of_the_fields() -> None:
    import hashlib

    with (DATA / "orders-1000.csv").open("rb") as reader:
        batch = next(iter(read_orders(OrderSource(reader), Rules(), KEY)))
    for matrix, name in ((batch.person_hash, "social_security_number"), (batch.card_hash, "card_number")):
        assert matrix.shape == (1000, 16)
        assert matrix.dtype == np.uint8
        for row in (0, 999):
            value = batch.columns[name].tolist()[row]
            assert matrix[row].tobytes() == hashlib.blake2b(value, key=KEY, digest_size=16).digest()
