"""What every replication believes: each number of the scenario or the capacity profile as one value per replication.

A measured mean is known as well as its samples allow: replications differ by its standard error. A share is known as well as its trials
allow (Jeffreys' prior). A range said in the scenario is known no better than that: uniform between its ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import Final

import numpy as np

from engine.capacity.distribution import Distribution, Floats
from engine.capacity.profile import CapacityProfile
from engine.capacity.scenario.model import Hsm, Range, Scenario, Times
from engine.capacity.simulation.model import BLANK, NOTHING, failures, measured, measurement, virtual
from engine.capacity.simulation.streams import stream
from keys.errors import InvalidInput

# nothing is known of how the times between stops are spread when only their mean is said
_SAID_SPREAD: Final = Distribution.of(-np.log1p(-(np.arange(20_000) + 0.5) / 20_000))
# a share of failures above it leaves no work to plan
_MOST: Final = 0.95
# the custody whose calls ask no token
_SOFTWARE: Final = "software"
_TIMES: Final = ("chip_seconds", "print_seconds", "handling_seconds", "gap_seconds")


@dataclass(frozen=True, slots=True)
class Part:
    """Seconds: `shape` with mean 1 for how single ones differ, `mean` one value per replication."""

    shape: Distribution
    mean: Floats

    @property
    def variance(self) -> Floats:
        """Of single ones, per replication."""
        return np.asarray((self.shape.sd * self.mean) ** 2)

    def draw(self, rng: np.random.Generator, replication: np.ndarray) -> Floats:
        """One for each entry of `replication`, never negative."""
        if self.shape.quantiles[0] == self.shape.quantiles[-1]:
            return np.asarray(self.mean[replication])
        return np.asarray(np.maximum(0.0, self.shape.sample(rng, replication.shape) * self.mean[replication]))

    def at(self, replication: int) -> Distribution:
        """As a distribution, for the simulation card by card."""
        return self.shape.scaled(float(self.mean[replication]))


@dataclass(frozen=True, slots=True)
class Card:
    """One card at one kind of station. Failed attempts take `scrap_cycle` and `blank_cycle` where measured; see `model`."""

    chip: Part
    printing: Part
    handling: Part
    gap: Part
    scrap: Floats
    blank: Floats
    scrap_cycle: Part | None
    blank_cycle: Part | None
    cpu: Floats
    calls: float


@dataclass(slots=True)
class Inputs:
    """`cards`: by "group NAME" or "counter NAME". `calls_per_s` of all tokens and `cores`: None where no limit. `sources`: what, how much,
    and where it is from: measured, said in the scenario, assumed.
    """

    replications: int
    seed: int
    cards: dict[str, Card] = field(default_factory=dict)
    talk: dict[str, Part] = field(default_factory=dict)
    uptime: Part | None = None
    repair: Part | None = None
    calls_per_s: Floats | None = None
    cores: int | None = None
    sources: list[tuple[str, str, str]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def resolve(scenario: Scenario, profile: CapacityProfile | None, replications: int, seed: int) -> Inputs:
    """Raises InvalidInput NOT_MEASURED naming every number that neither the scenario nor the capacity profile has."""
    return _Resolver(scenario, profile, replications, seed).run()


class _Resolver:
    def __init__(self, scenario: Scenario, profile: CapacityProfile | None, replications: int, seed: int) -> None:
        self.scenario = scenario
        self.profile = profile
        self.out = Inputs(replications, seed)

    def run(self) -> Inputs:
        scenario, out = self.scenario, self.out
        for group in scenario.groups:
            out.cards[f"group {group.name}"] = self._card(f"group {group.name}", group.times)
        for counter in scenario.counters:
            where = f"counter {counter.name}"
            out.cards[where] = self._card(where, counter.times)
            talk = counter.talk_seconds
            # customers differ from one another within the range, not replications
            spread = Distribution.of(np.linspace(talk.low, talk.high, 101)) if talk.high else Distribution.constant(1.0)
            out.talk[where] = Part(_unit(spread), np.full(out.replications, talk.middle))
            if talk.high:
                self._source(f"{where} talk_seconds", str(talk), "said")
        self._stops()
        if scenario.hsm is not None:
            out.calls_per_s = self._calls_per_second(scenario.hsm) * max(scenario.hsm.count, 1)
        if scenario.engine is not None:
            out.cores = scenario.engine.nodes * scenario.engine.cores
        if out.findings:
            raise InvalidInput("NOT_MEASURED", "\n".join(dict.fromkeys(out.findings)))
        return out

    def _said(self, what: str, value: Range) -> Floats:
        self._source(what, str(value), "said")
        drawn = stream(self.out.seed, "said", what).random(self.out.replications)
        return np.asarray(value.low + drawn * (value.high - value.low))

    def _measured(self, what: str, found: Distribution) -> Part:
        """`what` names the measurement, not its use: where it is wrong, it is wrong for all who use it."""
        self._source(what, f"mean {found.mean:.3g} of {found.n} samples", "measured")
        error = found.sd / found.mean / sqrt(found.n) if found.mean else 0.0
        z = stream(self.out.seed, "measured", what).standard_normal(self.out.replications)
        return Part(_unit(found), np.asarray(found.mean * np.maximum(0.05, 1.0 + error * z)))

    def _source(self, what: str, value: str, kind: str) -> None:
        """Once each: several groups may use the same number."""
        if (what, value, kind) not in self.out.sources:
            self.out.sources.append((what, value, kind))

    def _constant(self, value: float) -> Part:
        return Part(Distribution.constant(1.0), np.full(self.out.replications, value))

    def _part(self, where: str, name: str, times: Times) -> Part:
        said: Range | None = getattr(times, name)
        if said is not None:
            return Part(Distribution.constant(1.0), self._said(f"{where} {name}", said))
        card = None if name == "gap_seconds" else self.scenario.orders.profile
        found = None if self.profile is None else measurement(self.profile, name, card, times.like)
        if found is not None and found.distribution is not None:
            what = f"{name}{times.like and f' at {times.like}'}"
            if name == "chip_seconds" and virtual(found):
                self.out.warnings.append(f"{what} is of virtual chips, {found.distribution.mean:.3g} s a card: real ones take longer")
            return self._measured(what, found.distribution)
        if name == "chip_seconds":
            self.out.findings.append(f"{where}: chip_seconds of {self.scenario.orders.profile} is neither in the scenario nor measured")
        else:
            self._source(f"{where} {name}", "0", "assumed")
        return self._constant(0.0)

    def _card(self, where: str, times: Times) -> Card:
        chip, printing, handling, gap = (self._part(where, name, times) for name in _TIMES)
        hsm = self.scenario.hsm
        said = self.scenario.failures
        return Card(
            chip=chip,
            printing=printing,
            handling=handling,
            gap=gap,
            scrap=self._share("scrap", said.scrap, blank=False, like=times.like),
            blank=self._share("blank_rejected", said.blank_rejected, blank=True, like=times.like),
            scrap_cycle=self._failed_cycle("scrapped", said.scrap),
            blank_cycle=self._failed_cycle(BLANK, said.blank_rejected),
            cpu=self._cpu(),
            calls=0.0 if hsm is None else hsm.calls_per_card,
        )

    def _share(self, name: str, said: Range | None, *, blank: bool, like: str) -> Floats:
        if said is not None:
            return self._said(f"failures {name}", said)
        found = () if self.profile is None else failures(self.profile, self.scenario.orders.profile, like)
        kinds = [one for one in found if one.blank == blank]
        if not kinds:
            self._source(f"failures {name}", "0", "assumed")
        shares = np.zeros(self.out.replications)
        for one in kinds:
            rng = stream(self.out.seed, "share", like, one.reason)
            shares += rng.beta(one.events + 0.5, one.trials - one.events + 0.5, self.out.replications)
            self._source(f"failures {one.reason}{like and f' at {like}'}", f"{one.events} of {one.trials}", "measured")
        return np.minimum(shares, _MOST)

    def _failed_cycle(self, outcome: str, said: Range | None) -> Part | None:
        if self.profile is None or said is not None:
            return None
        found = self.profile.find("cycle_seconds", profile=self.scenario.orders.profile, outcome=outcome)
        shapes = [m.distribution for m in sorted(found, key=lambda m: len(m.labels)) if m.distribution is not None]
        return Part(_unit(shapes[0]), np.full(self.out.replications, shapes[0].mean)) if shapes else None

    def _cpu(self) -> Floats:
        engine = self.scenario.engine
        if engine is None:
            return np.zeros(self.out.replications)
        if engine.cpu_ms_per_card is not None:
            return self._said("engine cpu_ms_per_card", engine.cpu_ms_per_card) / 1000.0
        found = None if self.profile is None else measured(self.profile, "server_cpu_seconds", self.scenario.orders.profile)
        if found is None:
            self.out.findings.append("engine: cpu_ms_per_card is neither in the scenario nor measured (server_cpu_seconds)")
            return np.zeros(self.out.replications)
        return self._measured("engine server_cpu_seconds", found).mean

    def _calls_per_second(self, hsm: Hsm) -> Floats:
        if hsm.calls_per_second is not None:
            return self._said("hsm calls_per_second", hsm.calls_per_second)
        found = () if self.profile is None else self.profile.find("hsm_call_seconds", profile=self.scenario.orders.profile, batch="1")
        of_token = [m for m in found if m.labels.get("custody") != _SOFTWARE and m.distribution is not None]
        if not of_token:
            self.out.findings.append("hsm: calls_per_second is neither in the scenario nor measured (hsm_call_seconds of a token)")
            return np.ones(self.out.replications)
        token = of_token[0].labels.get("custody", "")
        parts = [
            self._measured(f"hsm {token} {m.labels.get('operation', '')}", m.distribution)
            for m in of_token
            if m.labels.get("custody") == token and m.distribution is not None
        ]
        # what was measured are all calls of a card together, however many those are
        return np.asarray(hsm.calls_per_card / sum(part.mean for part in parts))

    def _stops(self) -> None:
        said = self.scenario.failures
        if said.uptime_hours is not None and said.repair_minutes is not None:
            self.out.uptime = Part(_unit(_SAID_SPREAD), self._said("failures uptime_hours", said.uptime_hours) * 3600.0)
            self.out.repair = Part(_unit(_SAID_SPREAD), self._said("failures repair_minutes", said.repair_minutes) * 60.0)
            self._source("failures uptime_hours, repair_minutes", "spread as exponential", "assumed")
            return
        if self.profile is None:
            return
        uptime, repair = (_pooled(self.profile, name) for name in ("uptime_seconds", "repair_seconds"))
        if uptime is not None and repair is not None and uptime.mean > 0:
            self.out.uptime = self._measured("failures uptime_seconds", uptime)
            self.out.repair = self._measured("failures repair_seconds", repair)
        else:
            self._source("failures uptime_hours", "stations never stop", "assumed")


def _pooled(profile: CapacityProfile, quantity: str) -> Distribution | None:
    found = [m for m in profile.find(quantity) if m.distribution is not None]
    return min(found, key=lambda m: len(m.labels)).distribution if found else None


def _unit(found: Distribution) -> Distribution:
    return found.scaled(1.0 / found.mean) if found.mean > 0 else NOTHING
