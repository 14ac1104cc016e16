"""`citycard capacity`: measured, planned, checked against what really happened."""

from __future__ import annotations

import typer

from engine.cli.capacity import bill, check, fit, measure, plan

app = typer.Typer(
    name="capacity", help="When will it be done, how sure is that, and what buys a week: from measurement.", no_args_is_help=True
)
app.command()(fit.fit)
app.command()(bill.bill)
app.command()(plan.plan)
app.command()(check.check)
app.command()(measure.measure)
