"""The electronic purse: load and purchase with their MACs and TAC (PBOC electronic purse, as T-Union uses it).

3DES: session key 8 bytes, single-DES CBC-MAC over pad80, leftmost 4 bytes; TAC key = left half xor right half of the TAC key.
SM4 twins follow the same messages: session key SM4(K, X || ~X), SM4 CBC-MAC, leftmost 4 bytes, TAC key used whole.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from engine.virtual.crypto import SM4, TDES, cbc_mac, des_mac, ecb, same
from engine.virtual.nvm import Nvm
from engine.virtual.wire import Command, Refused

LOAD, PURCHASE = "load", "purchase"
_TYPE_LOAD, _TYPE_PURCHASE = b"\x02", b"\x06"
_KEY_VERSION = 0x01
_ALGORITHM_ID = {TDES: 0x00, SM4: 0x04}
_LIMIT = 0xFFFFFFFF
_LOG_RECORDS = 10
_MAC_WRONG, _NOT_COVERED, _COUNTER_USED_UP = 0x9302, 0x9401, 0x9402


class PurseKeys(NamedTuple):
    """Keys of one transaction: the load or purchase key, and the TAC key; 16 bytes each."""

    algorithm: str
    key: bytes
    tac: bytes

    def __repr__(self) -> str:
        return f"PurseKeys({self.algorithm})"


@dataclass(slots=True)
class _Transaction:
    kind: str
    keys: PurseKeys
    random: bytes
    sequence: int
    amount: bytes
    terminal: bytes


class Purse:
    """One purse: balance and the two transaction counters are durable, a started transaction is not."""

    def __init__(self, nvm: Nvm, prefix: str, keys: Callable[[str, int], PurseKeys]) -> None:
        self._nvm = nvm
        self._prefix = prefix + "ep."
        self._keys = keys
        self._transaction: _Transaction | None = None

    @property
    def balance(self) -> int:
        """In the smallest unit of the currency."""
        return self._nvm.get_int(self._prefix + "balance")

    def forget(self) -> None:
        self._transaction = None

    def log_entry(self, number: int) -> bytes | None:
        """Transaction record, 1 = newest: seq2 overdraft3 amount4 type1 terminal6 date4 time3."""
        return self._nvm.get_bytes(f"{self._prefix}log.{number:02X}")

    def initialize_for_load(self, command: Command) -> tuple[bytes, int]:
        """balance4 seq2 keyversion1 algorithm1 random4 MAC1[4]; nothing durable changes."""
        transaction = self._begin(LOAD, command)
        balance = self.balance
        if balance + int.from_bytes(transaction.amount, "big") > _LIMIT:
            raise Refused(_NOT_COVERED)
        message = balance.to_bytes(4, "big") + transaction.amount + _TYPE_LOAD + transaction.terminal
        mac1 = _mac(transaction.keys.algorithm, _load_key(transaction), message)
        self._transaction = transaction
        head = balance.to_bytes(4, "big") + transaction.sequence.to_bytes(2, "big")
        return head + self._key_facts(transaction) + transaction.random + mac1, 0x9000

    def credit_for_load(self, command: Command) -> tuple[bytes, int]:
        """date4 time3 MAC2[4] -> TAC[4]."""
        transaction = self._finish(LOAD, command, length=11)
        stamp, mac2 = command.data[:7], command.data[7:]
        algorithm = transaction.keys.algorithm
        message = transaction.amount + _TYPE_LOAD + transaction.terminal + stamp
        if not same(_mac(algorithm, _load_key(transaction), message), mac2):
            raise Refused(_MAC_WRONG)
        balance = self.balance + int.from_bytes(transaction.amount, "big")
        sequence = transaction.sequence.to_bytes(2, "big")
        tac = _tac(transaction.keys, balance.to_bytes(4, "big") + sequence + message)
        self._book(transaction, balance, "online", _TYPE_LOAD, stamp)
        return tac, 0x9000

    def initialize_for_purchase(self, command: Command) -> tuple[bytes, int]:
        """balance4 seq2 overdraft3 keyversion1 algorithm1 random4."""
        transaction = self._begin(PURCHASE, command)
        if int.from_bytes(transaction.amount, "big") > self.balance:
            raise Refused(_NOT_COVERED)
        self._transaction = transaction
        head = self.balance.to_bytes(4, "big") + transaction.sequence.to_bytes(2, "big") + bytes(3)
        return head + self._key_facts(transaction) + transaction.random, 0x9000

    def debit(self, command: Command) -> tuple[bytes, int]:
        """terminal sequence4 date4 time3 MAC1[4] -> TAC[4] MAC2[4]."""
        transaction = self._finish(PURCHASE, command, length=15)
        terminal_sequence, stamp, mac1 = command.data[:4], command.data[4:11], command.data[11:]
        keys = transaction.keys
        session = _session_key(keys, transaction.random + transaction.sequence.to_bytes(2, "big") + terminal_sequence[2:])
        body = transaction.amount + _TYPE_PURCHASE + transaction.terminal
        if not same(_mac(keys.algorithm, session, body + stamp), mac1):
            raise Refused(_MAC_WRONG)
        tac = _tac(keys, body + terminal_sequence + stamp)
        self._book(transaction, self.balance - int.from_bytes(transaction.amount, "big"), "offline", _TYPE_PURCHASE, stamp)
        return tac + _mac(keys.algorithm, session, transaction.amount), 0x9000

    def _begin(self, kind: str, command: Command) -> _Transaction:
        self._transaction = None
        if len(command.data) != 11:
            raise Refused(0x6700)
        keys = self._keys(kind, command.data[0])
        sequence = self._nvm.get_int(self._prefix + ("online" if kind == LOAD else "offline"))
        if sequence >= 0xFFFF:
            raise Refused(_COUNTER_USED_UP)
        return _Transaction(kind, keys, secrets.token_bytes(4), sequence, command.data[1:5], command.data[5:11])

    def _finish(self, kind: str, command: Command, length: int) -> _Transaction:
        transaction, self._transaction = self._transaction, None
        if command.cla != 0x80:
            raise Refused(0x6E00)
        if (command.p1, command.p2) != ((0x00, 0x00) if kind == LOAD else (0x01, 0x00)):
            raise Refused(0x6A86)
        if len(command.data) != length:
            raise Refused(0x6700)
        if transaction is None or transaction.kind != kind:
            raise Refused(0x6985)
        return transaction

    def _book(self, transaction: _Transaction, balance: int, counter: str, kind: bytes, stamp: bytes) -> None:
        """Balance, counter and log in one go: the chip makes them durable together."""
        self._nvm.put(self._prefix + "balance", balance)
        self._nvm.put(self._prefix + counter, transaction.sequence + 1)
        for older in range(_LOG_RECORDS, 1, -1):
            entry = self.log_entry(older - 1)
            if entry is not None:
                self._nvm.put(f"{self._prefix}log.{older:02X}", entry)
        entry = transaction.sequence.to_bytes(2, "big") + bytes(3) + transaction.amount + kind + transaction.terminal + stamp
        self._nvm.put(f"{self._prefix}log.01", entry)

    @staticmethod
    def _key_facts(transaction: _Transaction) -> bytes:
        return bytes((_KEY_VERSION, _ALGORITHM_ID[transaction.keys.algorithm]))


def _session_key(keys: PurseKeys, x: bytes) -> bytes:
    if keys.algorithm == SM4:
        return ecb(SM4, keys.key, x + bytes(byte ^ 0xFF for byte in x))
    return ecb(TDES, keys.key, x)


def _load_key(transaction: _Transaction) -> bytes:
    return _session_key(transaction.keys, transaction.random + transaction.sequence.to_bytes(2, "big") + b"\x80\x00")


def _mac(algorithm: str, session: bytes, message: bytes) -> bytes:
    return (cbc_mac(SM4, session, message) if algorithm == SM4 else des_mac(session, message))[:4]


def _tac(keys: PurseKeys, message: bytes) -> bytes:
    if keys.algorithm == SM4:
        return cbc_mac(SM4, keys.tac, message)[:4]
    folded = bytes(a ^ b for a, b in zip(keys.tac[:8], keys.tac[8:], strict=True))
    return des_mac(folded, message)[:4]
