"""A chip in a PC/SC reader, through pyscard's thin layer over winscard (PC/SC part 5).

A connection is exclusive: nobody else may talk to a chip in the middle of its personalization. A handle belongs to one
insertion of one chip and stays dead after it; a context dies with pcscd. So every `connect` takes a fresh context and a fresh
handle. pyscard is an optional part and is imported when first used.

One thread of a process uses PC/SC: libpcsclite 1.9.9 looks for a handle in the lists of all contexts without a lock, and a second
thread that connects or disconnects meanwhile can crash the process (seen twice in some 70,000 connections from two threads).
"""

from __future__ import annotations

import time
from types import ModuleType

from engine.chip.transport import chip_gone, exchange, reader_gone
from keys.errors import Precondition, Unavailable

# PC/SC part 5, SCARDHANDLE return codes, as unsigned 32-bit numbers.
_CHIP_CODES = {
    0x8010000C: "no chip in the reader",
    0x8010000F: "the chip does not speak the protocol asked for",
    0x80100016: "the exchange failed",
    0x80100066: "no answer to reset",
    0x80100067: "the chip has no power",
    0x80100068: "the chip was reset",
    0x80100069: "the chip was removed",
}
_READER_CODES = {
    0x80100003: "the PC/SC handle is no longer valid",
    0x80100009: "no such reader",
    0x8010000B: "somebody else uses the reader",
    0x80100013: "the PC/SC service had a communication error",
    0x80100017: "the reader is not available",
    0x8010001D: "no PC/SC service is running",
    0x8010001E: "the PC/SC service was stopped",
    0x8010002E: "the PC/SC service has no readers",
}
_NO_SERVICE = frozenset({0x80100003, 0x80100013, 0x8010001D, 0x8010001E})
_SHARING_VIOLATION = 0x8010000B
_NO_READERS = 0x8010002E
_TIMEOUT = 0x8010000A
# How long one look at the reader's state may block, so that a reader that vanishes is noticed.
_POLL_MS = 200


def _scard() -> ModuleType:
    try:
        from smartcard import scard
    except ImportError:
        raise Unavailable("PCSC_MISSING", "PC/SC needs pyscard: install citycard with its pcsc extra") from None
    module: ModuleType = scard
    return module


def _code(result: int) -> int:
    return result & 0xFFFFFFFF


def _describe(code: int) -> str:
    return _CHIP_CODES.get(code) or _READER_CODES.get(code) or f"PC/SC error {code:08X}"


def list_readers() -> list[str]:
    """Names of the readers pcscd knows now. Raises Unavailable PCSC_MISSING, or READER_GONE when no service runs."""
    scard = _scard()
    result, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
    if result != scard.SCARD_S_SUCCESS:
        raise reader_gone("(any)", _describe(_code(result)))
    try:
        result, readers = scard.SCardListReaders(context, [])
        if _code(result) == _NO_READERS:
            return []
        if result != scard.SCARD_S_SUCCESS:
            raise reader_gone("(any)", _describe(_code(result)))
        return list(readers)
    finally:
        scard.SCardReleaseContext(context)


class PcscTransport:
    """Transport over one PC/SC reader. `wait_s` bounds how long `connect` waits for a chip, a reader or the service."""

    def __init__(self, reader_name: str, wait_s: float = 10.0) -> None:
        self._reader = reader_name
        self._wait_s = wait_s
        self._api = _scard()
        self._context: int | None = None
        self._handle: int | None = None
        self._protocol = 0

    @property
    def name(self) -> str:
        return self._reader

    def connect(self) -> bytes:
        """Waits for a chip, powers it up anew, gives its ATR. CHIP_GONE: no chip in time; READER_GONE: no reader in time."""
        self.disconnect()
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                self._wait_for_chip(deadline)
                return self._open()
            except Unavailable:
                # pcscd restarting, a chip between two insertions, another program just letting go: all pass by themselves.
                self.disconnect()
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.02)

    def transmit(self, apdu: bytes) -> bytes:
        if self._handle is None:
            raise Precondition("NOT_CONNECTED", f"reader {self._reader}: connect before transmit")
        return exchange(self._send, apdu, self._reader)

    def disconnect(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._api.SCardDisconnect(handle, self._api.SCARD_UNPOWER_CARD)
        # A context is a thread and a socket in pcscd, and pcscd has few: none is kept without a chip.
        self._drop_context()

    def _send(self, apdu: bytes) -> bytes:
        result, answer = self._api.SCardTransmit(self._handle, self._protocol, list(apdu))
        self._check(result)
        return bytes(byte & 0xFF for byte in answer)

    def _open(self) -> bytes:
        api = self._api
        protocols = api.SCARD_PROTOCOL_T0 | api.SCARD_PROTOCOL_T1
        result, handle, protocol = api.SCardConnect(self._context, self._reader, api.SCARD_SHARE_EXCLUSIVE, protocols)
        self._check(result)
        self._handle = handle
        self._protocol = {
            api.SCARD_PROTOCOL_T0: api.SCARD_PCI_T0,
            api.SCARD_PROTOCOL_T1: api.SCARD_PCI_T1,
        }.get(protocol, api.SCARD_PCI_T1)
        # The chip may have been powered, and even been talked to, before this connection. Start from a reset of our own.
        result, protocol = api.SCardReconnect(handle, api.SCARD_SHARE_EXCLUSIVE, protocols, api.SCARD_UNPOWER_CARD)
        self._check(result)
        result, _name, _state, _protocol, atr = api.SCardStatus(handle)
        self._check(result)
        if not atr:
            raise chip_gone(self._reader, "no answer to reset")
        return bytes(byte & 0xFF for byte in atr)

    def _wait_for_chip(self, deadline: float) -> None:
        api = self._api
        known = api.SCARD_STATE_UNAWARE
        while True:
            self._need_context()
            result, states = api.SCardGetStatusChange(self._context, _POLL_MS, [(self._reader, known)])
            if _code(result) != _TIMEOUT:
                self._check(result)
                state: int = states[0][1]
                if state & (api.SCARD_STATE_UNKNOWN | api.SCARD_STATE_UNAVAILABLE):
                    raise reader_gone(self._reader, "no such reader")
                if state & api.SCARD_STATE_PRESENT and not state & api.SCARD_STATE_MUTE:
                    return
                if state & api.SCARD_STATE_MUTE and time.monotonic() >= deadline:
                    raise chip_gone(self._reader, "no answer to reset")
                known = state & 0xFFFF & ~api.SCARD_STATE_CHANGED
            if time.monotonic() >= deadline:
                raise chip_gone(self._reader, f"no chip in the reader within {self._wait_s:g} s")

    def _need_context(self) -> None:
        if self._context is None:
            result, context = self._api.SCardEstablishContext(self._api.SCARD_SCOPE_SYSTEM)
            self._check(result)
            self._context = context

    def _drop_context(self) -> None:
        if self._context is not None:
            context, self._context = self._context, None
            self._api.SCardReleaseContext(context)

    def _check(self, result: int) -> None:
        if result == self._api.SCARD_S_SUCCESS:
            return
        code = _code(result)
        if code in _NO_SERVICE:
            # A context never outlives its pcscd; the next connect makes a new one.
            self._handle = None
            self._drop_context()
        if code in _CHIP_CODES:
            raise chip_gone(self._reader, _CHIP_CODES[code])
        if code == _SHARING_VIOLATION:
            raise Unavailable("READER_BUSY", f"reader {self._reader}: {_READER_CODES[code]}")
        raise reader_gone(self._reader, _describe(code))
