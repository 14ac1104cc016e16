"""What a load run is asked to do, and the reading of times, shares and ramps from a command line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from keys.errors import InvalidInput

Kind = Literal["bulk", "instant", "mixed"]

# With a rate asked for, the share of a head's cycle that its chip works: the rest is left to the network, the server and the feeder.
CHIP_SHARE: Final = 0.9
MOST_STATIONS: Final = 4096
MOST_CARDS: Final = 10_000_000
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|h)", re.ASCII)
_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_RAMP: Final = re.compile(r"(\d{1,9}):(\d{1,9}):(\d{1,9})", re.ASCII)


def seconds(text: str, option: str) -> float:
    """`6s`, `20ms`, `1.5min` as seconds; InvalidInput TIME_INVALID."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise InvalidInput("TIME_INVALID", f"{option} {text!r} is no time: a number and us, ms, s, min or h, as in 6s or 20ms")
    return float(match[1]) * _UNITS[match[2]]


def share(text: str, option: str) -> float:
    """`2%` as 0.02, at most 100%; InvalidInput SHARE_INVALID."""
    match = _PERCENT.fullmatch(text.strip())
    if match is None or float(match[1]) > 100.0:
        raise InvalidInput("SHARE_INVALID", f"{option} {text!r} is no share: a number from 0 to 100 and a percent sign, as in 2%")
    return float(match[1]) / 100.0


def ramp(text: str) -> tuple[int, ...]:
    """`50:400:50` as station counts, first, last and step; InvalidInput RAMP_INVALID."""
    match = _RAMP.fullmatch(text.strip())
    first, last, step = (int(part) for part in match.groups()) if match else (0, 0, 0)
    if match is None or not 1 <= first <= last <= MOST_STATIONS or not step:
        raise InvalidInput("RAMP_INVALID", f"--ramp {text!r}: first, last and step of the number of stations, as in 50:400:50")
    return tuple(range(first, last + 1, step))


@dataclass(frozen=True)
class Settings:
    """One load run. Times in seconds as they would be at real stations; `time_scale` divides every one that is waited.

    `steps` are numbers of stations, one window each; a run that is no ramp has one. Exactly one of `cards` and `duration_s` is
    set, and a ramp has a duration, that of one step. `rate` is cards an hour and station: `chip_s` then follows from it.
    """

    steps: tuple[int, ...]
    readers: int = 1
    chip_s: float = 6.0
    chip_spread: float = 0.0
    print_s: float = 0.0
    rate: float | None = None
    time_scale: float = 1.0
    cards: int | None = None
    duration_s: float | None = None
    profile: str = "zhengzhou-citizen-card"
    fail: float = 0.0
    p99_limit_s: float | None = None
    kind: Kind = "bulk"
    orders: Path | None = field(default=None)
    name: str = "load"
    seed: int = 1

    @property
    def stations(self) -> int:
        """The most stations that are ever connected."""
        return max(self.steps)

    @property
    def pace_s(self) -> float | None:
        """Seconds from one card of a head to its next, as they are waited; None where a head takes the next card at once."""
        return None if self.rate is None else 3600.0 * self.readers / self.rate / self.time_scale

    @property
    def chip_wait_s(self) -> float:
        """Mean seconds a chip works, as they are waited."""
        if self.pace_s is None:
            return self.chip_s / self.time_scale
        return CHIP_SHARE * self.pace_s - self.print_wait_s

    @property
    def print_wait_s(self) -> float:
        """Seconds of printing, as they are waited."""
        return self.print_s / self.time_scale

    @property
    def cycle_s(self) -> float:
        """The shortest a head's cycle can be: from one card to its next."""
        return self.pace_s if self.pace_s is not None else self.chip_wait_s + self.print_wait_s

    def checked(self) -> Settings:
        """These settings; InvalidInput LOAD_INVALID naming everything that cannot be, at once."""
        wrong = [text for found, text in self._faults() if found]
        if wrong:
            raise InvalidInput("LOAD_INVALID", "; ".join(wrong))
        return self

    def _faults(self) -> list[tuple[bool, str]]:
        cards, duration = self.cards, self.duration_s
        return [
            (not 1 <= self.stations <= MOST_STATIONS or min(self.steps) < 1, f"--stations is 1 to {MOST_STATIONS}"),
            (not 1 <= self.readers <= 64, "--readers is 1 to 64"),
            (not 0.0 < self.time_scale <= 1e6, "--time-scale is above 0 and at most 1000000"),
            (self.chip_spread > 0.5, "--chip-spread is at most 50%"),
            (self.fail > 0.9, "--fail is at most 90%: of nothing but torn cards nothing can be measured"),
            ((cards is None) == (duration is None), "say either --cards or --duration"),
            (cards is not None and not 1 <= cards <= MOST_CARDS, f"--cards is 1 to {MOST_CARDS}"),
            (duration is not None and not 0.5 <= duration <= 86_400.0, "--duration is 500ms to 24h"),
            (cards is not None and len(self.steps) > 1, "a ramp goes by --duration of a step, not by --cards"),
            (self.rate is not None and not 0.0 < self.rate <= 1e6, "--rate-of is above 0 and at most 1000000 cards an hour"),
            (self.rate is not None and self.chip_wait_s < 0.0, "--print-time does not fit into the cycle that --rate-of leaves a head"),
            (not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", self.name), "--name is small letters, digits and hyphens, 31 at most"),
        ]
