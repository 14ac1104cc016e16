"""The operations `kcv` and `diversify`: one request's fields in, one answer's fields out."""

from __future__ import annotations

from typing import Final, Literal, cast

import numpy as np

from engine.calc.fields import Fields, bad_length, bad_value, unsupported
from keys import diversify
from keys.algorithms import ALGORITHMS, KEY_LENS, Algorithm
from keys.diversify import PURPOSES, Purpose
from keys.kcv import DEFAULT_METHOD, KCV_METHODS, KcvMethod, kcv
from keys.parity import Parity

Answer = dict[str, object]

# Which algorithms a method is defined for, the first being the only one where there is one; and its own fields, required and
# optional.
_METHODS: Final[dict[str, tuple[tuple[Algorithm, ...], tuple[str, ...], tuple[str, ...]]]] = {
    "pboc": (("3des", "sm4"), ("factors",), ()),
    "emv-a": (("3des", "sm4"), ("pan",), ("psn",)),
    "emv-b": (("3des", "sm4"), ("pan",), ("psn",)),
    "gp-emv": (("3des",), ("kdd", "purpose"), ()),
    "gp-visa2": (("3des",), ("kdd", "purpose"), ()),
    "gp-kdf3": (("aes",), ("kdd", "purpose"), ()),
}
_NOT_YET: Final = ("emv-c", "an10922", "sp800-108")
MAX_FACTORS: Final = 8


def check_value(fields: Fields) -> Answer:
    """Operation `kcv`."""
    fields.require_known(("op", "algorithm", "key"), ("id", "method"))
    algorithm = _algorithm(fields, ALGORITHMS)
    method = _kcv_method(fields, "method", algorithm)
    key = fields.hex("key", KEY_LENS[algorithm])
    return {"kcv": _hex(kcv(algorithm, key, method))}


def card_key(fields: Fields) -> Answer:
    """Operation `diversify`."""
    method = fields.choice("method", (*_METHODS, *_NOT_YET))
    if method in _NOT_YET:
        unsupported(f"method {method} is not done by this version")
    algorithms, required, optional = _METHODS[method]
    fields.require_known(("op", "method", "algorithm", "key", *required), ("id", "parity", "kcv_method", *optional))
    algorithm = _algorithm(fields, algorithms)
    master = fields.hex("key", (16,) if algorithm == "3des" else KEY_LENS[algorithm])
    parity = _parity(fields, method, algorithm)
    kcv_method = _kcv_method(fields, "kcv_method", algorithm)
    if method == "pboc":
        key = _pboc(fields, algorithm, master, parity)
    elif method in ("emv-a", "emv-b"):
        key = _emv(fields, method, algorithm, master, parity)
    else:
        key = _gp(fields, method, master, parity)
    return {"key": _hex(key), "kcv": _hex(kcv(algorithm, key, kcv_method))}


def _pboc(fields: Fields, algorithm: Algorithm, master: bytes, parity: Parity) -> bytes:
    factors = fields.hex_list("factors", (8,))
    if not 1 <= len(factors) <= MAX_FACTORS:
        bad_length(f"factors must be 1 to {MAX_FACTORS} factors, root first, not {len(factors)}")
    key = master
    for factor in factors:
        key = diversify.pboc(algorithm, key, factor, parity).tobytes()
    return key


def _emv(fields: Fields, method: str, algorithm: Algorithm, master: bytes, parity: Parity) -> bytes:
    pan = fields.digits("pan", 12, 19)
    psn = fields.digits("psn", 2, 2) if fields.has("psn") else "00"
    y = diversify.emv_y([pan], psn, "a" if method == "emv-a" else "b")
    return diversify.pboc(algorithm, master, y, parity).tobytes()


def _gp(fields: Fields, method: str, master: bytes, parity: Parity) -> bytes:
    kdd = np.frombuffer(fields.hex("kdd", (diversify.KDD_LEN,)), np.uint8)
    purpose = cast("Purpose", fields.choice("purpose", tuple(PURPOSES)))
    if method == "gp-kdf3":
        return diversify.gp_kdf3(master, kdd, purpose).tobytes()
    derive = diversify.gp_emv if method == "gp-emv" else diversify.gp_visa2
    return derive(master, kdd, purpose, parity).tobytes()


def _algorithm(fields: Fields, allowed: tuple[Algorithm, ...]) -> Algorithm:
    return cast("Algorithm", fields.choice("algorithm", allowed))


def _kcv_method(fields: Fields, name: Literal["method", "kcv_method"], algorithm: Algorithm) -> KcvMethod:
    if not fields.has(name):
        return DEFAULT_METHOD[algorithm]
    return cast("KcvMethod", fields.choice(name, KCV_METHODS))


def _parity(fields: Fields, method: str, algorithm: Algorithm) -> Parity:
    """EMV sets odd parity on DES keys (Book 2 A1.4); elsewhere the raw bytes are the result unless asked otherwise."""
    if not fields.has("parity"):
        return "odd" if algorithm == "3des" and method in ("emv-a", "emv-b") else "none"
    parity = cast("Parity", fields.choice("parity", ("none", "odd")))
    if parity == "odd" and algorithm != "3des":
        bad_value(f"parity must be none: {algorithm} keys have no parity")
    return parity


def _hex(data: bytes) -> str:
    return data.hex().upper()
