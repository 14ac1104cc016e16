"""Every method as one encryption at the end: card key = E(master, last blocks), with what comes before it computed around that.

That is what a token can do: a key of policy `host-clear` encrypts the last blocks of thousands of cards in one C_Encrypt, one of policy
`token-only` derives a key object from them (CKM_DES3_ECB_ENCRYPT_DATA, CKM_AES_ECB_ENCRYPT_DATA). Chaining values of the CMAC methods are
asked of the same key; they are not card keys. All arrays hold bytes; n cards are n rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from keys.algorithms import BLOCK_LEN
from keys.custody import Derivation
from keys.diversify import PURPOSES
from keys.errors import Unsupported
from keys.mac import double, pad80

ByteArray = npt.NDArray[np.uint8]
Ecb = Callable[[ByteArray], ByteArray]
"""Blocks (m, block length) encrypted under the master: for chaining values."""

KEY_LEN: Final = 16
_GP_PICKED: Final = {"gp-emv": (4, 5, 6, 7, 8, 9), "gp-visa2": (0, 1, 4, 5, 6, 7)}
# AN10922 2.2 and 2.5: what stands before the input, one for each part of the key.
_AN10922_CONSTANTS: Final = {"aes": (0x01,), "3des": (0x21, 0x22)}


def last_blocks(derivation: Derivation, factors: ByteArray, ecb: Ecb, zero: ByteArray | None) -> ByteArray:
    """The 16 bytes (n, 16) whose encryption under the master is the card key, from factors (n, f).

    `zero` is the encrypted zero block of the master (block length,), which the CMAC methods need and others do not. Raises
    Unsupported TOKEN_METHOD.
    """
    method = derivation.method
    if method == "pboc":
        return halves(factors)
    if method in _GP_PICKED:
        block = np.empty((len(factors), 8), np.uint8)
        block[:, :6] = factors[:, _GP_PICKED[method]]
        block[:, 6], block[:, 7] = 0xF0, PURPOSES[derivation.purpose or "enc"]
        blocks = np.concatenate([block, block], axis=1)
        blocks[:, 14] = 0x0F
        return blocks
    if method == "emv-c":
        return np.ascontiguousarray(factors)
    if zero is None:
        raise Unsupported("TOKEN_METHOD", f"method {method} cannot be done in a token")
    if method == "gp-kdf3":
        fixed = bytes([1, 0, 0, 0, PURPOSES[derivation.purpose or "enc"], 0])
        return _cmac_last(_join(fixed, factors, b""), ecb, zero)
    if method == "sp800-108":
        fixed = (1).to_bytes(4, "big") + derivation.label + b"\x00"
        return _cmac_last(_join(fixed, factors, (8 * KEY_LEN).to_bytes(4, "big")), ecb, zero)
    if method == "an10922":
        parts = [_an10922_last(derivation, constant, factors, ecb, zero) for constant in _AN10922_CONSTANTS[derivation.algorithm]]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    raise Unsupported("TOKEN_METHOD", f"method {method} cannot be done in a token")


def needs_zero(derivation: Derivation) -> bool:
    """Whether the method is made of CMAC."""
    return derivation.method in ("gp-kdf3", "sp800-108", "an10922")


def halves(factors: ByteArray) -> ByteArray:
    """X || ~X of factors (n, 8)."""
    blocks = np.empty((len(factors), KEY_LEN), np.uint8)
    blocks[:, :8] = factors
    np.invert(factors, out=blocks[:, 8:])
    return blocks


def _join(before: bytes, middle: ByteArray, after: bytes) -> ByteArray:
    message = np.empty((len(middle), len(before) + middle.shape[1] + len(after)), np.uint8)
    message[:, : len(before)] = np.frombuffer(before, np.uint8)
    message[:, len(before) : len(before) + middle.shape[1]] = middle
    message[:, message.shape[1] - len(after) :] = np.frombuffer(after, np.uint8)
    return message


def _cmac_last(messages: ByteArray, ecb: Ecb, zero: ByteArray) -> ByteArray:
    """The last block of CMAC before its encryption (NIST SP 800-38B 6.2): CBC up to there, masked with K1 or K2."""
    block = len(zero)
    mask = double(zero.reshape(1, -1))
    whole = messages
    if messages.shape[1] % block or not messages.shape[1]:
        whole, mask = pad80(messages, block), double(mask)
    state = np.zeros((len(whole), block), np.uint8)
    for at in range(0, whole.shape[1] - block, block):
        state = ecb(whole[:, at : at + block] ^ state)
    return whole[:, -block:] ^ state ^ mask


def _an10922_last(derivation: Derivation, constant: int, inputs: ByteArray, ecb: Ecb, zero: ByteArray) -> ByteArray:
    """AN10922: as CMAC, over two blocks whatever the length of the input."""
    block = BLOCK_LEN[derivation.algorithm]
    message = _join(bytes([constant]), inputs, b"")
    mask = double(zero.reshape(1, -1))
    if message.shape[1] < 2 * block:
        mask = double(mask)
        padded = np.zeros((len(message), 2 * block), np.uint8)
        padded[:, : message.shape[1]] = message
        padded[:, message.shape[1]] = 0x80
        message = padded
    return message[:, block:] ^ ecb(np.ascontiguousarray(message[:, :block])) ^ mask
