"""Order columns + compiled profile + keys -> card images, column by column.

An image holds card keys in the clear: it lives in a `SecretArray` that the caller closes as soon as the segment is built.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

import numpy as np

from engine.personalize.columns import Bytes2D, Column, as_matrix, encode
from engine.profiles.compile import CardKey, CompiledProfile
from keys.custody import Custody, Derivation
from keys.diversify import emv_y
from keys.errors import InvalidInput
from keys.kcv import kcv_array
from keys.secrets import SecretArray, SecretBytes


def card_factors(key: CardKey, columns: Mapping[str, Column]) -> Bytes2D:
    """The card level factor of one key for every row, (n, 8) (see `KeySet.factors`)."""
    kind, _, name = key.card_factor.partition(":")
    if kind == "chip-serial":
        return as_matrix(columns["chip_serial"])
    if kind == "serial":
        digits = as_matrix(columns[f"{name}_serial"])[:, -16:] - ord("0")
        return np.bitwise_or(np.left_shift(digits[:, 0::2], 4), digits[:, 1::2], dtype=np.uint8)
    if kind == "pan-psn":
        return emv_y(columns["pan"], columns["psn"], "a" if key.method == "emv-a" else "b")
    raise InvalidInput("FACTOR_INVALID", f"{key.label}: unknown card factor {key.card_factor!r}")


def derivations(compiled: CompiledProfile) -> list[Derivation]:
    """What the custody is asked for, in the order of `compiled.keys`. EMV option A and B are a dispersion by Y, so `pboc`."""
    return [
        Derivation(
            key_id=key.master_id,
            method="pboc",
            algorithm=key.algorithm,
            upper_factors=key.upper_factors,
            parity=key.parity,
            purpose=None,
        )
        for key in compiled.keys
    ]


def derive_keys(compiled: CompiledProfile, columns: Mapping[str, Column], custody: Custody) -> SecretArray:
    """All card keys, (k, n, 16), k in the order of `compiled.keys`."""
    cache: dict[tuple[str, str], Bytes2D] = {}
    factors = []
    for key in compiled.keys:
        at = key.card_factor, key.method
        if at not in cache:
            cache[at] = np.ascontiguousarray(card_factors(key, columns))
        factors.append(cache[at])
    return custody.derive(derivations(compiled), factors)


def key_check_values(compiled: CompiledProfile, keys: SecretArray) -> Bytes2D:
    """Check values (k, n, 3), by each algorithm's method: 3DES and SM4 zero block, AES one block."""
    array = keys.array
    out = np.empty((array.shape[0], array.shape[1], 3), np.uint8)
    algorithms = np.array([key.algorithm for key in compiled.keys])
    for algorithm in np.unique(algorithms):
        at = np.nonzero(algorithms == algorithm)[0]
        chosen = np.ascontiguousarray(array[at]).reshape(-1, 16)
        try:
            out[at] = kcv_array(str(algorithm), chosen).reshape(len(at), array.shape[1], 3)
        finally:
            chosen[:] = 0
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
    """Card images (n, image_len). `columns` as for `encode`, `keys` (k, n, 16), `pins` (n, 8)."""
    rows = keys.array.shape[1]
    image = np.empty((rows, compiled.image_len), np.uint8)
    image[:] = np.frombuffer(compiled.template, np.uint8)
    for fill in compiled.texts:
        image[:, fill.offset : fill.offset + fill.length] = encode(columns, fill.items, fill.codec, fill.length, rows)
    for offset, index in compiled.key_offsets:
        image[:, offset : offset + 16] = keys.array[index]
    kcvs = key_check_values(compiled, keys)
    for offset, index in compiled.kcv_offsets:
        image[:, offset : offset + 3] = kcvs[index]
    for offset in compiled.pin_offsets:
        image[:, offset : offset + 8] = pins
    return SecretArray(image)


def image_digest(image: Bytes2D, digest_key: SecretBytes) -> bytes:
    """Keyed digest of one image: what INTENT stores. Keyed, so that the ledger holds nothing a guess could be tried against."""
    with digest_key.reveal() as key:
        return hashlib.blake2b(np.ascontiguousarray(image).data, key=bytes(key)[:64], digest_size=32).digest()
