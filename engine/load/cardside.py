"""The card's side of a secure channel, lean: a whole personalization is deciphered in one go and answered in one go.

What a real chip would look at command by command is computed for all commands together: plaintexts by one cipher call over the
segment's blocks, the C-MAC chain by the kernel that also wraps it on the host side, response MACs by one call. Keys are those of TEST
chips only. SCP02 answers carry no MAC, so there the C-MACs of a segment are not looked at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import numpy as np
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

import cext
from engine.load.layout import AUTHENTICATE_LEN, ByteArray, Layout
from engine.virtual import scp02_card
from engine.virtual.birth import TEST_KMC
from engine.virtual.crypto import cmac
from engine.virtual.scp03_card import card_challenge, kdf
from keys.errors import Corrupt

OK: Final = b"\x90\x00"
# GPC Amendment D 4.1.5
_CRYPTOGRAM, _S_ENC, _S_MAC, _S_RMAC = 0x00, 0x04, 0x06, 0x07
_KEY: Final = 16


class CardSide(ABC):
    """One chip with its maker's keys: INITIALIZE UPDATE, one personalization, INITIALIZE UPDATE under the keys it brought."""

    def __init__(self, kdd: bytes, keys: bytes, aid: bytes) -> None:
        """`keys` are ENC || MAC || DEK, 48 bytes; `aid` that of the security domain."""
        self.kdd = kdd
        self._keys = keys
        self._aid = aid

    @abstractmethod
    def initialize_update(self, kvn: int, host_challenge: bytes) -> bytes:
        """The answer without status word."""

    @abstractmethod
    def decipher(self, layout: Layout, slab: ByteArray) -> ByteArray:
        """The plain blocks of the slab of its segment, (blocks, block)."""

    @abstractmethod
    def answers(self, layout: Layout, slab: ByteArray, row: ByteArray, data: Sequence[bytes]) -> list[bytes]:
        """Answers to all secured commands; `data` holds what each gives back in clear. Corrupt COMMAND_MAC for a command that is not
        secured as it should be.
        """

    @abstractmethod
    def reveal(self, blocks: bytes) -> bytes:
        """16-byte secrets, each deciphered with the DEK on its own."""

    def change_keys(self, keys: bytes) -> None:
        """PUT KEY and the end of the channel."""
        self._keys = keys


class Scp03Side(CardSide):
    """SCP03, i = 70, level 33 (GPC Amendment D)."""

    def __init__(self, kdd: bytes, keys: bytes, aid: bytes) -> None:
        super().__init__(kdd, keys, aid)
        self._sequence = 0
        self._context = b""
        self._s_mac = b""
        self._counters = b""
        self._block = Cipher(AES(bytes(_KEY)), ECB()).encryptor()  # noqa: S305 - single blocks, as Amendment D 6.2.6 makes ICVs

    def initialize_update(self, kvn: int, host_challenge: bytes) -> bytes:
        self._sequence += 1
        challenge = card_challenge(self._keys[:_KEY], self._sequence, self._aid)
        self._context = host_challenge + challenge
        self._s_mac = kdf(self._keys[_KEY : 2 * _KEY], _S_MAC, self._context, 128)
        cryptogram = kdf(self._s_mac, _CRYPTOGRAM, self._context, 64)
        return self.kdd + bytes((kvn, 0x03, 0x70)) + challenge + cryptogram + self._sequence.to_bytes(3, "big")

    def decipher(self, layout: Layout, slab: ByteArray) -> ByteArray:
        s_enc = kdf(self._keys[:_KEY], _S_ENC, self._context, 128)
        cipher = Cipher(AES(s_enc), ECB())  # noqa: S305 - CBC of many commands at once is this and one exclusive or
        self._block = cipher.encryptor()
        blocks = slab[layout.cipher]
        before = np.empty_like(blocks)
        before[1:] = blocks[:-1]
        before[layout.first] = np.frombuffer(self._block.update(layout.counter_blocks), np.uint8).reshape(-1, _KEY)
        plain = np.frombuffer(cipher.decryptor().update(blocks.data), np.uint8).reshape(-1, _KEY)
        return plain ^ before

    def answers(self, layout: Layout, slab: ByteArray, row: ByteArray, data: Sequence[bytes]) -> list[bytes]:
        apdus = layout.script.apdus
        s_enc = kdf(self._keys[:_KEY], _S_ENC, self._context, 128)
        # 84 82 33 00 10 || host cryptogram, then the C-MAC
        chain = cmac(self._s_mac, bytes(_KEY) + slab[2 : AUTHENTICATE_LEN - 8].tobytes())
        chains = np.empty((len(apdus), _KEY), np.uint8)
        enc, mac = (np.frombuffer(key, np.uint8).reshape(1, _KEY) for key in (s_enc, self._s_mac))
        start = np.frombuffer(bytearray(chain), np.uint8).reshape(1, _KEY)
        secured = cext.scp03_wrap(enc, mac, start, apdus, row.reshape(1, -1), chains=chains)
        if secured[0].tobytes() != layout.commands(slab):
            raise Corrupt("COMMAND_MAC", "a secured command of the server is not what its plain text and keys should give")
        hidden = self._encipher(layout, data)
        s_rmac = np.frombuffer(kdf(self._keys[_KEY : 2 * _KEY], _S_RMAC, self._context, 128), np.uint8)
        tags = _response_macs(s_rmac, chains, hidden)
        return [body + tag + OK for body, tag in zip(hidden, tags, strict=True)]

    def _encipher(self, layout: Layout, data: Sequence[bytes]) -> list[bytes]:
        """R-ENCRYPTION of answers of at most 15 bytes: one block each (Amendment D 6.2.7)."""
        found = list(data)
        full = [at for at, body in enumerate(data) if body]
        counters = layout.script.apdus["counter"]
        ivs = self._block.update(b"".join(b"\x80" + int(counters[at]).to_bytes(15, "big") for at in full))
        padded = b"".join((data[at] + b"\x80").ljust(_KEY, b"\x00") for at in full)
        mixed = np.frombuffer(ivs, np.uint8) ^ np.frombuffer(padded, np.uint8)
        out = self._block.update(mixed.data)
        for number, at in enumerate(full):
            found[at] = out[_KEY * number : _KEY * number + _KEY]
        return found

    def reveal(self, blocks: bytes) -> bytes:
        return Cipher(AES(self._keys[2 * _KEY :]), ECB()).decryptor().update(blocks)  # noqa: S305 - one block of CBC with a zero IV


def _response_macs(key: ByteArray, chains: ByteArray, bodies: Sequence[bytes]) -> list[bytes]:
    """R-MACs of all answers: one call for those without data, one for those with a block of it."""
    tags: list[bytes] = [b""] * len(bodies)
    for size in {len(body) for body in bodies}:
        members = [at for at, body in enumerate(bodies) if len(body) == size]
        messages = np.empty((len(members), _KEY + size + 2), np.uint8)
        messages[:, :_KEY] = chains[members]
        if size:
            messages[:, _KEY:-2] = np.frombuffer(b"".join(bodies[at] for at in members), np.uint8).reshape(-1, size)
        messages[:, -2:] = (0x90, 0x00)
        made = cext.aes_cmac(key, messages)[:, :8].tobytes()
        for number, at in enumerate(members):
            tags[at] = made[8 * number : 8 * number + 8]
    return tags


class Scp02Side(CardSide):
    """SCP02, i = 55, level 03 (GPCS annex E)."""

    def __init__(self, kdd: bytes, keys: bytes, aid: bytes) -> None:
        super().__init__(kdd, keys, aid)
        self._s_enc = self._dek = bytes(_KEY)

    def initialize_update(self, kvn: int, host_challenge: bytes) -> bytes:
        enc, mac, dek = self._keys[:_KEY], self._keys[_KEY : 2 * _KEY], self._keys[2 * _KEY :]
        sequence = bytes(2)  # one counter for each key version, and each version is used once
        challenge = scp02_card.card_challenge(mac, sequence, self._aid)
        channel = scp02_card.CardChannel02((enc, mac, dek), sequence, host_challenge, challenge)
        self._s_enc = scp02_card.session_key(enc, b"\x01\x82", sequence)
        self._dek = scp02_card.session_key(dek, b"\x01\x81", sequence)
        return self.kdd + bytes((kvn, 0x02)) + sequence + challenge + channel.card_cryptogram

    def decipher(self, layout: Layout, slab: ByteArray) -> ByteArray:
        blocks = slab[layout.cipher]
        before = np.empty_like(blocks)
        before[1:] = blocks[:-1]
        before[layout.first] = 0
        cipher = Cipher(TripleDES(self._s_enc + self._s_enc[:8]), ECB())  # noqa: S305 - CBC of many commands at once
        plain = np.frombuffer(cipher.decryptor().update(blocks.data), np.uint8).reshape(blocks.shape)
        return plain ^ before

    def answers(self, layout: Layout, slab: ByteArray, row: ByteArray, data: Sequence[bytes]) -> list[bytes]:
        del layout, slab, row  # answers of SCP02 carry no MAC
        return [body + OK for body in data]

    def reveal(self, blocks: bytes) -> bytes:
        return Cipher(TripleDES(self._dek + self._dek[:8]), ECB()).decryptor().update(blocks)  # noqa: S305 - GPCS E.4.7


SIDES: Final[dict[str, type[CardSide]]] = {"scp02": Scp02Side, "scp03": Scp03Side}


def makers_keys(protocol: str, kdds: Sequence[bytes]) -> list[bytes]:
    """ENC || MAC || DEK of many blanks of the public test maker, 48 bytes each, by their diversification data (10 bytes)."""
    factors = np.frombuffer(b"".join(kdds), np.uint8).reshape(-1, 10)
    if protocol == "scp03":
        messages = np.zeros((len(kdds), 3, _KEY), np.uint8)
        messages[:, :, 0] = 1
        messages[:, :, 4] = (1, 2, 3)
        messages[:, :, 6:] = factors[:, None, :]
        made = cext.aes_cmac(np.frombuffer(TEST_KMC, np.uint8), messages.reshape(-1, _KEY)).tobytes()
    else:
        halves = np.empty((len(kdds), 3, 2, 8), np.uint8)
        halves[:, :, :, :6] = factors[:, None, None, 4:]
        halves[:, :, 0, 6], halves[:, :, 1, 6] = 0xF0, 0x0F
        halves[:, :, :, 7] = np.array((1, 2, 3), np.uint8)[:, None]
        made = Cipher(TripleDES(TEST_KMC + TEST_KMC[:8]), ECB()).encryptor().update(halves.tobytes())  # noqa: S305 - EMV CPS 4.1
    return [made[at : at + 48] for at in range(0, len(made), 48)]
