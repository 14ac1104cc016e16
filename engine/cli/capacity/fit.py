"""`citycard capacity fit`: what jobs that really ran tell of times, failures and standstills, as a capacity profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.capacity.profile import FORMAT, CapacityProfile, Measurement, save
from engine.cli import output
from engine.cli.capacity.ledger import Data, LedgerFile, ledger_path
from engine.cli.job import Json

Jobs = Annotated[list[str] | None, typer.Argument(help="Jobs to fit from; default: all that were timed.")]

# a table is of whole jobs; each station, reader and lot stands in the file
PARTS = frozenset({"station", "reader", "lot"})


def fit(
    jobs: Jobs = None,
    data: Data = None,
    ledger: LedgerFile = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write a capacity profile of what was fitted.")] = None,
    as_json: Json = False,
) -> None:
    """Fit chip, print, cycle and gap times, failures, repairs and uptimes from jobs that ran."""
    import msgspec

    from engine.capacity.evidence.fit import fit as fit_jobs

    found = fit_jobs(ledger_path(data, ledger), jobs or ())
    if out is not None:
        save(_profile(found.measurements, found.jobs), out)
    if as_json:
        output.emit_json({"jobs": found.jobs, "notes": found.notes, "measurements": msgspec.to_builtins(found.measurements)})
        return
    pooled = [m for m in found.measurements if not PARTS & m.labels.keys()]
    output.table(("quantity", "of", "n", "mean", "median", "95 %"), [_row(m) for m in pooled], "nothing")
    if parts := len(found.measurements) - len(pooled):
        output.say(f"{parts} more by station, reader and lot: --out and --json have them")
    for note in found.notes:
        output.say(note)
    if out is not None:
        output.say(f"fitted from {len(found.jobs)} {'job' if len(found.jobs) == 1 else 'jobs'}, written to {out}")


def _profile(measurements: list[Measurement], jobs: list[str]) -> CapacityProfile:
    from datetime import UTC, datetime

    from engine.capacity.machine import Machine

    return CapacityProfile(FORMAT, datetime.now(UTC).isoformat(timespec="seconds"), Machine.here(), measurements, jobs)


def _row(m: Measurement) -> tuple[object, ...]:
    of = ", ".join(f"{name} {value}" for name, value in m.labels.items())
    if m.distribution is None:
        share = (m.events or 0) / m.trials if m.trials else 0.0
        return m.quantity, of, m.trials, f"{share:.2%}", f"{m.events} of {m.trials}", ""
    d = m.distribution
    return m.quantity, of, d.n, f"{d.mean:.4g} {m.unit}", f"{d.quantile(0.5):.4g}", f"{d.quantile(0.95):.4g}"
