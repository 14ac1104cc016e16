"""`citycard capacity check`: what a finished job should have taken, beside what it took."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import output
from engine.cli.capacity.ledger import Data, LedgerFile, ledger_path
from engine.cli.job import Json

if TYPE_CHECKING:
    from engine.capacity.check import Checked

_US = 1e6


def check(
    job: Annotated[str, typer.Argument(help="A complete job.")],
    data: Data = None,
    ledger: LedgerFile = None,
    profile: Annotated[
        Path | None, typer.Option("--profile", help="Capacity profile; default: fitted from the jobs that were over before.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulation.")] = 1,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Keep the error in the ledger, to be shown with every later plan.")] = True,
    as_json: Json = False,
) -> None:
    """Make a finished job again in simulation from what it had to work with, and compare the durations."""
    from engine.capacity.check import check as compare
    from engine.capacity.check import past_errors
    from engine.capacity.profile import load

    path = ledger_path(data, ledger)
    found = compare(path, job, load(profile) if profile else None, seed=seed, keep=keep)
    if as_json:
        output.emit_json(_json(found))
    else:
        _print(found, past_errors(path) if keep else [])


def _json(found: Checked) -> dict[str, Any]:
    made, inputs = found.prediction, found.inputs
    return {
        "job_id": made.job_id,
        "measured_s": made.measured_us / _US,
        "predicted_s": {"p5": made.p05_us / _US, "p50": made.p50_us / _US, "p95": made.p95_us / _US},
        "error": made.error,
        "in_sample": made.in_sample,
        "fitted_from": found.jobs,
        "replications": found.replications,
        "lines": inputs.job.lines,
        "stations": len(inputs.stations),
        "heads": sum(station.heads for station in inputs.stations),
        "other_jobs": len(inputs.others),
        "attempts": dict(inputs.attempts),
        "other_attempts": dict(inputs.other_attempts),
        "failures_predicted": found.failures,
        "warnings": found.warnings,
    }


def _print(found: Checked, past: list[str]) -> None:
    made, inputs = found.prediction, found.inputs
    heads = sum(station.heads for station in inputs.stations)
    others = f", {len(inputs.others)} other jobs meanwhile" if inputs.others else ""
    output.say(f"job {made.job_id}: {inputs.job.lines} lines on {len(inputs.stations)} stations with {heads} heads{others}")
    for warning in found.warnings:
        output.say(f"warning: {warning}")
    lost = sum(
        n for outcomes in (inputs.attempts, inputs.other_attempts) for kind, n in outcomes.items() if kind in ("scrapped", "blank-rejected")
    )
    output.pairs(
        [
            ("measured", f"{made.measured_us / _US:,.1f} s"),
            ("predicted", f"{made.p50_us / _US:,.1f} s ({made.p05_us / _US:,.1f} to {made.p95_us / _US:,.1f} in nine of ten)"),
            ("error", f"{made.error:+.1%}"),
            ("failed attempts", f"{lost} measured, {sum(found.failures.values()):,.1f} predicted"),
            ("predicted from", ", ".join(found.jobs) or "a profile that was measured, not fitted from jobs"),
            ("replications", found.replications),
        ]
    )
    for line in past:
        output.say(line)
