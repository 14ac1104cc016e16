"""The operations `kcv` and `diversify`: one request's fields in, one answer's fields out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple, cast

import numpy as np

from engine.calc.fields import Fields, bad_length, bad_value
from keys import diversify
from keys.algorithms import ALGORITHMS, KEY_LENS, Algorithm
from keys.diversify import PURPOSES, Purpose
from keys.errors import InvalidInput
from keys.kcv import DEFAULT_METHOD, KCV_METHODS, KcvMethod, kcv
from keys.parity import Parity, odd_parity

Answer = dict[str, object]


class _Method(NamedTuple):
    algorithms: tuple[Algorithm, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    tdes_lens: tuple[int, ...] = (16,)


# Which algorithms a method is defined for; its own fields, required and optional; the lengths of a 3des master.
_METHODS: Final[dict[str, _Method]] = {
    "pboc": _Method(("3des", "sm4"), ("factors",)),
    "emv-a": _Method(("3des", "sm4"), ("pan",), ("psn",)),
    "emv-b": _Method(("3des", "sm4"), ("pan",), ("psn",)),
    "emv-c": _Method(("aes",), ("pan",), ("psn",)),
    "gp-emv": _Method(("3des",), ("kdd", "purpose")),
    "gp-visa2": _Method(("3des",), ("kdd", "purpose")),
    "gp-kdf3": _Method(("aes",), ("kdd", "purpose")),
    "an10922": _Method(("aes", "3des"), ("input",), ("key_version",), tdes_lens=(16, 24)),
    "sp800-108": _Method(("aes",), ("label", "context", "length")),
}
MAX_FACTORS: Final = 8


def check_value(fields: Fields) -> Answer:
    """Operation `kcv`."""
    fields.require_known(("op", "algorithm", "key"), ("id", "method"))
    algorithm = _algorithm(fields, ALGORITHMS)
    method = _kcv_method(fields, "method", algorithm)
    key = fields.hex("key", KEY_LENS[algorithm])
    return {"kcv": _hex(kcv(algorithm, key, method))}


def card_key(fields: Fields) -> Answer:
    """Operation `diversify`. Weak DES masters are allowed here: people check other programs' keys with it."""
    method = fields.choice("method", tuple(_METHODS))
    rule = _METHODS[method]
    fields.require_known(("op", "method", "algorithm", "key", *rule.required), ("id", "parity", "kcv_method", *rule.optional))
    algorithm = _algorithm(fields, rule.algorithms)
    master = fields.hex("key", rule.tdes_lens if algorithm == "3des" else KEY_LENS[algorithm])
    parity = _parity(fields, method, algorithm)
    kcv_method = _kcv_method(fields, "kcv_method", algorithm)
    key = _DERIVE[method](fields, algorithm, master, parity)
    return {"key": _hex(key), "kcv": _hex(kcv(algorithm, key, kcv_method))}


def _pboc(fields: Fields, algorithm: Algorithm, master: bytes, parity: Parity) -> bytes:
    factors = fields.hex_list("factors", (8,))
    if not 1 <= len(factors) <= MAX_FACTORS:
        bad_length(f"factors must be 1 to {MAX_FACTORS} factors, root first, not {len(factors)}")
    key = master
    for factor in factors:
        key = diversify.pboc(algorithm, key, factor, parity, allow_weak=True).tobytes()
    return key


def _pan_and_psn(fields: Fields) -> tuple[str, str]:
    return fields.digits("pan", 12, 19), fields.digits("psn", 2, 2) if fields.has("psn") else "00"


def _emv(fields: Fields, algorithm: Algorithm, master: bytes, parity: Parity) -> bytes:
    pan, psn = _pan_and_psn(fields)
    y = diversify.emv_y([pan], psn, "a" if fields.text("method") == "emv-a" else "b")
    return diversify.pboc(algorithm, master, y, parity, allow_weak=True).tobytes()


def _emv_c(fields: Fields, _algorithm: Algorithm, master: bytes, _parity: Parity) -> bytes:
    pan, psn = _pan_and_psn(fields)
    return diversify.emv_c(master, diversify.emv_y16([pan], psn)).tobytes()


def _gp(fields: Fields, algorithm: Algorithm, master: bytes, parity: Parity) -> bytes:
    kdd = fields.hex("kdd", (diversify.KDD_LEN,))
    purpose = cast("Purpose", fields.choice("purpose", tuple(PURPOSES)))
    if algorithm == "aes":
        return diversify.gp_kdf3(master, kdd, purpose).tobytes()
    derive = diversify.gp_emv if fields.text("method") == "gp-emv" else diversify.gp_visa2
    return derive(master, kdd, purpose, parity, allow_weak=True).tobytes()


def _an10922(fields: Fields, algorithm: Algorithm, master: bytes, parity: Parity) -> bytes:
    lengths = diversify.AN10922_INPUT_LENS[algorithm]
    data = fields.hex("input")
    if len(data) not in lengths:
        bad_length(f"input must have {lengths[0]} to {lengths[-1]} bytes, not {len(data)}")
    version = None
    if fields.has("key_version"):
        if algorithm != "3des":
            raise InvalidInput("UNKNOWN_FIELD", f"field key_version is not used with {algorithm}")
        version = fields.hex("key_version", (1,))[0]
        if parity == "odd":
            bad_value("parity must be none with key_version: both would set the least significant bits")
    made = diversify.an10922(algorithm, master, data, key_version=version, allow_weak=True)
    return (odd_parity(made) if parity == "odd" else made).tobytes()


def _sp800_108(fields: Fields, algorithm: Algorithm, master: bytes, _parity: Parity) -> bytes:
    label, context = fields.hex("label"), fields.hex("context")
    length = fields.integer("length")
    if length not in KEY_LENS[algorithm]:
        bad_value(f"length must be {' or '.join(map(str, KEY_LENS[algorithm]))}: the result is an {algorithm} key")
    return diversify.sp800_108(master, label, np.frombuffer(context, np.uint8), length).tobytes()


_DERIVE: Final[dict[str, Callable[[Fields, Algorithm, bytes, Parity], bytes]]] = {
    "pboc": _pboc,
    "emv-a": _emv,
    "emv-b": _emv,
    "emv-c": _emv_c,
    "gp-emv": _gp,
    "gp-visa2": _gp,
    "gp-kdf3": _gp,
    "an10922": _an10922,
    "sp800-108": _sp800_108,
}


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
