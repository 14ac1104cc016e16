from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.chip import tlv
from keys.errors import InvalidInput

ONE_BYTE = st.integers(1, 0xFE).filter(lambda t: t & 0x1F != 0x1F)
TWO_BYTES = st.builds(
    lambda a, b: (a | 0x1F) << 8 | b, st.sampled_from([0x00, 0x20, 0x40, 0x60, 0x80, 0xA0, 0xC0, 0xE0]), st.integers(0, 0x7F)
)
TAGS = st.one_of(ONE_BYTE, TWO_BYTES, st.builds(lambda b, c: 0x9F0000 | (b | 0x80) << 8 | c, st.integers(0, 127), st.integers(0, 127)))
VALUES = st.one_of(st.binary(max_size=40), st.integers(120, 300).map(bytes), st.just(bytes(70000)))


@given(st.lists(st.tuples(TAGS, VALUES), max_size=6))
def test_tlv_round_trips(items):
    encoded = b"".join(tlv.encode(tag, value) for tag, value in items)
    decoded = tlv.decode(encoded)
    assert [(item.tag, item.value) for item in decoded] == items
    for item in decoded:
        assert encoded.startswith(tlv.tag_bytes(item.tag), item.offset)


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_are_refused_with_an_offset(encoded):
    try:
        items = tlv.decode(encoded)
    except InvalidInput as error:
        assert error.reason == "TLV_INVALID"
        assert error.message.startswith("offset ")
    else:
        assert sum(len(item.value) for item in items) <= len(encoded)


@pytest.mark.parametrize(
    ("encoded", "says"),
    [
        ("8402AA", "offset 0: tag 84 announces 2 bytes, 1 are left"),
        ("840101" + "5F", "offset 3: the tag does not end"),
        ("8401019F36", "offset 5: the length is missing"),
        ("8480", "offset 1: indefinite"),
        ("848500000000", "offset 1: a length of 5 bytes"),
        ("0000", "offset 0: a tag cannot be 00"),
        ("9F8181818101", "offset 0: the tag does not end"),
    ],
)
def test_what_is_wrong_is_named(encoded, says):
    with pytest.raises(InvalidInput, match=says):
        tlv.decode(bytes.fromhex(encoded))


@pytest.mark.parametrize("tag", [0, -1, 0x1F, 0x9F, 0x8484, 0x9F8181818101])
def test_numbers_that_are_no_tags(tag):
    with pytest.raises(InvalidInput):
        tlv.encode(tag, b"")


def test_nested_objects_are_found():
    encoded = tlv.encode(0x6F, tlv.encode(0x84, b"name") + tlv.encode(0xA5, tlv.encode(0x9F38, b"pdol")))
    assert [f"{item.tag:X}" for item in tlv.walk(encoded)] == ["6F", "84", "A5", "9F38"]
    assert tlv.find(encoded, 0x9F38) == b"pdol"
    assert tlv.find(encoded, 0x50) is None
    assert "name" not in repr(tlv.decode(encoded)[0])


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.one_of(st.binary(max_size=30), st.integers(250, 300).map(bytes))), max_size=6))
def test_dgi_round_trips(groupings):
    encoded = tlv.encode_dgis(groupings)
    decoded = tlv.decode_dgis(encoded)
    assert [(item.dgi, item.value) for item in decoded] == groupings
    for item in decoded:
        assert encoded.startswith(item.dgi.to_bytes(2, "big"), item.offset)


@pytest.mark.parametrize(("size", "header"), [(0, "B0A000"), (254, "B0A0FE"), (255, "B0A0FF00FF"), (285, "B0A0FF011D")])
def test_dgi_lengths(size, header):
    assert tlv.encode_dgi(0xB0A0, bytes(size))[: -size or None].hex().upper() == header


@given(st.binary(max_size=60))
def test_any_bytes_are_dgis_or_refused_with_an_offset(encoded):
    try:
        tlv.decode_dgis(encoded)
    except InvalidInput as error:
        assert error.reason == "DGI_INVALID"
        assert error.message.startswith("offset ")


@pytest.mark.parametrize(
    ("encoded", "says"),
    [
        ("0101", "offset 0: a DGI header"),
        ("010101AA0102FF01", "offset 4: DGI 0102 has length FF"),
        ("010102AA", "offset 0: DGI 0101 announces 2"),
    ],
)
def test_broken_dgis(encoded, says):
    with pytest.raises(InvalidInput, match=says):
        tlv.decode_dgis(bytes.fromhex(encoded))


def test_dgis_that_cannot_be_encoded():
    with pytest.raises(InvalidInput):
        tlv.encode_dgi(0x10000, b"")
    with pytest.raises(InvalidInput):
        tlv.encode_dgi(0x0101, bytes(65536))
