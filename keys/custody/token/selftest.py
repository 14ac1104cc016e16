"""Known answers of a token, asked after every log-in and before the first key is used."""

from __future__ import annotations

import ctypes
import hmac
from typing import Final

from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from keys.custody.token.cryptoki import Attributes, Cryptoki, MechanismCall, StringData, Template
from keys.errors import Corrupt

# PBOC dispersion of the published test master (JR/T 0025.2 form); FIPS 197 C.1; NIST SP 800-38B D.1; RFC 3394 4.1.
_TDES_KEY: Final = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
_TDES_BLOCKS: Final = bytes.fromhex("90123456789012456FEDCBA9876FEDBA")
_TDES_ANSWER: Final = bytes.fromhex("DF960049EAA141B971DA2BED0482391B")
_AES_KEY: Final = bytes(range(16))
_AES_BLOCK: Final = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
_AES_ANSWER: Final = bytes.fromhex("69C4E0D86A7B0430D8CDB78070B4C55A")
_KW_ANSWER: Final = bytes.fromhex("1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5")


def require_known_answers(cryptoki: Cryptoki, session: int) -> None:
    """Raises Corrupt SELF_TEST naming what a token computes wrongly, PKCS11Error when it does not compute at all."""
    asked = {
        "DES3-ECB": (_encrypted(cryptoki, session, KeyType.DES2, _TDES_KEY, Mechanism.DES3_ECB, _TDES_BLOCKS), _TDES_ANSWER),
        "AES-ECB": (_encrypted(cryptoki, session, KeyType.AES, _AES_KEY, Mechanism.AES_ECB, _AES_BLOCK), _AES_ANSWER),
        "DES3-ECB-ENCRYPT-DATA": (
            _derived(cryptoki, session, KeyType.DES2, _TDES_KEY, Mechanism.DES3_ECB_ENCRYPT_DATA, _TDES_BLOCKS),
            _TDES_ANSWER,
        ),
        "AES-ECB-ENCRYPT-DATA": (
            _derived(cryptoki, session, KeyType.AES, _AES_KEY, Mechanism.AES_ECB_ENCRYPT_DATA, _AES_BLOCK),
            _AES_ANSWER,
        ),
        "AES-KEY-WRAP": (_wrapped(cryptoki, session), _KW_ANSWER),
    }
    for name, (found, known) in asked.items():
        if not hmac.compare_digest(found, known):
            raise Corrupt("SELF_TEST", f"self-test: the token computes {name} wrongly; it is not used")


def _key(cryptoki: Cryptoki, session: int, kind: KeyType, value: bytes, use: Attribute) -> int:
    kept = ctypes.create_string_buffer(value, len(value))
    template: Attributes = {
        Attribute.CLASS: int(ObjectClass.SECRET_KEY),
        Attribute.KEY_TYPE: int(kind),
        Attribute.TOKEN: False,
        Attribute.EXTRACTABLE: True,
        use: True,
        Attribute.VALUE: (ctypes.addressof(kept), len(value)),
    }
    return cryptoki.create(session, Template(template))


def _encrypted(cryptoki: Cryptoki, session: int, kind: KeyType, value: bytes, mechanism: Mechanism, blocks: bytes) -> bytes:
    key = _key(cryptoki, session, kind, value, Attribute.ENCRYPT)
    source, target = ctypes.create_string_buffer(blocks, len(blocks)), ctypes.create_string_buffer(len(blocks))
    cryptoki.encrypt(session, key, MechanismCall(mechanism), ctypes.addressof(source), len(blocks), ctypes.addressof(target), len(blocks))
    cryptoki.destroy(session, key)
    return target.raw


def _derived(cryptoki: Cryptoki, session: int, kind: KeyType, value: bytes, mechanism: Mechanism, blocks: bytes) -> bytes:
    key = _key(cryptoki, session, kind, value, Attribute.DERIVE)
    source, target = ctypes.create_string_buffer(blocks, len(blocks)), ctypes.create_string_buffer(len(blocks))
    call = MechanismCall(mechanism, StringData(ctypes.addressof(source), len(blocks)))
    derived = cryptoki.derive(
        session,
        key,
        call,
        Template(
            {
                Attribute.CLASS: int(ObjectClass.SECRET_KEY),
                Attribute.KEY_TYPE: int(KeyType.GENERIC_SECRET),
                Attribute.VALUE_LEN: len(blocks),
                Attribute.TOKEN: False,
                Attribute.SENSITIVE: False,
                Attribute.EXTRACTABLE: True,
            }
        ),
    )
    cryptoki.read(session, derived, Attribute.VALUE, ctypes.addressof(target), len(blocks))
    cryptoki.destroy(session, derived)
    cryptoki.destroy(session, key)
    return target.raw


def _wrapped(cryptoki: Cryptoki, session: int) -> bytes:
    kek = _key(cryptoki, session, KeyType.AES, _AES_KEY, Attribute.WRAP)
    key = _key(cryptoki, session, KeyType.AES, _AES_BLOCK, Attribute.ENCRYPT)
    target = ctypes.create_string_buffer(len(_KW_ANSWER))
    cryptoki.wrap(session, kek, MechanismCall(Mechanism.AES_KEY_WRAP), key, ctypes.addressof(target), len(_KW_ANSWER))
    for handle in (kek, key):
        cryptoki.destroy(session, handle)
    return target.raw
