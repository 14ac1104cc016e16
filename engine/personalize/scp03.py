"""SCP03, the off-card side (GlobalPlatform Card Specification 2.3 Amendment D v1.1.1), S8 mode, AES-128/192/256.

Session keys and the session that has them in this process; the rules of the channel are those of `scp03_channel`.
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
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
    MAC_LEN,
    R_ENCRYPTION,
    R_MAC,
    CardHello,
    Scp03Channel,
)
from engine.personalize.script import Apdus, ByteArray, cut, secured_lengths
from keys.errors import Corrupt, Denied, InvalidInput
from keys.secrets import BytesLike, SecretArray, SecretBytes

# Amendment D 4.1.5, table 4-1: derivation constants.
CARD_CRYPTOGRAM: Final = 0x00
HOST_CRYPTOGRAM: Final = 0x01
CARD_CHALLENGE: Final = 0x02
S_ENC: Final = 0x04
S_MAC: Final = 0x06
S_RMAC: Final = 0x07

# From so many on one call of a kernel for all costs less than a call of the library for each.
_TOGETHER: Final = 4

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


def _messages(constants: Sequence[int], bits: int, context: bytes) -> ByteArray:
    """What the KDF's first CMAC is over for each constant, (n, 32)."""
    tail = bytes([0]) + bits.to_bytes(2, "big") + b"\x01" + context
    return np.frombuffer(b"".join(bytes(11) + bytes([constant]) + tail for constant in constants), np.uint8).reshape(len(constants), -1)


def _session_keys(enc: SecretBytes, mac: SecretBytes, context: bytes) -> list[SecretBytes]:
    """S-ENC, S-MAC and S-RMAC; those of AES-128 in one call."""
    if len(enc) != BLOCK:
        return [session_key(key, constant, context) for key, constant in ((enc, S_ENC), (mac, S_MAC), (mac, S_RMAC))]
    with SecretArray.empty((3, BLOCK)) as static, SecretArray.empty((3, BLOCK)) as made:
        static.array[0] = np.frombuffer(enc.reveal(), np.uint8)
        static.array[1:] = np.frombuffer(mac.reveal(), np.uint8)
        cext.aes_cmac(static.array, _messages((S_ENC, S_MAC, S_RMAC), 128, context), out=made.array)
        return [SecretBytes(made.array[at].data) for at in range(3)]


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
            session = _session_keys(enc, mac, context)
        messages = _messages((CARD_CRYPTOGRAM, HOST_CRYPTOGRAM), 64, context)
        card, host = cext.aes_cmac(np.frombuffer(session[1].reveal(), np.uint8), messages)[:, :8]
        try:
            hello.require_cryptogram(card.tobytes())
        except Denied:
            for secret in (*session, dek):
                secret.close()
            raise
        return cls(session, dek, host.tobytes(), level)

    # made when they are first needed: the channel that only proves the new keys needs one of them
    @cached_property
    def _enc(self) -> AES:
        return AES(self._secrets[0].reveal())

    @cached_property
    def _mac(self) -> AES:
        return AES(self._secrets[1].reveal())

    @cached_property
    def _rmac(self) -> AES:
        return AES(self._secrets[2].reveal())

    @cached_property
    def _dek(self) -> AES:
        return AES(self._secrets[3].reveal())

    @cached_property
    def _block(self) -> CipherContext:
        return Cipher(self._enc, ECB()).encryptor()  # noqa: S305 - ICVs are single encrypted counters

    @cached_property
    def _dek_block(self) -> CipherContext:
        return Cipher(self._dek, ECB()).encryptor()  # noqa: S305 - with a zero IV one block of CBC is this

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

    def check_responses(self, answers: Sequence[tuple[bytes, int]]) -> list[bytes]:
        """As `check_response` one after another; the response MACs of a whole segment are computed together."""
        first, level = self._checked, self.level
        whole = all(sw == 0x9000 and len(data) >= MAC_LEN for data, sw in answers)
        if not whole or not level & C_MAC or not level & R_MAC or self._ended or self._closed or first + len(answers) > len(self._chains):
            return super().check_responses(answers)
        bodies = [data[:-MAC_LEN] for data, _ in answers]
        if not hmac.compare_digest(b"".join(self._r_macs(first, bodies)), b"".join([data[-MAC_LEN:] for data, _ in answers])):
            # one by one: the first that is wrong ends the channel
            return super().check_responses(answers)
        self._checked += len(answers)
        try:
            return [self._decrypted(first + at, body) if body else b"" for at, body in enumerate(bodies)]
        except Corrupt:
            self._ended = True
            raise

    def _r_macs(self, first: int, bodies: Sequence[bytes]) -> list[bytes]:
        """The R-MACs of responses that begin with number `first`: those of one length in one call."""
        by_length = defaultdict(list)
        for at, body in enumerate(bodies):
            by_length[len(body)].append(at)
        macs = [b""] * len(bodies)
        key = np.frombuffer(self._secrets[2].reveal(), np.uint8)
        for places in by_length.values():
            messages = [self._chains[first + at] + bodies[at] + b"\x90\x00" for at in places]
            if len(places) < _TOGETHER:
                made = [self._r_mac(message)[:MAC_LEN] for message in messages]
            else:
                column = np.frombuffer(b"".join(messages), np.uint8).reshape(len(messages), -1)
                octets = cext.aes_cmac(key, column).tobytes()
                made = [octets[at : at + MAC_LEN] for at in range(0, len(octets), BLOCK)]
            for at, mac in zip(places, made, strict=True):
                macs[at] = mac
        return macs

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
