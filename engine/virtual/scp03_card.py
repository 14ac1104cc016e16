"""SCP03 as the card runs it: GlobalPlatform Card Specification v2.3 Amendment D v1.1.1, AES-128, S8 mode, i = 70.

One `CardChannel` per INITIALIZE UPDATE. It knows no files, no life cycle and no retry counters; the security domain does.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from engine.virtual.channel import C_DECRYPTION, R_ENCRYPTION, R_MAC, SW_SECURITY, StaticKeys
from engine.virtual.crypto import AES, cbc_decrypt, cbc_encrypt, cmac, pad80, same, unpad80
from engine.virtual.nvm import Nvm
from engine.virtual.wire import Command, Refused

# Amendment D 4.1.5, data derivation constants.
_CARD_CRYPTOGRAM, _HOST_CRYPTOGRAM, _CARD_CHALLENGE = 0x00, 0x01, 0x02
_S_ENC, _S_MAC, _S_RMAC = 0x04, 0x06, 0x07


def kdf(key: bytes, constant: int, context: bytes, bits: int) -> bytes:
    """SP 800-108 counter mode with CMAC, Amendment D 4.1.5: `bits` is 64 or 128."""
    return cmac(key, bytes(11) + bytes((constant, 0)) + bits.to_bytes(2, "big") + b"\x01" + context)[: bits // 8]


def card_challenge(enc_key: bytes, sequence: int, aid: bytes) -> bytes:
    """The pseudo-random card challenge, Amendment D 6.2.2.1: over the sequence counter after its increment, and the AID."""
    return kdf(enc_key, _CARD_CHALLENGE, sequence.to_bytes(3, "big") + aid, 64)


class CardChannel:
    """One secure channel, from the card's challenge to its end."""

    def __init__(self, enc: bytes, mac: bytes, dek: bytes, host_challenge: bytes, challenge: bytes) -> None:
        context = host_challenge + challenge
        self.dek = dek
        self.level = 0
        self._s_enc = kdf(enc, _S_ENC, context, 128)
        s_mac = kdf(mac, _S_MAC, context, 128)
        self._mac_context = CMAC(algorithms.AES(s_mac))
        self._rmac_context = CMAC(algorithms.AES(kdf(mac, _S_RMAC, context, 128)))
        self._s_enc_ecb = Cipher(algorithms.AES(self._s_enc), modes.ECB()).encryptor()  # noqa: S305 - Amendment D 6.2.6
        self.card_cryptogram = kdf(s_mac, _CARD_CRYPTOGRAM, context, 64)
        self._host_cryptogram = kdf(s_mac, _HOST_CRYPTOGRAM, context, 64)
        self._chain = bytes(16)
        self._counter = 0

    def host_cryptogram_fits(self, cryptogram: bytes) -> bool:
        return same(cryptogram, self._host_cryptogram)

    def check_mac(self, command: Command) -> bool:
        """Verifies the C-MAC at the end of the data and moves the chain on (Amendment D 6.2.4)."""
        if len(command.data) < 8:
            return False
        mac = self._mac_context.copy()
        header = bytes((command.cla, command.ins, command.p1, command.p2, len(command.data)))
        mac.update(self._chain + header + command.data[:-8])
        chain = mac.finalize()
        if not same(chain[:8], command.data[-8:]):
            return False
        self._chain = chain
        return True

    def unwrap(self, command: Command) -> Command:
        """The plain command; Refused 6982 when MAC or padding is wrong, and then the channel must be closed."""
        if not self.check_mac(command):
            raise Refused(SW_SECURITY)
        data = command.data[:-8]
        # Counted for every command of the session, with data or without (Amendment D 6.2.6).
        self._counter += 1
        if self.level & C_DECRYPTION and data:
            if len(data) % 16:
                raise Refused(SW_SECURITY)
            plain = unpad80(cbc_decrypt("aes", self._s_enc, self._icv(0x00), data))
            if plain is None:
                raise Refused(SW_SECURITY)
            data = plain
        return Command(command.cla & ~0x04, command.ins, command.p1, command.p2, data, command.le)

    def wrap_response(self, data: bytes, sw: int) -> bytes:
        """Response data with R-ENCRYPTION and R-MAC as the level asks (Amendment D 6.2.5, 6.2.7); errors carry neither."""
        if not self.level & R_MAC or not (sw == 0x9000 or sw >> 8 in (0x62, 0x63)):
            return data
        if self.level & R_ENCRYPTION and data:
            data = cbc_encrypt("aes", self._s_enc, self._icv(0x80), pad80(data, 16))
        mac = self._rmac_context.copy()
        mac.update(self._chain + data + sw.to_bytes(2, "big"))
        return data + mac.finalize()[:8]

    def decrypt_span(self, span: bytes) -> bytes:
        """Under the static DEK: CBC, zero IV, no padding (Amendment D 6.2.8). Refused 6A80 unless whole blocks."""
        if not span or len(span) % 16:
            raise Refused(0x6A80)
        return cbc_decrypt("aes", self.dek, bytes(16), span)

    def _icv(self, first: int) -> bytes:
        return self._s_enc_ecb.update(bytes((first,)) + self._counter.to_bytes(15, "big"))


class Scp03:
    """See `Scp`. One counter for all key versions, which goes up with each INITIALIZE UPDATE."""

    number = 0x03
    option = 0x70
    levels = frozenset((0x00, 0x01, 0x03, 0x11, 0x13, 0x33))
    key_type = 0x88
    algorithm = AES

    def begin(self, nvm: Nvm, kvn: int, keys: StaticKeys, host_challenge: bytes, aid: bytes) -> tuple[CardChannel, bytes]:  # noqa: ARG002
        sequence = nvm.get_int("isd.seq") + 1
        if sequence > 0xFFFFFF:
            raise Refused(0x6985)
        nvm.put("isd.seq", sequence)
        challenge = card_challenge(keys[0], sequence, aid)
        channel = CardChannel(*keys, host_challenge, challenge)
        return channel, bytes((0x03, self.option)) + challenge + channel.card_cryptogram + sequence.to_bytes(3, "big")

    def authenticated(self, nvm: Nvm, kvn: int) -> None:
        """Nothing: the counter went up before."""

    def sequence(self, nvm: Nvm, kvn: int) -> bytes:  # noqa: ARG002
        return nvm.get_int("isd.seq").to_bytes(3, "big")
