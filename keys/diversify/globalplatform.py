"""Secure channel keys of a chip from its maker's or issuer's master by the chip's diversification data (KDD).

The templates are those GlobalPlatform tools call "emv", "visa2" and "kdf3"; "emv" is that of EMV CPS 4.1.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from keys.algorithms import KEY_LENS, encrypt, rows
from keys.diversify.common import PURPOSES, ByteArray, BytesOrArray, Purposes, check_masters, check_parity
from keys.diversify.sp800 import counter_mode
from keys.errors import InvalidInput
from keys.parity import Parity, odd_parity

KDD_LEN: Final = 10


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
    masters: BytesOrArray, kdds: BytesOrArray, purposes: Purposes, parity: Parity, picked: tuple[int, ...], *, allow_weak: bool
) -> ByteArray:
    """3DES-ECB over P || F0 || k || P || 0F || k with P the picked bytes of the KDD."""
    kdd = rows(kdds, KDD_LEN, "kdds")
    n = len(kdd)
    odd = check_parity("3des", parity)
    keys = check_masters("3des", masters, n, allow_weak=allow_weak)
    blocks = np.empty((n, 2, 8), np.uint8)
    blocks[:, :, :6] = kdd[:, None, picked]
    blocks[:, :, 6] = (0xF0, 0x0F)
    blocks[:, :, 7] = purpose_bytes(purposes, n)[:, None]
    doubled = keys if keys.ndim == 1 else np.repeat(keys, 2, axis=0)
    result = encrypt("3des", doubled, blocks.reshape(2 * n, 8)).reshape(n, 16)
    if keys.ndim == 2:
        doubled[...] = 0
    return odd_parity(result) if odd else result


def gp_emv(masters: BytesOrArray, kdds: BytesOrArray, purpose: Purposes, parity: Parity = "none", *, allow_weak: bool = False) -> ByteArray:
    """EMV CPS card keys: KDD (n, 10), bytes 4..9 in the template. 3DES."""
    return _gp_3des(masters, kdds, purpose, parity, (4, 5, 6, 7, 8, 9), allow_weak=allow_weak)


def gp_visa2(
    masters: BytesOrArray, kdds: BytesOrArray, purpose: Purposes, parity: Parity = "none", *, allow_weak: bool = False
) -> ByteArray:
    """ "VISA2" card keys: KDD (n, 10), bytes 0 1 4 5 6 7 in the template. 3DES."""
    return _gp_3des(masters, kdds, purpose, parity, (0, 1, 4, 5, 6, 7), allow_weak=allow_weak)


def gp_kdf3(masters: BytesOrArray, kdds: BytesOrArray, purpose: Purposes) -> ByteArray:
    """ "KDF3" AES card keys (n, master length): CMAC(M, i || 00 00 00 || k || 00 || KDD), i = 1, 2 (NIST SP 800-108, no length field)."""
    kdd = rows(kdds, KDD_LEN, "kdds")
    n = len(kdd)
    keys = check_masters("aes", masters, n, KEY_LENS["aes"])
    return counter_mode(keys, np.empty((n, 0), np.uint8), 1, kdf3_messages(kdd, purpose)[:, 1:], keys.shape[-1])


def kdf3_messages(kdds: ByteArray, purpose: Purposes) -> ByteArray:
    """What the first CMAC of KDF3 is over for KDDs (n, 10), the KDD at the end: (n, 16). An AES-128 key is that CMAC."""
    messages = np.zeros((len(kdds), 6 + KDD_LEN), np.uint8)
    messages[:, 0] = 1
    messages[:, 4] = purpose_bytes(purpose, len(kdds))
    messages[:, 6:] = kdds
    return messages
