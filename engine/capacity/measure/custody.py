"""Calls to whoever holds the master keys: software, a PKCS#11 token. Card keys are derived and wiped; nothing is written or changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.capacity.distribution import Distribution
from engine.capacity.measure.cards import card_columns
from engine.capacity.measure.probe import rounds, shares
from engine.capacity.profile import Measurement
from engine.personalize.image import all_factors
from engine.profiles.compile import CompiledProfile, channel_derivations
from keys.custody import Custody, Derivation
from keys.custody.policy import working_for
from keys.errors import NotFound

BATCHES: Final = (1, 64, 1024)
ByteArray = npt.NDArray[np.uint8]
Call = tuple[str, list[Derivation], list[ByteArray]]


def hsm_call_seconds(
    custody: Custody, name: str, compiled: CompiledProfile, seconds: float, batches: Sequence[int] = BATCHES
) -> list[Measurement]:
    """`hsm_call_seconds`, s per call by batch of cards, for the two calls that production makes: `channel-keys`, the three keys of a
    chip, and `card-keys`, all keys of a card that this custody holds; the label `keys` says how many a card those are.

    Raises NotFound KEY_UNKNOWN when it holds none of the profile's keys, and what deriving raises.
    """
    profile = compiled.loaded.profile
    held = {record.key_id for record in custody.inventory()}
    found = []
    for batch in batches:
        calls = [call for call in _calls(compiled, held, batch) if call[1]]
        if not calls:
            raise NotFound("KEY_UNKNOWN", f"{name} holds no key of profile {profile.name}")
        for operation, wanted, factors in calls:

            def work(wanted: list[Derivation] = wanted, factors: list[ByteArray] = factors) -> None:
                custody.derive(wanted, factors).close()

            with working_for(profile.name):
                taken = rounds(work, shares(seconds, batches) / len(calls))
            labels = {"custody": name, "operation": operation, "batch": str(batch), "profile": profile.name, "keys": str(len(wanted))}
            found.append(Measurement("hsm_call_seconds", "s", labels, Distribution.of(taken)))
    return found


def _calls(compiled: CompiledProfile, held: set[str], batch: int) -> list[Call]:
    kdd = np.random.default_rng(batch).integers(0, 256, (batch, 10), np.uint8)
    channel = channel_derivations(compiled.loaded.profile.channel.transport)
    card = list(zip(compiled.derivations, all_factors(compiled, card_columns(compiled, batch)), strict=True))
    kept = [(derivation, factors) for derivation, factors in card if derivation.key_id in held]
    return [
        ("channel-keys", [d for d in channel if d.key_id in held], [kdd] * sum(d.key_id in held for d in channel)),
        ("card-keys", [derivation for derivation, _ in kept], [factors for _, factors in kept]),
    ]
