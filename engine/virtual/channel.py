"""What the security domain needs of a secure channel protocol: one `Scp` per protocol, one `Channel` per INITIALIZE UPDATE."""

from __future__ import annotations

from typing import Protocol

from engine.virtual.nvm import Nvm
from engine.virtual.wire import Command

# P1 of EXTERNAL AUTHENTICATE: GPCS E.5.2.3 and, from R-MAC on as it is used here, Amendment D 7.1.2.1.
C_MAC, C_DECRYPTION, R_MAC, R_ENCRYPTION = 0x01, 0x02, 0x10, 0x20
SW_SECURITY = 0x6982

StaticKeys = tuple[bytes, bytes, bytes]


class Channel(Protocol):
    """One secure channel, from the card's challenge to its end."""

    level: int
    card_cryptogram: bytes

    def host_cryptogram_fits(self, cryptogram: bytes) -> bool:
        """Whether the host proved that it holds the keys."""

    def check_mac(self, command: Command) -> bool:
        """Verifies the C-MAC of EXTERNAL AUTHENTICATE, with which every chain begins."""

    def unwrap(self, command: Command) -> Command:
        """The plain command; Refused 6982 when anything is wrong, and then the channel must be closed."""

    def wrap_response(self, data: bytes, sw: int) -> bytes:
        """Response data as the level asks."""

    def decrypt_span(self, span: bytes) -> bytes:
        """A sensitive span, or a key of PUT KEY."""


class Scp(Protocol):
    """A secure channel protocol as this chip does it."""

    number: int
    option: int
    levels: frozenset[int]
    # Of the key blocks of PUT KEY (GPCS table 11-16) and the check values in them.
    key_type: int
    algorithm: str

    def begin(self, nvm: Nvm, kvn: int, keys: StaticKeys, host_challenge: bytes, aid: bytes) -> tuple[Channel, bytes]:
        """The channel, and what INITIALIZE UPDATE answers after the key version; Refused 6985 when the counter is used up."""

    def authenticated(self, nvm: Nvm, kvn: int) -> None:
        """The first C-MAC of a channel was right."""

    def sequence(self, nvm: Nvm, kvn: int) -> bytes:
        """The sequence counter as GET DATA gives it."""
