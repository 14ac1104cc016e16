"""The hand-over set: wrapped keys for a lower level or an outside line, with all that must be agreed about them, signed.

One JSON object. Beside each cryptogram it says domain, purpose, level, version, check value with its method, and the factors already
applied from the root down ("410000sh" before "410100sx"): a receiver who expects another level or another order is told, not surprised. The
signature is Ed25519 over the canonical JSON without it; whose key it is, the receiver must know from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keys.algorithms import Algorithm, as_algorithm
from keys.errors import Corrupt, Denied, InvalidInput
from keys.hierarchy import Level, MasterKeyRecord, Purpose
from keys.kcv import KCV_METHODS, KcvMethod, verify_kcv
from keys.keyblock.blocks import unwrap, wrap
from keys.keyblock.header import ALGORITHM_CODES, Header
from keys.keyblock.keywrap import key_unwrap, key_wrap
from keys.secrets import SecretBytes

FORMAT: Final = "citycard-handover 1"
_CONTEXT: Final = b"citycard hand-over set 1\0"
_VERSION_ID: Final = {"x9.143-b": "B", "x9.143-c": "C", "x9.143-d": "D", "sm4-block": "S"}
KEK_ALGORITHM: Final[dict[str, Algorithm]] = {
    "x9.143-b": "3des",
    "x9.143-c": "3des",
    "x9.143-d": "aes",
    "sm4-block": "sm4",
    "aes-kw": "aes",
}
# X9.143 table 2: a master that card keys are derived from has no usage of its own outside of EMV; E-usages are EMV issuer masters.
_USAGE: Final[dict[Purpose, tuple[str, str]]] = {
    Purpose.APPLICATION: ("E6", "X"),
    Purpose.CRYPTOGRAM: ("E0", "X"),
    Purpose.SECURITY_DOMAIN: ("E5", "X"),
    Purpose.KEY_ENCRYPTION: ("K0", "B"),
}


class HandedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One key of a set. `factors` (hex, 8 bytes each) were applied root first; `wrapped` is a key block or hex, by the set's scheme."""

    key_id: str
    domain: str
    purpose: str
    level: str
    algorithm: str
    version: int
    kcv: str
    kcv_method: str
    factors: list[str]
    wrapped: str


class HandoverSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole set; `kek` and `kek_kcv` name the key-encryption key both sides hold."""

    format: str
    set_id: str
    sender: str
    recipient: str
    time: str
    scheme: str
    kek: str
    kek_kcv: str
    keys: list[HandedKey]
    signature: str = ""


class Agreed(NamedTuple):
    """What both sides wrote down beforehand: the level a key comes at, and the factors it was dispersed by, root first."""

    level: Level
    factors: tuple[bytes, ...] = ()


def wrap_for_export(scheme: str, kek_algorithm: Algorithm, kek: SecretBytes, record: MasterKeyRecord, key: SecretBytes) -> str:
    """`key` under `kek` by the scheme: a key block that must not be exported again, or AES-KW in hex.

    Raises InvalidInput (WRAP_UNKNOWN, KEK_ALGORITHM, KBPK_WEAKER).
    """
    if scheme not in KEK_ALGORITHM:
        raise InvalidInput("WRAP_UNKNOWN", f"scheme must be one of {', '.join(KEK_ALGORITHM)}, not {scheme!r}")
    if KEK_ALGORITHM[scheme] != kek_algorithm:
        raise InvalidInput("KEK_ALGORITHM", f"scheme {scheme} needs a key-encryption key of {KEK_ALGORITHM[scheme]}, not {kek_algorithm}")
    if scheme == "aes-kw":
        return key_wrap("aes-kw", kek, key).hex().upper()
    usage, mode = _USAGE[record.purpose]
    header = Header(
        version_id=_VERSION_ID[scheme],
        key_usage=usage,
        algorithm=ALGORITHM_CODES[record.algorithm],
        mode_of_use=mode,
        key_version=f"{record.version % 100:02d}",
    )
    return wrap(kek, header, key)


def handed(record: MasterKeyRecord, wrapped: str, factors: Sequence[bytes] = ()) -> HandedKey:
    """The entry of one key."""
    return HandedKey(
        key_id=record.key_id,
        domain=record.domain,
        purpose=record.purpose,
        level=record.level,
        algorithm=record.algorithm,
        version=record.version,
        kcv=record.kcv,
        kcv_method=record.kcv_method,
        factors=[factor.hex().upper() for factor in factors],
        wrapped=wrapped,
    )


def sign_set(unsigned: HandoverSet, sign: Callable[[bytes], bytes]) -> bytes:
    """The file, signed."""
    signed = msgspec.structs.replace(unsigned, signature=sign(_CONTEXT + _body(unsigned)).hex())
    return json.dumps(msgspec.to_builtins(signed), ensure_ascii=False, indent=1).encode() + b"\n"


def verify_set(content: bytes, public_key: bytes) -> HandoverSet:
    """The set, if it is whole and signed by `public_key` (32 bytes). Raises Corrupt HANDOVER_SET, Denied HANDOVER_SIGNATURE."""
    try:
        found = msgspec.json.decode(content, type=HandoverSet)
        if found.format != FORMAT:
            raise Corrupt("HANDOVER_SET", f"this is no hand-over set of format {FORMAT!r}")
        signature = bytes.fromhex(found.signature)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Corrupt("HANDOVER_SET", f"this is no hand-over set: {error}") from None
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _CONTEXT + _body(found))
    except (InvalidSignature, ValueError):
        raise Denied("HANDOVER_SIGNATURE", "the hand-over set is not signed by this key, or was changed") from None
    return found


def open_handed(key: HandedKey, scheme: str, kek: SecretBytes, agreed: Agreed) -> SecretBytes:
    """An upper level's key out of its wrapping, with check value and dispersion level as agreed.

    Raises Denied (LEVEL_NOT_AGREED, FACTORS_NOT_AGREED, KEY_BLOCK, KEY_USAGE, KCV_MISMATCH), InvalidInput (WRAP_UNKNOWN,
    KEY_BLOCK_SYNTAX...), Corrupt HANDOVER_SET.
    """
    if key.level != agreed.level:
        raise Denied("LEVEL_NOT_AGREED", f"key {key.key_id} is of level {key.level}, agreed is {agreed.level}")
    if key.factors != [factor.hex().upper() for factor in agreed.factors]:
        raise Denied("FACTORS_NOT_AGREED", f"key {key.key_id} was dispersed by other factors, or in another order, than agreed")
    algorithm = as_algorithm(key.algorithm)
    secret = _unwrapped(key, scheme, algorithm, kek)
    try:
        verify_kcv(algorithm, secret.reveal(), _kcv(key), cast("KcvMethod", key.kcv_method))
    except (Denied, InvalidInput):
        secret.close()
        raise
    return secret


def _unwrapped(key: HandedKey, scheme: str, algorithm: Algorithm, kek: SecretBytes) -> SecretBytes:
    if scheme not in KEK_ALGORITHM:
        raise InvalidInput("WRAP_UNKNOWN", f"scheme must be one of {', '.join(KEK_ALGORITHM)}, not {scheme!r}")
    if scheme != "aes-kw":
        try:
            usage, mode = _USAGE[Purpose(key.purpose)]
        except ValueError:
            raise Corrupt("HANDOVER_SET", f"key {key.key_id}: no purpose is called {key.purpose!r}") from None
        return unwrap(kek, key.wrapped, usage, mode, algorithm).key
    try:
        return key_unwrap("aes-kw", kek, bytes.fromhex(key.wrapped))
    except ValueError:
        raise Corrupt("HANDOVER_SET", f"key {key.key_id}: its cryptogram is not hex") from None


def _kcv(key: HandedKey) -> bytes:
    try:
        if key.kcv_method not in KCV_METHODS:
            raise Corrupt("HANDOVER_SET", f"key {key.key_id}: no check value is made by {key.kcv_method!r}")
        return bytes.fromhex(key.kcv)
    except ValueError:
        raise Corrupt("HANDOVER_SET", f"key {key.key_id}: its check value is not hex") from None


def _body(handover: HandoverSet) -> bytes:
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(handover, signature=""))
    return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
