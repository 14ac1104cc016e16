"""PBOC dispersion (子密钥推导): the form the domestic domains and EMV share."""

from __future__ import annotations

import cext
from keys.algorithms import as_algorithm, rows
from keys.diversify.common import ByteArray, BytesOrArray, check_masters, check_parity, require_algorithm
from keys.parity import Parity


def pboc(algorithm: str, masters: BytesOrArray, factors: BytesOrArray, parity: Parity = "none", *, allow_weak: bool = False) -> ByteArray:
    """PBOC dispersion by factors X (n, 8): 3DES(M, X) || 3DES(M, ~X), or SM4(M, X || ~X); keys (n, 16). 3des and sm4 only."""
    cipher = as_algorithm(algorithm)
    odd = check_parity(cipher, parity)
    x = rows(factors, 8, "factors")
    require_algorithm("pboc", cipher, ("3des", "sm4"))
    keys = check_masters(cipher, masters, len(x), allow_weak=allow_weak)
    return cext.tdes_pboc(keys, x, odd) if cipher == "3des" else cext.sm4_pboc(keys, x)
