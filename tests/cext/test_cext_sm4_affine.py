"""The maps that let SM4 run on instructions for AES's field, against the standards' own definitions."""

import pytest

from cext.circuits import sm4_affine
from cext.circuits.tower import AES, SM4, apply, field_multiply, table


def test_the_header_is_what_the_program_writes():
    assert sm4_affine.HEADER.read_text(encoding="ascii") == sm4_affine.header()


def test_the_isomorphism_keeps_products():
    into = sm4_affine.isomorphism()
    for a in range(256):
        for b in (2, 3, 0x53, 0xFF):
            product = apply(into, field_multiply(a, b, SM4.polynomial))
            assert product == field_multiply(apply(into, a), apply(into, b), AES.polynomial)


def rotated(word, bits):
    return (word << bits | word >> (32 - bits)) & 0xFFFFFFFF


@pytest.mark.parametrize(("matrices", "rotations"), [(sm4_affine.ROUND, (0, 2, 10, 18, 24)), (sm4_affine.KEY, (0, 13, 23))])
def test_rotations_of_words_are_matrices_of_bytes(matrices, rotations):
    """L of GB/T 32907 6.2 and L' of 7.3 on every single bit; both are linear."""
    for bit in range(32):
        word = 1 << bit
        expected = 0
        for count in rotations:
            expected ^= rotated(word, count)
        source = word.to_bytes(4, "big")
        made = bytes(
            apply(matrices[0], source[j])
            ^ apply(matrices[1], source[(j + 1) % 4])
            ^ apply(matrices[2], source[(j + 2) % 4])
            ^ apply(matrices[3], source[(j + 3) % 4])
            for j in range(4)
        )
        assert made == expected.to_bytes(4, "big")


def test_tables_of_halves_add_up_to_the_map():
    low, high = sm4_affine.halves(AES.out_matrix, AES.out_constant)
    assert all(low[x & 15] ^ high[x >> 4] == apply(AES.out_matrix, x) ^ AES.out_constant for x in range(256))


def test_the_s_box_through_the_field_of_aes():
    """S(x) = out * inverse(T * (in * x + c)) + c for all x, the inverse taken in AES's field."""
    into = sm4_affine.isomorphism()
    aes_inverse = [apply(sm4_affine.invert_matrix(AES.out_matrix), y ^ AES.out_constant) for y in table(AES)]
    back = sm4_affine.multiply_matrices(SM4.out_matrix, sm4_affine.invert_matrix(into))
    through = [apply(back, aes_inverse[apply(into, apply(SM4.in_matrix, x) ^ SM4.in_constant)]) ^ SM4.out_constant for x in range(256)]
    assert through == table(SM4)
