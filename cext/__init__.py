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
    tdes_cbc(keys, plain, iv, out)             (n, length) -> (n, length)                        NIST SP 800-38A
    tdes_retail_mac(keys, messages, iv)        padded (n, length) -> (n, 8)                      ISO/IEC 9797-1 algorithm 3
    tdes_cmac(keys, messages)                  (n, length) -> (n, 8)                             NIST SP 800-38B
    tdes_pboc(masters, factors, parity, ...)   3DES(X) || 3DES(~X), level upon level, (n, 8) or (n, 1..8, 8) -> (n, 16), odd parity
                                               if asked; with kcv= also their check values
    tdes_pboc_wrapped(masters, factors, ...)   the same under a key-encryption key, ECB or CBC, and check values: no clear key as bytes
    scp02_wrap(enc, mac, chain, apdus, plain)  a segment of commands for n cards, secured             GPCS E.4.4, E.4.6
                                               slab=True: each command behind its length[2]
    tdes_kcv(keys, method)                     check values: zero-block or one-block (n, 16) -> (n, 3), cmac -> (n, 5)

    sm4_cbc, aes_cbc(keys, plain, iv, out)     (n, length) -> (n, length), whole blocks          NIST SP 800-38A
    sm4_cbc_mac, aes_cbc_mac(keys, messages, iv)   whole blocks (n, length) -> (n, 16)           ISO/IEC 9797-1 algorithm 1
    sm4_cmac, aes_cmac(keys, messages, out)    (n, length) -> (n, 16)                            NIST SP 800-38B
    sm4_kcv, aes_kcv(keys, method)             as tdes_kcv; the standards' own are zero-block for SM4, one-block for AES
    sm4_pboc(masters, factors, ...)            SM4(X || ~X), level upon level, as tdes_pboc
    sm4_pboc_wrapped(masters, factors, ...)    as tdes_pboc_wrapped
    aes_cmac_wrapped(masters, messages, kek)   AES-128 keys that are CMACs of messages, wrapped as in tdes_pboc_wrapped
    aes_kw(kek, keys, out)                     (n, len) -> (n, len + 8)                          RFC 3394
    scp03_wrap(enc, mac, chain, apdus, plain)  the same, and in chains= each command's chaining value    GPCS Amendment D 6.2.4, 6.2.6

    slab_split(slab, tail=b"")                 items of a slab of length[2] || item, each without the tail: bytes in, list of bytes out;
                                               ValueError where lengths do not add up, LookupError where one has no such tail
    slab_join(items)                           and back

    sbox_table(name)                           the compiled S-box circuit on every input, for self-tests
    kernel_level(), available_levels()         what runs, what could: `portable`, `avx2`, `avx512`; CITYCARD_CPU chooses (see `cpu`)
    at_level(name)                             a `with` block at another level, for self-tests
"""

# ruff: noqa: E402 - the extension is compared with its digest before it is loaded
from cext import integrity

integrity.verify()

from cext._kernels import (
    APDU,
    aes_cbc,
    aes_cbc_mac,
    aes_cmac,
    aes_cmac_wrapped,
    aes_ecb,
    aes_kcv,
    aes_kw,
    sbox_table,
    scp02_wrap,
    scp03_wrap,
    slab_join,
    slab_split,
    sm4_cbc,
    sm4_cbc_mac,
    sm4_cmac,
    sm4_ecb,
    sm4_kcv,
    sm4_pboc,
    sm4_pboc_wrapped,
    tdes_cbc,
    tdes_cmac,
    tdes_ecb,
    tdes_kcv,
    tdes_pboc,
    tdes_pboc_wrapped,
    tdes_retail_mac,
)
from cext.cpu import at_level, available_levels, kernel_level

__all__ = [
    "APDU",
    "aes_cbc",
    "aes_cbc_mac",
    "aes_cmac",
    "aes_cmac_wrapped",
    "aes_ecb",
    "aes_kcv",
    "aes_kw",
    "at_level",
    "available_levels",
    "kernel_level",
    "sbox_table",
    "scp02_wrap",
    "scp03_wrap",
    "slab_join",
    "slab_split",
    "sm4_cbc",
    "sm4_cbc_mac",
    "sm4_cmac",
    "sm4_ecb",
    "sm4_kcv",
    "sm4_pboc",
    "sm4_pboc_wrapped",
    "tdes_cbc",
    "tdes_cmac",
    "tdes_ecb",
    "tdes_kcv",
    "tdes_pboc",
    "tdes_pboc_wrapped",
    "tdes_retail_mac",
]
