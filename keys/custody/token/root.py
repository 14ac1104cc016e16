"""What a token holds beside masters: its mark (whose it is, test or not), the root secret, and the key that seals the sealed custody.

The root is a GENERIC_SECRET that can only sign: HMAC-SHA256 in the token is HKDF-Expand (RFC 5869, one block), so every key that the
software custody makes of its root is made here without the root ever leaving the token.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, exceptions

from keys.custody.token.cryptoki import CK_ULONG, MechanismCall
from keys.custody.token.records import APPLICATION
from keys.custody.token.session import Live, TokenSession
from keys.errors import Conflict, Corrupt, Denied, NotFound
from keys.secrets import SecretBytes

MARK: Final = "citycard"
ROOT: Final = "citycard:root"
SEAL: Final = "citycard:seal"
_HMAC: Final = MechanismCall(Mechanism.SHA256_HMAC)
_NONCE_LEN: Final = 12
_TAG_LEN: Final = 16


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The data object that makes a token a citycard key store."""

    format: Literal["citycard-token"] = "citycard-token"
    format_version: Literal[1] = 1
    test: bool


def create(live: Live, *, test: bool) -> Mark:
    """Root secret, sealing key, and last the mark. Raises Conflict TOKEN_EXISTS."""
    if _marks(live):
        raise Conflict("TOKEN_EXISTS", "the token is a citycard key store already; it is never made anew")
    for label, kind, uses in (
        (ROOT, KeyType.GENERIC_SECRET, (Attribute.SIGN,)),
        (SEAL, KeyType.AES, (Attribute.ENCRYPT, Attribute.DECRYPT)),
    ):
        if (label, b"") not in live.handles:
            # nothing but what is asked for: an empty set of capabilities, then the uses
            template = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True, Attribute.MODIFIABLE: False}
            template |= dict.fromkeys(uses, True)
            key = live.python.generate_key(kind, 256, label=label, store=True, capabilities=MechanismFlag(0), template=template)
            live.handles[label, b""] = key.handle or 0
    mark = Mark(test=test)
    live.python.create_object(
        {
            Attribute.CLASS: ObjectClass.DATA,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.LABEL: MARK,
            Attribute.APPLICATION: APPLICATION,
            Attribute.VALUE: msgspec.json.encode(mark),
        }
    )
    return mark


def read(live: Live) -> Mark:
    """The mark. Raises NotFound TOKEN_EMPTY, Corrupt TOKEN_RECORD."""
    marks = _marks(live)
    if not marks:
        raise NotFound("TOKEN_EMPTY", "the token is no citycard key store; make it one with `citycard token init`")
    try:
        return msgspec.json.decode(marks[0], type=Mark)
    except msgspec.MsgspecError as error:
        raise Corrupt("TOKEN_RECORD", f"token mark: {error}") from None


def subkey(live: Live, label: str) -> SecretBytes:
    """A 32-byte key for one purpose: HKDF-Expand of the root (RFC 5869 2.3, T(1))."""
    handle = live.handle(ROOT)
    message = b"citycard/" + label.encode() + b"\x01"
    return SecretBytes.fill(
        32, lambda view: live.cryptoki.sign(live.session, handle, _HMAC, message, np.frombuffer(view, np.uint8).ctypes.data, 32)
    )


class _Gcm(ctypes.Structure):
    """CK_GCM_PARAMS, PKCS#11 v2.40 errata 01."""

    _fields_ = (
        ("iv", ctypes.c_void_p),
        ("iv_len", CK_ULONG),
        ("iv_bits", CK_ULONG),
        ("aad", ctypes.c_void_p),
        ("aad_len", CK_ULONG),
        ("tag_bits", CK_ULONG),
    )


@dataclass(frozen=True)
class TokenSealer:
    """Seals the sealed custody's root under an AES-256 key of the token, by AES-GCM in the token."""

    session: TokenSession

    @property
    def name(self) -> str:
        """What opens the store, for people."""
        return f"token {self.session.config.label}"

    def seal(self, secret: SecretBytes, context: bytes) -> bytes:
        """nonce || ciphertext || tag."""
        nonce = os.urandom(_NONCE_LEN)
        size = len(secret) + _TAG_LEN
        out = ctypes.create_string_buffer(size)

        def work(live: Live) -> None:
            call, kept = _gcm(nonce, context)
            with secret.reveal() as raw:
                source = np.frombuffer(raw, np.uint8)
                live.cryptoki.encrypt(live.session, live.handle(SEAL), call, source.ctypes.data, len(source), ctypes.addressof(out), size)
                del source
            del kept

        self.session.run(work)
        return nonce + out.raw

    def unseal(self, sealed: bytes, context: bytes) -> SecretBytes:
        """The secret, from the token straight into locked memory. Raises Denied SEAL_KEY when this token did not seal it so."""
        size = len(sealed) - _NONCE_LEN - _TAG_LEN
        if size < 1:
            raise Denied("SEAL_KEY", "what is sealed was cut short")

        def work(live: Live) -> SecretBytes:
            call, kept = _gcm(sealed[:_NONCE_LEN], context)
            body = ctypes.create_string_buffer(sealed[_NONCE_LEN:], size + _TAG_LEN)
            handle = live.handle(SEAL)

            def into(view: memoryview) -> None:
                target = np.frombuffer(view, np.uint8)
                length = size + _TAG_LEN
                live.cryptoki.decrypt(live.session, handle, call, ctypes.addressof(body), length, target.ctypes.data, length)

            # modules ask for room for the tag as well, though they do not fill it
            with SecretBytes.fill(size + _TAG_LEN, into) as wide:
                secret = SecretBytes(wide.reveal()[:size])
            del kept
            return secret

        def guarded(live: Live) -> SecretBytes:
            try:
                return work(live)
            except (exceptions.EncryptedDataInvalid, exceptions.GeneralError, exceptions.FunctionFailed):
                if not live.cryptoki.session_alive(live.session):
                    raise
                raise Denied("SEAL_KEY", "this token did not seal this store, or the store was changed") from None

        return self.session.run(guarded)


def _gcm(nonce: bytes, context: bytes) -> tuple[MechanismCall, object]:
    """The mechanism, and what it points to, which the caller keeps alive."""
    iv, aad = ctypes.create_string_buffer(nonce, len(nonce)), ctypes.create_string_buffer(context, max(1, len(context)))
    parameters = _Gcm(ctypes.addressof(iv), len(nonce), 8 * len(nonce), ctypes.addressof(aad), len(context), 8 * _TAG_LEN)
    return MechanismCall(Mechanism.AES_GCM, parameters), (iv, aad)


def _marks(live: Live) -> list[bytes]:
    found = live.python.get_objects({Attribute.CLASS: ObjectClass.DATA, Attribute.LABEL: MARK, Attribute.APPLICATION: APPLICATION})
    return [mark[Attribute.VALUE] for mark in found]
