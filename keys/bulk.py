"""Checking what many cards answered, each under a key of its own: a column of answers in, a column of True and False out.

Every row is computed and compared whole, whatever the others are, so the time tells nothing about which differ. Keys are card keys,
(n, 16), or one key (16,) for all; other values are a row per card or one row for all. All raise InvalidInput (ALGORITHM_UNKNOWN,
METHOD_ALGORITHM, NOT_BYTES, KEY_LENGTH, WRONG_SHAPE, NO_ROWS) before anything is computed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from keys.algorithms import BLOCK_LEN, KEY_LENS, Algorithm, as_algorithm, byte_array, encrypt, require_rows, rows
from keys.mac import cbc_mac, des_cbc_mac, pad80, retail_mac, same_rows
from keys.sessions import (
    BytesOrArray,
    card_keys,
    columns,
    pboc_ac_keys,
    purse_session_keys,
    scp02_cryptograms,
    scp02_session_key,
    scp03_cryptograms,
    scp03_session_key,
)

ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# Transaction types of the electronic purse (JT/T 978).
LOAD: Final = b"\x02"
PURCHASE: Final = b"\x06"


def internal_authenticate(algorithm: str, keys: BytesOrArray, challenges: BytesOrArray, answers: BytesOrArray) -> BoolArray:
    """Answers to INTERNAL AUTHENTICATE: one block (n, 8 or 16) encrypted under the card's key."""
    cipher = as_algorithm(algorithm)
    block = BLOCK_LEN[cipher]
    given = rows(answers, block, "answers")
    (challenge,) = columns(len(given), (challenges, block, "challenges"))
    return same_rows(encrypt(cipher, card_keys(cipher, keys, len(given), "card keys", KEY_LENS[cipher]), challenge), given)


def arqc(algorithm: str, masters: BytesOrArray, atcs: BytesOrArray, messages: BytesOrArray, cryptograms: BytesOrArray) -> BoolArray:
    """Application cryptograms (n, 8) under PBOC session keys: retail MAC, or SM4 CBC-MAC, of messages (n, any) with padding method 2.

    `masters` are the cards' AC keys, `atcs` (n, 2).
    """
    cipher = as_algorithm(algorithm)
    given = rows(cryptograms, 8, "cryptograms")
    n = len(given)
    message = byte_array(messages, "messages")
    message = np.broadcast_to(message, (n, message.shape[-1])) if message.ndim == 1 else message
    require_rows(message, "messages")
    (atc,) = columns(n, (atcs, 2, "atcs"))
    session = pboc_ac_keys(cipher, masters, atc)
    try:
        return same_rows(_mac(cipher, session, message)[:, :8], given)
    finally:
        session[...] = 0


def load_mac1(
    algorithm: str, keys: BytesOrArray, cards: BytesOrArray, amounts: BytesOrArray, terminals: BytesOrArray, macs: BytesOrArray
) -> BoolArray:
    """MAC1 (n, 4) of INITIALIZE FOR LOAD under load keys.

    `cards` (n, 12) is what the card answered before it: balance4 || sequence2 || key version || algorithm || random4.
    """
    given = rows(macs, 4, "macs")
    card, amount, terminal = columns(len(given), (cards, 12, "cards"), (amounts, 4, "amounts"), (terminals, 6, "terminals"))
    x = np.zeros((len(given), 8), np.uint8)
    x[:, :4], x[:, 4:6], x[:, 6] = card[:, 8:12], card[:, 4:6], 0x80
    return _purse(algorithm, keys, x, [card[:, :4], amount, LOAD, terminal], given)


def purchase_mac1(
    keys: BytesOrArray,
    cards: BytesOrArray,
    terminal_sequences: BytesOrArray,
    amounts: BytesOrArray,
    terminals: BytesOrArray,
    times: BytesOrArray,
    macs: BytesOrArray,
) -> BoolArray:
    """MAC1 (n, 4) of DEBIT FOR PURCHASE under 3DES purchase keys; `times` (n, 7) is date4 || time3.

    `cards` (n, 15) answered INITIALIZE FOR PURCHASE: balance4 || sequence2 || overdraft3 || key version || algorithm || random4.
    """
    given = rows(macs, 4, "macs")
    card, terminal_sequence, amount, terminal, when = columns(
        len(given),
        (cards, 15, "cards"),
        (terminal_sequences, 4, "terminal sequences"),
        (amounts, 4, "amounts"),
        (terminals, 6, "terminals"),
        (times, 7, "times"),
    )
    x = np.concatenate([card[:, 11:15], card[:, 4:6], terminal_sequence[:, 2:4]], axis=1)
    return _purse("3des", keys, x, [amount, PURCHASE, terminal, when], given)


def purchase_tac(
    keys: BytesOrArray,
    amounts: BytesOrArray,
    terminals: BytesOrArray,
    terminal_sequences: BytesOrArray,
    times: BytesOrArray,
    tacs: BytesOrArray,
) -> BoolArray:
    """TACs (n, 4) of purchases under 16-byte TAC keys, whose halves are folded into a DES key."""
    given = rows(tacs, 4, "tacs")
    amount, terminal, terminal_sequence, when = columns(
        len(given),
        (amounts, 4, "amounts"),
        (terminals, 6, "terminals"),
        (terminal_sequences, 4, "terminal sequences"),
        (times, 7, "times"),
    )
    return _tac(keys, [amount, PURCHASE, terminal, terminal_sequence, when], given)


def load_tac(
    keys: BytesOrArray,
    balances: BytesOrArray,
    sequences: BytesOrArray,
    amounts: BytesOrArray,
    terminals: BytesOrArray,
    times: BytesOrArray,
    tacs: BytesOrArray,
) -> BoolArray:
    """TACs (n, 4) of loads; `balances` (n, 4) are the new ones, `sequences` (n, 2) those of INITIALIZE FOR LOAD."""
    given = rows(tacs, 4, "tacs")
    balance, sequence, amount, terminal, when = columns(
        len(given),
        (balances, 4, "balances"),
        (sequences, 2, "sequences"),
        (amounts, 4, "amounts"),
        (terminals, 6, "terminals"),
        (times, 7, "times"),
    )
    return _tac(keys, [balance, sequence, amount, LOAD, terminal, when], given)


def scp02_card_cryptograms(
    enc: BytesOrArray, sequences: BytesOrArray, host_challenges: BytesOrArray, card_challenges: BytesOrArray, cryptograms: BytesOrArray
) -> BoolArray:
    """Card cryptograms (n, 8) of INITIALIZE UPDATE responses of SCP02, under static ENC keys."""
    given = rows(cryptograms, 8, "cryptograms")
    (sequence,) = columns(len(given), (sequences, 2, "sequences"))
    session = scp02_session_key(enc, "s_enc", sequence)
    try:
        return same_rows(scp02_cryptograms(session, sequence, card_challenges, host_challenges).card, given)
    finally:
        session[...] = 0


def scp03_card_cryptograms(
    mac: BytesOrArray, host_challenges: BytesOrArray, card_challenges: BytesOrArray, cryptograms: BytesOrArray
) -> BoolArray:
    """Card cryptograms (n, 8) of INITIALIZE UPDATE responses of SCP03, under static MAC keys."""
    given = rows(cryptograms, 8, "cryptograms")
    host, card = columns(len(given), (host_challenges, 8, "host challenges"), (card_challenges, 8, "card challenges"))
    session = scp03_session_key(mac, "s_mac", host, card)
    try:
        return same_rows(scp03_cryptograms(session, host, card).card, given)
    finally:
        session[...] = 0


def _mac(algorithm: Algorithm, keys: ByteArray, message: ByteArray) -> ByteArray:
    """The MAC that domestic cards use over padding method 2: retail MAC with 16-byte DES keys, single DES with 8 bytes, SM4 CBC-MAC."""
    if algorithm == "sm4":
        return cbc_mac("sm4", keys, pad80(message, 16))
    padded = pad80(message, 8)
    return des_cbc_mac(keys, padded) if keys.shape[-1] == 8 else retail_mac(keys, padded)


def _joined(parts: list[ByteArray | bytes], n: int) -> ByteArray:
    wide = [np.broadcast_to(np.frombuffer(part, np.uint8), (n, len(part))) if isinstance(part, bytes) else part for part in parts]
    return np.concatenate(wide, axis=1)


def _purse(algorithm: str, keys: BytesOrArray, x: ByteArray, parts: list[ByteArray | bytes], given: ByteArray) -> BoolArray:
    session = purse_session_keys(algorithm, keys, x)
    try:
        return same_rows(_mac(as_algorithm(algorithm), session, _joined(parts, len(given)))[:, :4], given)
    finally:
        session[...] = 0


def _tac(keys: BytesOrArray, parts: list[ByteArray | bytes], given: ByteArray) -> BoolArray:
    whole = card_keys("3des", keys, len(given), "TAC keys")
    folded = whole[..., :8] ^ whole[..., 8:]
    try:
        return same_rows(_mac("3des", folded, _joined(parts, len(given)))[:, :4], given)
    finally:
        folded[...] = 0
