"""What all applets share: identity, personalization state, challenge, files addressed by SFI, and the way a command is served.

Everything durable is in the chip's memory under names that start with the instance AID; what selection and reset clear is in
the object.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable

from engine.virtual.crypto import same
from engine.virtual.nvm import Nvm
from engine.virtual.wire import Command, Refused, tlv

Handler = Callable[[Command], tuple[bytes, int]]
_STATE = "state"
PERSONALIZED = 1
_EXTERNAL_AUTHENTICATE = 0x82


class Applet(ABC):
    """One applet instance on one chip."""

    def __init__(self, nvm: Nvm, aid: bytes) -> None:
        self.aid = aid
        self.nvm = nvm
        self.prefix = aid.hex() + ":"
        self.challenge: bytes | None = None
        self.handlers: dict[int, Handler] = {0x84: self._get_challenge}

    # Personalization, called by the security domain

    @property
    def personalized(self) -> bool:
        return self.nvm.get_int(self.prefix + _STATE) == PERSONALIZED

    def begin_personalization(self) -> None:
        self.nvm.drop(self.prefix)

    def finish_personalization(self) -> None:
        self.nvm.put(self.prefix + _STATE, PERSONALIZED)

    @abstractmethod
    def is_sensitive(self, dgi: int) -> bool:
        """True when the DGI carries spans encrypted under the DEK."""

    @abstractmethod
    def spans(self, dgi: int, value: bytes) -> list[tuple[int, int]]:
        """Half-open byte ranges that are encrypted under the DEK, each on its own."""

    @abstractmethod
    def store(self, dgi: int, value: bytes) -> None:
        """Applies one decrypted DGI; Refused 6A80 when it is unknown or does not fit."""

    # Selection

    def names(self, aid: bytes, *, exact: bool) -> bytes | None:
        """The DF name that `aid` selects in this instance, or None."""
        if self.aid == aid or (not exact and self.aid.startswith(aid)):
            return self.aid
        return None

    def select(self, df_name: bytes) -> bytes:
        """Makes the instance current and gives its FCI. `df_name` is what `names` gave."""
        self.deselect()
        return tlv(0x6F, tlv(0x84, df_name) + tlv(0xA5, self.fci_content()))

    def deselect(self) -> None:
        self.challenge = None

    def fci_content(self) -> bytes:
        """Value of the FCI's A5: here the GlobalPlatform life cycle state, 07 selectable or 0F personalized."""
        return tlv(0x9F70, b"\x0f" if self.personalized else b"\x07")

    # Commands

    def process(self, command: Command) -> tuple[bytes, int]:
        if not self.personalized:
            raise Refused(0x6985)
        if command.cla not in (0x00, 0x80):
            raise Refused(0x6E00)
        challenge, self.challenge = self.challenge, None
        if command.ins == _EXTERNAL_AUTHENTICATE:
            # The one command that may use the challenge; every other has just dropped it.
            return self.external_authenticate(command, challenge)
        handler = self.handlers.get(command.ins)
        if handler is None:
            raise Refused(0x6D00)
        return handler(command)

    def external_authenticate(self, command: Command, challenge: bytes | None) -> tuple[bytes, int]:  # noqa: ARG002 - for those that do
        """EXTERNAL AUTHENTICATE (ISO/IEC 7816-4): not every applet has it."""
        raise Refused(0x6D00)

    def _get_challenge(self, command: Command) -> tuple[bytes, int]:
        if command.cla != 0x00 or command.p1 or command.p2:
            raise Refused(0x6A86 if command.cla == 0x00 else 0x6E00)
        if command.data or command.le not in (8, 16):
            raise Refused(0x6700)
        self.challenge = secrets.token_bytes(command.le)
        return self.challenge, 0x9000

    # Helpers for verification

    def check_cryptogram(self, expected: bytes, cryptogram: bytes, tries: str, limit: int) -> tuple[bytes, int]:
        """Compares, and keeps the durable retry counter named `tries`; 9000, 63Cx, or Refused 6983 when it has run out."""
        left = self.nvm.get_int(tries, limit)
        if left <= 0:
            raise Refused(0x6983)
        if same(expected, cryptogram):
            if left != limit:
                self.nvm.put(tries, limit)
            return b"", 0x9000
        self.nvm.put(tries, left - 1)
        return b"", 0x63C0 | min(left - 1, 15)


def trim(content: bytes, le: int | None) -> tuple[bytes, int]:
    """A record by Le: all of it for Le absent, 00 or longer; 6Cxx when Le is shorter (ISO/IEC 7816-4)."""
    if le and le < len(content):
        raise Refused(0x6C00 | len(content) & 0xFF)
    return content, 0x9000
