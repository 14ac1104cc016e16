"""Key objects in a token: how they are made, what they may do, and their check values.

A key can do one thing only. A master of policy `host-clear` has CKA_ENCRYPT, one of policy `token-only` CKA_DERIVE; a key-encryption key
has CKA_ENCRYPT or CKA_WRAP. All are sensitive, not extractable and not modifiable.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, exceptions

from keys.algorithms import BLOCK_LEN, Algorithm
from keys.custody.policy import KeyPolicy
from keys.custody.token.cryptoki import Attributes, MechanismCall, StringData, Template
from keys.custody.token.session import Live
from keys.errors import Corrupt, Unsupported
from keys.hierarchy import MasterKeyRecord, Purpose
from keys.kcv import DEFAULT_METHOD
from keys.secrets import SecretBytes

ByteArray = npt.NDArray[np.uint8]

KEY_TYPES: Final[dict[Algorithm, KeyType]] = {"3des": KeyType.DES2, "aes": KeyType.AES}
ECB: Final[dict[Algorithm, MechanismCall]] = {"3des": MechanismCall(Mechanism.DES3_ECB), "aes": MechanismCall(Mechanism.AES_ECB)}
AES_CBC: Final = MechanismCall(Mechanism.AES_CBC, bytes(16))
ENCRYPT_DATA: Final[dict[Algorithm, Mechanism]] = {
    "3des": Mechanism.DES3_ECB_ENCRYPT_DATA,
    "aes": Mechanism.AES_ECB_ENCRYPT_DATA,
}
_USES: Final = (
    Attribute.ENCRYPT,
    Attribute.DECRYPT,
    Attribute.SIGN,
    Attribute.VERIFY,
    Attribute.WRAP,
    Attribute.UNWRAP,
    Attribute.DERIVE,
)


def require_possible(record: MasterKeyRecord, policy: KeyPolicy) -> None:
    """Raises Unsupported TOKEN_ALGORITHM for SM4, which common tokens do not have, and for 3DES keys that shall wrap."""
    if record.algorithm not in KEY_TYPES:
        raise Unsupported("TOKEN_ALGORITHM", f"key {record.key_id}: tokens have no {record.algorithm}; it belongs in the sealed custody")
    if record.algorithm != "aes" and use(record, policy) is Attribute.WRAP:
        raise Unsupported("TOKEN_ALGORITHM", f"key {record.key_id}: tokens wrap under AES keys only, so a token-only KEK is one")


def use(record: MasterKeyRecord, policy: KeyPolicy) -> Attribute:
    """The one thing the key may do."""
    if policy.custody == "host-clear":
        return Attribute.ENCRYPT
    return Attribute.WRAP if record.purpose is Purpose.KEY_ENCRYPTION else Attribute.DERIVE


def ident(version: int) -> bytes:
    """CKA_ID of a version of a key."""
    return bytes([version])


def create(live: Live, record: MasterKeyRecord, policy: KeyPolicy, key: SecretBytes) -> None:
    """The key object from its bytes, which go to the token straight from locked memory."""
    with key.reveal() as raw:
        value = np.frombuffer(raw, np.uint8)
        attributes = _attributes(record, policy) | {Attribute.VALUE: (value.ctypes.data, len(value))}
        live.handles[record.key_id, ident(record.version)] = live.cryptoki.create(live.session, Template(attributes))
        del value


def generate(live: Live, record: MasterKeyRecord, policy: KeyPolicy) -> None:
    """A key object that was never outside the token."""
    attributes = _attributes(record, policy)
    kind = KEY_TYPES[record.algorithm]
    for made_by_the_token in (Attribute.CLASS, Attribute.KEY_TYPE):
        del attributes[made_by_the_token]
    template: dict[Attribute, Any] = {
        name: value for name, value in attributes.items() if name not in (Attribute.LABEL, Attribute.ID, Attribute.TOKEN)
    }
    made = live.python.generate_key(
        kind,
        128 if kind is KeyType.AES else None,
        id=ident(record.version),
        label=record.key_id,
        store=True,
        capabilities=MechanismFlag(0),
        template=template,
    )
    live.handles[record.key_id, ident(record.version)] = made.handle or 0


def destroy(live: Live, key_id: str, version: int) -> None:
    """Removes the key object, if there is one."""
    handle = live.handles.pop((key_id, ident(version)), None)
    if handle is not None:
        with suppress(exceptions.ObjectHandleInvalid):  # it was never written
            live.cryptoki.destroy(live.session, handle)
        live.chains.clear()


def inspect(live: Live, record: MasterKeyRecord, policy: KeyPolicy) -> None:
    """Raises Corrupt TOKEN_KEY when an object may do more than its policy says: it was changed, or is not ours."""
    allowed = use(record, policy)
    found = live.python.get_objects(
        {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: record.key_id, Attribute.ID: ident(record.version)}
    )
    for key in list(found):
        has = key.get_attributes([*_USES, Attribute.SENSITIVE, Attribute.EXTRACTABLE])
        uses = [name for name in _USES if has.get(name)]
        if uses != [allowed] or not has.get(Attribute.SENSITIVE) or has.get(Attribute.EXTRACTABLE):
            raise Corrupt("TOKEN_KEY", f"key {record.key_id} in the token may do more than its policy says; it is not used")


def check_value(live: Live, record: MasterKeyRecord, policy: KeyPolicy) -> bytes:
    """KCV of a key object by the usual method of its algorithm, 3 bytes: in the token, by the one thing the key may do."""
    block = check_block(record.algorithm)
    handle = live.handle(record.key_id, ident(record.version))
    out = ctypes.create_string_buffer(16)
    allowed = use(record, policy)
    if allowed is Attribute.ENCRYPT:
        source = ctypes.create_string_buffer(block, len(block))
        live.cryptoki.encrypt(
            live.session, handle, ECB[record.algorithm], ctypes.addressof(source), len(block), ctypes.addressof(out), len(block)
        )
    elif allowed is Attribute.DERIVE:
        derived = ask(live, record.algorithm, handle, np.frombuffer(block * (16 // len(block)), np.uint8))
        return derived[:3].tobytes()
    else:
        # a key that only wraps shows its check value by wrapping a known key
        known = ctypes.create_string_buffer(block * (16 // len(block)), 16)
        key = live.cryptoki.create(live.session, clear_template(KeyType.GENERIC_SECRET, ctypes.addressof(known)))
        live.cryptoki.wrap(live.session, handle, AES_CBC, key, ctypes.addressof(out), 16)
        live.cryptoki.destroy(live.session, key)
    return out.raw[:3]


def check_block(algorithm: Algorithm) -> bytes:
    """What is encrypted for a check value: zeros, or 01s where the usual method says so."""
    return bytes([DEFAULT_METHOD[algorithm] == "one-block"]) * BLOCK_LEN[algorithm]


def ask(live: Live, algorithm: Algorithm, handle: int, blocks: ByteArray) -> ByteArray:
    """Blocks encrypted under a key that only derives: derived as a readable object. Check values and chaining values, never card keys."""
    source = np.ascontiguousarray(blocks)
    out = np.empty_like(source)
    call = MechanismCall(ENCRYPT_DATA[algorithm], StringData(source.ctypes.data, source.nbytes))
    readable = _session_key(KeyType.GENERIC_SECRET) | {
        Attribute.VALUE_LEN: source.nbytes,
        Attribute.SENSITIVE: False,
        Attribute.PRIVATE: False,
    }
    derived = live.cryptoki.derive(live.session, handle, call, Template(readable))
    try:
        live.cryptoki.read(live.session, derived, Attribute.VALUE, out.ctypes.data, out.nbytes)
    finally:
        live.cryptoki.destroy(live.session, derived)
    return out


def derive(live: Live, base: int, algorithm: Algorithm, blocks: ByteArray, template: Template) -> int:
    """The handle of the key object that is the encryption of 16 bytes, contiguous, under `base`, a key of `algorithm`."""
    call = MechanismCall(ENCRYPT_DATA[algorithm], StringData(blocks.ctypes.data, 16))
    return live.cryptoki.derive(live.session, base, call, template)


def session_template(kind: KeyType, *uses: Attribute, extractable: bool) -> Template:
    """A sensitive 16-byte key that lives as long as its session at most. DES2 objects have no length attribute."""
    attributes = _session_key(kind) | {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: extractable}
    if kind is not KeyType.DES2:
        attributes[Attribute.VALUE_LEN] = 16
    return Template(attributes | dict.fromkeys(uses, True))


def clear_template(kind: KeyType, address: int) -> Template:
    """A session key object made of 16 bytes in locked memory, to be wrapped."""
    return Template(_session_key(kind) | {Attribute.SENSITIVE: True, Attribute.VALUE: (address, 16)})


def _session_key(kind: KeyType) -> Attributes:
    # what is not said is for the module to choose, and SoftHSM allows nearly everything
    nothing: Attributes = dict.fromkeys(_USES, False)
    return nothing | {
        Attribute.CLASS: int(ObjectClass.SECRET_KEY),
        Attribute.KEY_TYPE: int(kind),
        Attribute.TOKEN: False,
        Attribute.EXTRACTABLE: True,
    }


def _attributes(record: MasterKeyRecord, policy: KeyPolicy) -> Attributes:
    allowed = use(record, policy)
    made: Attributes = {
        Attribute.CLASS: int(ObjectClass.SECRET_KEY),
        Attribute.KEY_TYPE: int(KEY_TYPES[record.algorithm]),
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.MODIFIABLE: False,
        Attribute.LABEL: record.key_id.encode(),
        Attribute.ID: ident(record.version),
    }
    for name in _USES:
        made[name] = name is allowed
    return made
