"""What every part of the line works with: ledger, custody, profiles, serial numbers, and the keyed hashing of duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakSet

import numpy as np

from engine.ledger.serials import SerialAllocator
from engine.ledger.store import Ledger
from engine.personalize.columns import Column
from engine.production.card import CardInMaking
from engine.production.tokencard import card_in_making
from engine.profiles import lint
from engine.profiles.compile import CompiledProfile, compile_profile
from engine.profiles.masters import master_specs
from engine.profiles.model import LoadedProfile, Profile, load
from keys.custody import Custody
from keys.errors import Precondition


@dataclass
class Context:
    """One server's shared parts. Profiles are compiled once per job and PAN length, and kept."""

    ledger: Ledger
    custody: Custody
    serials: SerialAllocator
    profiles: dict[str, LoadedProfile] = field(default_factory=dict)
    compiled: dict[tuple[str, int], CompiledProfile] = field(default_factory=dict)
    _cards: WeakSet[CardInMaking] = field(default_factory=WeakSet)

    def card(self, compiled: CompiledProfile, token: int) -> CardInMaking:
        """A card to be made; `wipe_cards` knows it for as long as somebody holds it."""
        card = card_in_making(compiled, self.custody, token)
        self._cards.add(card)
        return card

    def wipe_cards(self) -> None:
        """Wipes the keys and images of every card in making."""
        for card in list(self._cards):
            card.close()

    def profile(self, name: str) -> LoadedProfile:
        """A profile as this server works with it: known, and free of lint errors."""
        if name not in self.profiles:
            loaded = load(name)
            lint.require_clean(loaded)
            self.profiles[name] = loaded
        return self.profiles[name]

    def _profile_with_keys(self, name: str) -> LoadedProfile:
        """The profile, and every master key at hand. Raises Precondition KEYS_MISSING."""
        loaded = self.profile(name)
        have = {record.key_id for record in self.custody.inventory()}
        missing = sorted({spec.key_id for spec in master_specs(loaded.profile)} - have)
        if missing:
            some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise Precondition("KEYS_MISSING", f"profile {name} needs master keys this server does not hold: {some}")
        return loaded

    def current_profile(self, name: str) -> LoadedProfile:
        """The profile for a new job; Precondition PROFILE_CHANGED when its file is no longer the one this server works with."""
        loaded = self._profile_with_keys(name)
        if load(name).sha256 != loaded.sha256:
            raise Precondition("PROFILE_CHANGED", f"profile {name} changed on disk since this server read it: restart the server to use it")
        return loaded

    def profile_of(self, name: str, sha256: str) -> LoadedProfile:
        """The profile a job was made with; Precondition PROFILE_CHANGED when it is another one now."""
        loaded = self._profile_with_keys(name)
        if loaded.sha256 != sha256:
            message = f"profile {name} is not the one the job was made with: put that one back, or cancel the job and submit it again"
            raise Precondition("PROFILE_CHANGED", message)
        return loaded

    def compiled_for(self, name: str, pan_digits: int) -> CompiledProfile:
        if (name, pan_digits) not in self.compiled:
            self.compiled[name, pan_digits] = compile_profile(self.profile(name), pan_digits)
        return self.compiled[name, pan_digits]


def attempt_columns(
    profile: Profile, order: Mapping[str, Column], serials: Mapping[str, int], psn: int, chip_serial: bytes
) -> dict[str, Column]:
    """One order line's columns plus what belongs to this attempt: PSN, chip serial, drawn serial numbers as digits."""
    columns: dict[str, Column] = dict(order)
    columns["psn"] = np.array([f"{psn:02d}".encode()])
    columns["chip_serial"] = np.frombuffer(chip_serial, np.uint8).reshape(1, 8)
    for pool in profile.serials:
        digits = pool.prefix + str(serials[pool.name]).zfill(pool.digits - len(pool.prefix))
        columns[f"{pool.name}_serial"] = np.array([digits.encode()])
    return columns
