"""SCP03, the off-card side (GlobalPlatform Card Specification 2.3 Amendment D v1.1.1), S8 mode, AES-128/192/256.

Owns the session of one card: it checks the card cryptogram, wraps commands, and checks responses later and in order, so that a
whole segment can be wrapped before the first byte is sent. Refuses S16 mode, security levels the card's `i` does not offer,
and anything after an error response, which carries no R-MAC and so ends the channel.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.cmac import CMAC

import cext
from engine.personalize.script import Apdus, ByteArray, cut, secured_lengths
from keys.errors import Corrupt, Denied, InvalidInput, Precondition, Unsupported
from keys.secrets import BytesLike, SecretArray, SecretBytes

# Amendment D 4.1.5, table 4-1: derivation constants.
CARD_CRYPTOGRAM: Final = 0x00
HOST_CRYPTOGRAM: Final = 0x01
CARD_CHALLENGE: Final = 0x02
S_ENC: Final = 0x04
S_MAC: Final = 0x06
S_RMAC: Final = 0x07

# Amendment D 7.1.2.1, P1 of EXTERNAL AUTHENTICATE; and per `i` (5.1) what a card offers.
C_MAC: Final = 0x01
C_DECRYPTION: Final = 0x02
R_MAC: Final = 0x10
R_ENCRYPTION: Final = 0x20
LEVELS: Final[dict[int, tuple[int, ...]]] = {
    0x00: (0x00, 0x01, 0x03),
    0x20: (0x00, 0x01, 0x03, 0x11, 0x13),
    0x60: (0x00, 0x01, 0x03, 0x11, 0x13, 0x33),
}
PSEUDO_RANDOM: Final = 0x10
S16: Final = 0x01

MAC_LEN: Final = 8
BLOCK: Final = 16
SECURE_MESSAGING: Final = 0x04

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


def offered_levels(i: int) -> tuple[int, ...]:
    """Security levels a card with this `i` offers; raises Unsupported (SCP03_S16, SCP03_MODE)."""
    if i & S16:
        raise Unsupported("SCP03_S16", f"i={i:02X} asks for S16 mode (16-byte challenges and MACs); only S8 is done here")
    levels = LEVELS.get(i & ~PSEUDO_RANDOM)
    if levels is None:
        raise Unsupported("SCP03_MODE", f"i={i:02X} is not an SCP03 mode known here (00, 10, 20, 30, 60, 70)")
    return levels


def _cmac(cipher: AES, message: bytes) -> bytes:
    mac = CMAC(cipher)
    mac.update(message)
    return mac.finalize()


def pad80(data: bytes) -> bytes:
    """ISO/IEC 9797-1 padding method 2 to a multiple of 16."""
    return data + b"\x80" + bytes(-(len(data) + 1) % BLOCK)


def unpad80(data: bytes) -> bytes:
    """Takes padding method 2 off; raises Corrupt RESPONSE_PADDING."""
    plain = data.rstrip(b"\x00")
    if not plain.endswith(b"\x80") or len(data) - len(plain) >= BLOCK:
        raise Corrupt("RESPONSE_PADDING", "a decrypted response is not padded as ISO/IEC 9797-1 method 2")
    return plain[:-1]


class Scp03Session:
    """One secure channel. Order of use: open, external_authenticate, wrap..., check_response... in the order of the wraps,
    close.
    """

    def __init__(self, keys: Sequence[SecretBytes], dek: SecretBytes, host_cryptogram: bytes, level: int) -> None:
        """Use `open`. `keys` are S-ENC, S-MAC, S-RMAC; the session owns and wipes all of them."""
        self.level = level
        self._secrets = [*keys, dek]
        self._enc, self._mac, self._rmac = (AES(key.reveal()) for key in keys)
        self._dek = AES(dek.reveal())
        self._icv: CipherContext = Cipher(self._enc, ECB()).encryptor()  # noqa: S305 - ICVs are single encrypted counters
        self._dek_block: CipherContext = Cipher(self._dek, ECB()).encryptor()  # noqa: S305 - with a zero IV one block of CBC is this
        self._host_cryptogram = host_cryptogram
        self._chain = bytes(BLOCK)
        self._chains: list[bytes] = []
        self._checked = 0
        self._authenticated = False
        self._ended = False
        self._closed = False

    @classmethod
    def open(
        cls,
        static_keys: Sequence[StaticKey],
        host_challenge: bytes,
        initialize_update_response: bytes,
        i: int | None = None,
        level: int = C_MAC | C_DECRYPTION | R_MAC | R_ENCRYPTION,
    ) -> Self:
        """Session keys from the static ENC, MAC, DEK and the INITIALIZE UPDATE response (without status word; Amendment D
        7.1.1.6).

        With `i` given the card must announce just that. Raises Denied (CARD_CRYPTOGRAM, CHANNEL_MODE), Corrupt CHIP_GARBAGE,
        Unsupported (SCP03_S16, SCP03_MODE), InvalidInput (KEY_LENGTH, HOST_CHALLENGE, LEVEL_NOT_OFFERED).
        """
        response = bytes(initialize_update_response)
        card_i = _announced_mode(response)
        if i is not None and i != card_i:
            raise Denied("CHANNEL_MODE", f"the card announces SCP03 i={card_i:02X}, expected is i={i:02X}")
        if level not in offered_levels(card_i):
            raise InvalidInput("LEVEL_NOT_OFFERED", f"security level {level:02X} is not offered by a card with i={card_i:02X}")
        if len(host_challenge) != 8:
            raise InvalidInput("HOST_CHALLENGE", f"the host challenge has 8 bytes in S8 mode, not {len(host_challenge)}")
        enc, mac, dek = _copies(static_keys)
        with enc, mac:
            context = bytes(host_challenge) + response[13:21]
            session = [session_key(key, constant, context) for key, constant in ((enc, S_ENC), (mac, S_MAC), (mac, S_RMAC))]
        expected = kdf(session[1].reveal(), CARD_CRYPTOGRAM, context, 64)
        if not hmac.compare_digest(expected, response[21:29]):
            for secret in (*session, dek):
                secret.close()
            raise Denied("CARD_CRYPTOGRAM", "the card cryptogram is wrong: the card does not hold these keys")
        return cls(session, dek, kdf(session[1].reveal(), HOST_CRYPTOGRAM, context, 64), level)

    def external_authenticate(self) -> bytes:
        """EXTERNAL AUTHENTICATE (Amendment D 7.1.2): 84 82 level 00 10 host cryptogram || C-MAC, without Le. Once per session."""
        self._require_open()
        if self._authenticated:
            raise Precondition("CHANNEL_ORDER", "EXTERNAL AUTHENTICATE was already made for this session")
        self._authenticated = True
        header = bytes([0x84, 0x82, self.level, 0x00, 0x10]) + self._host_cryptogram
        self._chain = _cmac(self._mac, self._chain + header)
        return header + self._chain[:MAC_LEN]

    def wrap(self, cla: int, ins: int, p1: int, p2: int, data: BytesLike = b"", le: int | None = None) -> bytes:
        """A secured command (Amendment D 6.2.4, 6.2.6). `le` is kept if given (256 and 0 are 00). At level 00 the plain command.

        Raises InvalidInput APDU_TOO_LONG beyond 239 bytes with C-DECRYPTION, 247 with C-MAC, 255 plain; Precondition
        (CHANNEL_ORDER, CHANNEL_ENDED, SECRET_WIPED).
        """
        self._require_open()
        if not self._authenticated:
            raise Precondition("CHANNEL_ORDER", "commands come after EXTERNAL AUTHENTICATE")
        level, body = self.level, bytes(data)
        longest = 239 if level & C_DECRYPTION else 247 if level & C_MAC else 255
        if len(body) > longest:
            raise InvalidInput("APDU_TOO_LONG", f"{len(body)} bytes of data; a short APDU at level {level:02X} holds {longest}")
        tail = b"" if le is None else bytes([le & 0xFF])
        if not level & C_MAC:
            self._chains.append(self._chain)
            return bytes([cla, ins, p1, p2]) + (bytes([len(body)]) + body if body else b"") + tail
        if level & C_DECRYPTION and body:
            iv = self._icv.update((len(self._chains) + 1).to_bytes(BLOCK, "big"))
            cbc = Cipher(self._enc, CBC(iv)).encryptor()
            body = cbc.update(pad80(body))
        secured = bytes([cla | SECURE_MESSAGING, ins, p1, p2, len(body) + MAC_LEN]) + body
        self._chain = _cmac(self._mac, self._chain + secured)
        self._chains.append(self._chain)
        return secured + self._chain[:MAC_LEN] + tail

    def wrap_script(self, apdus: Apdus, row: ByteArray) -> list[bytes]:
        """Many commands at once, exactly as `wrap` one after another: `apdus` as `engine.personalize.script`, their data in `row`.

        Raises InvalidInput APDU_TOO_LONG, Precondition (CHANNEL_ORDER, CHANNEL_ENDED, SECRET_WIPED, NO_MAC at level 00).
        """
        self._require_open()
        if not self._authenticated or not self.level & C_MAC:
            why = "commands come after EXTERNAL AUTHENTICATE" if self.level & C_MAC else "commands of level 00 are not secured"
            raise Precondition("CHANNEL_ORDER", why)
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

    def check_response(self, index: int, data: BytesLike, sw: int) -> bytes:
        """Plain data of the response to wrap number `index` (from 0); checked in that order (Amendment D 6.2.5, 6.2.7).

        With R-MAC, 9000, 62xx and 63xx carry one. Any other status word has none: it ends the channel, must carry no data, and
        gives b"". Raises Denied RESPONSE_MAC, Corrupt (RESPONSE_DATA, RESPONSE_PADDING), Precondition (RESPONSE_ORDER,
        CHANNEL_ENDED).
        """
        self._require_open()
        if index != self._checked or index >= len(self._chains):
            raise Precondition("RESPONSE_ORDER", f"response {index} given; next is {self._checked} of {len(self._chains)}")
        self._checked += 1
        body = bytes(data)
        try:
            return self._plain_response(index, body, sw)
        except (Denied, Corrupt):
            self._ended = True
            raise

    def _plain_response(self, index: int, body: bytes, sw: int) -> bytes:
        if not self.level & C_MAC:
            return body
        if sw != 0x9000 and sw >> 8 not in (0x62, 0x63):
            self._ended = True
            if body:
                raise Corrupt("RESPONSE_DATA", f"status {sw:04X} came with {len(body)} bytes that nothing authenticates")
            return b""
        if not self.level & R_MAC:
            return body
        if len(body) < MAC_LEN:
            raise Denied("RESPONSE_MAC", f"status {sw:04X} came without its R-MAC")
        body, mac = body[:-MAC_LEN], body[-MAC_LEN:]
        expected = _cmac(self._rmac, self._chains[index] + body + sw.to_bytes(2, "big"))
        if not hmac.compare_digest(expected[:MAC_LEN], mac):
            raise Denied("RESPONSE_MAC", "an R-MAC is wrong: the response is not the card's answer to this command")
        if not self.level & R_ENCRYPTION or not body:
            return body
        if len(body) % BLOCK:
            raise Corrupt("RESPONSE_DATA", f"an encrypted response of {len(body)} bytes is not whole blocks")
        iv = self._icv.update(b"\x80" + (index + 1).to_bytes(BLOCK - 1, "big"))
        return unpad80(Cipher(self._enc, CBC(iv)).decryptor().update(body))

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
        for name in ("_enc", "_mac", "_rmac", "_dek", "_icv", "_dek_block"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Scp03Session(level={self.level:02X}, {len(self._chains)} commands{', closed' if self._closed else ''})"

    def _require_open(self) -> None:
        if self._closed:
            raise Precondition("SECRET_WIPED", "this secure channel session was closed")
        if self._ended:
            raise Precondition("CHANNEL_ENDED", "an error response or a wrong MAC ended this secure channel session")

    def _require_span(self, span: BytesLike) -> None:
        if self._closed:
            raise Precondition("SECRET_WIPED", "this secure channel session was closed")
        if not len(span) or len(span) % BLOCK:
            raise InvalidInput("SPAN_LENGTH", f"a secret under the DEK is whole blocks of {BLOCK} bytes, not {len(span)}")


def _announced_mode(response: bytes) -> int:
    """The `i` of an INITIALIZE UPDATE response of KDD[10] kvn 03 i challenge[8] cryptogram[8] [sequence[3]]; raises Corrupt
    CHIP_GARBAGE.
    """
    if len(response) not in (29, 32) or response[11] != 0x03:
        raise Corrupt("CHIP_GARBAGE", f"{len(response)} bytes are no SCP03 response to INITIALIZE UPDATE")
    card_i = response[12]
    if not card_i & S16 and (len(response) == 32) != bool(card_i & PSEUDO_RANDOM):
        raise Corrupt("CHIP_GARBAGE", f"a card with i={card_i:02X} does not answer INITIALIZE UPDATE with {len(response)} bytes")
    return card_i


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
