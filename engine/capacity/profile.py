"""A capacity profile: everything that was measured, with the machine it was measured on, as one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from engine.capacity.distribution import Distribution
from engine.capacity.machine import Machine
from keys.errors import InvalidInput, NotFound

FORMAT: Final = "citycard-capacity-profile/1"


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One quantity under one set of labels. `events` and `trials` are for shares: `events` of `trials` happened."""

    quantity: str
    unit: str
    labels: dict[str, str] = {}
    distribution: Distribution | None = None
    events: int | None = None
    trials: int | None = None


class CapacityProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `capacity measure` writes and `capacity plan` reads. `jobs`: those it was fitted from, if any."""

    format: Literal["citycard-capacity-profile/1"]
    made_at: str
    machine: Machine
    measurements: list[Measurement]
    jobs: list[str] = []

    def find(self, quantity: str, **labels: str) -> list[Measurement]:
        """Measurements of a quantity that carry all the given labels (and perhaps more)."""
        return [m for m in self.measurements if m.quantity == quantity and all(m.labels.get(k) == v for k, v in labels.items())]

    def one(self, quantity: str, **labels: str) -> Measurement:
        """The measurement with the fewest labels beyond those given; NotFound NOT_MEASURED when there is none."""
        found = sorted(self.find(quantity, **labels), key=lambda m: len(m.labels))
        if not found:
            wanted = ", ".join(f"{k} {v}" for k, v in labels.items())
            raise NotFound("NOT_MEASURED", f"the capacity profile holds no {quantity}{f' for {wanted}' if wanted else ''}")
        return found[0]

    def warnings(self, here: Machine) -> list[str]:
        """What makes the profile less believable on this machine, in plain words."""
        return self.machine.differences(here)


def load(path: Path) -> CapacityProfile:
    """Reads a profile; InvalidInput CAPACITY_PROFILE naming file and place."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput("CAPACITY_PROFILE", f"{path}: {error.strerror}") from None
    try:
        return msgspec.json.decode(data, type=CapacityProfile)
    except msgspec.MsgspecError as error:
        raise InvalidInput("CAPACITY_PROFILE", f"{path} is no capacity profile: {error}") from None


def save(profile: CapacityProfile, path: Path) -> None:
    """Writes a profile whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(profile), indent=1) + b"\n")
    temporary.replace(path)
