"""Every diversification method, a column at a time: masters and factors in, keys (n, 16) out.

Masters are one key (16,) for all rows or a key per row (n, 16). Results are plain arrays of key bytes: the caller puts them in a
`SecretArray` or wipes them. All raise InvalidInput (KEY_LENGTH, WRONG_SHAPE, METHOD_ALGORITHM, PARITY, PAN_INVALID, PSN_INVALID).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

import cext
from keys.algorithms import Algorithm, as_algorithm, encrypt, key_array, rows
from keys.errors import InvalidInput
from keys.kcv import cmac_subkey
from keys.parity import Parity, odd_parity
from keys.secrets import BytesLike

ByteArray = npt.NDArray[np.uint8]
Purpose = Literal["enc", "mac", "dek"]
EmvOption = Literal["a", "b"]
Purposes = Purpose | Sequence[Purpose]
Digits = Sequence[str] | npt.NDArray[Any]
BytesOrArray = BytesLike | ByteArray

PURPOSES: Final[dict[Purpose, int]] = {"enc": 1, "mac": 2, "dek": 3}
KDD_LEN: Final = 10
PAN_LENS: Final = range(12, 20)


def check_parity(algorithm: Algorithm, parity: str) -> bool:
    """Whether to set odd parity; raises InvalidInput PARITY for an unknown value or a cipher whose keys have none."""
    if parity not in ("none", "odd"):
        raise InvalidInput("PARITY", f"parity must be none or odd, not {parity!r}")
    if parity == "odd" and algorithm != "3des":
        raise InvalidInput("PARITY", f"{algorithm} keys have no parity")
    return parity == "odd"


def _masters(algorithm: Algorithm, masters: BytesOrArray, n: int, lens: tuple[int, ...] = (16,)) -> ByteArray:
    keys = key_array(algorithm, masters, "masters", lens)
    if keys.ndim == 2 and keys.shape[0] != n:
        raise InvalidInput("WRONG_SHAPE", f"{keys.shape[0]} masters for {n} factors")
    return keys


def pboc(algorithm: str, masters: BytesOrArray, factors: BytesOrArray, parity: Parity = "none") -> ByteArray:
    """PBOC dispersion by factors X (n, 8): 3DES(M, X) || 3DES(M, ~X), or SM4(M, X || ~X). 3des and sm4 only."""
    cipher = as_algorithm(algorithm)
    odd = check_parity(cipher, parity)
    x = rows(factors, 8, "factors")
    if cipher == "aes":
        raise InvalidInput("METHOD_ALGORITHM", "method pboc is defined for 3des and sm4, not for aes")
    keys = _masters(cipher, masters, len(x))
    return cext.tdes_pboc(keys, x, odd) if cipher == "3des" else cext.sm4_pboc(keys, x)


def digit_matrix(values: Digits, what: str) -> ByteArray:
    """Text digits as a matrix of ASCII bytes (n, width), NUL after the text. Takes str, a numpy 'S' array, or such a matrix."""
    if isinstance(values, np.ndarray) and values.dtype == np.uint8 and values.ndim == 2:
        matrix: ByteArray = values
    else:
        try:
            flat = np.ascontiguousarray(np.asarray(values, dtype="S"))
        except UnicodeEncodeError:
            raise InvalidInput(f"{what.upper()}_INVALID", f"{what} must be decimal digits") from None
        matrix = flat.view(np.uint8).reshape(len(flat), flat.dtype.itemsize) if flat.ndim == 1 else np.empty((0, 0), np.uint8)
        if flat.ndim != 1:
            raise InvalidInput("WRONG_SHAPE", f"{what} must be a column of text")
    digit = (matrix >= ord("0")) & (matrix <= ord("9"))
    lengths = digit.sum(axis=1)
    text = np.arange(matrix.shape[1]) < lengths[:, None]
    if not np.array_equal(digit, text) or matrix[~text].any():
        raise InvalidInput(f"{what.upper()}_INVALID", f"{what} must be decimal digits")
    return matrix


def emv_y(pans: Digits, psns: Digits | str, option: EmvOption) -> ByteArray:
    """The factor Y (n, 8) of EMV Book 2 A1.4.1 (option a) and A1.4.2 (option b) from PANs of 12 to 19 digits and 2-digit PSNs.

    `psns` may be one PSN for all rows; "00" where the card has none. Only option b with PANs beyond 16 digits goes row by row.
    """
    if option not in ("a", "b"):
        raise InvalidInput("EMV_OPTION", f"option must be a or b, not {option!r}")
    pan = digit_matrix(pans, "pan")
    psn = digit_matrix([psns] * len(pan) if isinstance(psns, str) else psns, "psn")
    if len(psn) != len(pan):
        raise InvalidInput("WRONG_SHAPE", f"{len(psn)} psns for {len(pan)} pans")
    lengths = (pan != 0).sum(axis=1)
    if len(pan) and (int(lengths.min()) not in PAN_LENS or int(lengths.max()) not in PAN_LENS):
        row = int(np.nonzero((lengths < PAN_LENS[0]) | (lengths > PAN_LENS[-1]))[0][0])
        raise InvalidInput("PAN_INVALID", f"pan of row {row} has {int(lengths[row])} digits; 12 to 19 are allowed")
    if len(psn) and ((psn != 0).sum(axis=1) != 2).any():
        raise InvalidInput("PSN_INVALID", "psn must have exactly two digits")
    y = np.empty((len(pan), 8), np.uint8)
    for length in np.unique(lengths):
        at = np.nonzero(lengths == length)[0]
        digits = np.concatenate([pan[at, :length], psn[at, :2]], axis=1) - np.uint8(ord("0"))
        if option == "b" and length > 16:
            for place, line in zip(at, digits, strict=True):
                y[place] = _pack(_option_b_digits(line))
            continue
        last = digits[:, -16:]
        wide = np.zeros((len(at), 16), np.uint8)
        wide[:, 16 - last.shape[1] :] = last
        y[at] = _pack(wide)
    return y


def _pack(digits: ByteArray) -> ByteArray:
    """Digit values (..., 2k) to BCD (..., k)."""
    return (digits[..., 0::2] << np.uint8(4)) | digits[..., 1::2]


def _option_b_digits(digits: ByteArray) -> ByteArray:
    """A1.4.2: SHA-1 over the BCD of PAN || PSN, then its decimal digits first, its letters a..f as 0..5 after, sixteen in all."""
    if len(digits) % 2:
        digits = np.concatenate([np.zeros(1, np.uint8), digits])
    text = hashlib.sha1(_pack(digits).tobytes(), usedforsecurity=False).hexdigest()
    decimal = [int(c) for c in text if c.isdecimal()]
    letters = [ord(c) - ord("a") for c in text if not c.isdecimal()]
    return np.array((decimal + letters)[:16], np.uint8)


def emv_a(algorithm: str, masters: BytesOrArray, pans: Digits, psns: Digits | str, parity: Parity | None = None) -> ByteArray:
    """EMV option A: dispersion by Y; parity None is odd for 3des as EMV wants it, none for sm4."""
    return _emv(algorithm, masters, emv_y(pans, psns, "a"), parity)


def emv_b(algorithm: str, masters: BytesOrArray, pans: Digits, psns: Digits | str, parity: Parity | None = None) -> ByteArray:
    """EMV option B: as option A, with Y from a hash for PANs beyond 16 digits."""
    return _emv(algorithm, masters, emv_y(pans, psns, "b"), parity)


def _emv(algorithm: str, masters: BytesOrArray, y: ByteArray, parity: Parity | None) -> ByteArray:
    return pboc(algorithm, masters, y, parity or ("odd" if algorithm == "3des" else "none"))


def purpose_bytes(purposes: Purposes, n: int) -> ByteArray:
    """The key number of GlobalPlatform templates per row, (n,): 1 enc, 2 mac, 3 dek. Raises InvalidInput PURPOSE."""
    each = [purposes] if isinstance(purposes, str) else list(purposes)
    for purpose in each:
        if purpose not in PURPOSES:
            raise InvalidInput("PURPOSE", f"purpose must be enc, mac or dek, not {purpose!r}")
    if not isinstance(purposes, str) and len(each) != n:
        raise InvalidInput("WRONG_SHAPE", f"{len(each)} purposes for {n} rows")
    numbers = np.array([PURPOSES[purpose] for purpose in each], np.uint8)
    return np.broadcast_to(numbers, (n,)) if isinstance(purposes, str) else numbers


def _gp_3des(
    masters: BytesOrArray, kdds: BytesOrArray, purposes: Purposes, parity: Parity, picked: tuple[int, ...]
) -> ByteArray:
    """3DES-ECB over P || F0 || k || P || 0F || k with P the picked bytes of the KDD."""
    kdd = rows(kdds, KDD_LEN, "kdds")
    n = len(kdd)
    odd = check_parity("3des", parity)
    keys = _masters("3des", masters, n)
    blocks = np.empty((n, 2, 8), np.uint8)
    blocks[:, :, :6] = kdd[:, None, picked]
    blocks[:, :, 6] = (0xF0, 0x0F)
    blocks[:, :, 7] = purpose_bytes(purposes, n)[:, None]
    doubled = keys if keys.ndim == 1 else np.repeat(keys, 2, axis=0)
    result = encrypt("3des", doubled, blocks.reshape(2 * n, 8)).reshape(n, 16)
    if keys.ndim == 2:
        doubled[...] = 0
    return odd_parity(result) if odd else result


def gp_emv(masters: BytesOrArray, kdds: BytesOrArray, purpose: Purposes, parity: Parity = "none") -> ByteArray:
    """EMV CPS card keys: KDD (n, 10), bytes 4..9 in the template (EMV CPS 4.1; "emv" of GlobalPlatform tools). 3DES."""
    return _gp_3des(masters, kdds, purpose, parity, (4, 5, 6, 7, 8, 9))


def gp_visa2(masters: BytesOrArray, kdds: BytesOrArray, purpose: Purposes, parity: Parity = "none") -> ByteArray:
    """"VISA2" card keys: KDD (n, 10), bytes 0 1 4 5 6 7 in the template. 3DES."""
    return _gp_3des(masters, kdds, purpose, parity, (0, 1, 4, 5, 6, 7))


def gp_kdf3(masters: BytesOrArray, kdds: BytesOrArray, purpose: Purposes) -> ByteArray:
    """"KDF3" AES card keys (n, master length): CMAC(M, i || 00 00 00 || k || 00 || KDD), i = 1, 2 (NIST SP 800-108, no length
    field).

    The message is exactly one block, so its CMAC is one encryption of the message XOR subkey K1.
    """
    kdd = rows(kdds, KDD_LEN, "kdds")
    n = len(kdd)
    keys = _masters("aes", masters, n, (16, 24, 32))
    length = keys.shape[-1]
    message = np.zeros((n, 16), np.uint8)
    message[:, 4] = purpose_bytes(purpose, n)
    message[:, 6:] = kdd
    subkey = cmac_subkey(encrypt("aes", keys, np.zeros((1 if keys.ndim == 1 else n, 16), np.uint8)))
    halves = []
    for counter in range(1, (length + 15) // 16 + 1):
        message[:, 0] = counter
        halves.append(encrypt("aes", keys, message ^ subkey))
    return halves[0] if length == 16 else np.ascontiguousarray(np.concatenate(halves, axis=1)[:, :length])
