"""What all stations of a group can do in a shift, for all replications at once: the aggregate of the simulation in `cards`.

The number of attempts of a head in a time it works is a renewal count: normal with mean t/m and variance t s^2/m^3 for a cycle of mean m
and variance s^2, plus (1 + s^2/m^2)/2 for the attempt that is begun in time and finished later, once for each time it begins afresh.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from engine.capacity.distribution import Floats
from engine.capacity.scenario.model import Group, Scenario
from engine.capacity.scenario.timetable import Timetable
from engine.capacity.simulation.breakdowns import working
from engine.capacity.simulation.inputs import Card, Inputs
from engine.capacity.simulation.queueing import Class, Load, network
from engine.capacity.simulation.stationrate import Cycle, Rate, cycle, printer_rate
from engine.capacity.simulation.streams import stream


@dataclass
class Memory:
    """What scenarios that differ in one number have in common, kept between them."""

    printers: dict[tuple[object, ...], Rate] = field(default_factory=dict)
    worked: dict[tuple[object, ...], tuple[Floats, Floats]] = field(default_factory=dict)


@dataclass(frozen=True)
class Capacity:
    """(days, replications): `attempts` that can be made, and what good cards, scrap and blanks are of them. `heads`, `chip`, `printers`
    by group: the share of its working time that a resource works while the group does what it can. `engine`, `hsm`: their busy shares
    then, per day; `weights` by group: its part of the attempts.
    """

    attempts: Floats
    scrap: Floats
    blank: Floats
    heads: dict[str, Floats]
    chip: dict[str, Floats]
    printers: dict[str, Floats]
    engine: Floats
    hsm: Floats
    by_group: dict[str, Floats]


def makers(scenario: Scenario) -> tuple[Group, ...]:
    """The groups that can make the ordered profile."""
    return tuple(group for group in scenario.groups if not group.profiles or scenario.orders.profile in group.profiles)


def capacity(
    scenario: Scenario, inputs: Inputs, table: Timetable, others_engine: Floats, others_hsm: Floats, memory: Memory | None = None
) -> Capacity:
    """`others_*` (replications): share of core and token that counters take."""
    return _Shifts(scenario, inputs, table, others_engine, others_hsm, memory or Memory()).run()


class _Shifts:
    def __init__(
        self, scenario: Scenario, inputs: Inputs, table: Timetable, others_engine: Floats, others_hsm: Floats, memory: Memory
    ) -> None:
        self.groups = makers(scenario)
        self.inputs = inputs
        self.table = table
        self.others = (others_engine, others_hsm)
        self.memory = memory
        self.cards: dict[str, Card] = {group.name: inputs.cards[f"group {group.name}"] for group in self.groups}
        self.cycles: dict[str, Cycle] = {name: cycle(card, inputs) for name, card in self.cards.items()}
        self.rates = {group.name: self._rate(group) for group in self.groups}
        self.loads: dict[tuple[float, ...], Load] = {}
        one = np.ones(inputs.replications)
        self.up = one if inputs.uptime is None or inputs.repair is None else inputs.uptime.mean / (inputs.uptime.mean + inputs.repair.mean)

    def run(self) -> Capacity:
        days, replications = len(self.table.days), self.inputs.replications
        by_group: dict[str, Floats] = {}
        failed = [np.zeros((days, replications)), np.zeros((days, replications))]
        busy = [np.zeros((days, replications)), np.zeros((days, replications))]
        seconds = np.zeros(days)
        loads = [self._load(at) for at in range(len(self.table.periods))]
        for at, period in enumerate(self.table.periods):
            seconds[period.day] += period.seconds
            busy[0][period.day] += loads[at].engine * period.seconds
            busy[1][period.day] += loads[at].hsm * period.seconds
        for number, group in enumerate(self.groups):
            made = self._attempts(group, [load.cycles[number] for load in loads])
            by_group[group.name] = made
            failed[0] += made * self.cards[group.name].scrap
            failed[1] += made * self.cards[group.name].blank
        attempts = sum(by_group.values(), np.zeros((days, replications)))
        some = np.maximum(attempts, 1e-9)
        worked = np.maximum(seconds, 1e-9)[:, None]
        return Capacity(attempts, failed[0] / some, failed[1] / some, *self._shares(loads), busy[0] / worked, busy[1] / worked, by_group)

    def _rate(self, group: Group) -> Rate:
        card, alone = self.cards[group.name], self.cycles[group.name]
        shares = (alone.mean, alone.variance, alone.printing, alone.chip, card.gap.mean, card.scrap, card.blank)
        key = (group.heads, group.printers, *(one.tobytes() for one in shares))
        if key not in self.memory.printers:
            self.memory.printers[key] = printer_rate(card, alone, group.heads, group.printers, self.inputs.seed)
        return self.memory.printers[key]

    def _load(self, at: int) -> Load:
        """Who waits for whom depends on how many stations work: the same for all shifts that are staffed alike."""
        period = self.table.periods[at]
        active = tuple(float(self.table.seconds[group.name][at].sum() / period.seconds) for group in self.groups)
        if active not in self.loads:
            classes = []
            for group, stations in zip(self.groups, active, strict=True):
                alone = self.cycles[group.name]
                heads = stations * group.heads * self.up
                classes.append(Class(heads, alone.mean / self.rates[group.name].slower, alone.cpu, alone.hsm))
            self.loads[active] = network(classes, self.inputs.cores, *self.others)
        return self.loads[active]

    def _attempts(self, group: Group, cycles: list[Floats]) -> Floats:
        seconds = self.table.seconds[group.name]
        stops = [part.mean.tobytes() for part in (self.inputs.uptime, self.inputs.repair) if part is not None]
        key = (group.name, seconds.shape, seconds.tobytes(), *stops)
        if key not in self.memory.worked:
            self.memory.worked[key] = working(self.inputs, group.name, seconds)
        worked, starts = self.memory.worked[key]
        alone, rate = self.cycles[group.name], self.rates[group.name]
        z = self._normals(group)
        made = np.zeros((len(self.table.days), self.inputs.replications))
        for at, period in enumerate(self.table.periods):
            busy = worked[at] * group.heads
            afresh = starts[at] + (seconds[at] > 0).sum() * period.fresh
            over = group.heads * afresh * (1.0 + rate.spread * alone.variance / alone.mean**2) / 2.0
            slow = alone.mean / cycles[at]
            spread = np.sqrt(busy * rate.spread * alone.variance * slow / cycles[at] / alone.mean**2)
            made[period.day] += np.maximum(0.0, busy / cycles[at] + over * (busy > 0) + spread * z[period.shift][period.day])
        return made

    def _normals(self, group: Group) -> dict[int, Floats]:
        shape = (len(self.table.days), self.inputs.replications)
        used = {period.shift for period in self.table.periods}
        return {shift: stream(self.inputs.seed, "cards", group.name, shift).standard_normal(shape) for shift in used}

    def _shares(self, loads: list[Load]) -> tuple[dict[str, Floats], dict[str, Floats], dict[str, Floats]]:
        """Of a head's working time while it has work: not waiting for others, at the chip; and of a printer's time, printing."""
        heads, chip, printers = {}, {}, {}
        for number, group in enumerate(self.groups):
            alone = self.cycles[group.name]
            mean = np.mean([load.cycles[number] for load in loads], axis=0) if loads else alone.mean
            heads[group.name] = alone.mean / self.rates[group.name].slower / mean
            chip[group.name] = alone.chip / mean
            printers[group.name] = alone.printing / mean * group.heads / (group.printers or group.heads)
        return heads, chip, printers
