"""Slabs: taken apart and put together as the plain loop does it, and bad ones refused at the item where they go wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cext

items = st.lists(st.binary(max_size=300), max_size=20)


def plain(slab):
    """The items, or the number of the one that is cut."""
    found, at = [], 0
    while at < len(slab):
        end = at + 2 + int.from_bytes(slab[at : at + 2], "big")
        if at + 2 > len(slab) or end > len(slab):
            return len(found)
        found.append(slab[at + 2 : end])
        at = end
    return found


@given(items)
def test_there_and_back(parts):
    slab = cext.slab_join(parts)
    assert slab == b"".join(len(part).to_bytes(2, "big") + part for part in parts)
    assert cext.slab_split(slab) == parts


@given(st.binary(max_size=60) | st.lists(st.sampled_from([b"\0\0", b"\0\1", b"\0\2", b"\1\0", b"x"])).map(b"".join))
def test_any_bytes_are_a_slab_or_refused(slab):
    expected = plain(slab)
    if isinstance(expected, list):
        assert cext.slab_split(slab) == expected
    else:
        with pytest.raises(ValueError, match=f"of {len(slab)} bytes ends inside item {expected}"):
            cext.slab_split(slab)


@given(items, st.binary(min_size=1, max_size=3))
def test_a_tail_is_taken_off_where_all_have_it(parts, tail):
    assert cext.slab_split(cext.slab_join([part + tail for part in parts]), tail) == parts
    others = [at for at, part in enumerate(parts) if not part.endswith(tail)]
    if others:
        with pytest.raises(LookupError, match=f"item {others[0]} "):
            cext.slab_split(cext.slab_join(parts), tail)


def test_the_longest_item_and_one_beyond():
    assert cext.slab_split(cext.slab_join([bytes(0xFFFF), b""])) == [bytes(0xFFFF), b""]
    with pytest.raises(ValueError, match="65536 bytes"):
        cext.slab_join([bytes(0x10000)])
    for wrong in ([bytearray(2)], [None], ["x"]):
        with pytest.raises(TypeError):
            cext.slab_join(wrong)
    with pytest.raises(TypeError):
        cext.slab_split(bytearray(b"\0\0"))
