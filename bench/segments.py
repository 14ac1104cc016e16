"""Whole personalization segments of the shipped profile, for many cards at once, beside a plain implementation over `cryptography`.

Both sides begin with the card's static keys, its answer to INITIALIZE UPDATE and its image in the clear, and end with every secured
command: session keys, both cryptograms, EXTERNAL AUTHENTICATE, the secrets under the DEK, all commands wrapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.cmac import CMAC

from bench.peers import Result, rows, triple
from engine.personalize.batch import Segments, scp02_segments, scp03_segments
from engine.personalize.script import Script, script_of
from engine.profiles.compile import compile_profile
from engine.profiles.model import load

CARDS: Final = 1024
FEW: Final = 16
PROFILES: Final = {"scp03-segment": "zhengzhou-citizen-card", "scp02-segment": "zhengzhou-citizen-card-scp02"}


def cmac(key: bytes, message: bytes) -> bytes:
    mac = CMAC(AES(key))
    mac.update(message)
    return mac.finalize()


def kdf(key: bytes, constant: int, context: bytes, length: int) -> bytes:
    """GPC Amendment D 4.1.5 for up to one block."""
    return cmac(key, bytes(11) + bytes([constant, 0]) + (8 * length).to_bytes(2, "big") + b"\x01" + context)[:length]


class Inputs:
    """Random cards; the cryptograms they answer are right."""

    def __init__(self, operation: str) -> None:
        compiled = compile_profile(load(PROFILES[operation]), 19)
        random = np.random.default_rng(20261123)
        self.script: Script = script_of(compiled)
        self.level = int(compiled.loaded.profile.channel.level, 16)
        self.static = random.integers(0, 256, (3, CARDS, 16), np.uint8)
        self.issuer = random.integers(0, 256, (3, CARDS, 16), np.uint8)
        self.challenges = random.integers(0, 256, (CARDS, 8), np.uint8)
        self.images = random.integers(0, 256, (CARDS, compiled.image_len), np.uint8)
        self.scp02 = operation == "scp02-segment"
        self.responses = random.integers(0, 256, (CARDS, 28 if self.scp02 else 32), np.uint8)
        answer = scp02_cryptogram if self.scp02 else scp03_cryptogram
        for card in range(CARDS):
            proof = answer([key.tobytes() for key in self.static[:, card]], self.challenges[card].tobytes(), self.responses[card].tobytes())
            self.responses[card, 20 if self.scp02 else 21 :][:8] = np.frombuffer(proof, np.uint8)

    def ours(self) -> Result:
        make = scp02_segments if self.scp02 else scp03_segments
        made: Segments = make(self.script, self.level, self.static, self.challenges, self.responses, self.images, self.issuer)
        return made.authenticate, made.commands

    def theirs(self) -> Result:
        one = self.card02 if self.scp02 else self.card03
        made = [one(card) for card in range(FEW)]
        return rows([first for first, _ in made]), rows([rest for _, rest in made])

    def _plain(self, card: int) -> tuple[list[bytes], bytes, bytes, Iterator[tuple[Any, bytes]], bytearray]:
        row = bytearray(self.script.row.tobytes())
        row[self.script.image_at : self.script.image_at + self.script.image_len] = self.images[card].tobytes()
        static = [key.tobytes() for key in self.static[:, card]]
        commands = ((apdu, b"") for apdu in self.script.apdus)
        return static, self.challenges[card].tobytes(), self.responses[card].tobytes(), commands, row

    def _fill(self, card: int, row: bytearray, dek: Any, block: bytes, kcv: Any) -> None:
        places = [*self.script.spans, *((at, 16) for at in self.script.keys_at)]
        for at, key, check in zip(self.script.keys_at, self.issuer[:, card], self.script.kcvs_at, strict=True):
            row[at : at + 16] = key.tobytes()
            row[check : check + 3] = Cipher(kcv(key.tobytes()), ECB()).encryptor().update(block)[:3]
        for at, length in places:
            mode = ECB() if self.scp02 else CBC(bytes(16))
            row[at : at + length] = Cipher(dek, mode).encryptor().update(bytes(row[at : at + length]))

    def card03(self, card: int) -> tuple[bytes, bytes]:
        """SCP03 command by command."""
        static, challenge, response, commands, row = self._plain(card)
        context = challenge + response[13:21]
        s_enc, s_mac, _ = (kdf(static[at], constant, context, 16) for at, constant in ((0, 4), (1, 6), (1, 7)))
        if kdf(s_mac, 0, context, 8) != response[21:29]:
            raise ValueError("the card cryptogram is wrong")
        first = bytes([0x84, 0x82, self.level, 0, 0x10]) + kdf(s_mac, 1, context, 8)
        chain = cmac(s_mac, bytes(16) + first)
        first += chain[:8]
        self._fill(card, row, AES(static[2]), b"\x01" * 16, AES)
        cipher, out = AES(s_enc), []
        counters = Cipher(cipher, ECB()).encryptor()
        for counter, (apdu, _) in enumerate(commands, 1):
            body = bytes(row[apdu["offset"] : apdu["offset"] + apdu["length"]])
            if body:
                padded = body + b"\x80" + bytes(-(len(body) + 1) % 16)
                body = Cipher(cipher, CBC(counters.update(counter.to_bytes(16, "big")))).encryptor().update(padded)
            text = bytes([apdu["cla"] | 4, apdu["ins"], apdu["p1"], apdu["p2"], len(body) + 8]) + body
            chain = cmac(s_mac, chain + text)
            out.append(text + chain[:8])
        return first, b"".join(out)

    def card02(self, card: int) -> tuple[bytes, bytes]:
        """SCP02 command by command."""
        static, challenge, response, commands, row = self._plain(card)
        s_enc, c_mac, dek = (
            scp02_key(key, constant, response[12:14]) for key, constant in zip(static, (0x0182, 0x0101, 0x0181), strict=True)
        )
        if scp02_cryptogram(static, challenge, response) != response[20:28]:
            raise ValueError("the card cryptogram is wrong")
        proof = response[12:14] + response[14:20] + challenge + b"\x80" + bytes(7)
        first = bytes([0x84, 0x82, self.level, 0, 0x10]) + cbc(s_enc, bytes(8), proof)[-8:]
        mac = retail(c_mac, bytes(8), first)
        first += mac
        self._fill(card, row, triple(dek), bytes(8), triple)
        out = []
        for apdu, _ in commands:
            body = bytes(row[apdu["offset"] : apdu["offset"] + apdu["length"]])
            text = bytes([apdu["cla"] | 4, apdu["ins"], apdu["p1"], apdu["p2"], len(body) + 8]) + body
            mac = retail(c_mac, Cipher(triple(c_mac[:8] * 2), ECB()).encryptor().update(mac), text)
            if body:
                body = cbc(s_enc, bytes(8), body + b"\x80" + bytes(-(len(body) + 1) % 8))
            out.append(text[:4] + bytes([len(body) + 8]) + body + mac)
        return first, b"".join(out)


def scp03_cryptogram(static: list[bytes], challenge: bytes, response: bytes) -> bytes:
    context = challenge + response[13:21]
    return kdf(kdf(static[1], 6, context, 16), 0, context, 8)


def cbc(key: bytes, iv: bytes, text: bytes) -> bytes:
    return Cipher(triple(key), CBC(iv)).encryptor().update(text)


def scp02_key(key: bytes, constant: int, sequence: bytes) -> bytes:
    return cbc(key, bytes(8), constant.to_bytes(2, "big") + sequence + bytes(12))


def scp02_cryptogram(static: list[bytes], challenge: bytes, response: bytes) -> bytes:
    return cbc(scp02_key(static[0], 0x0182, response[12:14]), bytes(8), challenge + response[12:20] + b"\x80" + bytes(7))[-8:]


def retail(key: bytes, icv: bytes, message: bytes) -> bytes:
    """GPCS B.1.2.2."""
    padded = message + b"\x80" + bytes(-(len(message) + 1) % 8)
    last = icv
    if len(padded) > 8:
        last = cbc(key[:8] * 2, icv, padded[:-8])[-8:]
    mixed = bytes(a ^ b for a, b in zip(last, padded[-8:], strict=True))
    return Cipher(triple(key), ECB()).encryptor().update(mixed)
