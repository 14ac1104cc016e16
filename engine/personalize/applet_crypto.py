"""What the applets must answer, computed on the host side: authentication blocks, MAC1 of a load, application cryptograms.

Keys are 16-byte buffers that the caller owns; nothing here keeps one. All values big-endian.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

import cext
from engine.profiles.model import Algorithm

ByteArray = npt.NDArray[np.uint8]
Buffer: TypeAlias = bytes | bytearray | memoryview
BLOCK: Final = {"3des": 8, "sm4": 16, "aes": 16}
_ECB: Final = {"3des": cext.tdes_ecb, "sm4": cext.sm4_ecb, "aes": cext.aes_ecb}


def ecb(algorithm: Algorithm, key: Buffer, blocks: Buffer) -> bytes:
    """Blocks encrypted one by one."""
    return ecb_each(algorithm, np.frombuffer(key, np.uint8), blocks)


def ecb_each(algorithm: Algorithm, keys: ByteArray, blocks: Buffer) -> bytes:
    """Blocks encrypted one by one, under one key (16,) or each under its own (n, 16), in one call."""
    return _ECB[algorithm](keys, np.frombuffer(blocks, np.uint8).reshape(-1, BLOCK[algorithm])).tobytes()


def pad80(message: bytes, block: int) -> bytes:
    """ISO 9797-1 padding method 2: 80, then 00 to a whole number of blocks."""
    return message + b"\x80" + bytes(-(len(message) + 1) % block)


def des_cbc_mac(key8: Buffer, message: bytes) -> bytes:
    """Single-DES CBC-MAC over pad80, zero IV: 8 bytes. It is the retail MAC of a key with both halves alike."""
    doubled = bytearray(key8) * 2
    try:
        return retail_mac(doubled, message)
    finally:
        doubled[:] = bytes(len(doubled))


def sm4_cbc_mac(key: Buffer, message: bytes) -> bytes:
    """SM4 CBC-MAC over pad80, zero IV: 16 bytes."""
    return cext.sm4_cbc_mac(np.frombuffer(key, np.uint8), _row(pad80(message, 16))).tobytes()


def retail_mac(key: Buffer, message: bytes) -> bytes:
    """ISO 9797-1 MAC algorithm 3 over pad80, zero IV: 8 bytes."""
    return cext.tdes_retail_mac(np.frombuffer(key, np.uint8), _row(pad80(message, 8))).tobytes()


def _row(message: bytes) -> ByteArray:
    return np.frombuffer(message, np.uint8).reshape(1, -1)


def invert(message: bytes) -> bytes:
    return bytes(b ^ 0xFF for b in message)


def cryptogram_seed(atc: bytes) -> bytes:
    """The 16 bytes whose encryption under the card's key is the PBOC session key of this ATC."""
    return bytes(6) + atc + bytes(6) + invert(atc)


def application_cryptogram(algorithm: Algorithm, key: Buffer, atc: bytes, message: bytes) -> bytes:
    """ARQC under the PBOC session key of this ATC, over CDOL1 data || AIP || ATC || issuer application data: 8 bytes."""
    session = bytearray(ecb(algorithm, key, cryptogram_seed(atc)))
    return retail_mac(session, message) if algorithm == "3des" else sm4_cbc_mac(session, message)[:8]


def load_seed(card: bytes) -> bytes:
    """The 8 bytes whose encryption under the load key is the session key of a load; `card` as for `load_mac1`."""
    return card[8:12] + card[4:6] + b"\x80\x00"


def load_message(card: bytes, amount: bytes, terminal: bytes) -> bytes:
    """What MAC1 of a load is made of; `card` as for `load_mac1`."""
    return card[:4] + amount + b"\x02" + terminal


def load_mac1(algorithm: Algorithm, key: Buffer, card: bytes, amount: bytes, terminal: bytes) -> bytes:
    """MAC1 of INITIALIZE FOR LOAD: `card` is balance4 || sequence2 || version1 || algorithm1 || random4; result 4 bytes."""
    x, message = load_seed(card), load_message(card, amount, terminal)
    if algorithm == "3des":
        return des_cbc_mac(bytearray(ecb("3des", key, x)), message)[:4]
    return sm4_cbc_mac(bytearray(ecb("sm4", key, x + invert(x))), message)[:4]


# Load and purchase of the electronic purse (JT/T 978), 3DES. MACs and TACs are the left half of a single-DES CBC-MAC; `when` is
# date[4] || time[3] in BCD.


def load_session(key: Buffer, card: bytes) -> bytearray:
    """Session key of a load, 8 bytes; `card` is the answer to INITIALIZE FOR LOAD, as for `load_mac1`."""
    return bytearray(ecb("3des", key, load_seed(card)))


def load_mac2(session: Buffer, amount: bytes, terminal: bytes, when: bytes) -> bytes:
    """MAC2 of CREDIT FOR LOAD: the issuer's, which the card checks."""
    return des_cbc_mac(session, amount + b"\x02" + terminal + when)[:4]


def load_tac(key: Buffer, balance: bytes, sequence: bytes, amount: bytes, terminal: bytes, when: bytes) -> bytes:
    """TAC of a load under the 16-byte TAC key; `balance` is the new one, `sequence` that of INITIALIZE FOR LOAD."""
    return des_cbc_mac(_folded(key), balance + sequence + amount + b"\x02" + terminal + when)[:4]


def purchase_session(key: Buffer, card: bytes, terminal_sequence: bytes) -> bytearray:
    """Session key of a purchase, 8 bytes; `card` is balance4 || sequence2 || overdraft3 || version1 || algorithm1 || random4."""
    return bytearray(ecb("3des", key, card[11:15] + card[4:6] + terminal_sequence[2:4]))


def purchase_mac1(session: Buffer, amount: bytes, terminal: bytes, when: bytes) -> bytes:
    """MAC1 of DEBIT FOR PURCHASE: the terminal's, which the card checks."""
    return des_cbc_mac(session, amount + b"\x06" + terminal + when)[:4]


def purchase_mac2(session: Buffer, amount: bytes) -> bytes:
    """MAC2 of DEBIT FOR PURCHASE: the card's."""
    return des_cbc_mac(session, amount)[:4]


def purchase_tac(key: Buffer, amount: bytes, terminal: bytes, terminal_sequence: bytes, when: bytes) -> bytes:
    """TAC of a purchase under the 16-byte TAC key."""
    return des_cbc_mac(_folded(key), amount + b"\x06" + terminal + terminal_sequence + when)[:4]


def _folded(key: Buffer) -> bytearray:
    """Left half xor right half."""
    return bytearray(a ^ b for a, b in zip(key[:8], key[8:16], strict=True))
