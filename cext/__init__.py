"""Compiled kernels: arrays in, arrays out. This module is the only import door; `_kernels` is private.

The split: C (`src/`) computes, on bits spread over lanes, without a table or a branch that a key could steer, and wipes what
it used. Cython (`_kernels.pyx`) checks type, shape, length and overlap before a pointer moves, releases the GIL, and decides
nothing. Everything with an opinion (which key, which method, what an error means to a caller) lives in `keys`.

All arrays are C-contiguous `numpy.uint8`. Wrong types raise TypeError, wrong shapes, lengths or overlaps ValueError. Keys are
one key `(len,)` for all rows, or a key per row `(n, len)`. `out`, where given, receives the result; it may be the input blocks
themselves.

    tdes_ecb(keys, blocks, out=None)           two-key triple DES, (n, 8) -> (n, 8)              ISO/IEC 18033-3
    sm4_ecb(keys, blocks, out=None)            SM4, (n, 16) -> (n, 16)                           GB/T 32907-2016
    aes_ecb(keys, blocks, out=None)            AES, key length 16, 24 or 32, (n, 16) -> (n, 16)  FIPS 197
    tdes_pboc(masters, factors, parity, out)   3DES(X) || 3DES(~X), (n, 8) -> (n, 16), odd parity if asked
    sm4_pboc(masters, factors, out)            SM4(X || ~X), (n, 8) -> (n, 16)
    tdes_kcv(keys), sm4_kcv(keys)              encrypted zero block, (n, 16) -> (n, 3)
    aes_kcv01(keys)                            encrypted block of 01s, (n, 16|24|32) -> (n, 3)
    sbox_table(name)                           the compiled S-box circuit on every input, for self-tests
    kernel_level(), available_levels()         what runs, what could: `portable`, `avx2`, `avx512`; CITYCARD_CPU chooses (see `cpu`)
"""

from cext._kernels import (
    aes_ecb,
    aes_kcv01,
    sbox_table,
    sm4_ecb,
    sm4_kcv,
    sm4_pboc,
    tdes_ecb,
    tdes_kcv,
    tdes_pboc,
)
from cext.cpu import available_levels, kernel_level

__all__ = [
    "aes_ecb",
    "aes_kcv01",
    "available_levels",
    "kernel_level",
    "sbox_table",
    "sm4_ecb",
    "sm4_kcv",
    "sm4_pboc",
    "tdes_ecb",
    "tdes_kcv",
    "tdes_pboc",
]
