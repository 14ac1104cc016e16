"""SCP03, the off-card side (GlobalPlatform Card Specification 2.3 Amendment D v1.1.1), S8 mode, AES-128/192/256.

Session keys and the session that has them in this process; the rules of the channel are those of `scp03_channel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.cmac import CMAC

import cext
from engine.personalize.scp03_channel import (
    BLOCK,
    C_DECRYPTION,
    C_MAC,
    R_ENCRYPTION,
    R_MAC,
    CardHello,
    Scp03Channel,
)
from engine.personalize.script import Apdus, ByteArray, cut, secured_lengths
from keys.errors import Denied, InvalidInput
from keys.secrets import BytesLike, SecretArray, SecretBytes

# Amendment D 4.1.5, table 4-1: derivation constants.
CARD_CRYPTOGRAM: Final = 0x00
HOST_CRYPTOGRAM: Final = 0x01
CARD_CHALLENGE: Final = 0x02
S_ENC: Final = 0x04
S_MAC: Final = 0x06
S_RMAC: Final = 0x07

StaticKey = BytesLike | SecretBytes | npt.NDArray[np.uint8]


def kdf(key: BytesLike, constant: int, context: bytes, bits: int) -> bytes:
    """Amendment D 4.1.5: NIST SP 800-108 counter mode with CMAC; label 11 x 00 || constant, then 00 || bits[2] || counter ||
    context.
    """
    cipher = AES(key)
    fixed = bytes(11) + bytes([constant, 0]) + bits.to_bytes(2, "big")
    out = b""
    for counter in range(1, (bits + 127) // 128 + 1):
        out += _cmac(cipher, fixed + bytes([counter]) + context)
    return out[: bits // 8]


def session_key(static: SecretBytes, constant: int, context: bytes) -> SecretBytes:
    """The same KDF for a session key as long as the static key (Amendment D 6.2.1), which is never in memory that nobody wipes."""
    size = len(static)
    head = bytes(11) + bytes([constant, 0]) + (8 * size).to_bytes(2, "big")
    messages = b"".join(head + bytes([counter]) + context for counter in range(1, -(-size // BLOCK) + 1))
    with SecretArray.empty((len(messages) // 32, BLOCK)) as made:
        cext.aes_cmac(np.frombuffer(static.reveal(), np.uint8), np.frombuffer(messages, np.uint8).reshape(-1, 32), out=made.array)
        return SecretBytes(made.array.reshape(-1)[:size].data)


def pseudo_random_challenge(enc_key: BytesLike, sequence: bytes, aid: bytes) -> bytes:
    """Amendment D 6.2.2.1: the card challenge of a card with i bit 10, from the static ENC key, its sequence counter[3] and
    the SD's AID.
    """
    return kdf(enc_key, CARD_CHALLENGE, sequence + aid, 64)


def _cmac(cipher: AES, message: bytes) -> bytes:
    mac = CMAC(cipher)
    mac.update(message)
    return mac.finalize()


class Scp03Session(Scp03Channel):
    """One secure channel with its keys in locked memory. Order of use: open, external_authenticate, wrap..., check_response... in the
    order of the wraps, close.
    """

    def __init__(self, keys: Sequence[SecretBytes], dek: SecretBytes, host_cryptogram: bytes, level: int) -> None:
        """Use `open`. `keys` are S-ENC, S-MAC, S-RMAC; the session owns and wipes all of them."""
        super().__init__(host_cryptogram, level)
        self._secrets = [*keys, dek]
        self._enc, self._mac, self._rmac = (AES(key.reveal()) for key in keys)
        self._dek = AES(dek.reveal())
        self._block: CipherContext = Cipher(self._enc, ECB()).encryptor()  # noqa: S305 - ICVs are single encrypted counters
        self._dek_block: CipherContext = Cipher(self._dek, ECB()).encryptor()  # noqa: S305 - with a zero IV one block of CBC is this

    @classmethod
    def open(
        cls,
        static_keys: Sequence[StaticKey],
        host_challenge: bytes,
        initialize_update_response: bytes,
        i: int | None = None,
        level: int = C_MAC | C_DECRYPTION | R_MAC | R_ENCRYPTION,
    ) -> Self:
        """Session keys from the static ENC, MAC, DEK and the INITIALIZE UPDATE response (without status word).

        Raises as `CardHello.of`, Denied CARD_CRYPTOGRAM, InvalidInput KEY_LENGTH.
        """
        hello = CardHello.of(initialize_update_response, host_challenge, i, level)
        enc, mac, dek = _copies(static_keys)
        with enc, mac:
            context = bytes(host_challenge) + hello.card_challenge
            session = [session_key(key, constant, context) for key, constant in ((enc, S_ENC), (mac, S_MAC), (mac, S_RMAC))]
        try:
            hello.require_cryptogram(kdf(session[1].reveal(), CARD_CRYPTOGRAM, context, 64))
        except Denied:
            for secret in (*session, dek):
                secret.close()
            raise
        return cls(session, dek, kdf(session[1].reveal(), HOST_CRYPTOGRAM, context, 64), level)

    def _c_mac(self, message: bytes) -> bytes:
        return _cmac(self._mac, message)

    def _r_mac(self, message: bytes) -> bytes:
        return _cmac(self._rmac, message)

    def _icv(self, counter: bytes) -> bytes:
        return self._block.update(counter)

    def _encrypt(self, iv: bytes, blocks: bytes) -> bytes:
        return Cipher(self._enc, CBC(iv)).encryptor().update(blocks)

    def _decrypt(self, iv: bytes, blocks: bytes) -> bytes:
        return Cipher(self._enc, CBC(iv)).decryptor().update(blocks)

    def wrap_script(self, apdus: Apdus, row: ByteArray) -> list[bytes]:
        """Many commands at once, exactly as `wrap` one after another: `apdus` as `engine.personalize.script`, their data in `row`.

        Raises InvalidInput APDU_TOO_LONG, Precondition (CHANNEL_ORDER, CHANNEL_ENDED, SECRET_WIPED, NO_MAC at level 00).
        """
        self._require_script()
        counted = apdus.copy()
        counted["counter"] += np.uint32(len(self._chains))
        if not self.level & C_DECRYPTION:
            counted["encrypt"] = 0
        enc, mac = (np.frombuffer(secret.reveal(), np.uint8).reshape(1, -1) for secret in self._secrets[:2])
        chain = np.frombuffer(bytearray(self._chain), np.uint8).reshape(1, BLOCK)
        chains = np.empty((len(apdus), BLOCK), np.uint8)
        try:
            secured = cext.scp03_wrap(enc, mac, chain, counted, row.reshape(1, -1), chains=chains)
        except ValueError as error:
            raise InvalidInput("APDU_TOO_LONG", f"a command does not fit in a short APDU: {error}") from None
        self._chain = chain.tobytes()
        self._chains += [chains[at].tobytes() for at in range(len(chains))]
        return cut(secured[0], secured_lengths(counted, BLOCK))

    def dek_encrypt(self, span: BytesLike) -> bytes:
        """A secret for STORE DATA or PUT KEY: AES-CBC under the static DEK, zero IV, no padding (Amendment D 6.2.8).

        Raises InvalidInput SPAN_LENGTH unless whole blocks of 16.
        """
        self._require_span(span)
        if len(span) == BLOCK:
            return self._dek_block.update(span)
        return Cipher(self._dek, CBC(bytes(BLOCK))).encryptor().update(span)

    def dek_encrypt_blocks(self, blocks: BytesLike) -> bytes:
        """Many 16-byte secrets, each a span of its own, in one call."""
        self._require_span(blocks)
        return self._dek_block.update(blocks)

    def close(self) -> None:
        """Wipes all keys; the session cannot be used afterwards."""
        self._closed = True
        for secret in self._secrets:
            secret.close()
        self._secrets = []
        # The contexts hold expanded keys; OpenSSL clears them when they are freed.
        for name in ("_enc", "_mac", "_rmac", "_dek", "_block", "_dek_block"):
            self.__dict__.pop(name, None)


def _copies(static_keys: Sequence[StaticKey]) -> tuple[SecretBytes, SecretBytes, SecretBytes]:
    """ENC, MAC, DEK as secrets of our own; raises InvalidInput KEY_LENGTH."""
    if len(static_keys) != 3:
        raise InvalidInput("KEY_LENGTH", f"SCP03 has three static keys, not {len(static_keys)}")
    copies = []
    for key in static_keys:
        raw = key.reveal() if isinstance(key, SecretBytes) else key
        copies.append(SecretBytes(np.ascontiguousarray(raw).data if isinstance(raw, np.ndarray) else raw))
    enc, mac, dek = copies
    if {len(enc), len(mac)} not in ({16}, {24}, {32}) or len(dek) != len(enc):
        raise InvalidInput("KEY_LENGTH", "SCP03 static keys are all of 16, all of 24 or all of 32 bytes")
    return enc, mac, dek
