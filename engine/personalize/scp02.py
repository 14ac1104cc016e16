"""SCP02, the off-card side (GlobalPlatform Card Specification 2.3, annex E): i = 15 and i = 55, levels 00, 01 and 03, two-key 3DES.

Both modes have three base keys, explicit initiation, the C-MAC over the modified command and an encrypted ICV; with i = 55 the card
challenge is pseudo-random and can be checked. Refuses every other mode and R-MAC. Responses are not authenticated at these levels:
what a card answers proves nothing until its keys are used.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import numpy as np
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB

from engine.personalize.scp03 import StaticKey
from engine.personalize.scp03_channel import SW_OK
from engine.personalize.script import ByteArray, Script
from engine.personalize.segment import to_slab
from keys.errors import Corrupt, Denied, InvalidInput, Precondition, Unsupported
from keys.secrets import BytesLike, SecretBytes

# GPCS E.4.1: derivation constants of the session keys.
S_ENC: Final = bytes.fromhex("0182")
C_MAC_KEY: Final = bytes.fromhex("0101")
DEK: Final = bytes.fromhex("0181")

# GPCS E.5.2.3, P1 of EXTERNAL AUTHENTICATE.
C_MAC: Final = 0x01
C_DECRYPTION: Final = 0x02
LEVELS: Final = (0x00, C_MAC, C_MAC | C_DECRYPTION)
# GPCS E.1.1: 3 base keys, explicit initiation, C-MAC on the modified APDU, ICV encryption; b7 is the well-known pseudo-random challenge.
PSEUDO_RANDOM: Final = 0x40
MODES: Final = (0x15, 0x15 | PSEUDO_RANDOM)

KEY_LEN: Final = 16
BLOCK: Final = 8
MAC_LEN: Final = 8
RESPONSE_LEN: Final = 28
SECURE_MESSAGING: Final = 0x04


def offered_levels(i: int) -> tuple[int, ...]:
    """Security levels done with this `i`; raises Unsupported SCP02_MODE."""
    if i not in MODES:
        raise Unsupported("SCP02_MODE", f"i={i:02X} is not an SCP02 mode known here (15, 55)")
    return LEVELS


def pad80(data: bytes) -> bytes:
    """ISO/IEC 9797-1 padding method 2 to a multiple of 8."""
    return data + b"\x80" + bytes(-(len(data) + 1) % BLOCK)


def session_key(key: BytesLike, constant: bytes, sequence: bytes) -> SecretBytes:
    """GPCS E.4.1: 3DES-CBC, zero IV, of constant[2] || sequence counter[2] || 12 x 00 under a static key."""
    return SecretBytes.move(bytearray(_tdes(key, CBC(bytes(BLOCK))).update(constant + sequence + bytes(12))))


def cryptogram(s_enc: BytesLike, message: bytes) -> bytes:
    """GPCS E.4.2: the last block of 3DES-CBC, zero IV, over pad80(message) under S-ENC."""
    return _tdes(s_enc, CBC(bytes(BLOCK))).update(pad80(message))[-BLOCK:]


def pseudo_random_challenge(c_mac_key: BytesLike, aid: bytes) -> bytes:
    """The card challenge of i bit 40: leftmost six bytes of the C-MAC, zero ICV, over pad80(AID) under the C-MAC session key."""
    return _Mac(c_mac_key).over(bytes(BLOCK), aid)[:6]


def _tdes(key: BytesLike, mode: CBC | ECB) -> CipherContext:
    """An encryptor under KL || KR || KL."""
    whole = bytearray(key) + bytearray(key[:BLOCK])
    try:
        return Cipher(TripleDES(whole), mode).encryptor()  # type: ignore[arg-type] # any buffer will do
    finally:
        whole[:] = bytes(len(whole))


def _xor(*blocks: bytes) -> bytes:
    folded = 0
    for block in blocks:
        folded ^= int.from_bytes(block, "big")
    return folded.to_bytes(BLOCK, "big")


class _Cbc:
    """CBC that begins again and again under one key schedule, which costs more than the blocks do.

    The context goes on chaining with its last ciphertext block; folding that block into the first plain one takes it out again.
    """

    def __init__(self, key: BytesLike) -> None:
        self._context = _tdes(key, CBC(bytes(BLOCK)))
        self._last = bytes(BLOCK)

    def encrypt(self, iv: bytes, blocks: bytes) -> bytes:
        out = self._context.update(_xor(blocks[:BLOCK], iv, self._last) + blocks[BLOCK:])
        self._last = out[-BLOCK:]
        return out


class _Mac:
    """ISO/IEC 9797-1 algorithm 3 (GPCS B.1.2.2): single DES under KL, the last block in 3DES."""

    def __init__(self, key: BytesLike) -> None:
        left = bytearray(key[:BLOCK]) * 2
        self._single = _Cbc(left)
        self._icv = _tdes(left, ECB())  # noqa: S305 - ICV encryption is of one block
        self._last = _tdes(key, ECB())  # noqa: S305 - the algorithm's last step is of one block
        left[:] = bytes(len(left))

    def over(self, icv: bytes, message: bytes) -> bytes:
        padded = pad80(message)
        if len(padded) > BLOCK:
            icv = self._single.encrypt(icv, padded[:-BLOCK])[-BLOCK:]
        return self._last.update(_xor(icv, padded[-BLOCK:]))

    def next_icv(self, mac: bytes) -> bytes:
        """GPCS E.3.4: the ICV of the next command is the last C-MAC under single DES with KL."""
        return self._icv.update(mac)


class Scp02Session:
    """One secure channel; see `SecureChannel`. Order of use: open, external_authenticate, wrap..., check_response..., close."""

    def __init__(self, keys: Sequence[SecretBytes], host_cryptogram: bytes, level: int) -> None:
        """Use `open`. `keys` are S-ENC, C-MAC and DEK of the session, which owns and wipes them."""
        self.level = level
        self._secrets = list(keys)
        s_enc, c_mac, dek = (key.reveal() for key in keys)
        self._enc = _Cbc(s_enc)
        self._mac = _Mac(c_mac)
        self._dek = _tdes(dek, ECB())  # noqa: S305 - GPCS E.4.7 enciphers keys in ECB
        self._host_cryptogram = host_cryptogram
        self._icv = bytes(BLOCK)
        self._wrapped = 0
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
        i: int,
        level: int = C_MAC | C_DECRYPTION,
        aid: bytes | None = None,
    ) -> Self:
        """Session keys from the static ENC, MAC, DEK and the INITIALIZE UPDATE response (without status word; GPCS E.5.1.6):
        KDD[10] || kvn || 02 || sequence counter[2] || card challenge[6] || card cryptogram[8].

        The response does not tell `i`. With i=55 and the security domain's `aid` known, the card challenge is checked too. Raises
        Denied (CARD_CRYPTOGRAM, CARD_CHALLENGE), Corrupt CHIP_GARBAGE, Unsupported SCP02_MODE, InvalidInput (KEY_LENGTH,
        HOST_CHALLENGE, LEVEL_NOT_OFFERED).
        """
        response = bytes(initialize_update_response)
        if len(response) != RESPONSE_LEN or response[11] != 0x02:
            raise Corrupt("CHIP_GARBAGE", f"{len(response)} bytes are no SCP02 response to INITIALIZE UPDATE")
        if level not in offered_levels(i):
            raise InvalidInput("LEVEL_NOT_OFFERED", f"security level {level:02X} is not done with SCP02 i={i:02X}")
        if len(host_challenge) != 8:
            raise InvalidInput("HOST_CHALLENGE", f"the host challenge has 8 bytes, not {len(host_challenge)}")
        sequence, challenge = response[12:14], response[14:20]
        session = _session_keys(static_keys, sequence)
        try:
            _check_card(session, host_challenge, response, aid if i & PSEUDO_RANDOM else None)
        except Denied:
            for secret in session:
                secret.close()
            raise
        return cls(session, cryptogram(session[0].reveal(), sequence + challenge + host_challenge), level)

    def external_authenticate(self) -> bytes:
        """EXTERNAL AUTHENTICATE (GPCS E.5.2): 84 82 level 00 10 host cryptogram || C-MAC, without Le. Once per session."""
        self._require_open()
        if self._authenticated:
            raise Precondition("CHANNEL_ORDER", "EXTERNAL AUTHENTICATE was already made for this session")
        self._authenticated = True
        command = bytes([0x84, 0x82, self.level, 0x00, 0x10]) + self._host_cryptogram
        return command + self._next_mac(command)

    def wrap(self, cla: int, ins: int, p1: int, p2: int, data: BytesLike = b"", le: int | None = None) -> bytes:
        """A secured command (GPCS E.4.4, E.4.6): the C-MAC is over the plain data, which are encrypted after it. `le` is kept if given
        (256 and 0 are 00). At level 00 the plain command.

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
        self._wrapped += 1
        tail = b"" if le is None else bytes([le & 0xFF])
        if not level & C_MAC:
            return bytes([cla, ins, p1, p2]) + (bytes([len(body)]) + body if body else b"") + tail
        cla |= SECURE_MESSAGING
        mac = self._next_mac(bytes([cla, ins, p1, p2, len(body) + MAC_LEN]) + body)
        if level & C_DECRYPTION and body:
            body = self._enc.encrypt(bytes(BLOCK), pad80(body))
        return bytes([cla, ins, p1, p2, len(body) + MAC_LEN]) + body + mac + tail

    def wrap_segment(self, script: Script, row: ByteArray) -> bytes:
        """See `SecureChannel.wrap_segment`. Raises as `wrap`.

        Command by command: a C-MAC waits for the one before it, so that a kernel's lanes would all but one be empty.
        """
        octets = row.data
        commands = [self.external_authenticate()]
        for at, length, cla, ins, p1, p2, _, le, _ in script.apdus.tolist():
            commands.append(self.wrap(cla, ins, p1, p2, octets[at : at + length], None if le < 0 else le))
        return to_slab(commands)

    def check_response(self, index: int, data: BytesLike, sw: int) -> bytes:
        """Data of the response to wrap number `index` (from 0), in that order; nothing authenticates them.

        With C-MAC a status word other than 9000, 62xx and 63xx ends the session here and must carry no data. Raises Corrupt
        RESPONSE_DATA, Precondition (RESPONSE_ORDER, CHANNEL_ENDED).
        """
        self._require_open()
        if index != self._checked or index >= self._wrapped:
            raise Precondition("RESPONSE_ORDER", f"response {index} given; next is {self._checked} of {self._wrapped}")
        self._checked += 1
        body = bytes(data)
        if self.level & C_MAC and sw != 0x9000 and sw >> 8 not in (0x62, 0x63):
            self._ended = True
            if body:
                raise Corrupt("RESPONSE_DATA", f"status {sw:04X} came with {len(body)} bytes of data")
        return body

    def check_responses(self, answers: Sequence[bytes]) -> list[bytes]:
        """`check_response` for the data of the next responses, in order, each with status word 9000."""
        first = self._checked
        return [self.check_response(first + at, data, SW_OK) for at, data in enumerate(answers)]

    def dek_encrypt(self, span: BytesLike) -> bytes:
        """A secret for STORE DATA or PUT KEY: 3DES-ECB under the session DEK, no padding (GPCS E.4.7).

        Raises InvalidInput SPAN_LENGTH unless whole blocks of 8.
        """
        if self._closed:
            raise Precondition("SECRET_WIPED", "this secure channel session was closed")
        if not len(span) or len(span) % BLOCK:
            raise InvalidInput("SPAN_LENGTH", f"a secret under the DEK is whole blocks of {BLOCK} bytes, not {len(span)}")
        return self._dek.update(span)

    def dek_encrypt_blocks(self, blocks: BytesLike) -> bytes:
        """Many secrets in one call: in ECB each is on its own anyway."""
        return self.dek_encrypt(blocks)

    def close(self) -> None:
        """Wipes all keys; the session cannot be used afterwards."""
        self._closed = True
        for secret in self._secrets:
            secret.close()
        self._secrets = []
        # The contexts hold expanded keys; OpenSSL clears them when they are freed.
        for name in ("_enc", "_mac", "_dek"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Scp02Session(level={self.level:02X}, {self._wrapped} commands{', closed' if self._closed else ''})"

    def _next_mac(self, command: bytes) -> bytes:
        mac = self._mac.over(self._icv, command)
        self._icv = self._mac.next_icv(mac)
        return mac

    def _require_open(self) -> None:
        if self._closed:
            raise Precondition("SECRET_WIPED", "this secure channel session was closed")
        if self._ended:
            raise Precondition("CHANNEL_ENDED", "an error response ended this secure channel session")


def _check_card(session: Sequence[SecretBytes], host_challenge: bytes, response: bytes, aid: bytes | None) -> None:
    """Raises Denied CARD_CRYPTOGRAM, and with an `aid` CARD_CHALLENGE."""
    sequence, challenge = response[12:14], response[14:20]
    expected = cryptogram(session[0].reveal(), host_challenge + sequence + challenge)
    if not hmac.compare_digest(expected, response[20:28]):
        raise Denied("CARD_CRYPTOGRAM", "the card cryptogram is wrong: the card does not hold these keys")
    if aid is not None and not hmac.compare_digest(pseudo_random_challenge(session[1].reveal(), aid), challenge):
        raise Denied("CARD_CHALLENGE", "the card challenge is not the one that i=55 gives for this security domain")


def _session_keys(static_keys: Sequence[StaticKey], sequence: bytes) -> list[SecretBytes]:
    """S-ENC, C-MAC and DEK; raises InvalidInput KEY_LENGTH."""
    if len(static_keys) != 3:
        raise InvalidInput("KEY_LENGTH", f"SCP02 has three static keys, not {len(static_keys)}")
    session = []
    for key, constant in zip(static_keys, (S_ENC, C_MAC_KEY, DEK), strict=True):
        raw = key.reveal() if isinstance(key, SecretBytes) else key
        view = np.ascontiguousarray(raw).data if isinstance(raw, np.ndarray) else memoryview(raw)
        if view.nbytes != KEY_LEN:
            raise InvalidInput("KEY_LENGTH", f"SCP02 static keys have {KEY_LEN} bytes, not {view.nbytes}")
        session.append(session_key(view, constant, sequence))
    return session
