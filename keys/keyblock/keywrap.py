"""AES key wrap: KW (RFC 3394; NIST SP 800-38F 6.2) and, for keys of any length, KWP (RFC 5649; SP 800-38F 6.3).

Written out here because the usual libraries hand the unwrapped key over as an object that cannot be wiped; AES itself is OpenSSL's.
"""

from __future__ import annotations

import hmac
from typing import Final, Literal

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from keys.errors import Denied, InvalidInput
from keys.secrets import BytesLike, SecretBytes

KeyWrap = Literal["aes-kw", "aes-kwp"]

_HALF: Final = 8
_BLOCK: Final = 16
_STEPS: Final = 6
# what a cipher asks of an output buffer beyond its output
_SPARE: Final = 15
_ICV: Final = bytes.fromhex("A6A6A6A6A6A6A6A6")  # RFC 3394 2.2.3.1
_AIV: Final = bytes.fromhex("A65959A6")  # RFC 5649 3, followed by the key's length in 32 bits


def key_wrap(scheme: KeyWrap, kek: SecretBytes, key: SecretBytes) -> bytes:
    """`key` wrapped, 8 bytes longer (KWP: first filled to whole 8 bytes). Raises InvalidInput (KEK_LENGTH, KEY_LENGTH)."""
    _check_kek(kek)
    length = len(key)
    if scheme == "aes-kw" and (length < _BLOCK or length % _HALF):
        raise InvalidInput("KEY_LENGTH", "AES-KW wraps 16, 24, 32... bytes; AES-KWP wraps any number")
    if not length:
        raise InvalidInput("KEY_LENGTH", "there is no key of no bytes")

    def write(view: memoryview) -> None:
        view[:_HALF] = _ICV if scheme == "aes-kw" else _AIV + length.to_bytes(4, "big")
        view[_HALF : _HALF + length] = key.reveal()
        with kek.reveal() as over:
            _wrap(Cipher(AES(over), modes.ECB()).encryptor(), view)  # noqa: S305 - the standard's own building block

    with SecretBytes.fill(_HALF + -(-length // _HALF) * _HALF, write) as wrapped:
        return bytes(wrapped.reveal())


def key_unwrap(scheme: KeyWrap, kek: SecretBytes, wrapped: BytesLike) -> SecretBytes:
    """The key. Raises InvalidInput KEK_LENGTH, Denied KEY_BLOCK for a wrong KEK and for anything changed."""
    _check_kek(kek)
    size = len(wrapped)
    if size % _HALF or size < (3 * _HALF if scheme == "aes-kw" else _BLOCK):
        raise _refused()

    def write(view: memoryview) -> None:
        view[:] = wrapped
        with kek.reveal() as over:
            _unwrap(Cipher(AES(over), modes.ECB()).decryptor(), view)  # noqa: S305 - the standard's own building block

    with SecretBytes.fill(size, write) as opened, opened.reveal() as raw:
        length = size - _HALF
        if scheme == "aes-kw":
            sound = hmac.compare_digest(raw[:_HALF], _ICV)
        else:
            claimed = int.from_bytes(raw[4:_HALF], "big")
            fits = length - _HALF < claimed <= length
            length = claimed if fits else length
            padding = raw[_HALF + length :]
            sound = hmac.compare_digest(raw[:4], _AIV) & fits & hmac.compare_digest(padding, bytes(len(padding)))
        if not sound:
            raise _refused()
        return SecretBytes(raw[_HALF : _HALF + length])


def _wrap(cipher: CipherContext, work: memoryview) -> None:
    """RFC 3394 2.2.1, index-based, in place: the first 8 bytes are A. One block alone is enciphered as it is (RFC 5649 4.1)."""
    count = len(work) // _HALF - 1
    if count == 1:
        _block(cipher, work[:_HALF], work[_HALF:])
        return
    for step in range(_STEPS):
        for at in range(1, count + 1):
            _block(cipher, work[:_HALF], work[at * _HALF : (at + 1) * _HALF])
            _count(work, count * step + at)


def _unwrap(cipher: CipherContext, work: memoryview) -> None:
    """RFC 3394 2.2.2, and RFC 5649 4.2 for one block alone."""
    count = len(work) // _HALF - 1
    if count == 1:
        _block(cipher, work[:_HALF], work[_HALF:])
        return
    for step in reversed(range(_STEPS)):
        for at in range(count, 0, -1):
            _count(work, count * step + at)
            _block(cipher, work[:_HALF], work[at * _HALF : (at + 1) * _HALF])


def _block(cipher: CipherContext, first: memoryview, second: memoryview) -> None:
    """One block of two halves, in place."""

    def write(view: memoryview) -> None:
        view[:_HALF] = first
        view[_HALF:_BLOCK] = second

    def run(view: memoryview) -> None:
        with SecretBytes.fill(_BLOCK, write) as plain, plain.reveal() as raw:
            cipher.update_into(raw, view)

    with SecretBytes.fill(_BLOCK + _SPARE, run) as made, made.reveal() as raw:
        first[:] = raw[:_HALF]
        second[:] = raw[_HALF:_BLOCK]


def _count(work: memoryview, number: int) -> None:
    for at, byte in enumerate(number.to_bytes(_HALF, "big")):
        work[at] ^= byte


def _refused() -> Denied:
    return Denied("KEY_BLOCK", "the key was not wrapped under this key-encryption key, or was changed")


def _check_kek(kek: SecretBytes) -> None:
    if len(kek) not in (16, 24, 32):
        raise InvalidInput("KEK_LENGTH", f"an AES key-encryption key has 16, 24 or 32 bytes, not {len(kek)}")
