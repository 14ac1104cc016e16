"""One card's keys inside the token: under the card's DEK on their way to the chip, and asked afterwards for what the chip must answer.

Key objects live for one piece of work only. A key that the card got in 3DES has forced odd parity as an object of SoftHSM; DES does not
look at parity, so check values and answers are the same, and where the card is to get the bytes as the method gave them they are wrapped
from a second object without a cipher.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pkcs11 import Attribute, KeyType, Mechanism

from keys.algorithms import BLOCK_LEN, Algorithm
from keys.custody import Derivation
from keys.custody.token import inside, objects
from keys.custody.token.cryptoki import MechanismCall, Template
from keys.custody.token.records import Entry
from keys.custody.token.session import Live
from keys.secrets import BytesLike

ByteArray = npt.NDArray[np.uint8]

BLOCK: Final = 16
KCV_LEN: Final = 3
# Templates are read only: one of each kind serves all card keys.
_LEAVES, _ASKED, _DERIVES = (
    {algorithm: objects.session_template(kind, use, extractable=extractable) for algorithm, kind in objects.KEY_TYPES.items()}
    for use, extractable in ((Attribute.ENCRYPT, True), (Attribute.ENCRYPT, False), (Attribute.DERIVE, False))
)
_RAW: Final = objects.session_template(KeyType.GENERIC_SECRET, extractable=True)
_CBC: Final[dict[Algorithm, MechanismCall]] = {"3des": MechanismCall(Mechanism.DES3_CBC, bytes(8)), "aes": objects.AES_CBC}


class CardKey(NamedTuple):
    """A card key that is wanted: how it descends, and the card's own factor (f,)."""

    derivation: Derivation
    factor: ByteArray


class Held(NamedTuple):
    """The same with its master as the custody found it."""

    wanted: CardKey
    master: Entry

    def place(self, live: Live) -> tuple[int, ByteArray]:
        """As `inside.place`, for this one card: object, and 16 bytes."""
        record = self.master.record
        handle = live.handle(record.key_id, objects.ident(record.version))
        base, blocks = inside.place(live, handle, self.wanted.derivation, self.wanted.factor.reshape(1, -1))
        return base, np.ascontiguousarray(blocks[0])


class Wrapped(NamedTuple):
    """16 bytes under the DEK; the check value (3 bytes) of a key, nothing for other secrets."""

    cryptogram: bytes
    kcv: bytes


Secret = Held | BytesLike
"""One block of a span: a card key, or 16 bytes that the host knows (a PIN block)."""


def wrap_span(live: Live, dek: int, span: Sequence[Secret]) -> list[Wrapped]:
    """A span of 16-byte secrets in AES-CBC, zero IV, no padding (GPC Amendment D 6.2.8): each is wrapped with the last cryptogram as IV."""
    made: list[Wrapped] = []
    for secret in span:
        call = MechanismCall(Mechanism.AES_CBC, made[-1].cryptogram) if made else objects.AES_CBC
        made.append(_wrap_key(live, dek, call, secret) if isinstance(secret, Held) else _wrap_known(live, dek, call, secret))
    return made


def ecb(live: Live, key: Held, blocks: bytes) -> bytes:
    """Whole blocks encrypted one by one under a card key: the answer to INTERNAL AUTHENTICATE."""
    algorithm = key.wanted.derivation.algorithm
    base, last = key.place(live)
    with derived(live, base, algorithm, last, _ASKED[algorithm]) as handle:
        return encrypt(live, handle, objects.ECB[algorithm], blocks)


def session_cbc_mac(live: Live, key: Held, seed: bytes, blocks: bytes) -> bytes:
    """The last block of CBC, zero IV, over whole blocks under the session key that is the encryption of the 16-byte seed under a card key.

    Single DES is 3DES with the same half twice: a seed of the same eight bytes twice.
    """
    algorithm = key.wanted.derivation.algorithm
    base, last = key.place(live)
    with (
        derived(live, base, algorithm, last, _DERIVES[algorithm]) as card,
        derived(live, card, algorithm, np.frombuffer(seed, np.uint8), _ASKED[algorithm]) as session,
    ):
        return encrypt(live, session, _CBC[algorithm], blocks)[-BLOCK_LEN[algorithm] :]


@contextmanager
def derived(live: Live, base: int, algorithm: Algorithm, blocks: ByteArray, template: Template) -> Iterator[int]:
    """The key object that is the encryption of 16 bytes under `base`, a key of `algorithm`; gone with the block."""
    handle = objects.derive(live, base, algorithm, blocks, template)
    try:
        yield handle
    finally:
        live.cryptoki.destroy(live.session, handle)


def encrypt(live: Live, handle: int, call: MechanismCall, blocks: bytes) -> bytes:
    """Whole blocks of what is no key, in one C_Encrypt."""
    source, target = ctypes.create_string_buffer(blocks, len(blocks)), ctypes.create_string_buffer(len(blocks))
    live.cryptoki.encrypt(live.session, handle, call, ctypes.addressof(source), len(blocks), ctypes.addressof(target), len(blocks))
    return target.raw


def _wrap_key(live: Live, dek: int, call: MechanismCall, key: Held) -> Wrapped:
    derivation = key.wanted.derivation
    algorithm = derivation.algorithm
    base, last = key.place(live)
    with derived(live, base, algorithm, last, _LEAVES[algorithm]) as handle:
        kcv = encrypt(live, handle, objects.ECB[algorithm], objects.check_block(algorithm))[:KCV_LEN]
        if algorithm == "aes" or derivation.parity == "odd":
            return Wrapped(_wrap(live, dek, call, handle), kcv)
    with derived(live, base, algorithm, last, _RAW) as handle:
        return Wrapped(_wrap(live, dek, call, handle), kcv)


def _wrap_known(live: Live, dek: int, call: MechanismCall, secret: BytesLike) -> Wrapped:
    """The DEK only wraps, so what the host knows becomes an object first."""
    known = np.frombuffer(secret, np.uint8)
    handle = live.cryptoki.create(live.session, objects.clear_template(KeyType.GENERIC_SECRET, known.ctypes.data))
    try:
        return Wrapped(_wrap(live, dek, call, handle), b"")
    finally:
        live.cryptoki.destroy(live.session, handle)


def _wrap(live: Live, dek: int, call: MechanismCall, handle: int) -> bytes:
    out = ctypes.create_string_buffer(BLOCK)
    live.cryptoki.wrap(live.session, dek, call, handle, ctypes.addressof(out), BLOCK)
    return out.raw
