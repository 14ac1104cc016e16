"""How a PIN, a passphrase or a store key travels to the server: sealed to a key that is good for one letter.

X25519 (RFC 7748), HKDF-SHA256 (RFC 5869) over both public keys, AES-256-GCM. Buffers of the wire and of gRPC, which nobody can wipe,
hold the letter only; the server opens it into locked memory. It hides secrets from memory and logs, not from somebody who poses as the
server: until mutual TLS exists a server is on loopback.

Letter: client's public key (32) || nonce (12) || ciphertext and tag of length[2] || secret || length[2] || store key.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keys.errors import Denied, InvalidInput, Precondition
from keys.secrets import SecretBytes

KEY_LEN: Final = 32
NONCE_LEN: Final = 12
TAG_LEN: Final = 16
MAX_SECRET_LEN: Final = 1024


def close_letter(server_key: bytes, secret: SecretBytes | None, store_key: SecretBytes | None) -> bytes:
    """The client's side; what is not given is empty."""
    mine = X25519PrivateKey.generate()
    public = mine.public_key().public_bytes_raw()
    with _plain(secret, store_key) as plain, plain.reveal() as raw, _key(mine, server_key, server_key, public) as key:
        nonce = os.urandom(NONCE_LEN)
        with key.reveal() as held:
            return public + nonce + AESGCM(held).encrypt(nonce, raw, None)


class UnsealBox:
    """The server's side. A new `public_key` makes the one before it worthless; so does its use."""

    def __init__(self) -> None:
        self._mine: X25519PrivateKey | None = None

    def public_key(self) -> bytes:
        """A fresh public key."""
        self._mine = X25519PrivateKey.generate()
        return self._mine.public_key().public_bytes_raw()

    def open(self, public_key: bytes, letter: bytes) -> tuple[SecretBytes | None, SecretBytes | None]:
        """Secret and store key. Raises Precondition UNSEAL_STALE, InvalidInput UNSEAL_LETTER, Denied UNSEAL_LETTER."""
        mine, self._mine = self._mine, None
        if mine is None or mine.public_key().public_bytes_raw() != public_key:
            raise Precondition("UNSEAL_STALE", "somebody else began to unseal, or it was done already: begin again")
        if not KEY_LEN + NONCE_LEN + TAG_LEN + 4 <= len(letter) <= MAX_SECRET_LEN:
            raise InvalidInput("UNSEAL_LETTER", f"the sealed secret has a wrong length: {len(letter)} bytes")
        theirs, nonce, sealed = letter[:KEY_LEN], letter[KEY_LEN : KEY_LEN + NONCE_LEN], letter[KEY_LEN + NONCE_LEN :]
        try:
            with _key(mine, theirs, public_key, theirs) as key, key.reveal() as held:
                cipher = AESGCM(held)
            plain = SecretBytes.fill(len(sealed) - TAG_LEN, lambda view: cipher.decrypt_into(nonce, sealed, None, view))
        except (InvalidTag, ValueError):
            raise Denied("UNSEAL_LETTER", "the sealed secret does not open: it was changed, or sealed to another key") from None
        with plain, plain.reveal() as raw:
            first = int.from_bytes(raw[:2], "big")
            second = int.from_bytes(raw[2 + first : 4 + first], "big")
            if 4 + first + second != len(raw):
                raise InvalidInput("UNSEAL_LETTER", "the sealed secret has a wrong form")
            return _part(raw[2 : 2 + first]), _part(raw[4 + first :])


def _part(raw: memoryview) -> SecretBytes | None:
    return SecretBytes(raw) if len(raw) else None


def _plain(secret: SecretBytes | None, store_key: SecretBytes | None) -> SecretBytes:
    lengths = [0 if part is None else len(part) for part in (secret, store_key)]

    def write(view: memoryview) -> None:
        at = 0
        for part, length in zip((secret, store_key), lengths, strict=True):
            view[at : at + 2] = length.to_bytes(2, "big")
            if part is not None:
                with part.reveal() as raw:
                    view[at + 2 : at + 2 + length] = raw
            at += 2 + length

    return SecretBytes.fill(sum(lengths) + 4, write)


def _key(mine: X25519PrivateKey, theirs: bytes, server_key: bytes, client_key: bytes) -> SecretBytes:
    shared = mine.exchange(X25519PublicKey.from_public_bytes(theirs))
    kdf = HKDF(SHA256(), 32, server_key + client_key, b"citycard/unseal")
    return SecretBytes(kdf.derive(shared))
