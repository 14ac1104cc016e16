"""The SCP02 counterpart of `card_driver.Host`, written from GPCS annex E and sharing no code with the card or with the engine."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from tests.virtual.card_driver import TEST_KMC, pad80

ZERO = bytes(8)


def tdes(key: bytes, mode: modes.Mode, blocks: bytes, *, decrypt: bool = False) -> bytes:
    cipher = Cipher(TripleDES(key + key[:8] if len(key) == 16 else key * 3), mode)
    return (cipher.decryptor() if decrypt else cipher.encryptor()).update(blocks)


def transport_keys(chip_id: str, kmc: bytes = TEST_KMC) -> list[bytes]:
    """EMV CPS 4.1."""
    six = bytes.fromhex(chip_id)[4:]
    return [tdes(kmc, modes.ECB(), six + bytes((0xF0, k)) + six + bytes((0x0F, k))) for k in (1, 2, 3)]


def retail_mac(key: bytes, icv: bytes, message: bytes) -> bytes:
    """Single DES to the end, then decipher with the right half and encipher with the left."""
    last = tdes(key[:8], modes.CBC(icv), pad80(message, 8))[-8:]
    return tdes(key[:8], modes.ECB(), tdes(key[8:], modes.ECB(), last, decrypt=True))


class Host02:
    """One SCP02 session from the host's side; also plain commands."""

    def __init__(self, transmit: Callable[[bytes], bytes], keys: list[bytes]) -> None:
        self.transmit = transmit
        self.keys = keys
        self.level = 0

    def plain(self, apdu: str | bytes) -> tuple[bytes, int]:
        answer = self.transmit(bytes.fromhex(apdu) if isinstance(apdu, str) else apdu)
        return answer[:-2], int.from_bytes(answer[-2:], "big")

    def initialize_update(self, kvn: int = 0x30, host_challenge: bytes = b"\x11" * 8) -> tuple[bytes, int]:
        data, sw = self.plain(bytes((0x80, 0x50, kvn, 0, 8)) + host_challenge + b"\x00")
        if sw != 0x9000:
            return data, sw
        self.sequence, self.challenge = data[12:14], data[14:20]
        self.s_enc, self.c_mac, self.dek = (
            tdes(key, modes.CBC(ZERO), constant + self.sequence + bytes(12))
            for key, constant in zip(self.keys, (b"\x01\x82", b"\x01\x01", b"\x01\x81"), strict=True)
        )
        self.card_cryptogram_fits = self.cryptogram(host_challenge + self.sequence + self.challenge) == data[20:]
        self.host_cryptogram = self.cryptogram(self.sequence + self.challenge + host_challenge)
        return data, sw

    def cryptogram(self, message: bytes) -> bytes:
        return tdes(self.s_enc, modes.CBC(ZERO), pad80(message, 8))[-8:]

    def external_authenticate(self, level: int, *, spoil_cryptogram: int = 0, spoil_mac: int = 0) -> int:
        command = bytes((0x84, 0x82, level, 0, 16)) + bytes((self.host_cryptogram[0] ^ spoil_cryptogram,)) + self.host_cryptogram[1:]
        self.last = retail_mac(self.c_mac, ZERO, command)
        self.level = level
        return self.plain(command + bytes((self.last[0] ^ spoil_mac,)) + self.last[1:])[1]

    def open(self, level: int = 0x03, kvn: int = 0x30) -> None:
        _, sw = self.initialize_update(kvn)
        assert sw == 0x9000
        assert self.card_cryptogram_fits
        assert self.external_authenticate(level) == 0x9000

    def wrap(self, apdu: bytes) -> bytes:
        if not self.level & 1:
            return apdu
        lc = apdu[4] if len(apdu) > 5 else 0
        data, le = apdu[5 : 5 + lc], apdu[5 + lc :] if lc else apdu[4:]
        header = bytes((apdu[0] | 4, *apdu[1:4]))
        self.last = retail_mac(self.c_mac, tdes(self.c_mac[:8], modes.ECB(), self.last), header + bytes((lc + 8,)) + data)
        if self.level & 2 and data:
            data = tdes(self.s_enc, modes.CBC(ZERO), pad80(data, 8))
        return header + bytes((len(data) + 8,)) + data + self.last + le

    def send(self, apdu: str | bytes) -> tuple[bytes, int]:
        return self.plain(self.wrap(bytes.fromhex(apdu) if isinstance(apdu, str) else apdu))

    def sealed(self, span: bytes) -> bytes:
        """A span under the session DEK."""
        return tdes(self.dek, modes.ECB(), span)
