"""SCP02 as the card runs it: GlobalPlatform Card Specification v2.3.1 annex E, i = 55: three base keys, explicit initiation, C-MAC on
the modified command, ICV encryption, pseudo-random card challenge; no R-MAC.

Each key version has a sequence counter of its own, which goes up when the first C-MAC of a session is right, and not before
(GPCS E.1.2). Two-key 3DES throughout.
"""

from __future__ import annotations

from engine.virtual.channel import C_DECRYPTION, C_MAC, SW_SECURITY, StaticKeys
from engine.virtual.crypto import TDES, cbc_decrypt, cbc_encrypt, cbc_mac, ecb, ecb_decrypt, pad80, same, unpad80
from engine.virtual.nvm import Nvm
from engine.virtual.wire import Command, Refused

# GPCS E.4.1, derivation constants.
_C_MAC_KEY, _ENC_KEY, _DEK_KEY = b"\x01\x01", b"\x01\x82", b"\x01\x81"
_BLOCK = 8


def session_key(key: bytes, constant: bytes, sequence: bytes) -> bytes:
    """GPCS E.4.1."""
    return cbc_encrypt(TDES, key, bytes(_BLOCK), constant + sequence + bytes(12))


def full_triple_des_mac(key: bytes, message: bytes) -> bytes:
    """GPCS B.1.2.1, for the authentication cryptograms."""
    return cbc_mac(TDES, key, message)


def c_mac(key: bytes, icv: bytes, message: bytes) -> bytes:
    """GPCS B.1.2.2, single DES with a final triple DES, from an ICV."""
    padded = pad80(message, _BLOCK)
    chain = cbc_encrypt(TDES, key[:8] * 3, icv, padded[:-_BLOCK])[-_BLOCK:] or icv
    return ecb(TDES, key, bytes(a ^ b for a, b in zip(chain, padded[-_BLOCK:], strict=True)))


class CardChannel02:
    """See `Channel`."""

    def __init__(self, keys: StaticKeys, sequence: bytes, host_challenge: bytes, challenge: bytes) -> None:
        enc, mac, dek = keys
        self.level = 0
        self._s_enc = session_key(enc, _ENC_KEY, sequence)
        self._c_mac = session_key(mac, _C_MAC_KEY, sequence)
        self._dek = session_key(dek, _DEK_KEY, sequence)
        self.card_cryptogram = full_triple_des_mac(self._s_enc, host_challenge + sequence + challenge)
        self._host_cryptogram = full_triple_des_mac(self._s_enc, sequence + challenge + host_challenge)
        self._previous: bytes | None = None

    def host_cryptogram_fits(self, cryptogram: bytes) -> bool:
        return same(cryptogram, self._host_cryptogram)

    def check_mac(self, command: Command) -> bool:
        return len(command.data) >= _BLOCK and self._mac_fits(command, command.data[:-8], command.data[-8:])

    def unwrap(self, command: Command) -> Command:
        """The C-MAC is over the plain data with the length they would have with it (GPCS E.4.4): deciphering comes first."""
        data, mac = command.data[:-8], command.data[-8:]
        if len(mac) < _BLOCK:
            raise Refused(SW_SECURITY)
        if self.level & C_DECRYPTION and data:
            plain = None if len(data) % _BLOCK else unpad80(cbc_decrypt(TDES, self._s_enc, bytes(_BLOCK), data))
            if plain is None:
                raise Refused(SW_SECURITY)
            data = plain
        if not self._mac_fits(command, data, mac):
            raise Refused(SW_SECURITY)
        return Command(command.cla & ~0x04, command.ins, command.p1, command.p2, data, command.le)

    def wrap_response(self, data: bytes, sw: int) -> bytes:  # noqa: ARG002 - a protocol with R-MAC would need it
        """As it is: levels without R-MAC."""
        return data

    def decrypt_span(self, span: bytes) -> bytes:
        """Under the session DEK: ECB, no padding (GPCS E.4.7). Refused 6A80 unless whole blocks."""
        if not span or len(span) % _BLOCK:
            raise Refused(0x6A80)
        return ecb_decrypt(TDES, self._dek, span)

    def _mac_fits(self, command: Command, data: bytes, mac: bytes) -> bool:
        icv = bytes(_BLOCK) if self._previous is None else ecb(TDES, self._c_mac[:8] * 3, self._previous)
        header = bytes((command.cla, command.ins, command.p1, command.p2, len(data) + _BLOCK))
        due = c_mac(self._c_mac, icv, header + data)
        if not same(due, mac):
            return False
        self._previous = due
        return True


class Scp02:
    """See `Scp`."""

    number = 0x02
    option = 0x55
    levels = frozenset((0x00, C_MAC, C_MAC | C_DECRYPTION))
    key_type = 0x80
    algorithm = TDES

    def begin(self, nvm: Nvm, kvn: int, keys: StaticKeys, host_challenge: bytes, aid: bytes) -> tuple[CardChannel02, bytes]:
        if nvm.get_int(_counter(kvn)) > 0xFFFF:
            raise Refused(0x6985)
        sequence = self.sequence(nvm, kvn)
        challenge = card_challenge(keys[1], sequence, aid)
        channel = CardChannel02(keys, sequence, host_challenge, challenge)
        return channel, b"\x02" + sequence + challenge + channel.card_cryptogram

    def authenticated(self, nvm: Nvm, kvn: int) -> None:
        nvm.put(_counter(kvn), nvm.get_int(_counter(kvn)) + 1)

    def sequence(self, nvm: Nvm, kvn: int) -> bytes:
        return nvm.get_int(_counter(kvn)).to_bytes(2, "big")


def card_challenge(mac_key: bytes, sequence: bytes, aid: bytes) -> bytes:
    """The pseudo-random card challenge: leftmost 6 bytes of the C-MAC, zero ICV, over the AID under the C-MAC session key."""
    return c_mac(session_key(mac_key, _C_MAC_KEY, sequence), bytes(_BLOCK), aid)[:6]


def _counter(kvn: int) -> str:
    return f"isd.seq.{kvn:02X}"
