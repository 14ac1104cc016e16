"""Writes `cext/src/sm4_affine.h`: what it takes to run SM4's S-box on instructions for the field of AES.

Both S-boxes are an inversion between affine maps (FIPS 197, 5.1.1; GB/T 32907, 6.2), in two representations of GF(2^8). So an isomorphism
T turns SM4's S-box into an AES inversion: S(x) = out * inverse(T * (in * x + c)) + c, with `out` = out_matrix * T^-1. Two things make a
round shorter still. The state is kept multiplied by T * in, so that nothing comes before the inversion. And the linear map L is
bytewise once rotations by bits are split into a matrix within a byte and a rotation of whole bytes:

    L(B)_j  = (1 + <<2) B_j + (<<2 + >>6)(B_j+1 + B_j+2) + (1 + >>6) B_j+3          where (1 + <<2) + (1 + >>6) = (<<2 + >>6)
    L'(B)_j = B_j + (<<5) B_j+1 + (>>3 + <<7) B_j+2 + (>>1) B_j+3

so that its matrices join the one after the inversion. For GF2P8AFFINEINVQB these matrices are given as they are; for AESENCLAST,
whose result is in addition AES's affine map, with the inverse of that map joined, as tables for the two halves of a byte.

    python -m cext.circuits.sm4_affine
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import xor
from pathlib import Path

from cext.circuits.tower import AES, IDENTITY, SM4, apply, field_multiply, invert_matrix, multiply_matrices

HEADER = Path(__file__).parent.parent / "src" / "sm4_affine.h"

Matrix = tuple[int, ...]  # row i, a bit mask, makes bit i


def shifted(left: int) -> Matrix:
    """The matrix of x << left within a byte; negative: >>."""
    return tuple(1 << (i - left) if 0 <= i - left < 8 else 0 for i in range(8))


def plus(*matrices: Matrix) -> Matrix:
    return tuple(reduce(xor, rows) for rows in zip(*matrices, strict=True))


# L and L' of GB/T 32907 6.2 and 7.3 by the byte they take: B_j, B_j+1, B_j+2, B_j+3.
ROUND = (plus(IDENTITY, shifted(2)), plus(shifted(2), shifted(-6)), plus(shifted(2), shifted(-6)), plus(IDENTITY, shifted(-6)))
KEY = (IDENTITY, shifted(5), plus(shifted(-3), shifted(7)), shifted(-1))


def isomorphism() -> Matrix:
    """The first map from the field of SM4 to that of AES: x goes to a root of SM4's polynomial."""
    for root in range(2, 256):
        powers = [1]
        for _ in range(8):
            powers.append(field_multiply(powers[-1], root, AES.polynomial))
        if reduce(xor, (powers[i] for i in range(9) if SM4.polynomial >> i & 1)) == 0:
            return tuple(sum((powers[j] >> i & 1) << j for j in range(8)) for i in range(8))
    raise ValueError("SM4's polynomial has no root in the field of AES")


def affine_operand(matrix: Matrix) -> int:
    """A matrix as GF2P8AFFINEQB takes it: its first row, which makes bit 0, in the most significant byte."""
    return int.from_bytes(bytes(matrix), "big")


def halves(matrix: Matrix, constant: int) -> tuple[list[int], list[int]]:
    """matrix * x + constant as tables for the low and the high half of x."""
    return [apply(matrix, x) ^ constant for x in range(16)], [apply(matrix, x << 4) for x in range(16)]


def _round_constants() -> Iterator[int]:
    """GB/T 32907 7.3: CK_i, byte j = (4i + j) * 7 mod 256, as little-endian numbers of words in memory order."""
    for i in range(32):
        yield int.from_bytes(bytes((4 * i + j) * 7 % 256 for j in range(4)), "little")


def _mapped(matrix: Matrix, word: int) -> int:
    return int.from_bytes(bytes(apply(matrix, byte) for byte in word.to_bytes(4, "little")), "little")


def _words(name: str, values: list[int]) -> str:
    lines = [", ".join(f"0x{value:08X}u" for value in values[i : i + 8]) for i in range(0, len(values), 8)]
    return f"static const uint32_t {name}[{len(values)}] = {{\n    " + ",\n    ".join(lines) + "};\n"


def _tables(name: str, matrix: Matrix, constant: int) -> str:
    rows = [", ".join(f"0x{value:02X}" for value in half) for half in halves(matrix, constant)]
    return f"static const uint8_t {name}[2][16] = {{{{{rows[0]}}},\n    {{{rows[1]}}}}};\n"


def header() -> str:
    """The text of sm4_affine.h."""
    to_aes = isomorphism()
    into = multiply_matrices(to_aes, SM4.in_matrix)
    constant = apply(to_aes, SM4.in_constant)
    back = multiply_matrices(SM4.out_matrix, invert_matrix(to_aes))
    undo_aes = invert_matrix(AES.out_matrix)
    parts = [
        "/* SM4 on AES's field. Written by cext/circuits/sm4_affine.py, which explains it; do not edit. */\n",
        "/* Multiplies a byte for the state, and back. */",
        f"#define SM4_INTO 0x{affine_operand(into):016X}u",
        f"#define SM4_BACK 0x{affine_operand(invert_matrix(into)):016X}u",
        f"#define SM4_IN_CONSTANT 0x{constant:02X}",
        "\n/* After the inversion: the terms of L (1 and 2 are the sum of 0 and 3) and of L'. */",
    ]
    for letter, matrices in (("L", ROUND), ("K", KEY)):
        for i, matrix in enumerate(matrices):
            if (letter, i) not in {("L", 1), ("L", 2)}:
                whole = multiply_matrices(into, multiply_matrices(matrix, back))
                after = apply(into, apply(matrix, SM4.out_constant))
                parts.append(f"#define SM4_{letter}{i} 0x{affine_operand(whole):016X}u")
                parts.append(f"#define SM4_{letter}{i}_CONSTANT 0x{after:02X}")
    parts.append("\n/* The same maps as tables for the low and the high half of a byte, those of L and L' after AES's own S-box. */")
    parts.append("#if defined(SM4_TABLES)")
    parts += [_tables("sm4_into", into, 0), _tables("sm4_back", invert_matrix(into), 0)]
    for letter, matrices in (("l", ROUND), ("k", KEY)):
        for i, matrix in enumerate(matrices):
            if (letter, i) not in {("l", 1), ("l", 2)}:
                whole = multiply_matrices(into, multiply_matrices(matrix, multiply_matrices(back, undo_aes)))
                after = apply(into, apply(matrix, SM4.out_constant)) ^ apply(whole, AES.out_constant)
                parts.append(_tables(f"sm4_{letter}{i}", whole, after))
    parts.append("#endif\n")
    fk = [int.from_bytes(value.to_bytes(4, "big"), "little") for value in (0xA3B1BAC6, 0x56AA3350, 0x677D9197, 0xB27022DC)]
    broadcast = constant * 0x01010101
    parts.append("/* FK and CK (7.3) in the form of the state; FK with the constant before the inversion, as round keys have it. */")
    parts.append(_words("sm4_fk", [_mapped(into, word) ^ broadcast for word in fk]))
    parts.append(_words("sm4_ck", [_mapped(into, word) for word in _round_constants()]))
    return "\n".join(parts)


if __name__ == "__main__":
    HEADER.write_text(header(), encoding="ascii")
