"""What a ceremony needs besides the place its keys go to: a signature under its record, and rest for pieces between two custodians.

Records are signed by an Ed25519 key that a custody's own root gives anew each time. A piece at rest is under AES-256-GCM with a key of its
ceremony; destroying that key destroys what rests under it. The clerk is apart from the vault because a sealed store can neither sign nor
keep anything before it is open, and opening it is a ceremony too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag

from keys.ceremony.record import sync_directory, write_durably
from keys.custody.sealing import random_secret, seal, unseal
from keys.custody.software import SoftwareCustody
from keys.custody.token import TokenCustody
from keys.custody.token.cryptoki import MechanismCall
from keys.custody.token.session import Live
from keys.errors import Corrupt, NotFound
from keys.secrets import SecretBytes

PAUSE_KEY_LEN: Final = 32
_LABEL: Final = "citycard:ceremony:"
_HMAC: Final = MechanismCall(Mechanism.SHA256_HMAC)
_PAUSE: Final = b"citycard/ceremony-pause\x01"


class Clerk(ABC):
    """Signs, and keeps pieces. Every operation is durable when it returns."""

    def __init__(self, custody: SoftwareCustody | TokenCustody) -> None:
        """`custody` gives the signing key; closing it is its opener's business."""
        self._custody = custody

    @property
    def test(self) -> bool:
        """Whether this is a clerk for test keys only."""
        return self._custody.test

    def public_key(self) -> bytes:
        """The Ed25519 key that records are signed with, 32 bytes; the same for the life of the custody."""
        return self._signer().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature (RFC 8032), 64 bytes."""
        return self._signer().sign(message)

    def _signer(self) -> Ed25519PrivateKey:
        with self._custody.hmac_key("ceremony-record") as seed, seed.reveal() as raw:
            return Ed25519PrivateKey.from_private_bytes(raw)

    @abstractmethod
    def open_pause(self, ceremony_id: str) -> None:
        """Makes the key of one ceremony, under which accepted pieces rest; does nothing when it is there."""

    @abstractmethod
    def close_pause(self, ceremony_id: str) -> None:
        """Destroys that key, and with it everything that rests under it; does nothing when it is gone."""

    @abstractmethod
    def _pause_key(self, ceremony_id: str) -> SecretBytes:
        """The 32-byte key of a ceremony. Raises NotFound PAUSE_KEY_MISSING."""

    def pause_wrap(self, ceremony_id: str, secret: SecretBytes, context: bytes) -> bytes:
        """`secret` under that key, bound to `context`. Raises NotFound PAUSE_KEY_MISSING."""
        with self._pause_key(ceremony_id) as key:
            return bytes.fromhex(seal(key, secret, context))

    def pause_unwrap(self, ceremony_id: str, wrapped: bytes, context: bytes) -> SecretBytes:
        """The secret. Raises NotFound PAUSE_KEY_MISSING, Corrupt PAUSE_CORRUPT."""
        with self._pause_key(ceremony_id) as key:
            return _unsealed(key, wrapped, context, "a component at rest was changed, or is another ceremony's")


class SoftwareClerk(Clerk):
    """Beside the key store in `directory`: one file for each open ceremony, its pause key under the store's root."""

    def __init__(self, directory: Path, custody: SoftwareCustody) -> None:
        """See `Clerk`."""
        super().__init__(custody)
        self._directory = directory

    def open_pause(self, ceremony_id: str) -> None:
        """See `Clerk.open_pause`."""
        path = self._file(ceremony_id)
        if not path.exists():
            with self._custody.hmac_key("ceremony-pause") as root, random_secret(PAUSE_KEY_LEN) as key:
                write_durably(path, bytes.fromhex(seal(root, key, ceremony_id.encode())))

    def close_pause(self, ceremony_id: str) -> None:
        """See `Clerk.close_pause`."""
        path = self._file(ceremony_id)
        if path.exists():
            path.unlink()
            sync_directory(self._directory)

    def _file(self, ceremony_id: str) -> Path:
        return self._directory / f"ceremony-{ceremony_id}.key"

    def _pause_key(self, ceremony_id: str) -> SecretBytes:
        path = self._file(ceremony_id)
        if not path.exists():
            raise _missing(ceremony_id)
        with self._custody.hmac_key("ceremony-pause") as root:
            return _unsealed(root, path.read_bytes(), ceremony_id.encode(), f"the key of ceremony {ceremony_id} was changed")


class TokenClerk(Clerk):
    """The key of a ceremony is an object of the token that can only sign; HMAC-SHA256 of it is what pieces rest under."""

    def __init__(self, custody: TokenCustody) -> None:
        """See `Clerk`."""
        super().__init__(custody)
        self.custody = custody

    def open_pause(self, ceremony_id: str) -> None:
        """See `Clerk.open_pause`. Raises Exhausted TOKEN_FULL, Unavailable TOKEN_GONE."""

        def work(live: Live) -> None:
            label = _LABEL + ceremony_id
            if (label, b"") in live.handles:
                return
            template = {
                Attribute.SENSITIVE: True,
                Attribute.EXTRACTABLE: False,
                Attribute.PRIVATE: True,
                Attribute.MODIFIABLE: False,
                Attribute.SIGN: True,
            }
            made = live.python.generate_key(
                KeyType.GENERIC_SECRET, 8 * PAUSE_KEY_LEN, label=label, store=True, capabilities=MechanismFlag(0), template=template
            )
            live.handles[label, b""] = made.handle or 0

        self.custody.session.run(work, storing=True)

    def close_pause(self, ceremony_id: str) -> None:
        """See `Clerk.close_pause`."""

        def work(live: Live) -> None:
            handle = live.handles.pop((_LABEL + ceremony_id, b""), None)
            if handle is not None:
                live.cryptoki.destroy(live.session, handle)

        self.custody.session.run(work, storing=True)

    def _pause_key(self, ceremony_id: str) -> SecretBytes:
        def work(live: Live) -> SecretBytes:
            handle = live.handles.get((_LABEL + ceremony_id, b""))
            if handle is None:
                raise _missing(ceremony_id)

            def into(view: memoryview) -> None:
                live.cryptoki.sign(live.session, handle, _HMAC, _PAUSE, np.frombuffer(view, np.uint8).ctypes.data, PAUSE_KEY_LEN)

            return SecretBytes.fill(PAUSE_KEY_LEN, into)

        return self.custody.session.run(work)


def _unsealed(key: SecretBytes, wrapped: bytes, context: bytes, fault: str) -> SecretBytes:
    try:
        return unseal(key, wrapped.hex(), context)
    except (InvalidTag, Corrupt):
        raise Corrupt("PAUSE_CORRUPT", fault) from None


def _missing(ceremony_id: str) -> NotFound:
    return NotFound("PAUSE_KEY_MISSING", f"the key of ceremony {ceremony_id} is gone: its components cannot be read any more")
