"""All stations waiting for the same server and the same token: a closed queueing network by mean value analysis (Reiser and Lavenberg,
1980), with the residual time of constant services.

All heads count as one kind with their average times; a server of c cores counts as one core c times as fast behind a delay (Seidmann,
Schweitzer and Shalev-Oren, 1987).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.capacity.distribution import Floats

# how often the mixture of kinds is adjusted to how fast each of them turns out to be
_ROUNDS: Final = 6


@dataclass(frozen=True, slots=True)
class Class:
    """`heads` working at once, seconds of a cycle that waits for nobody, and of it the seconds at a core and at the token; all per
    replication.
    """

    heads: Floats
    cycle: Floats
    cpu: Floats
    hsm: Floats


@dataclass(frozen=True, slots=True)
class Load:
    """Per replication: the cycle of each class with its waiting, and the shares of time in which cores and token are busy."""

    cycles: list[Floats]
    engine: Floats
    hsm: Floats


def network(classes: Sequence[Class], cores: int | None, others_engine: Floats, others_hsm: Floats) -> Load:
    """`others_*`: the share of core and token that instant issuance takes, which is served first. No more cards leave than the busiest
    resource lets through.
    """
    if not classes:
        return Load([], others_engine, others_hsm)
    heads = np.array([one.heads for one in classes])
    cycle = np.array([one.cycle for one in classes])
    many = max(cores or 1, 1)
    left_engine, left_hsm = np.maximum(1e-3, 1.0 - others_engine), np.maximum(1e-3, 1.0 - others_hsm)
    service = np.array([[one.cpu / many / left_engine for one in classes], [one.hsm / left_hsm for one in classes]])
    # what a cycle spends besides the queueing part of both services
    beside = np.maximum(1e-9, cycle - service.sum(axis=0))
    rate = heads / cycle
    for _ in range(_ROUNDS):
        part = rate / np.maximum(rate.sum(axis=0), 1e-12)
        wait = _waits(heads.sum(axis=0), (part * beside).sum(axis=0), (service * part).sum(axis=1))
        stay = service + np.where(service > 0, wait[:, None, :], 0.0)
        rate = heads / (beside + stay.sum(axis=0))
        if len(classes) == 1 or not wait.any():
            break
    busy = (rate * service).sum(axis=1)
    rate = rate / np.maximum(1.0, busy.max(axis=0))
    cycles = [np.where(one.heads > 0, one.heads / np.maximum(rate[at], 1e-12), one.cycle) for at, one in enumerate(classes)]
    used = (rate * service).sum(axis=1)
    return Load(cycles, others_engine + used[0] * left_engine, others_hsm + used[1] * left_hsm)


def _waits(heads: Floats, beside: Floats, service: Floats) -> Floats:
    """(resources, replications) seconds waited for each, by adding one head after the other to the network."""
    stay, queue, busy = service.copy(), np.zeros_like(service), np.zeros_like(service)
    if not service.any():
        return np.zeros_like(service)
    for number in range(1, int(np.ceil(heads.max(initial=0.0))) + 1):
        # stations that work part of the time are a part of a head
        added = np.clip(heads - (number - 1), 0.0, 1.0)
        # one who comes sees the others, and of the piece in service half is left on average
        new = service * (1.0 + queue - busy / 2.0)
        stay = np.where(added > 0, stay + added * (new - stay), stay)
        rate = np.minimum(heads, number) / (beside + stay.sum(axis=0))
        queue, busy = rate * stay, np.minimum(1.0, rate * service)
    return np.asarray(np.maximum(0.0, stay - service))
