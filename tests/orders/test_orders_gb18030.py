"""GB 18030 by the 2022 edition, against Python's older codec and the published differences."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.orders import OrderSource, Rules, characters, gb18030, read_orders
from engine.orders.columns import NAMES
from engine.orders.synthetic import row

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "gb18030_2022.json").read_text(encoding="utf-8"))
ASSIGNED = st.characters(exclude_categories=["Cs"]).filter(lambda c: not "\ue000" <= c <= "\uf8ff")


@pytest.mark.parametrize("case", VECTORS["tests"], ids=lambda case: case["code"])
def test_published_codes(case: dict[str, str]) -> None:
    code = bytes.fromhex(case["code"])
    text = gb18030.decode(code)
    if case["result"] == "unassigned":
        assert characters.classes()[ord(text)] & characters.UNASSIGNED
        return
    assert text == chr(int(case["character"], 16))
    if case["result"] == "valid":
        assert gb18030.encode(text) == code


@given(st.text(ASSIGNED))
def test_round_trip(text: str) -> None:
    assert gb18030.decode(gb18030.encode(text)) == text


def test_two_byte_codes_differ_from_the_codec_only_where_published() -> None:
    changed = set()
    for lead in range(0x81, 0xFF):
        for trail in (*range(0x40, 0x7F), *range(0x80, 0xFF)):
            code = bytes([lead, trail])
            if gb18030.decode(code) != code.decode("gb18030"):
                changed.add(code.hex().upper())
    assert changed == {case["code"] for case in VECTORS["tests"] if case["result"] == "valid" and case.get("older")}


@pytest.mark.parametrize("octets", [b"\x80", b"\xff", b"\x81", b"\x81,", b"\x81\x30\x81", b"\xb0\x7f", b"a\x81\x30,,"])
def test_what_has_not_the_form_is_not_gb18030(octets: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        gb18030.decode(octets)


@pytest.mark.parametrize(("code", "named"), [("FE51", "FE51"), ("AAA1", "AAA1"), ("8431A530", "8431A530"), ("E3329A36", "E3329A36")])
def test_unassigned_codes_are_refused_by_name(code: str, named: str) -> None:
    """In the name as in the address; the other rows of the file are good."""
    for column in ("name", "address"):
        lines = [gb18030.encode(",".join(row(index))) for index in range(3)]
        fields = lines[1].split(b",")
        fields[NAMES.index(column)] += bytes.fromhex(code)
        octets = b"\n".join([",".join(NAMES).encode(), lines[0], b",".join(fields), lines[2]])
        batches = list(read_orders(OrderSource(io.BytesIO(octets)), Rules(), bytes(16)))
        assert [line for batch in batches for line in batch.lines.tolist()] == [2, 4]
        (reject,) = [reject for batch in batches for reject in batch.rejects]
        assert (reject.line, reject.field, reject.rule) == (3, column, "character-unassigned")
        assert named in reject.message


def test_corrected_characters_reach_the_card_in_their_new_code() -> None:
    """From UTF-8, from the new two-byte code and from the old four-byte code alike."""
    for encoding, name in (("utf-8", "龴".encode()), ("gb18030", bytes.fromhex("FE59")), ("gb18030", bytes.fromhex("82359037"))):
        text = ",".join(NAMES) + "\n" + ",".join(row(1))
        octets = text.encode(encoding)
        fields = octets.split(b",")
        fields[16 + NAMES.index("name")] = name
        (batch,) = read_orders(OrderSource(io.BytesIO(b",".join(fields)), encoding=encoding), Rules(), bytes(16))  # type: ignore[arg-type]
        assert batch.columns["name_field"].tolist() == [bytes.fromhex("FE59")]
        assert batch.columns["name"].tolist() == ["龴".encode()]


@given(st.text(ASSIGNED, min_size=1, max_size=30), st.integers(0, 40))
def test_cut_never_splits_a_character(text: str, limit: int) -> None:
    octets = gb18030.encode(text)
    at = gb18030.cut(octets, text, limit)
    assert at <= limit or at == 0
    assert gb18030.decode(octets[:at]) + gb18030.decode(octets[at:]) == text
    rest = gb18030.decode(octets[at:])
    assert not rest or at + len(gb18030.encode(rest[0])) > limit
