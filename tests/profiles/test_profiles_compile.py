"""The template against a naive encoder, and the packing of data groupings into STORE DATA commands."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.profiles.compile import MAX_PLAIN, ber_length, compile_profile, length_field, pack
from engine.profiles.model import load
from engine.profiles.plan import plan_runs
from keys.errors import InvalidInput
from tests.profiles.profile_tools import NAME, Blank, application, dgi, loaded, naive_dgis, shipped, tiny


def constants(data, digits):
    """The naive encoder's bytes with zeros for everything that differs by card."""
    return naive_dgis(data, Blank(digits))


@pytest.mark.parametrize("digits", range(12, 20))
def test_template_and_shape_for_every_pan_length(digits):
    compiled = compile_profile(load(NAME), digits)
    naive = constants(shipped(), digits)
    assert compiled.template == b"".join(data for rows in naive.values() for _, data, _ in rows)
    assert compiled.pan_digits == digits
    for (app, number), (start, end) in compiled.values.items():
        whole = [data for found, data, _ in naive[app] if found == number][-1]
        assert whole.endswith(compiled.template[start:end])


def test_pan_length_changes_track_2_and_pan_only():
    sizes = [compile_profile(load(NAME), digits).image_len for digits in range(12, 20)]
    # 5A holds the PAN, 57 the PAN and 16 characters more: both grow by a byte with every second digit
    assert [b - a for a, b in pairwise(sizes)] == [2, 0, 2, 0, 2, 0, 2]


@pytest.mark.parametrize("digits", [0, 11, 20])
def test_other_pan_lengths_are_refused(digits):
    with pytest.raises(InvalidInput, match="12 to 19"):
        compile_profile(load(NAME), digits)


def test_commands_cover_each_application_as_the_card_wants_it():
    compiled = compile_profile(load(NAME))
    naive = constants(shipped(), 19)
    at = 0
    for applet in compiled.applets:
        whole = {}
        for _, data, secret in naive[applet.name]:
            whole[at] = (at + len(data), secret)
            at += len(data)
        edges = set(whole) | {end for end, _ in whole.values()}
        assert applet.commands[0].start == min(whole)
        assert applet.commands[-1].end == at
        for number, command in enumerate(applet.commands):
            assert command.p2 == number
            assert command.p1 & 0x80 == (0x80 if number == len(applet.commands) - 1 else 0)
            assert 0 < command.end - command.start <= 239
            assert number == 0 or command.start == applet.commands[number - 1].end
            inside = [(start, *rest) for start, rest in whole.items() if start < command.end and rest[0] > command.start]
            assert {secret for *_, secret in inside} == {command.p1 & 0x60 == 0x60}
            for start, end, _ in inside:
                # cut only what does not fit in one command
                if start < command.start or end > command.end:
                    assert end - start > 239
            if command.end not in edges:
                assert command.end - command.start == 239


SHAPES = st.lists(st.tuples(st.booleans(), st.integers(1, 700)), min_size=1, max_size=40)


@given(SHAPES)
def test_packing(shape):
    blocks, at = [], 7
    for secret, size in shape:
        blocks.append((secret, at, at + size))
        at += size
    commands = pack(blocks)
    assert [c.p2 for c in commands] == list(range(len(commands)))
    assert [c.p1 & 0x80 for c in commands] == [0] * (len(commands) - 1) + [0x80]
    assert commands[0].start == 7
    assert commands[-1].end == at
    for one, two in pairwise(commands):
        assert one.end == two.start
    for command in commands:
        assert command.end - command.start <= MAX_PLAIN == 239
    for secret, start, end in blocks:
        touching = [c for c in commands if c.start < end and c.end > start]
        assert all(c.p1 & 0x7F == (0x60 if secret else 0x00) for c in touching)
        assert len(touching) == 1 or end - start > 239


def test_neighbours_share_a_command_when_they_fit():
    assert [(c.start, c.end) for c in pack([(False, 0, 100), (False, 100, 239), (False, 239, 240), (True, 240, 250)])] == [
        (0, 239),
        (239, 240),
        (240, 250),
    ]


def test_block_numbers_end_at_ff():
    blocks = [(False, 200 * i, 200 * i + 200) for i in range(257)]
    assert pack(blocks[:256])[-1].p2 == 0xFF
    with pytest.raises(InvalidInput) as error:
        pack(blocks)
    assert error.value.reason == "TOO_MANY_BLOCKS"
    with pytest.raises(InvalidInput) as error:
        pack([])
    assert error.value.reason == "NO_DATA"


@pytest.mark.parametrize(
    ("count", "dgi_length", "tlv_length"),
    [(0, "00", "00"), (127, "7F", "7F"), (128, "80", "8180"), (254, "FE", "81FE"), (255, "FF00FF", "81FF"), (256, "FF0100", "820100"),
     (285, "FF011D", "82011D"), (65535, "FFFFFF", "82FFFF")],
)  # fmt: skip
def test_lengths(count, dgi_length, tlv_length):
    assert length_field(count).hex().upper() == dgi_length
    assert ber_length(count).hex().upper() == tlv_length


def test_lengths_end_at_two_bytes():
    for function in (length_field, ber_length):
        with pytest.raises(InvalidInput) as error:
            function(65536)
        assert error.value.reason == "VALUE_TOO_LONG"


@pytest.mark.parametrize("size", [254, 255, 256, 1000])
def test_long_values_in_the_image(size):
    data = tiny()
    application(data, "city")["dgis"].append({"id": "7001", "parts": [{"hex": "AB" * size}]})
    compiled = compile_profile(loaded(data))
    head = "7001" + ("FE" if size == 254 else f"FF{size:04X}")
    assert compiled.template.endswith(bytes.fromhex(head + "AB" * size))
    assert compiled.applets[0].commands[-1].end == compiled.image_len


def test_every_key_and_check_value_has_one_place_of_its_own():
    compiled = compile_profile(load(NAME))
    assert sorted(index for _, index in compiled.key_offsets) == list(range(len(compiled.keys)))
    assert sorted(index for _, index in compiled.kcv_offsets) == list(range(len(compiled.keys)))
    taken = [at for offset, _ in compiled.key_offsets for at in range(offset, offset + 16)]
    taken += [at for offset, _ in compiled.kcv_offsets for at in range(offset, offset + 3)]
    taken += [at for offset in compiled.pin_offsets for at in range(offset, offset + 8)]
    taken += [at for fill in compiled.texts for at in range(fill.offset, fill.offset + fill.length)]
    assert len(taken) == len(set(taken))
    assert max(taken) < compiled.image_len
    covered = {at for offset, length in compiled.spans for at in range(offset, offset + length)}
    assert all(length % 16 == 0 for _, length in compiled.spans)
    assert {at for offset, _ in compiled.key_offsets for at in range(offset, offset + 16)} <= covered
    assert not {at for offset, _ in compiled.kcv_offsets for at in range(offset, offset + 3)} & covered
    assert all(offset in covered for offset in compiled.pin_offsets)


def test_runs_say_the_same_as_the_places():
    compiled = compile_profile(load(NAME))
    for places, runs in ((compiled.key_offsets, compiled.key_runs), (compiled.kcv_offsets, compiled.kcv_runs)):
        assert [(r.offset + i * r.stride, r.first + i) for r in runs for i in range(r.count)] == list(places)
        assert len(runs) < 30


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9)), max_size=20))
def test_runs_of_any_places(places):
    assert [(r.offset + i * r.stride, r.first + i) for r in plan_runs(places) for i in range(r.count)] == places


def test_public_files_and_nothing_else_are_read_back():
    compiled = compile_profile(load(NAME))
    reads = {(r.application, r.df.hex().upper(), r.sfi, r.record) for r in compiled.reads}
    social = application(shipped(), "social-security")["aid"]
    assert {r[2:] for r in reads if r[:2] == ("social-security", social)} == {(5, n) for n in range(1, 8)} | {(6, n) for n in range(1, 8)}
    assert {r[2:] for r in reads if r[0] == "transport"} == {(0x15, 0), (0x16, 0), (0x17, 0)}
    assert {r[2:] for r in reads if r[0] == "finance"} == {(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)}
    # EF06 of the health card opens with a key only
    assert {r[2:] for r in reads if r[0] == "health"} == {(5, 1), (5, 2)}


def test_a_public_record_too_long_to_read_back_is_refused():
    data = tiny()
    dgi(data, "city", "1501")["parts"] = [{"hex": "00" * 257}]
    with pytest.raises(InvalidInput) as error:
        compile_profile(loaded(data))
    assert error.value.reason == "RECORD_TOO_LONG"


def test_keys_say_where_they_come_from():
    compiled = compile_profile(load(NAME))
    keys = {key.label: key for key in compiled.keys}
    assert len(keys) == len(compiled.keys)
    assert keys["finance/des/ac"].parity == "odd"
    park = keys["city/park/iak"]
    assert park.master_id == "city.app.iak"
    assert park.upper_factors == (b"PARK0000", b"41010000")
    for key, derivation in zip(compiled.keys, compiled.derivations, strict=True):
        assert (derivation.key_id, derivation.method, derivation.algorithm) == (key.master_id, "pboc", key.algorithm)
        assert (derivation.upper_factors, derivation.parity, derivation.purpose) == (key.upper_factors, key.parity, None)
    for name, first, after in compiled.algorithms:
        assert {key.algorithm for key in compiled.keys[first:after]} == {name}
    assert sum(after - first for _, first, after in compiled.algorithms) == len(compiled.keys)


def test_compiling_is_deterministic():
    first, second = compile_profile(load(NAME)), compile_profile(load(NAME))
    assert hashlib.sha256(first.template).digest() == hashlib.sha256(second.template).digest()
    assert first.applets == second.applets
    assert first.keys == second.keys
