"""The derivation witness of a token: one card key made again by another way than the bulk one.

The formulas are those of `keys.witness`, the calls those of python-pkcs11, one block at a time; nothing of `compose`, `hostclear`,
`inside` or `cryptoki` is used. Runs on the PKCS#11 thread.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from pkcs11 import DEFAULT, Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from keys import witness
from keys.algorithms import Algorithm
from keys.custody import Derivation
from keys.custody.token.records import Entry
from keys.custody.token.session import Live
from keys.errors import NotFound, Unsupported
from keys.hierarchy import MasterKeyRecord
from keys.kcv import DEFAULT_METHOD
from keys.secrets import BytesLike, SecretBytes

_ECB: Final[dict[Algorithm, Mechanism]] = {"3des": Mechanism.DES3_ECB, "aes": Mechanism.AES_ECB}


def card_key(live: Live, record: MasterKeyRecord, derivation: Derivation, factor: BytesLike) -> SecretBytes:
    """The card key of a host-clear master."""
    key, mechanism = _find(live, record), _ECB[derivation.algorithm]
    return SecretBytes.move(witness.card_key(derivation, lambda blocks: key.encrypt(blocks, mechanism=mechanism), factor))


def wrapped(live: Live, master: Entry, derivation: Derivation, factor: BytesLike, kek: Entry, scheme: str) -> tuple[bytes, bytes]:
    """Cryptogram and check value of one card key."""
    algorithm = derivation.algorithm
    if master.policy.custody == "host-clear":
        with card_key(live, master.record, derivation, factor) as key:
            check = witness.check_value(algorithm, key.reveal(), DEFAULT_METHOD[algorithm])
            return _wrap_clear(live, kek, scheme, algorithm, key), check
    return inside(live, master, derivation, factor, _find(live, kek.record), scheme)


def passing_kek(live: Live) -> Any:  # noqa: ANN401
    """An AES key object of this session, born in the token, that only wraps and cannot be read: for comparing what two ways made."""
    template = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.WRAP: True}
    return live.python.generate_key(KeyType.AES, 128, store=False, capabilities=MechanismFlag(0), template=template)


def _wrap_clear(live: Live, kek: Entry, scheme: str, algorithm: Algorithm, key: SecretBytes) -> bytes:
    """A clear key under a KEK that encrypts, by the witness's own formulas; under one that wraps, by C_WrapKey of a session object."""
    over = _find(live, kek.record)
    if kek.policy.custody == "host-clear":
        mechanism = _ECB[kek.record.algorithm]
        return witness.wrap(scheme, algorithm, lambda blocks: over.encrypt(blocks, mechanism=mechanism), key.reveal())
    clear = live.python.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
            Attribute.TOKEN: False,
            Attribute.EXTRACTABLE: True,
            Attribute.VALUE: bytes(key.reveal()),
        }
    )
    try:
        return _wrap(over, clear, scheme, algorithm)
    finally:
        clear.destroy()


def inside(live: Live, master: Entry, derivation: Derivation, factor: BytesLike, over: Any, scheme: str) -> tuple[bytes, bytes]:  # noqa: ANN401
    """A card key of a token-only master: derived, checked and wrapped under the key object `over`, as objects of the token."""
    algorithm, made = derivation.algorithm, []

    def derived(base: Any, kind: Algorithm | None, blocks: bytes, use: MechanismFlag) -> Any:  # noqa: ANN401
        made.append(_derived(base, kind, blocks, use, algorithm))
        return made[-1]

    base = _find(live, master.record)
    try:
        for upper in derivation.upper_factors:
            base = derived(base, algorithm, bytes(upper) + witness.invert(upper), MechanismFlag.DERIVE)
        last = _last_block(replace(derivation, upper_factors=(), parity="none"), factor, lambda blocks: _readable(base, algorithm, blocks))
        checked = derived(base, algorithm, last, MechanismFlag.ENCRYPT)
        block = bytes([DEFAULT_METHOD[algorithm] == "one-block"]) * (8 if algorithm == "3des" else 16)
        check = checked.encrypt(block, mechanism=_ECB[algorithm])[:3]
        as_bytes = checked if algorithm == "aes" or derivation.parity == "odd" else derived(base, None, last, MechanismFlag(0))
        return _wrap(over, as_bytes, scheme, algorithm), check
    finally:
        for key in made:
            key.destroy()


def _last_block(derivation: Derivation, factor: BytesLike, ask: Callable[[bytes], bytes]) -> bytes:
    """What the witness's formula encrypts last, whose encryption is the card key: found without ever asking for it.

    A first run with made-up answers shows which of them become the key; in the second those questions are kept instead of asked.
    """
    made_up: list[bytes] = []

    def pretend(blocks: bytes) -> bytes:
        made_up.append(os.urandom(len(blocks)))
        return made_up[-1]

    key = bytes(witness.card_key(derivation, pretend, factor))
    last = {at for at, answer in enumerate(made_up) if answer in key}
    kept, asked = [], itertools.count()

    def answer(blocks: bytes) -> bytes:
        if next(asked) not in last:
            return ask(blocks)
        kept.append(blocks)
        return bytes(len(blocks))

    witness.card_key(derivation, answer, factor)
    return b"".join(kept)


def _find(live: Live, record: MasterKeyRecord) -> Any:  # noqa: ANN401 - python-pkcs11 makes the class of a key when it sees it
    for key in live.python.get_objects(
        {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: record.key_id, Attribute.ID: bytes([record.version])}
    ):
        return key
    raise NotFound("TOKEN_KEY_MISSING", f"the token has a record of key {record.key_id} but not the key itself")


def _derived(base: Any, algorithm: Algorithm | None, blocks: bytes, use: MechanismFlag, by: Algorithm) -> Any:  # noqa: ANN401
    """A sensitive key object of 16 bytes derived under a key of `by`: a cipher key, or for None bytes that are only wrapped."""
    kind = {"3des": KeyType.DES2, "aes": KeyType.AES, None: KeyType.GENERIC_SECRET}[algorithm]
    template: dict[Attribute, Any] = {Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: True}
    if kind is KeyType.DES2:
        template[Attribute.VALUE_LEN] = DEFAULT
    mechanism, parameter, kept = _encrypt_data(by, blocks)
    made = base.derive_key(kind, 128, capabilities=use, mechanism=mechanism, mechanism_param=parameter, template=template)
    del kept
    return made


def _readable(base: Any, algorithm: Algorithm, blocks: bytes) -> bytes:  # noqa: ANN401
    mechanism, parameter, kept = _encrypt_data(algorithm, blocks)
    template = {Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False, Attribute.PRIVATE: False}
    made = base.derive_key(
        KeyType.GENERIC_SECRET,
        8 * len(blocks),
        capabilities=MechanismFlag(0),
        mechanism=mechanism,
        mechanism_param=parameter,
        template=template,
    )
    del kept
    value = bytes(made[Attribute.VALUE])
    made.destroy()
    return value


def _encrypt_data(algorithm: Algorithm, blocks: bytes) -> tuple[Mechanism, bytes, object]:
    """python-pkcs11 packs the AES parameter itself and takes the DES one as the bytes of CK_KEY_DERIVATION_STRING_DATA."""
    if algorithm == "aes":
        return Mechanism.AES_ECB_ENCRYPT_DATA, blocks, None
    kept = ctypes.create_string_buffer(blocks, len(blocks))
    return Mechanism.DES3_ECB_ENCRYPT_DATA, struct.pack("@PL", ctypes.addressof(kept), len(blocks)), kept


def _wrap(kek: Any, key: Any, scheme: str, algorithm: Algorithm) -> bytes:  # noqa: ANN401
    if scheme in ("aes-kw", "aes-kwp"):
        return bytes(kek.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP if scheme == "aes-kw" else Mechanism.AES_KEY_WRAP_PAD))
    if algorithm != "aes":
        raise Unsupported("TOKEN_WRAP", f"a token wraps {algorithm} keys by aes-kw or aes-kwp, not by {scheme}")
    return bytes(kek.wrap_key(key, mechanism=Mechanism.AES_CBC, mechanism_param=bytes(16)))
