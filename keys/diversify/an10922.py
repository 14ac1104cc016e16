"""Symmetric key diversification of NXP AN10922 (rev. 2.2): CMAC-like, over two blocks whatever the length of the input.

Each part of a key is one MAC over a constant and the input M (UID, application id, system id), 1 to 31 bytes for AES, 1 to 15 for DES.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from keys.algorithms import BLOCK_LEN, KEY_LENS, Algorithm, as_algorithm, encrypt, rows
from keys.diversify.common import ByteArray, BytesOrArray, check_masters, require_algorithm
from keys.errors import InvalidInput
from keys.mac import double, pad80

AN10922_INPUT_LENS: Final[dict[Algorithm, range]] = {"aes": range(1, 32), "3des": range(1, 16)}
# AN10922 2.2 to 2.6: the constants of each key length.
_CONSTANTS: Final = {
    ("aes", 16): (0x01,),
    ("aes", 24): (0x11, 0x12),
    ("aes", 32): (0x41, 0x42),
    ("3des", 16): (0x21, 0x22),
    ("3des", 24): (0x31, 0x32, 0x33),
}


def an10922(
    algorithm: str, masters: BytesOrArray, inputs: BytesOrArray, *, key_version: int | None = None, allow_weak: bool = False
) -> ByteArray:
    """Keys (n, master length) by inputs (n, 1..31) for aes, (n, 1..15) for 3des with 16 or 24 bytes.

    `key_version` (3des, 0 to 255) goes into the parity bits of the first eight bytes, most significant bit first, as MIFARE DESFire
    keeps it. Raises InvalidInput KEY_VERSION.
    """
    cipher = as_algorithm(algorithm)
    require_algorithm("an10922", cipher, ("aes", "3des"))
    m = rows(inputs, AN10922_INPUT_LENS[cipher], "inputs")
    keys = check_masters(cipher, masters, len(m), KEY_LENS[cipher], allow_weak=allow_weak)
    if key_version is not None and (cipher != "3des" or not 0 <= key_version <= 0xFF):
        raise InvalidInput("KEY_VERSION", "a key version is 0 to 255 and goes with 3des only")
    parts = [_part(cipher, keys, constant, m) for constant in _CONSTANTS[cipher, keys.shape[-1]]]
    if (cipher, keys.shape[-1]) == ("aes", 24):
        # 2.4: the halves overlap in the middle eight bytes
        first, last = parts
        return np.concatenate([first[:, :8], first[:, 8:] ^ last[:, :8], last[:, 8:]], axis=1)
    key = np.concatenate(parts, axis=1)
    if key_version is not None:
        bits = np.unpackbits(np.array([key_version], np.uint8))
        key[:, :8] = (key[:, :8] & np.uint8(0xFE)) | bits
    return key


def _part(algorithm: Algorithm, keys: ByteArray, constant: int, m: ByteArray) -> ByteArray:
    """The MAC of constant || M: padded to two whole blocks, the last block masked with K1, or with K2 where padding was needed."""
    n, block = len(m), BLOCK_LEN[algorithm]
    message = np.concatenate([np.full((n, 1), constant, np.uint8), m], axis=1)
    mask = double(encrypt(algorithm, keys, np.zeros((1 if keys.ndim == 1 else n, block), np.uint8)))
    if message.shape[1] < 2 * block:
        mask = double(mask)
        padded = np.zeros((n, 2 * block), np.uint8)
        padded[:, : message.shape[1] + 1] = pad80(message, block)[:, : message.shape[1] + 1]
        message = padded
    return encrypt(algorithm, keys, encrypt(algorithm, keys, message[:, :block]) ^ message[:, block:] ^ mask)
