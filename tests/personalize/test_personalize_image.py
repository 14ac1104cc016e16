"""Images of many cards at once against cards made one at a time by the textbook."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from pyemv import kd

from engine.personalize.columns import write_text
from engine.personalize.image import build_images, card_factors, derive_keys, image_digest, key_check_values, pin_blocks
from engine.production.context import attempt_columns
from engine.profiles.compile import compile_profile
from engine.profiles.model import load
from keys.errors import InvalidInput
from keys.secrets import SecretBytes
from tests.personalize.perso_tools import Card, make_custody, master, order, pan_of
from tests.profiles.profile_tools import NAME, naive_dgis, shipped

PROFILE = load(NAME)
NAMES = ["陈磊", "欧阳陈磊海峰", "阿卜杜热西提·买买提明", "Li", "㐀𠮷䶮䶮𠮷𠮷"]


@pytest.fixture(scope="module")
def custody(tmp_path_factory):
    with make_custody(tmp_path_factory.mktemp("custody"), PROFILE.profile) as store:
        yield store


def lines(rows, digits):
    """Columns of `rows` different cards."""
    each = []
    for i in range(rows):
        name = NAMES[i % len(NAMES)].encode("gb18030")
        line = order(
            pan_of(digits, i), name_field=name[:30], card_number=f"G{i:08d}".encode(), phone=b"" if i % 3 else b"+86-371-12345",
            sex=b"12"[i % 2 : i % 2 + 1], birth_date=f"19{i % 100:02d}0124".encode(),
        )  # fmt: skip
        serial = hashlib.sha256(str(i).encode()).digest()[:8] if i else bytes(8)
        each.append(attempt_columns(PROFILE.profile, line, {"transport": 10**15 + i, "city": i + 1}, i % 100, serial))
    return {name: np.concatenate([line[name] for line in each]) for name in each[0]}


def naive_image(data, columns, row, pin_key, token):
    fields = {name: bytes(column[row]) for name, column in columns.items()}
    card = Card(data, fields, pin_key, token)
    return b"".join(part for rows in naive_dgis(data, card).values() for _, part, _ in rows)


@pytest.mark.parametrize(("rows", "digits"), [(1, 19), (1, 16), (7, 12), (3, 13), (5, 14), (2, 15), (2, 17), (70, 18), (300, 19)])
def test_images_equal_cards_made_one_by_one(custody, rows, digits):
    compiled = compile_profile(PROFILE, digits)
    columns = lines(rows, digits)
    pin_key = bytes(custody.hmac_key("pin").reveal())
    tokens = [2**60 + i for i in range(rows)]
    pins = pin_blocks(custody.hmac_key("pin"), tokens, 6)
    with derive_keys(compiled, columns, custody) as keys, build_images(compiled, columns, keys, pins) as images:
        data = shipped()
        for row in {0, 1 % rows, rows // 2, rows - 1}:
            assert images.array[row].tobytes() == naive_image(data, columns, row, pin_key, tokens[row])


def test_the_shipped_profile_takes_the_short_way():
    compiled = compile_profile(PROFILE, 19)
    image = np.zeros(compiled.image_len, np.uint8)
    assert write_text(compiled.text_plan, lines(1, 19), image)
    assert image.any()


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # the oracle imports 3DES from its old place
def test_finance_keys_are_those_of_another_program(custody):
    columns = lines(3, 16)
    compiled = compile_profile(PROFILE, 16)
    number = next(i for i, key in enumerate(compiled.keys) if key.label == "finance/des/ac")
    with derive_keys(compiled, columns, custody) as keys:
        for row in range(3):
            pan, psn = columns["pan"][row].decode(), columns["psn"][row].decode()
            assert keys.array[number, row].tobytes() == kd.derive_icc_mk_a(master("finance.3des.ac"), pan, psn)


def test_check_values_are_per_key_and_row(custody):
    compiled = compile_profile(PROFILE)
    with derive_keys(compiled, lines(4, 19), custody) as keys:
        values = key_check_values(compiled, keys)
    assert values.shape == (len(compiled.keys), 4, 3)
    assert len({values[k, r].tobytes() for k in range(len(compiled.keys)) for r in range(4)}) > 4 * len(compiled.keys) - 3


def test_pin_blocks_depend_on_key_and_attempt_only():
    key, other = SecretBytes(bytes(32)), SecretBytes(bytes(31) + b"\1")
    blocks = pin_blocks(key, range(200), 4)
    assert {bytes(b[:1]) for b in blocks} == {b"\x24"}
    assert {bytes(b[3:]) for b in blocks} == {b"\xff" * 5}
    assert all(b.tobytes().hex()[2:6].isdecimal() for b in blocks)
    assert len({bytes(b) for b in blocks}) > 150
    assert (pin_blocks(key, [7], 4)[0] == blocks[7]).all()
    assert not (pin_blocks(other, range(200), 4) == blocks).all()
    assert {b.tobytes().hex()[:2] for b in pin_blocks(key, range(5), 6)} == {"26"}


def test_digest_is_keyed_and_depends_on_every_byte():
    key, other = SecretBytes(bytes(32)), SecretBytes(bytes(31) + b"\1")
    image = np.arange(200, dtype=np.uint8)
    first = image_digest(image, key)
    assert len(first) == 32
    assert image_digest(image.copy(), key) == first != image_digest(image, other)
    for at in range(200):
        changed = image.copy()
        changed[at] ^= 1
        assert image_digest(changed, key) != first


@pytest.mark.parametrize("bad", [b"491", b"49100000000000000x12", b"4910" + b"\0" * 16])
def test_serials_that_are_no_numbers_are_refused(custody, bad):
    compiled = compile_profile(PROFILE)
    columns = lines(1, 19) | {"transport_serial": np.array([bad], dtype="S20")}
    with pytest.raises(InvalidInput) as error:
        derive_keys(compiled, columns, custody)
    assert error.value.reason == "SERIAL_INVALID"


def test_columns_that_are_missing_are_named(custody):
    compiled = compile_profile(PROFILE)
    for name in ("chip_serial", "city_serial", "pan", "psn"):
        columns = lines(1, 19)
        del columns[name]
        with pytest.raises(InvalidInput, match=name) as error:
            derive_keys(compiled, columns, custody)
        assert error.value.reason == "FIELD_UNKNOWN"
    key = next(k for k in compiled.keys if k.card_factor == "chip-serial")
    assert (card_factors(key, lines(2, 19)) == lines(2, 19)["chip_serial"]).all()


def test_a_pan_of_another_length_than_the_profile_was_compiled_for_is_refused(custody):
    columns = lines(2, 16)
    pins = np.zeros((2, 8), np.uint8)
    for digits, reason in ((19, "FIELD_TOO_SHORT"), (15, "FIELD_TOO_LONG")):
        compiled = compile_profile(PROFILE, digits)
        with derive_keys(compiled, columns, custody) as keys, pytest.raises(InvalidInput, match="pan of row 0") as error:
            build_images(compiled, columns, keys, pins)
        assert error.value.reason == reason


def test_one_pin_never_serves_many_cards(custody):
    compiled, columns = compile_profile(PROFILE), lines(3, 19)
    with derive_keys(compiled, columns, custody) as keys, pytest.raises(InvalidInput) as error:
        build_images(compiled, columns, keys, np.zeros((1, 8), np.uint8))
    assert error.value.reason == "WRONG_SHAPE"
