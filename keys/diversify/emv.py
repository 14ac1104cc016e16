"""EMV master key derivation by PAN and PSN (EMV Book 2 A1.4): options A, B and C."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from keys.algorithms import KEY_LENS, encrypt, rows
from keys.diversify.common import ByteArray, BytesOrArray, Digits, check_masters
from keys.diversify.pboc import pboc
from keys.errors import InvalidInput
from keys.parity import Parity

EmvOption = Literal["a", "b"]
PAN_LENS: Final = range(12, 20)


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
    if (one := _one_number(pans, psns)) is not None:
        return _y_of_one(one, option)
    pan, psn, lengths = _numbers(pans, psns)
    y = np.empty((len(pan), 8), np.uint8)
    for length in np.unique(lengths):
        at = np.nonzero(lengths == length)[0]
        digits = _joined(pan, psn, at, int(length))
        if option == "b" and length > 16:
            for place, line in zip(at, digits, strict=True):
                y[place] = _pack(_option_b_digits(line))
            continue
        y[at] = _pack(_right_justified(digits, 16))
    return y


def emv_y16(pans: Digits, psns: Digits | str) -> ByteArray:
    """The factor Y (n, 16) of option C: PAN || PSN in BCD, right-justified, zeros before (EMV Book 2 A1.4.3)."""
    pan, psn, lengths = _numbers(pans, psns)
    y = np.empty((len(pan), 16), np.uint8)
    for length in np.unique(lengths):
        at = np.nonzero(lengths == length)[0]
        y[at] = _pack(_right_justified(_joined(pan, psn, at, int(length)), 32))
    return y


def emv_a(
    algorithm: str, masters: BytesOrArray, pans: Digits, psns: Digits | str, parity: Parity | None = None, *, allow_weak: bool = False
) -> ByteArray:
    """EMV option A: dispersion by Y; parity None is odd for 3des as EMV wants it, none for sm4."""
    return pboc(algorithm, masters, emv_y(pans, psns, "a"), _parity(algorithm, parity), allow_weak=allow_weak)


def emv_b(
    algorithm: str, masters: BytesOrArray, pans: Digits, psns: Digits | str, parity: Parity | None = None, *, allow_weak: bool = False
) -> ByteArray:
    """EMV option B: as option A, with Y from a hash for PANs beyond 16 digits."""
    return pboc(algorithm, masters, emv_y(pans, psns, "b"), _parity(algorithm, parity), allow_weak=allow_weak)


def emv_c(masters: BytesOrArray, factors: BytesOrArray) -> ByteArray:
    """EMV option C for AES by factors Y (n, 16), see `emv_y16`: keys (n, master length), the leftmost bytes of AES(Y) || AES(~Y)."""
    y = rows(factors, 16, "factors")
    keys = check_masters("aes", masters, len(y), KEY_LENS["aes"])
    first = encrypt("aes", keys, y)
    if keys.shape[-1] == 16:
        return first
    return np.ascontiguousarray(np.concatenate([first, encrypt("aes", keys, ~y)], axis=1)[:, : keys.shape[-1]])


def _parity(algorithm: str, parity: Parity | None) -> Parity:
    return parity or ("odd" if algorithm == "3des" else "none")


def _numbers(pans: Digits, psns: Digits | str) -> tuple[ByteArray, ByteArray, npt.NDArray[np.intp]]:
    """PANs and PSNs as digit matrices, and the PANs' lengths; raises InvalidInput (NO_ROWS, WRONG_SHAPE, PAN_INVALID, PSN_INVALID)."""
    pan = digit_matrix(pans, "pan")
    psn = digit_matrix([psns] * len(pan) if isinstance(psns, str) else psns, "psn")
    if not len(pan):
        raise InvalidInput("NO_ROWS", "pans has no rows")
    if len(psn) != len(pan):
        raise InvalidInput("WRONG_SHAPE", f"{len(psn)} psns for {len(pan)} pans")
    lengths = (pan != 0).sum(axis=1)
    if int(lengths.min()) not in PAN_LENS or int(lengths.max()) not in PAN_LENS:
        row = int(np.nonzero((lengths < PAN_LENS[0]) | (lengths > PAN_LENS[-1]))[0][0])
        raise InvalidInput("PAN_INVALID", f"pan of row {row} has {int(lengths[row])} digits; 12 to 19 are allowed")
    if ((psn != 0).sum(axis=1) != 2).any():
        raise InvalidInput("PSN_INVALID", "psn must have exactly two digits")
    return pan, psn, lengths


def _one_number(pans: Digits, psns: Digits | str) -> bytes | None:
    """PAN || PSN of a single card, as a line makes them: a handful of small arrays would cost twenty times the text. None for columns of
    another length or kind, and for what `_numbers` has an error for.
    """
    if not (isinstance(pans, np.ndarray) and isinstance(psns, np.ndarray) and pans.dtype.kind == psns.dtype.kind == "S"):
        return None
    if pans.shape != (1,) or psns.shape != (1,):
        return None
    pan, psn = bytes(pans[0]), bytes(psns[0])
    return pan + psn if pan.isdigit() and psn.isdigit() and len(pan) in PAN_LENS and len(psn) == 2 else None


def _y_of_one(text: bytes, option: EmvOption) -> ByteArray:
    """Y (1, 8) of PAN || PSN."""
    if option == "b" and len(text) > 18:
        y = _pack(_option_b_digits(np.frombuffer(text, np.uint8) - np.uint8(ord("0"))))
    else:
        y = np.frombuffer(bytes.fromhex(text[-16:].rjust(16, b"0").decode()), np.uint8)
    return y.reshape(1, 8)


def _joined(pan: ByteArray, psn: ByteArray, at: npt.NDArray[np.intp], length: int) -> ByteArray:
    """Digit values of PAN || PSN of the rows `at`, whose PANs have that length."""
    return np.concatenate([pan[at, :length], psn[at, :2]], axis=1) - np.uint8(ord("0"))


def _right_justified(digits: ByteArray, width: int) -> ByteArray:
    """The last `width` digits, zeros before where there are fewer."""
    last = digits[:, -width:]
    wide = np.zeros((len(digits), width), np.uint8)
    wide[:, width - last.shape[1] :] = last
    return wide


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
