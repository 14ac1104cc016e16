"""Where the seconds of a card went: by part of the work, by domain, by reader, station and lot; and which reader costs cards.

Read from the timings that stations reported, command by command, beside what each command is for, which the compiled profile tells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Select, func, select

from engine.capacity.evidence import readers
from engine.capacity.evidence.commands import Sent, segments_of
from engine.capacity.evidence.history import snapshot
from engine.capacity.evidence.readers import Cards, Floats
from engine.chip.atr import AnswerToReset, parse
from engine.ledger import schema
from engine.ledger.timings import unpack
from engine.profiles.compile import compile_profile
from engine.profiles.model import load
from keys.errors import CitycardError, Corrupt, NotFound, Precondition

By = Literal["card", "domain", "profile", "reader", "station", "lot"]
# More cards tell nothing more, and their times would fill the memory: they are drawn evenly from all.
MOST_CARDS: Final = 20_000
_US: Final = 1e6
_LOT_DIGITS: Final = 4
_WAYS: Final = ("feeding", "printing", "ejecting", "waiting for the server")
REST: Final = "station and its journal"
UNKNOWN_DOMAIN: Final = "unknown"
_READS: Final = (0xB0, 0xB2)


@dataclass(frozen=True)
class Card:
    """One good card. Seconds; `commands` (number of commands,) in the order played."""

    attempt_id: int
    chip_id: str
    profile: str
    station: str
    reader: str
    transport: str
    atr: AnswerToReset | None
    cycle_s: float
    around_s: tuple[float, float, float, float]
    commands: Floats

    @property
    def lot(self) -> str:
        return self.chip_id[:_LOT_DIGITS]

    @property
    def place(self) -> str:
        """Reader and station, as people speak of them."""
        return f"{self.reader or 'the reader'} of {self.station}"


@dataclass(frozen=True)
class Row:
    """Mean seconds of a card in one group: `chip_s` is part of `cycle_s`."""

    name: str
    cards: int
    chip_s: float
    cycle_s: float
    bits_per_s: float | None = None


@dataclass(frozen=True)
class Part:
    """Mean seconds a card for one purpose; `commands` and `bytes` a card, 0 where the time is not a chip's."""

    name: str
    seconds: float
    commands: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Bill:
    """`cards` were looked at of `of_cards`; `phases` add up to `cycle_s`, `domains` to the chip's part of it. `findings` name what costs
    cards, `notes` what the bill does not know.
    """

    cards: int
    of_cards: int
    cycle_s: float
    phases: list[Part]
    domains: list[Part]
    rows: list[Row]
    findings: list[str]
    notes: list[str] = field(default_factory=list)


def bill(path: Path, job_id: str = "", by: By = "reader") -> Bill:
    """The bill of a job, or of every timed card of a ledger; also beside a running server.

    Raises as `history.read`, and Precondition NO_TIMINGS where no card was timed.
    """
    with snapshot(path) as conn:
        if job_id and conn.execute(select(schema.jobs.c.job_no).where(schema.jobs.c.job_id == job_id)).one_or_none() is None:
            raise NotFound("JOB_UNKNOWN", f"there is no job {job_id}")
        total = conn.execute(_wanted(select(func.count()), job_id)).scalar_one()
        cards = list(_cards(conn, job_id, MOST_CARDS / max(1, total)))
    if not cards:
        which = f"no good card of job {job_id}" if job_id else "no good card of this ledger"
        raise Precondition("NO_TIMINGS", f"{which} was timed: it was made before stations timed their commands, or by stations that do not")
    return bill_of(cards, total, by)


def bill_of(cards: Sequence[Card], of_cards: int, by: By) -> Bill:
    """See `bill`; at least one card."""
    notes: list[str] = []
    plans = {profile: _plan(profile, notes) for profile in sorted({card.profile for card in cards})}
    if len(cards) < of_cards:
        notes.append(f"{len(cards)} of {of_cards} cards were looked at, drawn evenly")
    usual = [card for card in cards if len(plans[card.profile]) == len(card.commands)]
    odd = len(cards) - len(usual)
    if odd:
        notes.append(f"{odd} cards were sent other commands than their profile says today: their chip time stands as one part")
    phases, domains = _parts(cards, plans)
    cycle = float(np.mean([card.cycle_s for card in cards]))
    return Bill(len(cards), of_cards, cycle, phases, domains, _rows(cards, plans, by), _findings(usual, plans), notes)


# -- reading -----------------------------------------------------------------------------------------------------------


def _wanted(statement: Select[Any], job_id: str) -> Select[Any]:
    a, t, j = schema.attempts, schema.timings, schema.jobs
    joined = t.join(a, a.c.attempt_id == t.c.attempt_id).join(j, j.c.job_no == a.c.job_no)
    found = statement.select_from(joined).where(a.c.state == "STACKED", func.length(t.c.apdu_us) > 0)
    return found.where(j.c.job_id == job_id) if job_id else found


def _cards(conn: Connection, job_id: str, share: float) -> Iterator[Card]:
    """About `share` of the cards, the same ones every time; chosen by a hash, for stations take turns and every tenth card may be one's."""
    a, t = schema.attempts.c, schema.timings.c
    of_attempt = select(a.attempt_id, a.chip_id, schema.jobs.c.profile, a.station_id, a.atr, a.reserved_us, a.stacked_us)
    statement = of_attempt.add_columns(t.reader, t.transport, t.feed_us, t.print_us, t.eject_us, t.waited_us, t.counts, t.apdu_us).order_by(
        a.attempt_id
    )
    atrs: dict[bytes, AnswerToReset | None] = {}
    for row in conn.execution_options(yield_per=1000).execute(_wanted(statement, job_id)):
        if _hash(row.attempt_id) >= share or row.stacked_us <= row.reserved_us:
            continue
        if row.atr not in atrs:
            atrs[row.atr] = _atr(row.atr)
        around = (row.feed_us / _US, row.print_us / _US, row.eject_us / _US, row.waited_us / _US)
        times = np.concatenate(unpack(row.counts, row.apdu_us)).astype(np.float64) / _US
        cycle = (row.stacked_us - row.reserved_us) / _US
        yield Card(row.attempt_id, row.chip_id, row.profile, row.station_id, row.reader, row.transport, atrs[row.atr], cycle, around, times)


def _hash(number: int) -> float:
    """A number in [0, 1) that neighbours do not share: multiplication by 2^64 over the golden ratio."""
    return (number * 0x9E3779B97F4A7C15 % 2**64) / 2**64


def _atr(atr: bytes | None) -> AnswerToReset | None:
    try:
        return parse(atr or b"")
    except Corrupt:
        return None


def _plan(profile: str, notes: list[str]) -> list[Sent]:
    """Every command of a profile; none where the profile is not at hand."""
    try:
        compiled = compile_profile(load(profile))
    except CitycardError as error:
        notes.append(f"profile {profile} cannot be read, so its commands are not told apart: {error.message}")
        return []
    return [sent for segment in segments_of(compiled) for sent in segment]


# -- parts -------------------------------------------------------------------------------------------------------------


def _parts(cards: Sequence[Card], plans: dict[str, list[Sent]]) -> tuple[list[Part], list[Part]]:
    """Phases and domains, in the order of the work."""
    phases: defaultdict[str, npt.NDArray[np.float64]] = defaultdict(lambda: np.zeros(3))
    domains: defaultdict[str, npt.NDArray[np.float64]] = defaultdict(lambda: np.zeros(3))
    phases[_WAYS[0]] += 0.0
    for profile, plan in plans.items():
        usual = [card.commands for card in cards if card.profile == profile and len(card.commands) == len(plan)]
        sums = np.sum(usual, axis=0).tolist() if usual else []
        for sent, seconds in zip(plan if usual else (), sums, strict=True):
            told = np.array((seconds, len(usual), len(usual) * (sent.sent + (sent.received or 0))))
            phases[sent.phase] += told
            domains[sent.domain] += told
    for card in cards:
        if len(card.commands) != len(plans[card.profile]):
            told = np.array((card.commands.sum(), len(card.commands), 0.0))
            phases["chip"] += told
            domains[UNKNOWN_DOMAIN] += told
    for name, around in zip(_WAYS, np.sum([card.around_s for card in cards], axis=0), strict=True):
        phases[name][0] += around
    rest = sum(max(0.0, card.cycle_s - float(card.commands.sum()) - sum(card.around_s)) for card in cards)
    phases[REST][0] += rest
    return _means(phases, len(cards)), _means(domains, len(cards))


def _means(sums: dict[str, npt.NDArray[np.float64]], cards: int) -> list[Part]:
    return [Part(name, float(s / cards), round(float(n) / cards), round(float(b) / cards)) for name, (s, n, b) in sums.items()]


_GROUPS: Final[dict[By, Callable[[Card], str]]] = {
    "card": lambda card: f"{card.chip_id} (attempt {card.attempt_id})",
    "profile": lambda card: card.profile,
    "reader": lambda card: card.place,
    "station": lambda card: card.station,
    "lot": lambda card: card.lot,
}


def _rows(cards: Sequence[Card], plans: dict[str, list[Sent]], by: By) -> list[Row]:
    """One row a group, the slowest chip first. By domain there are no groups: the domains are the rows."""
    if by == "domain":
        return []
    groups: defaultdict[str, list[Card]] = defaultdict(list)
    for card in cards:
        groups[_GROUPS[by](card)].append(card)
    rows = []
    for name, own in groups.items():
        chip, cycle = float(np.mean([card.commands.sum() for card in own])), float(np.mean([card.cycle_s for card in own]))
        alike = [card for card in own if card.profile == own[0].profile and len(card.commands) == len(plans[card.profile])]
        rate = readers.wire_of(_gathered(name, alike, plans)).bits_per_s if by == "reader" and alike else None
        rows.append(Row(name, len(own), chip, cycle, rate))
    return sorted(rows, key=lambda row: row.chip_s, reverse=True)


# -- findings ----------------------------------------------------------------------------------------------------------


def _gathered(name: str, cards: Sequence[Card], plans: dict[str, list[Sent]]) -> Cards:
    plan = plans[cards[0].profile]
    return Cards(
        name=name,
        seconds=np.stack([card.commands for card in cards]),
        bytes_=np.array([np.nan if sent.received is None else sent.sent + sent.received for sent in plan]),
        reads=np.array([sent.ins in _READS for sent in plan]),
        cycle_s=np.array([card.cycle_s for card in cards]),
        atr=cards[0].atr,
    )


def _findings(cards: Sequence[Card], plans: dict[str, list[Sent]]) -> list[str]:
    if not cards:
        return []
    found = []
    readers_of = _grouped(cards, plans, lambda card: card.place, lambda card: f"{card.profile} {card.transport} {card.lot}")
    named: set[str] = set()
    for alike in readers_of.values():
        for slow in readers.slower(alike):
            if slow.name not in named:
                named.add(slow.name)
                found.append(_reader_words(slow, len(alike)))
    for alike in _grouped(cards, plans, lambda card: card.lot, lambda card: f"{card.profile} {card.place}").values():
        for slow in readers.slower(alike):
            if slow.name not in named:
                named.add(slow.name)
                found.append(
                    f"chips of lot {slow.name} take {slow.seconds:.2g} s more a card than those of lot {slow.reference} in the same reader:"
                    f" {slow.cards_per_hour:.0f} cards an hour lost while it works alone"
                )
    return [*found, *_promises(cards, plans, named)]


def _grouped(
    cards: Sequence[Card], plans: dict[str, list[Sent]], name: Callable[[Card], str], context: Callable[[Card], str]
) -> dict[str, list[Cards]]:
    groups: defaultdict[tuple[str, str], list[Card]] = defaultdict(list)
    for card in cards:
        groups[context(card), name(card)].append(card)
    return readers.by_unit({key: _gathered(key[1], own, plans) for key, own in groups.items()})


def _reader_words(slow: readers.Slow, among: int) -> str:
    others = "the others" if among > 2 else slow.reference
    cost = f"{slow.seconds:.2g} s more a card, {slow.cards_per_hour:.0f} cards an hour lost while it works alone"
    if slow.by_bit_rate and slow.bits_per_s is not None:
        at = "" if slow.others_bits_per_s is None else f", {others} at {slow.others_bits_per_s / 1000:.0f}"
        return f"reader {slow.name} runs at {slow.bits_per_s / 1000:.0f} kbit/s{at}: {cost}"
    return f"reader {slow.name} takes {slow.per_command_s * 1000:.1f} ms longer for every command than {others}: {cost}"


def _promises(cards: Sequence[Card], plans: dict[str, list[Sent]], named: set[str]) -> Iterator[str]:
    """Readers whose wire is far slower than their chips allow, told once for all that are alike."""
    below: list[tuple[str, float, float, float]] = []
    for alike in _grouped(cards, plans, lambda card: card.place, lambda card: card.profile).values():
        for one in alike:
            found = None if one.name in named else readers.below_promise(one)
            if found is not None:
                octets, etu = float(np.nansum(one.bytes_)), one.atr.etu_per_byte if one.atr else 11
                saved = octets * etu * (1.0 / found[0] - 1.0 / found[1])
                below.append((one.name, *found, readers.cards_lost(float(np.median(one.cycle_s)), saved)))
    for name, rate, allowed, lost in below:
        yield (
            f"reader {name} runs at {rate / 1000:.0f} kbit/s; its chips' answer to reset allows {allowed / 1000:.0f} at a clock of"
            f" {readers.CLOCK_KHZ / 1000:.2f} MHz: up to {lost:.0f} cards an hour lost while it works alone"
        )
