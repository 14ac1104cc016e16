"""What master keys exist: their domain, level, purpose, version and state, as one record per key. No key bytes here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from keys.algorithms import Algorithm
from keys.errors import Precondition
from keys.kcv import KcvMethod


class Domain(StrEnum):
    """Whose keys they are. Each domain has roots of its own; no key descends from another domain's master."""

    SOCIAL_SECURITY = "social-security"
    FINANCE = "finance"
    TRANSPORT = "transport"
    HEALTH = "health"
    CITY = "city"
    CHIP = "chip"
    """Security domain keys: the chip maker's transport masters and the issuer's own."""


class Level(StrEnum):
    """Where in the dispersion a key stands; a factor takes it one level down."""

    NATIONAL = "national"
    PROVINCE = "province"
    CITY = "city"
    CARD = "card"


class Purpose(StrEnum):
    """What a master's card keys do."""

    APPLICATION = "application"
    """Keys of an application's own table: authentication, maintenance, purchase, load, TAC, PIN."""
    CRYPTOGRAM = "cryptogram"
    """EMV application cryptograms, script MAC and script encryption (DGI 8000, 8400)."""
    SECURITY_DOMAIN = "security-domain"
    """Secure channel keys ENC, MAC and DEK (KMC)."""
    KEY_ENCRYPTION = "key-encryption"
    """Wraps card keys on their way out (KEK, transport key of a personalization line). Derives nothing."""


class KeyState(StrEnum):
    """NIST SP 800-57 part 1, section 7: the states of a key."""

    PRE_ACTIVE = "pre-active"
    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"


_NEXT: Final[dict[KeyState, frozenset[KeyState]]] = {
    KeyState.PRE_ACTIVE: frozenset({KeyState.ACTIVE, KeyState.COMPROMISED, KeyState.DESTROYED}),
    KeyState.ACTIVE: frozenset({KeyState.DEACTIVATED, KeyState.COMPROMISED}),
    KeyState.DEACTIVATED: frozenset({KeyState.COMPROMISED, KeyState.DESTROYED}),
    KeyState.COMPROMISED: frozenset({KeyState.DESTROYED}),
    KeyState.DESTROYED: frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class MasterKeyRecord:
    """Everything about one master key except its bytes. `kcv` is in upper-case hex, made by `kcv_method`."""

    key_id: str
    domain: Domain
    purpose: Purpose
    algorithm: Algorithm
    level: Level
    version: int
    state: KeyState
    kcv: str
    kcv_method: KcvMethod
    origin: str
    test: bool

    def in_state(self, state: KeyState) -> MasterKeyRecord:
        """The record after a change of state; raises Precondition KEY_STATE when SP 800-57 has no such transition."""
        if state not in _NEXT[self.state]:
            raise Precondition("KEY_STATE", f"key {self.key_id} is {self.state}; it cannot become {state}")
        return replace(self, state=state)

    def require_active(self) -> None:
        """Raises Precondition KEY_NOT_ACTIVE unless the key may be used."""
        if self.state is not KeyState.ACTIVE:
            raise Precondition("KEY_NOT_ACTIVE", f"key {self.key_id} is {self.state}, not active")
