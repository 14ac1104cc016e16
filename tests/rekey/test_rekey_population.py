"""Made-up cards are all different and follow the profile's pools; a population file is read exactly, and refused by column and row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from engine.profiles.model import load
from engine.rekey.population import MadeUp, ParquetPopulation, digits_of, needed_columns, with_luhn
from keys.errors import InvalidInput

PROFILE = load("zhengzhou-citizen-card").profile


@given(st.lists(st.integers(0, 10**12 - 1), min_size=1, max_size=20), st.integers(12, 20))
def test_digits_are_python_s(numbers: list[int], width: int) -> None:
    made = digits_of(np.array(numbers, np.uint64), width)
    assert [row.tobytes().decode() for row in made] == [str(number).zfill(width) for number in numbers]


@given(st.text("0123456789", min_size=11, max_size=18))
def test_luhn_digit_by_the_standard(digits: str) -> None:
    card = with_luhn(np.frombuffer(digits.encode(), np.uint8).reshape(1, -1)).tobytes().decode()
    total = 0
    for place, digit in enumerate(reversed(card)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    assert card[:-1] == digits
    assert total % 10 == 0


def test_made_up_cards_are_the_same_in_any_stretch_and_all_different() -> None:
    cards = MadeUp(PROFILE, 5000)
    whole = cards.columns(0, 5000)
    part = cards.columns(1234, 100)
    for name in whole:
        assert whole[name][1234:1334].tolist() == part[name].tolist(), name
        if name != "psn":
            assert len({np.asarray(value).tobytes() for value in whole[name]}) == 5000, name
    transport = next(pool for pool in PROFILE.serials if pool.name == "transport")
    assert whole["transport_serial"][0].tobytes().decode() == transport.prefix + str(transport.first).zfill(
        transport.digits - len(transport.prefix)
    )


@pytest.mark.parametrize("cards", [0, -1, 10**12])
def test_too_many_or_no_cards_are_refused(cards: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        MadeUp(PROFILE, cards)
    assert caught.value.reason == "CARDS"


def population(path: Path, rows: int = 1000, **changed: list[str]) -> Path:
    columns = {
        "chip_serial": [f"{i:016X}" for i in range(rows)],
        "transport_serial": [f"4910{i:016d}" for i in range(rows)],
        "city_serial": [f"4101{i:012d}" for i in range(rows)],
        "pan": [f"622848{i:013d}" for i in range(rows)],
        "psn": ["00"] * rows,
    }
    parquet.write_table(pa.table(columns | changed), path, row_group_size=300)
    return path


def test_a_file_is_read_across_row_groups(tmp_path: Path) -> None:
    cards = ParquetPopulation(population(tmp_path / "p.parquet"), ["chip_serial", "pan"])
    assert cards.cards == 1000
    columns = cards.columns(250, 400)
    assert columns["chip_serial"][:, 6:].copy().view(">u2")[:, 0].tolist() == list(range(250, 650))
    assert columns["pan"].tolist() == [f"622848{i:013d}".encode() for i in range(250, 650)]
    assert set(columns) == {"chip_serial", "pan"}


def test_a_wrong_value_is_named_by_column_and_row(tmp_path: Path) -> None:
    serials = [f"{i:016X}" for i in range(1000)]
    serials[700] = "XYZ"
    cards = ParquetPopulation(population(tmp_path / "p.parquet", chip_serial=serials), ["chip_serial"])
    with pytest.raises(InvalidInput, match="chip_serial of row 701"):
        cards.columns(600, 300)
    pans = [f"622848{i:013d}" for i in range(1000)]
    pans[3] = "62284 8"
    cards = ParquetPopulation(population(tmp_path / "q.parquet", pan=pans), ["pan"])
    with pytest.raises(InvalidInput, match="pan of row 4"):
        cards.columns(0, 10)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = population(tmp_path / "p.parquet")
    with pytest.raises(InvalidInput, match="no column else_serial"):
        ParquetPopulation(path, ["else_serial"])
    path.write_bytes(b"PAR1, or not")
    with pytest.raises(InvalidInput) as caught:
        ParquetPopulation(path, [])
    assert caught.value.reason == "POPULATION_UNREADABLE"
    with pytest.raises(InvalidInput) as caught:
        ParquetPopulation(population(tmp_path / "empty.parquet", rows=0), ["pan"])
    assert caught.value.reason == "POPULATION_EMPTY"


def test_columns_needed_by_factors() -> None:
    assert needed_columns(["chip-serial", "serial:city", "pan-psn"]) == ["chip_serial", "city_serial", "pan", "psn"]
