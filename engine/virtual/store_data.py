"""STORE DATA for one applet: blocks in order, DGIs put together across commands, sensitive spans decrypted (EMV CPS 1.1)."""

from __future__ import annotations

from typing import Protocol

from engine.virtual.channel import Channel
from engine.virtual.wire import Refused

LAST_BLOCK, ENCRYPTED = 0x80, 0x60
# More than any DGI of the blank needs; a chip has no memory to buffer 64 KiB.
MAX_DGI = 4096


class Target(Protocol):
    """The applet instance that is being personalized."""

    def is_sensitive(self, dgi: int) -> bool:
        """True when the DGI carries spans encrypted under the DEK."""

    def spans(self, dgi: int, value: bytes) -> list[tuple[int, int]]:
        """Half-open byte ranges that are encrypted under the DEK, each on its own."""

    def store(self, dgi: int, value: bytes) -> None:
        """Applies one decrypted DGI; Refused 6A80."""

    def finish_personalization(self) -> None:
        """The last block has been applied."""


class StoreData:
    """The run of STORE DATA commands of one application, from INSTALL [for personalization] to the last block."""

    def __init__(self, target: Target, channel: Channel) -> None:
        self._target = target
        self._channel = channel
        self._next_block = 0
        self._rest = b""
        # Whether any command that carried bytes of the unfinished DGI was marked as carrying encrypted spans.
        self._rest_encrypted = False

    def process(self, p1: int, p2: int, data: bytes) -> bool:
        """One command; True when it was the last. Refused leaves counter and buffered bytes as they were."""
        if p1 & ~(LAST_BLOCK | ENCRYPTED) or p1 & ENCRYPTED not in (0x00, ENCRYPTED) or p2 != self._next_block & 0xFF:
            raise Refused(0x6A86)
        if not data:
            raise Refused(0x6700)
        encrypted = bool(p1 & ENCRYPTED)
        pending = self._rest + data
        at = 0
        # The first DGI may have begun in an earlier command.
        first_encrypted = encrypted or self._rest_encrypted
        while (grouping := _next_grouping(pending, at)) is not None:
            dgi, value, end = grouping
            self._apply(dgi, value, first_encrypted if at == 0 else encrypted)
            at = end
        rest = pending[at:]
        if p1 & LAST_BLOCK:
            if rest:
                raise Refused(0x6A80)
            self._target.finish_personalization()
        self._rest_encrypted = bool(rest) and (first_encrypted if at == 0 else encrypted)
        self._rest = rest
        self._next_block += 1
        return bool(p1 & LAST_BLOCK)

    def _apply(self, dgi: int, value: bytes, encrypted: bool) -> None:
        if self._target.is_sensitive(dgi):
            if not encrypted:
                raise Refused(0x6A80)
            clear = bytearray(value)
            for start, end in self._target.spans(dgi, value):
                if end > len(value):
                    raise Refused(0x6A80)
                clear[start:end] = self._channel.decrypt_span(value[start:end])
            value = bytes(clear)
        self._target.store(dgi, value)


def _next_grouping(pending: bytes, at: int) -> tuple[int, bytes, int] | None:
    """DGI, value and end offset of the grouping at `at`, or None when it is not complete yet."""
    if len(pending) - at < 3:
        return None
    length, start = pending[at + 2], at + 3
    if length == 0xFF:
        if len(pending) - at < 5:
            return None
        length, start = int.from_bytes(pending[at + 3 : at + 5], "big"), at + 5
    if length > MAX_DGI:
        raise Refused(0x6A84)
    if start + length > len(pending):
        return None
    return pending[at] << 8 | pending[at + 1], pending[start : start + length], start + length
