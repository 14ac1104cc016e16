"""Order columns + compiled profile + keys -> card images, column by column.

An image holds card keys in the clear: it lives in a `SecretArray` that the caller closes as soon as the segment is built.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from engine.personalize.columns import Bytes2D, Column, as_matrix, text_columns, write_text, write_texts
from engine.profiles.compile import CardKey, CompiledProfile
from engine.profiles.plan import Run
from keys.custody import Custody
from keys.diversify import emv_y
from keys.errors import InvalidInput
from keys.kcv import kcv_array
from keys.secrets import SecretArray, SecretBytes

# Cards that are put together at a time: their images stay in a core's own cache.
BLOCK_ROWS: Final = 256


def card_factors(key: CardKey, columns: Mapping[str, Column]) -> Bytes2D:
    """The card level factor of one key for every row, (n, 8) (see `KeySet.factors`).

    Raises InvalidInput: FIELD_UNKNOWN, FACTOR_INVALID, SERIAL_INVALID for a serial that is not all digits, PAN_INVALID, PSN_INVALID.
    """
    kind, _, name = key.card_factor.partition(":")
    if kind == "chip-serial":
        return as_matrix(_column(columns, "chip_serial"))
    if kind == "serial":
        column = _column(columns, f"{name}_serial")
        if len(column) == 1 and column.dtype.kind == "S" and len(text := bytes(column[0])[-16:]) == 16 and text.isdigit():
            return np.frombuffer(bytes.fromhex(text.decode("ascii")), np.uint8).reshape(1, 8)
        digits = as_matrix(column)[:, -16:] - np.uint8(ord("0"))
        if digits.shape[1] != 16 or (digits > 9).any():
            raise InvalidInput("SERIAL_INVALID", f"{key.label}: serials of pool {name} must be 16 digits or more, the same number in all")
        factor: Bytes2D = digits[:, 0::2] << np.uint8(4) | digits[:, 1::2]
        return factor
    if kind == "pan-psn":
        return emv_y(_column(columns, "pan"), _column(columns, "psn"), "a" if key.method == "emv-a" else "b")
    raise InvalidInput("FACTOR_INVALID", f"{key.label}: unknown card factor {key.card_factor!r}")


def _column(columns: Mapping[str, Column], name: str) -> Column:
    if name not in columns:
        raise InvalidInput("FIELD_UNKNOWN", f"there is no column {name!r}")
    return columns[name]


def derive_keys(compiled: CompiledProfile, columns: Mapping[str, Column], custody: Custody) -> SecretArray:
    """All card keys, (k, n, 16), k in the order of `compiled.keys`."""
    return custody.derive(compiled.derivations, all_factors(compiled, columns))


def all_factors(compiled: CompiledProfile, columns: Mapping[str, Column]) -> list[Bytes2D]:
    """The card level factors of every key, in the order of `compiled.keys`; raises as `card_factors`."""
    kinds, kind_of = compiled.factor_kinds
    made = [np.ascontiguousarray(card_factors(key, columns)) for key in kinds]
    return [made[kind] for kind in kind_of]


def key_check_values(compiled: CompiledProfile, keys: SecretArray) -> Bytes2D:
    """Check values (k, n, 3), by each algorithm's method: 3DES and SM4 zero block, AES one block."""
    array = keys.array
    out = np.empty((array.shape[0], array.shape[1], 3), np.uint8)
    for algorithm, first, after in compiled.algorithms:
        out[first:after] = kcv_array(algorithm, array[first:after].reshape(-1, 16)).reshape(after - first, -1, 3)
    return out


def pin_blocks(pin_key: SecretBytes, tokens: Sequence[int], digits: int) -> Bytes2D:
    """Offline PIN blocks `2L PIN F…` (n, 8) (DGI 8010), the PIN a keyed function of the attempt: nobody chooses or stores it."""
    out = np.full((len(tokens), 8), 0xFF, np.uint8)
    with pin_key.reveal() as key:
        for row, token in enumerate(tokens):
            number = int.from_bytes(hmac.digest(key, b"pin" + token.to_bytes(8, "big"), "sha256")[:16], "big")
            text = f"2{digits}" + str(number % 10**digits).zfill(digits)
            out[row] = np.frombuffer(bytes.fromhex(text.ljust(16, "F")), np.uint8)
    return out


def build_images(compiled: CompiledProfile, columns: Mapping[str, Column], keys: SecretArray, pins: Bytes2D) -> SecretArray:
    """Card images (n, image_len). `columns` as for `text_columns`, `keys` (k, n, 16), `pins` (n, 8).

    Raises InvalidInput as `text_columns` and `write_texts`; WRONG_SHAPE when keys or PINs are not those of this batch.
    """
    return fill_images(compiled, columns, keys.array, key_check_values(compiled, keys), pins)


def fill_images(compiled: CompiledProfile, columns: Mapping[str, Column], keys: Bytes2D, kcvs: Bytes2D, pins: Bytes2D) -> SecretArray:
    """`build_images` with what lies in the places of the keys (k, n, 16), clear or not, and of their check values (k, n, 3) given."""
    count, rows = keys.shape[:2]
    if count != len(compiled.keys) or pins.shape != (rows, 8):
        raise InvalidInput("WRONG_SHAPE", f"{count} keys and PIN blocks of {pins.shape} for {rows} cards of {len(compiled.keys)} keys")
    template = np.frombuffer(compiled.template, np.uint8)
    images = SecretArray.empty((rows, compiled.image_len))
    try:
        if rows == 1 and compiled.key_index is not None:
            _fill_one(compiled, columns, images.array, keys, kcvs, pins)
            return images
        texts = text_columns(compiled.text_plan, columns, rows)
        for first in range(0, rows, BLOCK_ROWS):
            part = slice(first, first + BLOCK_ROWS)
            image = images.array[part]
            image[:] = template
            write_texts(compiled.text_plan, texts, image, first)
            _scatter(image, compiled.key_runs, keys[:, part])
            _scatter(image, compiled.kcv_runs, kcvs[:, part])
            for offset in compiled.pin_offsets:
                image[:, offset : offset + 8] = pins[part]
    except BaseException:
        images.close()
        raise
    return images


def _fill_one(
    compiled: CompiledProfile, columns: Mapping[str, Column], images: Bytes2D, keys: Bytes2D, kcvs: Bytes2D, pins: Bytes2D
) -> None:
    """The image of a card on its own (1, image_len): gathers instead of runs, text by text instead of by column."""
    numbers, places = compiled.kcv_index
    image = images[0]
    image[:] = np.frombuffer(compiled.template, np.uint8)
    if not write_text(compiled.text_plan, columns, image):
        write_texts(compiled.text_plan, text_columns(compiled.text_plan, columns, 1), images)
    image[compiled.key_index] = keys[:, 0]
    image[places] = kcvs[numbers, 0]
    for offset in compiled.pin_offsets:
        image[offset : offset + 8] = pins[0]


def _scatter(image: Bytes2D, runs: Iterable[Run], values: Bytes2D) -> None:
    """values (k, n, width) to the places of their keys: each run is one strided copy, card after card."""
    rows, length = image.shape
    item = np.dtype((np.void, values.shape[2]))
    whole = values.view(item)[:, :, 0]
    for run in runs:
        places = np.ndarray((rows, run.count), item, buffer=image.data, offset=run.offset, strides=(length, run.stride))
        places[...] = whole[run.first : run.first + run.count].T


def image_digest(image: Bytes2D, digest_key: SecretBytes) -> bytes:
    """Keyed digest of one image: what INTENT stores. Keyed, so that the ledger holds nothing a guess could be tried against."""
    with digest_key.reveal() as key:
        return hashlib.blake2b(np.ascontiguousarray(image).data, key=key, digest_size=32).digest()
