"""Columns to bytes, against encoders that work on one string at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.personalize.columns import as_matrix, cut_gb, text_columns, write_text, write_texts
from engine.profiles.model import Item
from engine.profiles.plan import TextFill, plan_texts
from keys.errors import InvalidInput

DIGITS = st.text("0123456789", max_size=12)
ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)


def encode(columns, items, codec, length, rows, *, known=None, full=False):
    """One field at offset 1 of an image two bytes longer, so that a neighbour would be seen to change."""
    fill = TextFill(1, length, tuple(items), codec, full)
    plan = plan_texts([fill], known or {item.field: 0 for item in items if item.field})
    image = np.full((rows, length + 2), 0xEE, np.uint8)
    # in two pieces, as large batches are
    for first in {0, rows // 2}:
        write_texts(plan, text_columns(plan, columns, rows), image[first : rows // 2 if first == 0 and rows > 1 else rows], first)
    assert (image[:, [0, -1]] == 0xEE).all()
    for row in range(rows):
        alone = np.full(length + 2, 0xEE, np.uint8)
        done = write_text(plan, {name: texts[row : row + 1] for name, texts in columns.items()}, alone)
        assert bytes(alone) == (bytes(image[row]) if done else b"\xee" * (length + 2))
    return [bytes(row) for row in image[:, 1:-1]]


def column(texts):
    return np.array([t.encode() if isinstance(t, str) else t for t in texts], dtype="S")


def naive(codec, text, length):
    if codec == "n":
        return bytes.fromhex(text.rjust(2 * length, "0"))
    if codec == "cn":
        return bytes.fromhex(text.ljust(2 * length, "F"))
    return text.encode().ljust(length, b"\0")


@given(st.sampled_from(["an", "raw"]), st.lists(ASCII, min_size=1, max_size=9))
def test_text(codec, texts):
    assert encode({"a": column(texts)}, [Item(field="a")], codec, 12, len(texts)) == [naive(codec, t, 12) for t in texts]


@given(st.lists(DIGITS, min_size=1, max_size=9), st.integers(6, 9))
def test_cn_of_varying_length(texts, length):
    assert encode({"a": column(texts)}, [Item(field="a")], "cn", length, len(texts)) == [naive("cn", t, length) for t in texts]


@given(st.sampled_from(["cn", "n"]), st.integers(1, 19), st.data())
def test_numbers_of_fixed_length(codec, width, data):
    texts = data.draw(st.lists(st.text("0123456789", min_size=width, max_size=width), min_size=1, max_size=9))
    length = data.draw(st.integers((width + 1) // 2, 12))
    got = encode({"a": column(texts)}, [Item(field="a")], codec, length, len(texts), known={"a": width}, full=True)
    assert got == [naive(codec, t, length) for t in texts]


@given(st.integers(12, 19), st.data())
def test_joined_slices_and_constants(width, data):
    rows = data.draw(st.integers(1, 5))
    number = st.text("0123456789", min_size=width, max_size=width)
    pans, dates = data.draw(st.lists(number, min_size=rows, max_size=rows)), [f"2{i:07d}" for i in range(rows)]
    items = [Item(field="pan"), Item(text="D"), Item(field="date", slice=(2, 6)), Item(text="22000000000")]
    length = (width + 17) // 2
    # the column may be wider than its texts
    columns = {"pan": column(pans).astype("S40"), "date": column(dates)}
    got = encode(columns, items, "cn", length, rows, known={"pan": width, "date": 8}, full=True)
    assert got == [naive("cn", f"{p}D{d[2:6]}22000000000", length) for p, d in zip(pans, dates, strict=True)]


NAMES = st.text(st.sampled_from("aZ·陈磊海㐀𠮷ﾊ䶮"), max_size=14)


@given(st.lists(NAMES, min_size=1, max_size=6), st.integers(1, 30))
def test_names_are_cut_between_characters(names, length):
    def naive_cut(name):
        while len(name.encode("gb18030")) > length:
            name = name[:-1]
        return name.encode("gb18030").ljust(length, b"\0")

    column_of_names = column([n.encode("gb18030") for n in names])
    assert encode({"a": column_of_names}, [Item(field="a")], "gb", length, len(names)) == [naive_cut(n) for n in names]


@given(st.binary(min_size=5, max_size=12))
def test_cutting_any_bytes_ends(text):
    assert cut_gb(np.frombuffer(text, np.uint8).reshape(1, -1), 4).shape == (1, 4)


def test_binary_columns_keep_every_byte():
    serials = np.array([[0, 1, 2, 0, 0, 255, 7, 0], [0] * 8], np.uint8)
    fill = [Item(field="chip_serial")]
    assert encode({"chip_serial": serials}, fill, "raw", 8, 2, known={"chip_serial": 8}, full=True) == [bytes(r) for r in serials]


@pytest.mark.parametrize(
    ("texts", "codec", "length", "known", "full", "reason", "says"),
    [
        (["abc", "abcd"], "an", 3, 0, False, "FIELD_TOO_LONG", "a of row 1 .* 3 "),
        (["1234567"], "cn", 3, 0, False, "FIELD_TOO_LONG", "a of row 0 .* 6 "),
        (["123456", "12345"], "cn", 3, 6, True, "FIELD_TOO_SHORT", "a of row 1 .* 6 "),
        (["12", "1x"], "cn", 1, 0, False, "NOT_DIGITS", "a of row 1 "),
        (["1 "], "n", 1, 2, True, "NOT_DIGITS", "a of row 0 "),
        (["\x01"], "cn", 1, 0, False, "NOT_DIGITS", "a of row 0 "),
    ],
)
def test_what_does_not_fit_is_named(texts, codec, length, known, full, reason, says):
    with pytest.raises(InvalidInput, match=says) as error:
        encode({"a": column(texts)}, [Item(field="a")], codec, length, len(texts), known={"a": known}, full=full)
    assert error.value.reason == reason
    # a card on its own: left to the function that names what is wrong, and nothing is written
    plan, image = plan_texts([TextFill(0, length, (Item(field="a"),), codec, full)], {"a": known}), np.zeros(length, np.uint8)
    assert not write_text(plan, {"a": column(texts[-1:])}, image)
    assert not image.any()


def test_a_short_pan_never_shifts_what_follows():
    items = [Item(field="a"), Item(text="D1")]
    with pytest.raises(InvalidInput) as error:
        encode({"a": column(["1234", "123"])}, items, "cn", 3, 2, known={"a": 4}, full=True)
    assert error.value.reason == "FIELD_TOO_SHORT"


@pytest.mark.parametrize("codec", ["an", "gb"])
def test_one_row_never_stands_for_many_cards(codec):
    for texts in (["a"], ["a", "b", "c", "d"]):
        with pytest.raises(InvalidInput) as error:
            encode({"a": column(texts)}, [Item(field="a")], codec, 3, 3)
        assert error.value.reason == "WRONG_SHAPE"


def test_missing_and_strange_columns():
    with pytest.raises(InvalidInput) as error:
        encode({}, [Item(field="a")], "an", 3, 1)
    assert error.value.reason == "FIELD_UNKNOWN"
    for strange in (np.array(["text"]), np.array([1.5]), np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2), np.int64)):
        with pytest.raises(InvalidInput) as error:
            as_matrix(strange)
        assert error.value.reason == "WRONG_SHAPE"


def test_what_can_never_fit_is_refused_when_planning():
    with pytest.raises(InvalidInput) as error:
        encode({}, [Item(field="a")], "an", 3, 1, known={"a": 4})
    assert error.value.reason == "TEXT_TOO_LONG"
    for codec, items in (("n", [Item(field="a")]), ("an", [Item(field="a"), Item(text="x")])):
        with pytest.raises(InvalidInput) as error:
            encode({}, items, codec, 9, 1, known={"a": 0})
        assert error.value.reason == "TEXT_VARIES"
