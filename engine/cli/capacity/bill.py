"""`citycard capacity bill`: where the seconds of a card went, and which reader costs cards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from engine.cli import output
from engine.cli.capacity.ledger import Data, LedgerFile, ledger_path
from engine.cli.job import Json
from keys.errors import InvalidInput

if TYPE_CHECKING:
    from engine.capacity.evidence.bill import Bill, By, Part

_BY: Final[tuple[By, ...]] = ("card", "domain", "profile", "reader", "station", "lot")
# rows shown: the slowest; --json has them all
_SLOWEST: Final = 20
Job = Annotated[str, typer.Argument(help="A job; default: every card that was timed.")]
Grouped = Annotated[str, typer.Option("--by", help="Compare by card, domain, profile, reader, station or lot.")]


def bill(job: Job = "", data: Data = None, ledger: LedgerFile = None, by: Grouped = "reader", as_json: Json = False) -> None:
    """Where the seconds of a card went: by part of the work and by domain; names the slow reader and the cards per hour it costs."""
    from dataclasses import asdict

    from engine.capacity.evidence.bill import bill as read_bill

    chosen = next((known for known in _BY if known == by), None)
    if chosen is None:
        raise InvalidInput("BILL_BY", f"--by {by!r} is none of {', '.join(_BY)}")
    found = read_bill(ledger_path(data, ledger), job, chosen)
    if as_json:
        output.emit_json(asdict(found))
    else:
        _print(found, by)


def _print(found: Bill, by: str) -> None:
    output.say(f"{found.cards} good cards, {found.cycle_s:.3f} s each from lease to stacked")
    output.say("")
    output.table(("part of the work", "s a card", "share", "commands", "bytes"), [_part(p, found.cycle_s) for p in found.phases], "none")
    output.say("")
    chip_s = sum(p.seconds for p in found.domains)
    output.table(("domain", "s a card", "of the chip's", "commands", "bytes"), [_part(p, chip_s) for p in found.domains], "none")
    if found.rows:
        output.say("")
        shown = found.rows[:_SLOWEST]
        rows = [(r.name, r.cards, f"{r.chip_s:.4f}", f"{r.cycle_s:.4f}", _rate(r.bits_per_s)) for r in shown]
        output.table((by, "cards", "chip s", "cycle s", "kbit/s while reading"), rows, "none")
        if len(shown) < len(found.rows):
            output.say(f"the slowest {len(shown)} of {len(found.rows)}; --json tells all")
    output.say("")
    for line in (*found.notes, *(found.findings or ["no reader and no lot stands out as slow"])):
        output.say(line)


def _part(part: Part, of: float) -> tuple[object, ...]:
    counted = (part.commands, part.bytes) if part.commands else ("", "")
    return part.name, f"{part.seconds:.4f}", f"{part.seconds / of:.1%}" if of else "", *counted


def _rate(bits_per_s: float | None) -> str:
    return "" if bits_per_s is None else f"{bits_per_s / 1000:.0f}"
