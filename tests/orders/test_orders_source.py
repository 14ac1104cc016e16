"""Encoding and heading line: found exactly or refused with the place."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.orders import COLUMNS, OrderSource, Rules, gb18030, read_orders, source
from engine.orders.columns import NAMES, layout_of
from engine.orders.synthetic import order_file, row
from keys.errors import CitycardError, Corrupt, InvalidInput

KEY = b"0123456789abcdef"
CHINESE = ",".join(column.headings[0] for column in COLUMNS)
ENGLISH = ",".join(NAMES)


def text_of(rows: int, heading: str = CHINESE) -> str:
    return "\r\n".join([heading, *(",".join(row(index)) for index in range(rows))]) + "\r\n"


def good_lines(octets: bytes, **options: object) -> list[int]:
    opened = OrderSource(io.BytesIO(octets), **options)  # type: ignore[arg-type]
    return [line for batch in read_orders(opened, Rules(), KEY) for line in batch.lines.tolist()]


def refusal(octets: bytes, **options: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        good_lines(octets, **options)
    return caught.value


@pytest.mark.parametrize("heading", [CHINESE, ENGLISH])
def test_both_encodings_with_and_without_byte_order_mark(heading: str) -> None:
    text = text_of(30, heading)
    for encoding, octets in (
        ("utf-8", text.encode()),
        ("utf-8", text.encode("utf-8-sig")),
        ("gb18030", gb18030.encode(text)),
        ("gb18030", gb18030.encode("\ufeff" + text)),
    ):
        assert OrderSource(io.BytesIO(octets)).encoding == encoding
        assert good_lines(octets) == list(range(2, 32))
        assert good_lines(octets, encoding=encoding) == list(range(2, 32))


def test_a_multibyte_character_may_lie_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_of(30)
    for octets in (text.encode(), gb18030.encode(text)):
        for chunk in (7, 8, 9, 11):
            monkeypatch.setattr(source, "_CHUNK", chunk)
            assert good_lines(octets) == list(range(2, 32))


def test_damaged_utf8_is_not_taken_for_gb18030() -> None:
    """Two-character names are six bytes of UTF-8 and three good pairs of GB 18030: the file would decode, to nonsense."""
    rows = []
    for index in range(30):
        values = dict(zip(NAMES, row(index), strict=True)) | {"name": "王芳", "address": "", "kind": "first"}
        rows.append(",".join(values.values()).encode())
    rows[20] = rows[20].replace("王芳".encode(), "王芳".encode("gb18030"))
    damaged = b"\r\n".join([ENGLISH.encode(), *rows])
    assert "王芳" not in damaged.decode("gb18030").splitlines()[1]
    refused = refusal(damaged)
    assert refused.reason == "ORDERS_ENCODING"
    assert f"line 22, byte {damaged.index('王芳'.encode('gb18030'))}" in refused.message
    assert "damage" in refused.message


def test_neither_encoding_names_both_places() -> None:
    octets = text_of(2, ENGLISH).split("\r\n")[0].encode() + b"\r\n\xff\r\n"
    refused = refusal(octets)
    assert refused.reason == "ORDERS_ENCODING"
    assert refused.message.count(f"line 2, byte {len(ENGLISH) + 2}") == 2
    lone = gb18030.encode(text_of(5)) + b"\xb0"
    assert f"line 7, byte {len(lone) - 1}" in refusal(lone).message


def test_an_encoding_that_was_named_is_the_only_one_tried() -> None:
    text = text_of(3)
    assert "GB 18030" not in refusal(gb18030.encode(text), encoding="utf-8").message
    assert "not UTF-8" not in refusal(text.encode(), encoding="gb18030").message
    assert refusal(text.encode(), encoding="utf-16").reason == "ORDERS_ENCODING"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32"])
def test_other_unicode_is_refused(encoding: str) -> None:
    octets = ("\ufeff" if encoding.endswith(("be", "le")) else "").encode(encoding) + text_of(3).encode(encoding)
    refused = refusal(octets)
    assert refused.reason == "ORDERS_ENCODING"
    assert "UTF-16" in refused.message


def test_empty_files() -> None:
    assert refusal(b"").reason == "ORDERS_EMPTY"
    assert refusal(b"\r\n\n").reason == "ORDERS_EMPTY"
    assert refusal(b"\xef\xbb\xbf").reason == "ORDERS_EMPTY"
    for tail in ("", "\r\n", "\n\n\n"):
        assert refusal((CHINESE + tail).encode()).reason == "ORDERS_NO_ROWS"


def test_headings_in_any_dress() -> None:
    dressed = ENGLISH.replace("social_security_number", " Social  Security-Number ").replace("pan", '"PAN"').replace("name", "姓　名", 1)
    assert good_lines(text_of(3, dressed).encode()) == [2, 3, 4]
    wrapped = CHINESE.replace("姓名", '"姓\n名"')
    assert good_lines(text_of(3, wrapped).encode()) == [3, 4, 5]
    assert good_lines(b"\r\n\n" + text_of(2).encode()) == [4, 5]


def test_missing_and_doubled_headings_are_named() -> None:
    missing = refusal(text_of(1, CHINESE.replace("姓名", "x").replace("银行账号", "y")).encode())
    assert missing.reason == "ORDERS_HEADING_MISSING"
    assert "name (姓名)" in missing.message
    assert "pan (银行账号)" in missing.message
    doubled = refusal(text_of(1, CHINESE + ",姓 名,NAME").encode())
    assert doubled.reason == "ORDERS_HEADING_DUPLICATE"
    assert "columns 3 (姓名) and 18 (姓 名) are both name" in doubled.message
    assert "19 (NAME)" in doubled.message
    tabs = refusal(text_of(1, CHINESE.replace(",", "\t")).encode())
    assert "separated by commas" in tabs.message


def test_extra_columns_are_noted() -> None:
    octets = "\n".join([CHINESE + ",备注,", *(",".join(row(index)) + ",好,\x07" for index in range(3))]).encode()
    opened = OrderSource(io.BytesIO(octets))
    assert [note.split(" is ")[0] for note in opened.notes] == ["column 18 (备注)", "column 19 (empty)"]
    assert good_lines(octets) == [2, 3, 4]


def test_heading_that_is_no_heading() -> None:
    assert refusal(b"x" * 70_000).reason == "ORDERS_HEADING_TOO_LONG"
    assert refusal(b'"' + b"x\n" * 70_000).reason == "ORDERS_HEADING_TOO_LONG"
    assert refusal(b'"x').reason == "ORDERS_HEADING_QUOTES"
    assert refusal(b'a,b"c\n').reason == "ORDERS_HEADING_QUOTES"
    long = refusal(("\x07" * 100 + "," + CHINESE[5:]).encode())
    assert "\x07" not in long.message


def test_a_file_that_changes_while_it_is_read() -> None:
    octets = bytearray(b"".join(order_file(5)))
    reader = io.BytesIO(octets)
    opened = OrderSource(reader)
    reader.seek(octets.index("河南".encode()))
    reader.write(b"\xff")
    with pytest.raises(Corrupt) as caught:
        list(read_orders(opened, Rules(), KEY))
    assert caught.value.reason == "ORDERS_CHANGED"


def test_reading_twice_gives_the_same() -> None:
    opened = OrderSource(io.BytesIO(b"".join(order_file(100))))
    first = [batch.lines.tolist() for batch in read_orders(opened, Rules(), KEY)]
    assert first == [batch.lines.tolist() for batch in read_orders(opened, Rules(), KEY)]


def test_hash_key_must_be_a_key() -> None:
    opened = OrderSource(io.BytesIO(b"".join(order_file(1))))
    for key in (b"", b"short", b"x" * 65):
        with pytest.raises(InvalidInput) as caught:
            next(read_orders(opened, Rules(), key))
        assert caught.value.reason == "HASH_KEY_LENGTH"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", CHINESE.encode() + b"\n", gb18030.encode(CHINESE) + b"\r\n"]))
def test_any_bytes_give_rows_rejects_or_a_clear_error(octets: bytes, heading: bytes) -> None:
    refused, records = "", 0
    try:
        for batch in read_orders(OrderSource(io.BytesIO(heading + octets)), Rules(), KEY):
            records += len(batch.lines) + batch.rejected_lines
    except CitycardError as error:
        refused = error.reason
    assert refused.startswith("ORDERS_") if refused else records > 0


def test_layout_of_is_in_house_order() -> None:
    layout = layout_of(list(reversed(NAMES)))
    assert layout.places == tuple(range(16, -1, -1))
    assert layout.width == 17
