"""How long one card takes and how often it fails: what both simulations run on, taken from a capacity profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from engine.capacity.distribution import Distribution
from engine.capacity.profile import CapacityProfile, Measurement
from keys.errors import NotFound

NOTHING: Final = Distribution.constant(0.0)
# outcomes of an attempt that put no chip to use: the piece was fed, looked at and thrown out
BLANK: Final = "blank-rejected"
# transports of stations whose chips are programs
_VIRTUAL: Final = frozenset({"in-process", "recorded"})


@dataclass(frozen=True, slots=True)
class Failure:
    """`share` of the attempts fail so. `cycle`: seconds such an attempt takes; None: feeding only for a blank, all but the print for
    scrap. `events` of `trials` is what stands behind the share, 0 of 0 when it was said rather than measured.
    """

    reason: str
    share: float
    blank: bool = False
    cycle: Distribution | None = None
    events: int = 0
    trials: int = 0


@dataclass(frozen=True, slots=True)
class CardModel:
    """One card of one profile at one kind of station: seconds of each part.

    `handling` holds the network and an idle server's answers too, as it is measured; `cpu_seconds` of a core and `hsm_calls` calls
    are therefore waited for only where others use the same core or token.
    """

    chip: Distribution
    printing: Distribution = NOTHING
    handling: Distribution = NOTHING
    gap: Distribution = NOTHING
    failures: tuple[Failure, ...] = ()
    hsm_calls: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def fail_share(self) -> float:
        """Share of the attempts that give no good card."""
        return sum(one.share for one in self.failures)


@dataclass(frozen=True, slots=True)
class PlantModel:
    """`cards`: by (station, profile), the station "" standing for all that have no entry of their own. `hsm_calls_per_s` and `cores`
    None: not a limit. `uptime` and `repair`: working seconds of a station between stops, and what a stop lasts; None: it never stops.
    """

    cards: Mapping[tuple[str, str], CardModel]
    hsm_calls_per_s: float | None = None
    cores: int | None = None
    uptime: Distribution | None = None
    repair: Distribution | None = None
    blanks: int | None = None
    deliveries: tuple[tuple[float, int], ...] = field(default=())

    def card(self, station: str, profile: str) -> CardModel:
        """Raises NotFound NOT_MEASURED."""
        found = self.cards.get((station, profile)) or self.cards.get(("", profile))
        if found is None:
            raise NotFound("NOT_MEASURED", f"nothing says how long a card of {profile} takes")
        return found


def card_model(profile: CapacityProfile, card: str, station: str = "") -> CardModel:
    """What a capacity profile holds on one card profile, of one station where it was measured there. Raises NotFound NOT_MEASURED when
    there is no chip time; parts that were never measured take no time.
    """
    chip = measured(profile, "chip_seconds", card, station)
    if chip is None:
        raise NotFound("NOT_MEASURED", f"the capacity profile holds no chip_seconds for {card}")
    return CardModel(
        chip=chip,
        printing=measured(profile, "print_seconds", card, station) or NOTHING,
        handling=measured(profile, "handling_seconds", card, station) or NOTHING,
        gap=measured(profile, "gap_seconds", None, station) or NOTHING,
        failures=failures(profile, card, station),
        cpu_seconds=(measured(profile, "server_cpu_seconds", card, station) or NOTHING).mean,
    )


def measured(profile: CapacityProfile, quantity: str, card: str | None, station: str = "") -> Distribution | None:
    """The distribution for a station, else the one pooled over all; None when there is none."""
    found = measurement(profile, quantity, card, station)
    return None if found is None else found.distribution


def measurement(profile: CapacityProfile, quantity: str, card: str | None, station: str = "") -> Measurement | None:
    """What `measured` takes: real chips before virtual ones, a server under many stations before an idle one, many samples before few."""
    labels = {} if card is None else {"profile": card}
    for where in ({"station": station}, {}) if station else ({},):
        found = [m for m in profile.find(quantity, **labels, **where) if m.distribution is not None]
        if found:
            return min(found, key=_rank)
    return None


def virtual(found: Measurement) -> bool:
    """Whether a chip time is that of virtual chips, which no real card keeps to."""
    return found.labels.get("chip") == "virtual" or found.labels.get("transport") in _VIRTUAL


def _rank(found: Measurement) -> tuple[int, bool, int, int]:
    stations = found.labels.get("stations", "")
    samples = 0 if found.distribution is None else found.distribution.n
    return len(found.labels), virtual(found), -int(stations) if stations.isdecimal() else 0, -samples


def failures(profile: CapacityProfile, card: str, station: str = "") -> tuple[Failure, ...]:
    """Failure shares by reason, a blank's told from scrap by the reason's name or outcome label."""
    by_reason: dict[str, Measurement] = {}
    for found in sorted(profile.find("failure_share", profile=card), key=lambda m: (m.labels.get("station", "") != station, len(m.labels))):
        if found.labels.get("station", station) == station and found.trials:
            by_reason.setdefault(found.labels.get("reason", "failed"), found)
    return tuple(
        Failure(
            reason,
            (one.events or 0) / (one.trials or 1),
            blank=BLANK in (reason, one.labels.get("outcome")),
            cycle=_cycle(profile, card, BLANK if BLANK in (reason, one.labels.get("outcome")) else "scrapped"),
            events=one.events or 0,
            trials=one.trials or 0,
        )
        for reason, one in sorted(by_reason.items())
    )


def _cycle(profile: CapacityProfile, card: str, outcome: str) -> Distribution | None:
    found = [m for m in profile.find("cycle_seconds", profile=card, outcome=outcome) if m.distribution is not None]
    return min(found, key=lambda m: len(m.labels)).distribution if found else None
