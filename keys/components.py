"""XOR components: key = C1 ^ C2 ^ ... ^ Cn, each of full length, each with a check value of its own (ANSI X9.24-1, 7.5; ISO 11568-2).

Every component but all together says nothing about the key. A component is checked on its own, before it meets another: its digits, its
parity, its check value; refusals name the rule and never a digit of it. Nothing here becomes a `str`: text is bytes that can be wiped.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from keys.algorithms import Algorithm
from keys.custody.sealing import random_master
from keys.errors import Denied, InvalidInput
from keys.kcv import kcv, verify_kcv
from keys.parity import has_odd_parity, with_odd_parity
from keys.secrets import BytesLike, SecretBytes
from keys.weak import weak_rows

ByteArray = npt.NDArray[np.uint8]

MIN_COMPONENTS: Final = 2
MAX_COMPONENTS: Final = 9
_SPACES: Final = b" \t-"
_GROUP: Final = 4


def parse_hex(typed: BytesLike, length: int) -> SecretBytes:
    """The bytes of hex digits as a person types them, with spaces or hyphens anywhere. Raises InvalidInput (COMPONENT_NOT_HEX,
    COMPONENT_LENGTH).
    """
    digits = bytearray(2 * length)
    count = 0
    try:
        for character in typed:
            if character in _SPACES:
                continue
            value = _nibble(character)
            if count < len(digits):
                digits[count] = value
            count += 1
        if count != len(digits):
            raise InvalidInput("COMPONENT_LENGTH", f"{2 * length} hex digits are needed, not {count}")
        return SecretBytes.fill(length, lambda view: _join_nibbles(digits, view))
    finally:
        digits[:] = bytes(len(digits))


def _join_nibbles(digits: bytearray, view: memoryview) -> None:
    for at in range(len(view)):
        view[at] = digits[2 * at] << 4 | digits[2 * at + 1]


def _nibble(character: int) -> int:
    if 0x30 <= character <= 0x39:
        return character - 0x30
    if 0x41 <= character & 0xDF <= 0x46:
        return (character & 0xDF) - 0x37
    raise InvalidInput("COMPONENT_NOT_HEX", "a character is not a hex digit")


def format_hex(secret: SecretBytes) -> SecretBytes:
    """Upper-case hex digits in groups of four, as they are printed."""
    count = 2 * len(secret)
    width = count + (count - 1) // _GROUP

    def write(view: memoryview) -> None:
        at = 0
        for place in range(count):
            if place and place % _GROUP == 0:
                view[at] = 0x20
                at += 1
            value = (raw[place // 2] >> (0 if place % 2 else 4)) & 0x0F
            view[at] = value + (0x30 if value < 10 else 0x37)
            at += 1

    with secret.reveal() as raw:
        return SecretBytes.fill(width, write)


def make_component(algorithm: Algorithm, length: int) -> SecretBytes:
    """A random component; for 3DES with odd parity and never a weak key, so that it passes `check_component`. Never zero: a random key
    that is would be one in 2^128.
    """
    return random_master(algorithm, length)


def last_component(algorithm: Algorithm, key: SecretBytes, others: Sequence[SecretBytes]) -> SecretBytes:
    """The component that makes `others` up to `key`. Raises InvalidInput COMPONENT_WEAK where it is no sound component: choose the
    others anew.
    """
    last = _xor(algorithm, [key, *others])
    if not _array(last).any() or (algorithm == "3des" and weak_rows(_array(last).reshape(1, -1)).any()):
        last.close()
        raise InvalidInput("COMPONENT_WEAK", "the last component would be zero or a weak key")
    return last


def check_component(
    algorithm: Algorithm, component: SecretBytes, earlier: Sequence[SecretBytes], check_value: bytes, *, parity: bool = True
) -> None:
    """All that can be known of one component before combining.

    Raises InvalidInput (COMPONENT_ZERO, COMPONENT_PARITY, COMPONENT_WEAK, COMPONENT_REPEATED), Denied COMPONENT_KCV. `earlier` are the
    components of the same key accepted before: two alike cancel each other.
    """
    array = _array(component)
    if not array.any():
        raise InvalidInput("COMPONENT_ZERO", "the component is zero: it adds nothing to the key")
    try:
        verify_kcv(algorithm, array, check_value)
    except Denied:
        raise Denied("COMPONENT_KCV", "the check digits do not belong to these digits: one of them was mistyped") from None
    if algorithm == "3des":
        if parity and not has_odd_parity(array):
            raise InvalidInput("COMPONENT_PARITY", "the parity is wrong: a digit was mistyped, or this is no DES component")
        if weak_rows(array.reshape(1, -1)).any():
            raise InvalidInput("COMPONENT_WEAK", "the component is a weak DES key or has equal halves")
    repeated = [hmac.compare_digest(component.reveal(), other.reveal()) for other in earlier]
    if any(repeated):
        raise InvalidInput("COMPONENT_REPEATED", "this component was entered before: two alike cancel each other")


def combine(algorithm: Algorithm, components: Sequence[SecretBytes]) -> SecretBytes:
    """The key, in locked memory; a 3DES key with odd parity, which changes no cryptogram.

    Raises InvalidInput (COMPONENT_COUNT, COMPONENT_LENGTH, KEY_ZERO, WEAK_KEY).
    """
    if not MIN_COMPONENTS <= len(components) <= MAX_COMPONENTS:
        raise InvalidInput("COMPONENT_COUNT", f"a key has {MIN_COMPONENTS} to {MAX_COMPONENTS} components, not {len(components)}")
    key = _xor(algorithm, components)
    array = _array(key)
    zero = not array.any()
    weak = algorithm == "3des" and bool(weak_rows(array.reshape(1, -1)).any())
    if zero or weak:
        key.close()
        raise InvalidInput(
            *(("KEY_ZERO", "the components make a key of zeros") if zero else ("WEAK_KEY", "the components make a weak key"))
        )
    return key


def component_kcv(algorithm: Algorithm, component: SecretBytes) -> bytes:
    """Check value of a component, as if it were a key, 3 bytes."""
    return kcv(algorithm, _array(component))


def _xor(algorithm: Algorithm, parts: Sequence[SecretBytes]) -> SecretBytes:
    if len({len(part) for part in parts}) != 1:
        raise InvalidInput("COMPONENT_LENGTH", "the components of one key have one length")

    def write(view: memoryview) -> None:
        total = np.frombuffer(view, np.uint8)
        for part in parts:
            np.bitwise_xor(total, _array(part), out=total)

    total = SecretBytes.fill(len(parts[0]), write)
    if algorithm != "3des":
        return total
    with total:
        return with_odd_parity(total)


def _array(secret: SecretBytes) -> ByteArray:
    return np.frombuffer(secret.reveal(), np.uint8)
