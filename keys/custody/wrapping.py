"""Card keys that leave the house: derived, checked and wrapped under a key-encryption key, a column at a time.

`ecb` and `cbc` (each key a message of its own, zero IV) wrap with the key's own algorithm, and the kernels derive, check and wrap in
one pass in which no clear key is ever stored as bytes. `aes-kw` (RFC 3394) needs the derived key as bytes: it passes through a block
of locked memory that stays in a core's cache and is wiped.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

import cext
from keys.algorithms import Algorithm
from keys.custody import Derivation
from keys.custody.plan import Plan, check_factors
from keys.errors import InvalidInput, Precondition
from keys.kcv import DEFAULT_METHOD, kcv_array
from keys.secrets import SecretBytes

ByteArray = npt.NDArray[np.uint8]
WrapScheme = Literal["aes-kw", "ecb", "cbc"]

WRAP_SCHEMES: Final[tuple[WrapScheme, ...]] = get_args(WrapScheme)
# What a 16-byte key becomes.
WRAPPED_LEN: Final[dict[WrapScheme, int]] = {"aes-kw": 24, "ecb": 16, "cbc": 16}
KCV_LEN: Final = 3
# Clear keys in hand at a time: 64 KiB, which stays in a core's cache and is enough to fill the kernels' lanes.
_SCRATCH_ROWS: Final = 4096


def as_scheme(name: str) -> WrapScheme:
    """The wrapping scheme of that name; raises InvalidInput WRAP_UNKNOWN."""
    for scheme in WRAP_SCHEMES:
        if scheme == name:
            return scheme
    raise InvalidInput("WRAP_UNKNOWN", f"a key is wrapped by {', '.join(WRAP_SCHEMES)}, not {name!r}")


def kek_algorithm(scheme: WrapScheme, key: Algorithm) -> Algorithm:
    """The algorithm a KEK must have for keys of an algorithm."""
    return "aes" if scheme == "aes-kw" else key


def wrap_column(
    derivation: Derivation,
    master: SecretBytes,
    kek: SecretBytes,
    scheme: WrapScheme,
    factors: ByteArray,
    cryptograms: ByteArray,
    kcvs: ByteArray,
) -> None:
    """One key for n cards: factors (n, f) in, cryptograms (n, 16 or 24) and check values (n, 3) out.

    `master` is the key after the derivation's upper factors. Raises InvalidInput WRONG_SHAPE, Precondition
    SECRET_WIPED when another thread destroys a key meanwhile.
    """
    check_columns(derivation, scheme, factors, cryptograms, kcvs)
    with master.reveal() as raw, kek.reveal() as kek_raw:
        key, over = np.frombuffer(raw, np.uint8), np.frombuffer(kek_raw, np.uint8)
        method = DEFAULT_METHOD[derivation.algorithm]
        if scheme != "aes-kw" and derivation.method == "pboc" and derivation.algorithm == "3des":
            odd = derivation.parity == "odd"
            cext.tdes_pboc_wrapped(key, factors, odd, over, mode=scheme, kcv=method, out=cryptograms, kcv_out=kcvs)
        elif scheme != "aes-kw" and derivation.method == "pboc" and derivation.algorithm == "sm4":
            cext.sm4_pboc_wrapped(key, factors, over, mode=scheme, kcv=method, out=cryptograms, kcv_out=kcvs)
        else:
            _through_scratch(derivation, master, over, scheme, factors, cryptograms, kcvs)
    if not len(master) or not len(kek):
        raise Precondition("SECRET_WIPED", f"key {derivation.key_id} was wiped while it was used: discard what was made with it")


def check_columns(derivation: Derivation, scheme: WrapScheme, factors: ByteArray, cryptograms: ByteArray, kcvs: ByteArray) -> None:
    """Raises InvalidInput (WRONG_SHAPE, NO_ROWS) unless factors fit the derivation, and outputs the factors."""
    n = check_factors([derivation], [factors])
    for what, array, width in (("cryptograms", cryptograms, WRAPPED_LEN[scheme]), ("check values", kcvs, KCV_LEN)):
        if array.shape != (n, width) or array.dtype != np.uint8:
            found = f"{array.dtype} of {array.shape}"
            raise InvalidInput("WRONG_SHAPE", f"{what} of key {derivation.key_id} must be uint8 of ({n}, {width}), not {found}")


def _through_scratch(
    derivation: Derivation,
    master: SecretBytes,
    kek: ByteArray,
    scheme: WrapScheme,
    factors: ByteArray,
    cryptograms: ByteArray,
    kcvs: ByteArray,
) -> None:
    algorithm = derivation.algorithm
    plan = Plan([derivation], lambda _: master)
    try:
        for first in range(0, len(factors), _SCRATCH_ROWS):
            part = slice(first, first + _SCRATCH_ROWS)
            with plan.run([factors[part]]) as keys:
                clear = keys.array[0]
                kcvs[part] = kcv_array(algorithm, clear)
                wrap_clear(algorithm, kek, scheme, clear, cryptograms[part])
    finally:
        plan.close()


def wrap_clear(algorithm: Algorithm, kek: ByteArray, scheme: WrapScheme, clear: ByteArray, cryptograms: ByteArray) -> None:
    """Keys (n, 16) in locked memory under a KEK (16,), into `cryptograms` (n, 16 or 24), contiguous."""
    if scheme == "aes-kw":
        cext.aes_kw(kek, clear, out=cryptograms)
    elif algorithm == "aes":
        cext.aes_cbc(kek, clear, out=cryptograms)  # one block under a zero IV: ECB and CBC are the same
    elif algorithm == "sm4":
        cext.sm4_cbc(kek, clear, out=cryptograms)
    elif scheme == "cbc":
        cext.tdes_cbc(kek, clear, out=cryptograms)
    else:
        cext.tdes_ecb(kek, clear.reshape(-1, 8), out=cryptograms.reshape(-1, 8))
