"""What a master key may be used for: one policy beside each record, enforced where keys are derived.

A record says what a key is, its policy says what may be done with it. An empty list of methods or profiles means all of them; a key
that names profiles derives only for a caller that says which profile it works for (`working_for`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, Literal, get_args

from keys.custody import Derivation, Method
from keys.errors import Denied, InvalidInput, Precondition
from keys.hierarchy import KeyState, MasterKeyRecord

Holder = Literal["software", "sealed", "host-clear", "token-only"]
HOLDERS: Final[tuple[Holder, ...]] = get_args(Holder)
WARN_DAYS: Final = 90
_MAX_ADMITTED: Final = 64
_profile: Final[ContextVar[str | None]] = ContextVar("profile", default=None)


@contextmanager
def working_for(profile: str) -> Iterator[None]:
    """Within the block, this thread or task derives keys for cards of that profile."""
    token = _profile.set(profile)
    try:
        yield
    finally:
        _profile.reset(token)


def today() -> date:
    """The day by which cryptoperiods are judged: UTC, the same on every server."""
    return datetime.now(UTC).date()


@dataclass(frozen=True, kw_only=True)
class KeyPolicy:
    """`custody`: who holds the key; in a token, whether card keys appear in the host (`host-clear`) or never do (`token-only`).

    `not_before` and `not_after` are the cryptoperiod (NIST SP 800-57 part 1, 5.3), both days included; `warn_days` before its end
    `warning` speaks. `exportable`: whether a ceremony may give the master itself away. Raises InvalidInput KEY_POLICY when made wrongly.
    """

    custody: Holder
    exportable: bool = False
    methods: tuple[Method, ...] = ()
    profiles: tuple[str, ...] = ()
    not_before: date | None = None
    not_after: date | None = None
    warn_days: int = WARN_DAYS

    def __post_init__(self) -> None:
        if self.custody not in HOLDERS:
            raise InvalidInput("KEY_POLICY", f"custody must be one of {', '.join(HOLDERS)}, not {self.custody!r}")
        unknown = [method for method in self.methods if method not in get_args(Method)]
        if unknown:
            raise InvalidInput("KEY_POLICY", f"method must be one of {', '.join(get_args(Method))}, not {unknown[0]!r}")
        if self.not_before and self.not_after and self.not_before > self.not_after:
            raise InvalidInput("KEY_POLICY", f"a cryptoperiod from {self.not_before} to {self.not_after} has no day")
        if self.exportable and self.custody in ("host-clear", "token-only"):
            raise InvalidInput("KEY_POLICY", "a master in a token is never exportable; back it up in its ceremony")

    def require_day(self, key_id: str, day: date) -> None:
        """Raises Precondition KEY_NOT_YET, KEY_EXPIRED outside of the cryptoperiod."""
        if self.not_before and day < self.not_before:
            raise Precondition("KEY_NOT_YET", f"key {key_id} may be used from {self.not_before} on, and it is {day}")
        if self.not_after and day > self.not_after:
            raise Precondition("KEY_EXPIRED", f"the cryptoperiod of key {key_id} ended on {self.not_after}")

    def require(self, derivation: Derivation, day: date) -> None:
        """Raises Denied KEY_METHOD, KEY_PROFILE, and as `require_day`."""
        if self.methods and derivation.method not in self.methods:
            allowed = ", ".join(self.methods)
            raise Denied("KEY_METHOD", f"key {derivation.key_id} derives by {allowed} only, not by {derivation.method}")
        profile = _profile.get()
        if self.profiles and profile not in self.profiles:
            found = "no profile is named" if profile is None else f"not {profile}"
            raise Denied("KEY_PROFILE", f"key {derivation.key_id} serves {', '.join(self.profiles)} only; {found}")
        self.require_day(derivation.key_id, day)

    def warning(self, day: date) -> str | None:
        """What a custodian should be told of the cryptoperiod, if anything."""
        if self.not_after is None:
            return None
        left = (self.not_after - day).days
        if left < 0:
            return f"cryptoperiod ended on {self.not_after}"
        return f"cryptoperiod ends on {self.not_after}, in {left} days" if left <= self.warn_days else None


class Admitted:
    """Tuples of derivations that were allowed, each on a day and for a profile: a card's hundred keys are not asked for every card.

    Tuples are known by identity. Whoever changes a record or a policy calls `clear`. Not thread-safe.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Sequence[Derivation], date, str | None]] = {}

    def known(self, derivations: Sequence[Derivation], day: date) -> bool:
        """Whether these were allowed today, for the profile that is worked for."""
        found = self._known.get(id(derivations))
        return found is not None and found[0] is derivations and found[1:] == (day, _profile.get())

    def add(self, derivations: Sequence[Derivation], day: date) -> None:
        """They are allowed; only a tuple is remembered, because it stays what it is."""
        if isinstance(derivations, tuple):
            if len(self._known) >= _MAX_ADMITTED:
                self._known.clear()
            self._known[id(derivations)] = derivations, day, _profile.get()

    def clear(self) -> None:
        """Everything is asked anew."""
        self._known.clear()


@dataclass(frozen=True, kw_only=True)
class KeyEntry:
    """A key as an inventory shows it."""

    record: MasterKeyRecord
    policy: KeyPolicy
    warning: str | None

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON and tables; no key bytes."""
        record, policy = self.record, self.policy
        return {
            "key": record.key_id,
            "version": record.version,
            "domain": str(record.domain),
            "purpose": str(record.purpose),
            "level": str(record.level),
            "algorithm": record.algorithm,
            "state": str(record.state),
            "kcv": record.kcv,
            "kcv_method": record.kcv_method,
            "origin": record.origin,
            "test": record.test,
            "custody": policy.custody,
            "exportable": policy.exportable,
            "methods": list(policy.methods),
            "profiles": list(policy.profiles),
            "not_before": policy.not_before.isoformat() if policy.not_before else None,
            "not_after": policy.not_after.isoformat() if policy.not_after else None,
            "warning": self.warning,
        }


def entry(record: MasterKeyRecord, policy: KeyPolicy, day: date) -> KeyEntry:
    """The record and its policy; a key that is no longer used gives no warning."""
    live = record.state in (KeyState.ACTIVE, KeyState.PRE_ACTIVE)
    return KeyEntry(record=record, policy=policy, warning=policy.warning(day) if live else None)
