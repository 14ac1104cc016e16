"""Policy `token-only`: card keys are derived, checked and wrapped in the token and never appear in the host.

One card key costs four or five calls: C_DeriveKey, C_EncryptInit and C_Encrypt for its check value, C_WrapKey, C_DestroyObject. SoftHSM
sets odd parity on every DES object it derives; where a method wants none, the bytes to be wrapped come from a second object without a
cipher.

What the token enforces: masters cannot be read, wrapped, or used for anything but deriving. What it cannot: a token without derive
templates (CKA_DERIVE_TEMPLATE of PKCS#11 v3.0; SoftHSM 2.6 has none) derives whatever the session asks for, also a card key that can be
read. That only chaining values and check values are ever derived readable is this program's rule; whoever has the PIN could break it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from pkcs11 import Attribute, KeyType, Mechanism

from keys.algorithms import BLOCK_LEN, Algorithm
from keys.custody import Derivation
from keys.custody.token import compose, objects
from keys.custody.token.cryptoki import AES_KEY_WRAP_PAD, MechanismCall, StringData
from keys.custody.token.session import Live
from keys.errors import Unsupported
from keys.secrets import SecretBytes

ByteArray = npt.NDArray[np.uint8]

# Cards in one piece of work on the PKCS#11 thread: some 30 ms, which a card at a station can wait.
CHUNK: Final = 256
_EXPECTED_LEN: Final = {"aes-kw": 24, "aes-kwp": 24, "cbc": 16, "ecb": 16}


def wrap_mechanism(scheme: str, algorithm: Algorithm) -> MechanismCall:
    """How C_WrapKey wraps; raises Unsupported TOKEN_WRAP for a scheme that tokens do not have."""
    if scheme == "aes-kw":
        return MechanismCall(Mechanism.AES_KEY_WRAP)
    if scheme == "aes-kwp":
        return MechanismCall(AES_KEY_WRAP_PAD)
    if algorithm == "aes":  # one block under a zero IV: ECB and CBC are the same
        return objects.AES_CBC
    raise Unsupported("TOKEN_WRAP", f"a token wraps {algorithm} keys by aes-kw or aes-kwp, not by {scheme}")


def derive_wrapped(
    live: Live, master: int, derivation: Derivation, factors: ByteArray, kek: int, scheme: str, cryptograms: ByteArray, kcvs: ByteArray
) -> None:
    """Card keys of n cards under the KEK into `cryptograms` (n, 16 or 24), their check values into `kcvs` (n, 3); both contiguous."""
    algorithm = derivation.algorithm
    wrapping = wrap_mechanism(scheme, algorithm)
    base, blocks = place(live, master, derivation, factors)
    cipher = objects.session_template(objects.KEY_TYPES[algorithm], Attribute.ENCRYPT, extractable=True)
    raw = None if algorithm == "aes" or derivation.parity == "odd" else objects.session_template(KeyType.GENERIC_SECRET, extractable=True)
    data = StringData(0, 16)
    deriving = MechanismCall(objects.ENCRYPT_DATA[algorithm], data)
    size = BLOCK_LEN[algorithm]
    zeros = np.frombuffer(objects.check_block(algorithm), np.uint8).copy()
    checks = np.empty((len(blocks), size), np.uint8)
    cryptoki, session, ecb = live.cryptoki, live.session, objects.ECB[algorithm]
    source, target, check, block = blocks.ctypes.data, cryptograms.ctypes.data, checks.ctypes.data, zeros.ctypes.data
    width = _EXPECTED_LEN[scheme]
    for row in range(len(blocks)):
        data.data = source + 16 * row
        key = cryptoki.derive(session, base, deriving, cipher)
        try:
            cryptoki.encrypt(session, key, ecb, block, size, check + size * row, size)
            if raw is None:
                cryptoki.wrap(session, kek, wrapping, key, target + width * row, width)
        finally:
            cryptoki.destroy(session, key)
        if raw is not None:
            key = cryptoki.derive(session, base, deriving, raw)
            try:
                cryptoki.wrap(session, kek, wrapping, key, target + width * row, width)
            finally:
                cryptoki.destroy(session, key)
    kcvs[...] = checks[:, :3]


def wrap_clear(live: Live, kek: int, scheme: str, algorithm: Algorithm, clear: ByteArray, out: ByteArray) -> None:
    """Keys (n, 16) from locked memory of the host, under a KEK that only wraps."""
    wrapping = wrap_mechanism(scheme, algorithm)
    width = _EXPECTED_LEN[scheme]
    for row in range(len(clear)):
        template = objects.clear_template(KeyType.GENERIC_SECRET, clear.ctypes.data + 16 * row)
        key = live.cryptoki.create(live.session, template)
        try:
            live.cryptoki.wrap(live.session, kek, wrapping, key, out.ctypes.data + width * row, width)
        finally:
            live.cryptoki.destroy(live.session, key)


def place(live: Live, master: int, derivation: Derivation, factors: ByteArray) -> tuple[int, ByteArray]:
    """Where card keys come from: the object to derive from, and the 16 bytes (n, 16) whose encryption each of them is."""
    base, algorithm = chain(live, master, derivation), derivation.algorithm
    zero = _zero(live, base, algorithm) if compose.needs_zero(derivation) else None
    return base, compose.last_blocks(derivation, factors, lambda part: objects.ask(live, algorithm, base, part), zero)


def chain(live: Live, master: int, derivation: Derivation) -> int:
    """The master after the derivation's upper factors: an object of the token, made once a session."""
    handle = master
    for depth in range(1, len(derivation.upper_factors) + 1):
        at = (master, derivation.upper_factors[:depth])
        known = live.chains.get(at)
        if known is None:
            blocks = compose.halves(np.frombuffer(derivation.upper_factors[depth - 1], np.uint8).reshape(1, 8))
            call = MechanismCall(objects.ENCRYPT_DATA[derivation.algorithm], StringData(blocks.ctypes.data, 16))
            # odd parity or none: the next level encrypts alike
            template = objects.session_template(objects.KEY_TYPES[derivation.algorithm], Attribute.DERIVE, extractable=False)
            known = live.chains[at] = live.cryptoki.derive(live.session, handle, call, template)
        handle = known
    return handle


def _zero(live: Live, handle: int, algorithm: Algorithm) -> ByteArray:
    """The encrypted zero block, of which CMAC makes its sub-keys: asked once a session."""
    known = live.secrets.get(("zero", handle))
    if known is None:
        answer = objects.ask(live, algorithm, handle, np.zeros(BLOCK_LEN[algorithm], np.uint8))
        known = live.secrets["zero", handle] = SecretBytes(answer.data)
        answer[...] = 0
    return np.frombuffer(known.reveal(), np.uint8)
