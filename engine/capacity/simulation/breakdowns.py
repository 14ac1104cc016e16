"""How long each station really worked in each period: it works and stands still by turns, on a clock that runs only while it is scheduled.

Exact for stops that come every few hours or days. Where a period holds many stops, their sum is normal by the central limit theorem for
renewal processes (D. R. Cox, Renewal Theory, 1962, section 7.2), which is then used instead.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from engine.capacity.distribution import Floats
from engine.capacity.simulation.inputs import Inputs, Part
from engine.capacity.simulation.streams import stream

# stops in a period beyond which their number is no longer drawn one by one
_MANY: Final = 8.0


def working(inputs: Inputs, group: str, seconds: Floats) -> tuple[Floats, Floats]:
    """`seconds` (periods, stations) scheduled; returns (periods, replications) of seconds worked by all stations of the group together,
    and the number of times one of them began to work again after a stop.
    """
    shape = (seconds.shape[0], inputs.replications)
    if inputs.uptime is None or inputs.repair is None:
        return np.repeat(seconds.sum(axis=1)[:, None], inputs.replications, axis=1), np.zeros(shape)
    worked, starts = np.zeros(shape), np.zeros(shape)
    longest = float(seconds.max(initial=0.0))
    turn = inputs.uptime.mean + inputs.repair.mean
    often = bool(longest / turn.min() > _MANY)
    for station in range(seconds.shape[1]):
        of = (inputs.seed, group, station)
        one = _often(inputs.uptime, inputs.repair, seconds[:, station], of) if often else _exact(inputs, seconds[:, station], of)
        worked += one[0]
        starts += one[1]
    return worked, starts


def _often(uptime: Part, repair: Part, seconds: Floats, of: tuple[int, str, int]) -> tuple[Floats, Floats]:
    turn = uptime.mean + repair.mean
    variance = (uptime.mean**2 * repair.variance + repair.mean**2 * uptime.variance) / turn**3
    z = stream(*of, "stops").standard_normal((len(seconds), len(turn)))
    down = seconds[:, None] * (repair.mean / turn) + np.sqrt(seconds[:, None] * variance) * z
    return seconds[:, None] - np.clip(down, 0.0, seconds[:, None]), seconds[:, None] / turn


def _exact(inputs: Inputs, seconds: Floats, of: tuple[int, str, int]) -> tuple[Floats, Floats]:
    if inputs.uptime is None or inputs.repair is None:
        return np.repeat(seconds[:, None], inputs.replications, axis=1), np.zeros((len(seconds), inputs.replications))
    clock = np.concatenate([[0.0], np.cumsum(seconds)])
    stopped, again = _turns(inputs.uptime, inputs.repair, float(clock[-1]), of, inputs.replications)
    # one sorted line of all replications, each in a stretch of its own
    stretch = float(again.max() + clock[-1] + 1.0)
    offset = np.arange(inputs.replications)[:, None] * stretch
    ended = np.searchsorted((again + offset).ravel(), (clock + offset).ravel(), side="right").reshape(inputs.replications, -1)
    ended -= np.arange(inputs.replications)[:, None] * again.shape[1]
    row = np.arange(inputs.replications)[:, None]
    repaired = np.concatenate([np.zeros((inputs.replications, 1)), np.cumsum(again - stopped, axis=1)], axis=1)
    down = repaired[row, ended] + np.maximum(0.0, clock - stopped[row, np.minimum(ended, stopped.shape[1] - 1)])
    return (seconds[:, None] - np.diff(down, axis=1).T), np.diff(ended, axis=1).T.astype(np.float64)


def _turns(uptime: Part, repair: Part, until: float, of: tuple[int, str, int], replications: int) -> tuple[Floats, Floats]:
    """(replications, n) times on the working clock at which the station stopped and worked again, the last one after `until`."""
    ups, downs = stream(*of, "uptime"), stream(*of, "repair")
    everyone = np.arange(replications)
    stopped: list[Floats] = []
    again: list[Floats] = []
    now = np.zeros(replications)
    expected = int(until / float((uptime.mean + repair.mean).mean())) + 1
    while not again or float(again[-1].min()) <= until:
        # rows are turns, so that a longer run begins with the same turns
        rows = np.broadcast_to(everyone, (max(4, expected // 2), replications))
        up = uptime.draw(ups, rows)
        down = repair.draw(downs, rows)
        ends = now + np.cumsum(up + down, axis=0)
        again.extend(ends)
        stopped.extend(ends - down)
        now = ends[-1]
    return np.array(stopped).T.copy(), np.array(again).T.copy()
