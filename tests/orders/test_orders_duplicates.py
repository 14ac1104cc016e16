"""Who and what was seen before: in the file, by the first good row; and in earlier jobs, by the ledger's answer."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.orders import OrderSource, Rules, field_hashes, nothing_issued, read_orders
from engine.orders.columns import NAMES
from engine.orders.duplicates import KeyTable
from engine.orders.rules import luhn_fits
from engine.orders.synthetic import row

KEY = b"0123456789abcdef"
PERSON, CARD, PAN = (NAMES.index(name) for name in ("social_security_number", "card_number", "pan"))


def order(person: int, card: int, pan: int, **changes: str) -> list[str]:
    """The person of one synthetic row with the card number and the PAN of others."""
    values = list(row(person))
    values[CARD], values[PAN] = row(card)[CARD], row(pan)[PAN]
    for name, value in changes.items():
        values[NAMES.index(name)] = value
    return values


def check(rows: Sequence[Sequence[str]], issued: object = nothing_issued, batch_lines: int = 8192) -> dict[int, set[str]]:
    octets = "\n".join([",".join(NAMES), *(",".join(values) for values in rows)]).encode()
    rejects: dict[int, set[str]] = {}
    taken = []
    for batch in read_orders(OrderSource(io.BytesIO(octets)), Rules(), KEY, issued, batch_lines=batch_lines):  # type: ignore[arg-type]
        taken += batch.lines.tolist()
        assert len(batch.lines) == batch.columns.rows == len(batch.person_hash) == len(batch.card_hash)
        assert [reject.line for reject in batch.rejects] == sorted(reject.line for reject in batch.rejects)
        for reject in batch.rejects:
            rejects.setdefault(reject.line, set()).add(reject.rule)
    assert sorted([*taken, *rejects]) == list(range(2, len(rows) + 2))
    return rejects


@pytest.mark.parametrize("batch_lines", [1, 2, 8192])
def test_the_first_good_row_stands(batch_lines: int) -> None:
    rows = [
        order(1, 1, 1),
        order(1, 2, 2),  # line 3: person again; its card number and PAN stay free
        order(2, 2, 2),
        order(3, 1, 3),  # line 5: card number again
        order(4, 4, 1),  # line 6: PAN again
        order(5, 5, 5, name=""),  # line 7: defective, so nothing of it is taken
        order(5, 5, 5),
        order(1, 1, 1, name=""),  # line 9: defective, and still repeats all three
        order(1, 6, 6, kind="补卡"),  # line 10: whatever the kind
    ]
    assert check(rows, batch_lines=batch_lines) == {
        3: {"duplicate-person"},
        5: {"duplicate-card-number"},
        6: {"duplicate-pan"},
        7: {"name-missing"},
        9: {"name-missing", "duplicate-person", "duplicate-card-number", "duplicate-pan"},
        10: {"duplicate-person"},
    }


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.booleans()), min_size=1, max_size=25),
    st.sampled_from([1, 3, 8192]),
)
def test_file_order_decides(tuples: list[tuple[int, int, int, bool]], batch_lines: int) -> None:
    rows, expected = [], {}
    seen: tuple[set[int], set[int], set[int]] = (set(), set(), set())
    for line, (person, card, pan, bad) in enumerate(tuples, start=2):
        rows.append(order(person, card, pan, **({"kind": "?"} if bad else {})))
        broken = {"kind-unknown"} if bad else set()
        names = ("duplicate-person", "duplicate-card-number", "duplicate-pan")
        broken |= {name for name, value, known in zip(names, (person, card, pan), seen, strict=True) if value in known}
        if broken:
            expected[line] = broken
        else:
            for known, value in zip(seen, (person, card, pan), strict=True):
                known.add(value)
    assert check(rows, batch_lines=batch_lines) == expected


def test_message_names_the_earlier_line() -> None:
    octets = "\n".join([",".join(NAMES), ",".join(order(1, 1, 1)), "", ",".join(order(1, 2, 2))]).encode()
    (batch,) = read_orders(OrderSource(io.BytesIO(octets)), Rules(), KEY)
    (reject,) = batch.rejects
    assert (reject.line, reject.field) == (4, "social_security_number")
    assert "line 2" in reject.message


class Ledger:
    """Cards issued by earlier jobs, as (person, card number) of synthetic rows."""

    def __init__(self, *cards: tuple[int, int]) -> None:
        self.held = {self.hash(row(card)[CARD]): self.hash(row(person)[PERSON]) for person, card in cards}
        self.asked: list[int] = []

    @staticmethod
    def hash(value: str) -> bytes:
        return field_hashes([value.encode()], KEY)

    def __call__(self, persons: Sequence[bytes], cards: Sequence[bytes]) -> tuple[set[bytes], Mapping[bytes, bytes]]:
        self.asked.append(len(persons))
        assert len(persons) == len(cards)
        return set(self.held.values()) & set(persons), {card: self.held[card] for card in cards if card in self.held}


def test_cards_issued_before() -> None:
    ledger = Ledger((1, 1), (2, 2), (3, 3))
    rows = [
        order(1, 11, 11, kind="首次"),  # line 2: has a card
        order(1, 12, 12, kind="补卡"),  # rightful, although line 2 asked for the person: that one was rejected
        order(2, 2, 2, kind="换卡"),  # same number to the same person
        order(4, 3, 4, kind="首次"),  # line 5: number of another person
        order(3, 1, 3, kind="renewal"),  # line 6: number of another person
        order(5, 5, 5, kind="补卡"),  # no earlier card known: accepted
        order(2, 2, 2, kind="first"),  # line 8: has a card, and ordered one in this file
    ]
    assert check(rows, ledger) == {
        2: {"duplicate-person-issued"},
        5: {"duplicate-card-number-issued"},
        6: {"duplicate-card-number-issued"},
        8: {"duplicate-person-issued", "duplicate-person", "duplicate-card-number", "duplicate-pan"},
    }
    assert ledger.asked == [7]


def test_many_duplicates_at_random() -> None:
    chance = random.Random(11)
    rows = [order(chance.randrange(3000), chance.randrange(30_000), index) for index in range(4000)]
    expected: dict[int, set[str]] = {}
    people: set[str] = set()
    numbers: set[str] = set()
    for line, values in enumerate(rows, start=2):
        broken = {"duplicate-person"} if values[PERSON] in people else set()
        broken |= {"duplicate-card-number"} if values[CARD] in numbers else set()
        if broken:
            expected[line] = broken
        else:
            people.add(values[PERSON])
            numbers.add(values[CARD])
    assert check(rows, batch_lines=500) == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(2**64 - 3, 2**64 - 1) | st.integers(0, 3), max_size=40), max_size=8))
def test_key_table_is_a_dictionary(batches: list[list[int]]) -> None:
    table, line = KeyTable(capacity=4), 0
    known: dict[int, int] = {}
    for batch in batches:
        keys = np.array(batch, np.uint64)
        assert table.lines(keys).tolist() == [known.get(key, 0) for key in batch]
        fresh = sorted({key for key in batch if key not in known})
        lines = np.arange(line + 1, line + 1 + len(fresh))
        table.add(np.array(fresh, np.uint64), lines)
        known |= {key: at for key, at in zip(fresh, lines.tolist(), strict=True) if key}
        line += len(fresh)
        assert table.count == len(known)


def test_a_million_rows_fit_in_a_hundred_megabytes() -> None:
    table = KeyTable()
    keys = np.random.default_rng(3).integers(1, 2**64, 1_000_000, dtype=np.uint64)
    for at in range(0, len(keys), 8192):
        table.add(keys[at : at + 8192], np.arange(at, min(at + 8192, len(keys))) + 2)
    assert table.lines(keys[::1000]).tolist() == list(range(2, 1_000_002, 1000))
    assert 3 * table.nbytes < 100_000_000


def test_pans_of_different_length_differ() -> None:
    """0 in front of a PAN makes another PAN; both with a fitting Luhn digit, since a leading 0 adds nothing to the sum."""
    seventeen = row(1)[PAN][1:-1]
    short = next(seventeen + digit for digit in "0123456789" if luhn_fits(seventeen + digit))
    rows = [order(at, at, at) for at in (1, 2, 3)]
    for values, pan in zip(rows, (short, "0" + short, short), strict=True):
        values[PAN] = pan
    assert check(rows) == {4: {"duplicate-pan"}}
