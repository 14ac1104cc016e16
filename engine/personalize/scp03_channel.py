"""The rules of SCP03 on the host side (GlobalPlatform Card Specification 2.3 Amendment D v1.1.1), S8 mode, whoever holds the keys.

What a card's answer to INITIALIZE UPDATE may say, how commands are wrapped and chained, how responses are checked: later and in order,
so that a whole segment can be wrapped before the first byte is sent. Refuses S16 mode, security levels the card's `i` does not offer,
and anything after an error response, which carries no R-MAC and so ends the channel.
"""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from keys.errors import Corrupt, Denied, InvalidInput, Precondition, Unsupported
from keys.secrets import BytesLike

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
SW_OK: Final = 0x9000
SECURE_MESSAGING: Final = 0x04


def offered_levels(i: int) -> tuple[int, ...]:
    """Security levels a card with this `i` offers; raises Unsupported (SCP03_S16, SCP03_MODE)."""
    if i & S16:
        raise Unsupported("SCP03_S16", f"i={i:02X} asks for S16 mode (16-byte challenges and MACs); only S8 is done here")
    levels = LEVELS.get(i & ~PSEUDO_RANDOM)
    if levels is None:
        raise Unsupported("SCP03_MODE", f"i={i:02X} is not an SCP03 mode known here (00, 10, 20, 30, 60, 70)")
    return levels


def pad80(data: bytes) -> bytes:
    """ISO/IEC 9797-1 padding method 2 to a multiple of 16."""
    return data + b"\x80" + bytes(-(len(data) + 1) % BLOCK)


def require_blocks(body: bytes) -> None:
    """Raises Corrupt RESPONSE_DATA for an encrypted response that cannot be one."""
    if len(body) % BLOCK:
        raise Corrupt("RESPONSE_DATA", f"an encrypted response of {len(body)} bytes is not whole blocks")


def response_counter(index: int) -> bytes:
    """What the ICV of the response to wrap number `index` is made of (Amendment D 6.2.7)."""
    return b"\x80" + (index + 1).to_bytes(BLOCK - 1, "big")


def unpad80(data: bytes) -> bytes:
    """Takes padding method 2 off; raises Corrupt RESPONSE_PADDING."""
    plain = data.rstrip(b"\x00")
    if not plain.endswith(b"\x80") or len(data) - len(plain) >= BLOCK:
        raise Corrupt("RESPONSE_PADDING", "a decrypted response is not padded as ISO/IEC 9797-1 method 2")
    return plain[:-1]


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


@dataclass(frozen=True)
class CardHello:
    """What an INITIALIZE UPDATE response says, its form and the channel it offers checked."""

    kdd: bytes
    card_challenge: bytes
    card_cryptogram: bytes

    @classmethod
    def of(cls, initialize_update_response: bytes, host_challenge: bytes, i: int | None, level: int) -> Self:
        """From the response without status word (Amendment D 7.1.1.6). With `i` given the card must announce just that.

        Raises Denied CHANNEL_MODE, Corrupt CHIP_GARBAGE, Unsupported (SCP03_S16, SCP03_MODE), InvalidInput (HOST_CHALLENGE,
        LEVEL_NOT_OFFERED).
        """
        response = bytes(initialize_update_response)
        card_i = _announced_mode(response)
        if i is not None and i != card_i:
            raise Denied("CHANNEL_MODE", f"the card announces SCP03 i={card_i:02X}, expected is i={i:02X}")
        if level not in offered_levels(card_i):
            raise InvalidInput("LEVEL_NOT_OFFERED", f"security level {level:02X} is not offered by a card with i={card_i:02X}")
        if len(host_challenge) != 8:
            raise InvalidInput("HOST_CHALLENGE", f"the host challenge has 8 bytes in S8 mode, not {len(host_challenge)}")
        return cls(response[:10], response[13:21], response[21:29])

    def require_cryptogram(self, expected: bytes) -> None:
        """Raises Denied CARD_CRYPTOGRAM unless the card proved the session keys (Amendment D 6.2.2.2)."""
        if not hmac.compare_digest(expected, self.card_cryptogram):
            raise Denied("CARD_CRYPTOGRAM", "the card cryptogram is wrong: the card does not hold these keys")


class Scp03Channel(ABC):
    """One secure channel. Order of use: external_authenticate, wrap..., check_response... in the order of the wraps, close.

    A subclass has the session keys, and the key for secrets.
    """

    def __init__(self, host_cryptogram: bytes, level: int) -> None:
        self.level = level
        self._host_cryptogram = host_cryptogram
        self._chain = bytes(BLOCK)
        # the chaining value after each command, one after another
        self._chains = bytearray()
        self._checked = 0
        self._authenticated = False
        self._ended = False
        self._closed = False

    @abstractmethod
    def _c_mac(self, message: bytes) -> bytes:
        """CMAC under S-MAC, 16 bytes."""

    @abstractmethod
    def _r_mac(self, message: bytes) -> bytes:
        """CMAC under S-RMAC, 16 bytes."""

    @abstractmethod
    def _icv(self, counter: bytes) -> bytes:
        """One block under S-ENC."""

    @abstractmethod
    def _encrypt(self, iv: bytes, blocks: bytes) -> bytes:
        """AES-CBC under S-ENC."""

    @abstractmethod
    def _decrypt(self, iv: bytes, blocks: bytes) -> bytes:
        """AES-CBC under S-ENC, the other way."""

    @abstractmethod
    def close(self) -> None:
        """Wipes all keys; the session cannot be used afterwards."""

    def external_authenticate(self) -> bytes:
        """EXTERNAL AUTHENTICATE (Amendment D 7.1.2): 84 82 level 00 10 host cryptogram || C-MAC, without Le. Once per session."""
        self._require_open()
        if self._authenticated:
            raise Precondition("CHANNEL_ORDER", "EXTERNAL AUTHENTICATE was already made for this session")
        self._authenticated = True
        header = bytes([0x84, 0x82, self.level, 0x00, 0x10]) + self._host_cryptogram
        self._chain = self._c_mac(self._chain + header)
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
            self._chains += self._chain
            return bytes([cla, ins, p1, p2]) + (bytes([len(body)]) + body if body else b"") + tail
        if level & C_DECRYPTION and body:
            body = self._encrypt(self._icv((self._wrapped + 1).to_bytes(BLOCK, "big")), pad80(body))
        secured = bytes([cla | SECURE_MESSAGING, ins, p1, p2, len(body) + MAC_LEN]) + body
        self._chain = self._c_mac(self._chain + secured)
        self._chains += self._chain
        return secured + self._chain[:MAC_LEN] + tail

    def check_response(self, index: int, data: BytesLike, sw: int) -> bytes:
        """Plain data of the response to wrap number `index` (from 0); checked in that order (Amendment D 6.2.5, 6.2.7).

        With R-MAC, 9000, 62xx and 63xx carry one. Any other status word has none: it ends the channel, must carry no data, and
        gives b"". Raises Denied RESPONSE_MAC, Corrupt (RESPONSE_DATA, RESPONSE_PADDING), Precondition (RESPONSE_ORDER,
        CHANNEL_ENDED).
        """
        self._require_open()
        if index != self._checked or index >= self._wrapped:
            raise Precondition("RESPONSE_ORDER", f"response {index} given; next is {self._checked} of {self._wrapped}")
        self._checked += 1
        body = bytes(data)
        try:
            return self._plain_response(index, body, sw)
        except (Denied, Corrupt):
            self._ended = True
            raise

    def check_responses(self, answers: Sequence[bytes]) -> list[bytes]:
        """`check_response` for the data of the next responses, in order, each with status word 9000."""
        first = self._checked
        return [self.check_response(first + at, data, SW_OK) for at, data in enumerate(answers)]

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
        chain = bytes(self._chains[BLOCK * index : BLOCK * index + BLOCK])
        expected = self._r_mac(chain + body + sw.to_bytes(2, "big"))
        if not hmac.compare_digest(expected[:MAC_LEN], mac):
            raise Denied("RESPONSE_MAC", "an R-MAC is wrong: the response is not the card's answer to this command")
        return self._decrypted(index, body)

    def _decrypted(self, index: int, body: bytes) -> bytes:
        if not self.level & R_ENCRYPTION or not body:
            return body
        require_blocks(body)
        return unpad80(self._decrypt(self._icv(response_counter(index)), body))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(level={self.level:02X}, {self._wrapped} commands{', closed' if self._closed else ''})"

    @property
    def _wrapped(self) -> int:
        """How many commands were wrapped after EXTERNAL AUTHENTICATE."""
        return len(self._chains) // BLOCK

    def _require_open(self) -> None:
        if self._closed:
            raise Precondition("SECRET_WIPED", "this secure channel session was closed")
        if self._ended:
            raise Precondition("CHANNEL_ENDED", "an error response or a wrong MAC ended this secure channel session")

    def _require_new(self) -> None:
        """Raises Precondition unless a whole segment may be wrapped now."""
        self._require_open()
        if self._authenticated or not self.level & C_MAC:
            why = "EXTERNAL AUTHENTICATE was already made" if self._authenticated else "commands of level 00 are not secured"
            raise Precondition("CHANNEL_ORDER", why)

    def _require_span(self, span: BytesLike) -> None:
        if self._closed:
            raise Precondition("SECRET_WIPED", "this secure channel session was closed")
        if not len(span) or len(span) % BLOCK:
            raise InvalidInput("SPAN_LENGTH", f"a secret under the DEK is whole blocks of {BLOCK} bytes, not {len(span)}")
