"""Every diversification method, a column at a time: masters and factors in, keys out.

Masters are one key (len,) for all rows or a key per row (n, len). Results are plain arrays of key bytes: the caller puts them in a
`SecretArray` or wipes them. All raise InvalidInput before anything is computed: KEY_LENGTH, WEAK_KEY for a weak, semi-weak or
equal-halves DES master unless `allow_weak`, NOT_BYTES, WRONG_SHAPE, NO_ROWS, METHOD_ALGORITHM, PARITY, and what the method adds.

    pboc, emv                PBOC dispersion by factors; EMV option A, B, C by PAN and PSN     keys.diversify.pboc, .emv
    gp_emv, gp_visa2, gp_kdf3   card keys by the chip's diversification data                   keys.diversify.globalplatform
    an10922                  NXP AN10922                                                       keys.diversify.an10922
    sp800_108                NIST SP 800-108 counter mode with CMAC                            keys.diversify.sp800
"""

from keys.diversify.an10922 import AN10922_INPUT_LENS, an10922
from keys.diversify.common import PURPOSES, Purpose, Purposes, check_parity
from keys.diversify.emv import digit_matrix, emv_a, emv_b, emv_c, emv_y, emv_y16
from keys.diversify.globalplatform import KDD_LEN, gp_emv, gp_kdf3, gp_visa2, purpose_bytes
from keys.diversify.pboc import pboc
from keys.diversify.sp800 import counter_mode, sp800_108

__all__ = [
    "AN10922_INPUT_LENS",
    "KDD_LEN",
    "PURPOSES",
    "Purpose",
    "Purposes",
    "an10922",
    "check_parity",
    "counter_mode",
    "digit_matrix",
    "emv_a",
    "emv_b",
    "emv_c",
    "emv_y",
    "emv_y16",
    "gp_emv",
    "gp_kdf3",
    "gp_visa2",
    "pboc",
    "purpose_bytes",
    "sp800_108",
]
