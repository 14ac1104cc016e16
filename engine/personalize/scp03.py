"""SCP03, the off-card side (GlobalPlatform Card Specification 2.3 Amendment D v1.1.1), S8 mode, AES-128/192/256.

Session keys and the session that has them in this process; the rules of the channel are those of `scp03_channel`.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
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
    require_blocks,
    response_counter,
    unpad80,
)
from engine.personalize.script import CRYPTOGRAM_LEN, ByteArray, Script
from keys.errors import Corrupt, InvalidInput
from keys.secrets import BytesLike, SecretArray, SecretBytes

# Amendment D 4.1.5, table 4-1: derivation constants.
CARD_CRYPTOGRAM: Final = 0x00
HOST_CRYPTOGRAM: Final = 0x01
CARD_CHALLENGE: Final = 0x02
S_ENC: Final = 0x04
S_MAC: Final = 0x06
S_RMAC: Final = 0x07

_SW_OK: Final = (0x90, 0x00)

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
    return np.frombuffer(b"".join([bytes(11) + bytes([constant]) + tail for constant in constants]), np.uint8).reshape(len(constants), -1)


def _session_keys(enc: ByteArray, mac: ByteArray, context: bytes, out: ByteArray) -> None:
    """S-ENC, S-MAC and S-RMAC into `out` (3, key length), locked memory."""
    if len(enc) == BLOCK:
        messages = _messages((S_ENC, S_MAC, S_RMAC), 128, context)
        cext.aes_cmac(enc, messages[:1], out=out[:1])
        cext.aes_cmac(mac, messages[1:], out=out[1:])
        return
    for row, key, constant in zip(out, (enc, mac, mac), (S_ENC, S_MAC, S_RMAC), strict=True):
        with SecretBytes(key.data) as static, session_key(static, constant, context) as made:
            row[:] = np.frombuffer(made.reveal(), np.uint8)


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

    def __init__(self, keys: SecretArray, host_cryptogram: bytes, level: int) -> None:
        """Use `open`. `keys` (4, key length) are S-ENC, S-MAC, S-RMAC and the static DEK; the session owns and wipes them."""
        super().__init__(host_cryptogram, level)
        self._keys = keys

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
        enc, mac, dek = _views(static_keys)
        context = bytes(host_challenge) + hello.card_challenge
        keys = SecretArray.empty((4, len(dek)))
        try:
            session = keys.array
            _session_keys(enc, mac, context, session[:3])
            session[3] = dek
            card, host = cext.aes_cmac(session[1], _messages((CARD_CRYPTOGRAM, HOST_CRYPTOGRAM), 64, context))[:, :8]
            hello.require_cryptogram(card.tobytes())
        except BaseException:
            keys.close()
            raise
        return cls(keys, host.tobytes(), level)

    def _c_mac(self, message: bytes) -> bytes:
        return cext.aes_cmac(self._key(1), _one_row(message)).tobytes()

    def _r_mac(self, message: bytes) -> bytes:
        return cext.aes_cmac(self._key(2), _one_row(message)).tobytes()

    def _icv(self, counter: bytes) -> bytes:
        return cext.aes_ecb(self._key(0), _one_row(counter)).tobytes()

    def _encrypt(self, iv: bytes, blocks: bytes) -> bytes:
        return cext.aes_cbc(self._key(0), _one_row(blocks), np.frombuffer(iv, np.uint8)).tobytes()

    def _decrypt(self, iv: bytes, blocks: bytes) -> bytes:
        # the kernels only encipher; the library wipes its expanded key when the context is freed
        return Cipher(AES(self._key(0).data), CBC(iv)).decryptor().update(blocks)

    def _key(self, number: int) -> ByteArray:
        key: ByteArray = self._keys.array[number]
        return key

    def wrap_segment(self, script: Script, row: ByteArray) -> bytes:
        """See `SecureChannel.wrap_segment`. Raises InvalidInput APDU_TOO_LONG, Precondition (CHANNEL_ORDER, also at level 00;
        CHANNEL_ENDED, SECRET_WIPED).
        """
        self._require_new()
        row[script.authenticate_at : script.authenticate_at + CRYPTOGRAM_LEN] = np.frombuffer(self._host_cryptogram, np.uint8)
        keys, chain, chains = self._keys.array, np.zeros((1, BLOCK), np.uint8), np.empty((len(script.segment), BLOCK), np.uint8)
        try:
            slab = cext.scp03_wrap(keys[:1], keys[1:2], chain, script.segment, row.reshape(1, -1), chains=chains, slab=True)
        except ValueError as error:
            raise InvalidInput("APDU_TOO_LONG", f"a command does not fit in a short APDU: {error}") from None
        self._authenticated = True
        self._chain = chain.tobytes()
        self._chains[:] = chains[1:].data.cast("B")
        return slab.tobytes()

    def check_responses(self, answers: Sequence[bytes]) -> list[bytes]:
        """As `check_response` one after another; the response MACs of a whole segment are computed together."""
        first, level, lengths = self._checked, self.level, list(map(len, answers))
        many = bool(answers) and min(lengths) >= MAC_LEN and not self._ended and not self._closed
        if not many or not level & C_MAC or not level & R_MAC or first + len(answers) > self._wrapped:
            return super().check_responses(answers)
        if not self._same_r_macs(first, answers, lengths):
            # one by one: the first that is wrong ends the channel
            return super().check_responses(answers)
        self._checked += len(answers)
        try:
            return self._decrypted_together(first, [answer[:-MAC_LEN] for answer in answers])
        except Corrupt:
            self._ended = True
            raise

    def _same_r_macs(self, first: int, answers: Sequence[bytes], lengths: list[int]) -> bool:
        """Whether the R-MACs of responses that begin with number `first` are right: those of one length are made in one call."""
        chains, key, same = np.frombuffer(self._chains, np.uint8).reshape(-1, BLOCK), self._key(2), True
        for length in set(lengths):
            places = [at for at, one in enumerate(lengths) if one == length]
            given = np.frombuffer(b"".join([answers[at] for at in places]), np.uint8).reshape(-1, length)
            messages = np.empty((len(places), BLOCK + length - MAC_LEN + 2), np.uint8)
            messages[:, :BLOCK] = chains[[first + at for at in places]]
            messages[:, BLOCK:-2] = given[:, :-MAC_LEN]
            messages[:, -2:] = _SW_OK
            made = cext.aes_cmac(key, messages)
            same &= hmac.compare_digest(made[:, :MAC_LEN].tobytes(), given[:, -MAC_LEN:].tobytes())
        return same

    def _decrypted_together(self, first: int, bodies: list[bytes]) -> list[bytes]:
        """R-ENCRYPTION taken off (Amendment D 6.2.7): CBC of many bodies is ECB of all their blocks, and one exclusive or."""
        full = [at for at, body in enumerate(bodies) if body]
        if not full or not self.level & R_ENCRYPTION:
            return bodies
        for at in full:
            require_blocks(bodies[at])
        counters = b"".join([response_counter(first + at) for at in full])
        ivs = cext.aes_ecb(self._key(0), np.frombuffer(counters, np.uint8).reshape(-1, BLOCK)).tobytes()
        before = b"".join([ivs[BLOCK * n : BLOCK * n + BLOCK] + bodies[at][:-BLOCK] for n, at in enumerate(full)])
        blocks = b"".join([bodies[at] for at in full])
        opened = Cipher(AES(self._key(0).data), ECB()).decryptor().update(blocks)  # noqa: S305 - with the line below this is CBC
        plain = (np.frombuffer(opened, np.uint8) ^ np.frombuffer(before, np.uint8)).tobytes()
        start = 0
        for at in full:
            after = start + len(bodies[at])
            bodies[at] = unpad80(plain[start:after])
            start = after
        return bodies

    def dek_encrypt(self, span: BytesLike) -> bytes:
        """A secret for STORE DATA or PUT KEY: AES-CBC under the static DEK, zero IV, no padding (Amendment D 6.2.8).

        Raises InvalidInput SPAN_LENGTH unless whole blocks of 16.
        """
        self._require_span(span)
        return cext.aes_cbc(self._key(3), _one_row(span)).tobytes()

    def dek_encrypt_blocks(self, blocks: BytesLike) -> bytes:
        """Many 16-byte secrets, each a span of its own, in one call."""
        self._require_span(blocks)
        return cext.aes_ecb(self._key(3), np.frombuffer(blocks, np.uint8).reshape(-1, BLOCK)).tobytes()

    def close(self) -> None:
        """Wipes all keys; the session cannot be used afterwards."""
        self._closed = True
        self._keys.close()


def _one_row(message: BytesLike) -> ByteArray:
    return np.frombuffer(message, np.uint8).reshape(1, -1)


def _view(key: StaticKey) -> ByteArray:
    if isinstance(key, np.ndarray):
        return np.ascontiguousarray(key)
    return np.frombuffer(key.reveal() if isinstance(key, SecretBytes) else key, np.uint8)


def _views(static_keys: Sequence[StaticKey]) -> tuple[ByteArray, ByteArray, ByteArray]:
    """ENC, MAC, DEK where they lie; raises InvalidInput KEY_LENGTH."""
    if len(static_keys) != 3:
        raise InvalidInput("KEY_LENGTH", f"SCP03 has three static keys, not {len(static_keys)}")
    enc, mac, dek = (_view(key) for key in static_keys)
    if {len(enc), len(mac)} not in ({16}, {24}, {32}) or len(dek) != len(enc):
        raise InvalidInput("KEY_LENGTH", "SCP03 static keys are all of 16, all of 24 or all of 32 bytes")
    return enc, mac, dek
