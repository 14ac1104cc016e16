"""What the report says in sentences; every number in them is one of the result's."""

from __future__ import annotations

from engine.capacity.report.units import cards, days, finish, percent, wait
from engine.capacity.report.whatif import ordered
from engine.capacity.result import Deadline, PlanResult, Sweep


def headline(result: PlanResult) -> list[str]:
    """The date and how sure it is, what limits, what buys most: a sentence each."""
    return [sentence for sentence in (_date(result), _limit(result), _buys(result), _waits(result), _chance(result.deadline)) if sentence]


def _date(result: PlanResult) -> str:
    if not result.total:
        return ""
    what = f"{cards(result.total)} cards"
    if result.p50 is None:
        ended = sum(day is not None for day in result.finish)
        return f"{what} are not done within {result.horizon_days} days: {ended} of {result.replications} replications finish."
    if result.p50 == result.p95:
        return f"{what} are done by {result.p95} in 19 of 20 replications."
    later = f"by {result.p80} in 8 of 10" if result.p80 is not None else "in fewer than 8 of 10 within the horizon"
    last = f"by {result.p95} in 19 of 20" if result.p95 is not None else "in fewer than 19 of 20 within it"
    return f"{what} are done by {result.p50} in half of all replications, {later}, {last}."


def _limit(result: PlanResult) -> str:
    stage = result.bottleneck
    if stage is None:
        return ""
    busy = "" if stage.kind in ("orders", "blanks") else f", busy {percent(stage.utilization)} of its time"
    return f"What limits is {stage.name} ({stage.capacity}){busy}."


def _buys(result: PlanResult) -> str:
    real = [one for one in ordered(result) if one.real and one.days_saved > 0]
    if not result.marginal or not result.total:
        return ""
    if not real:
        return "Nothing that was tried brings the finish forward by more than the simulation can tell from chance."
    best = real[0]
    return f"What buys most is {best.what}: {days(best.days_saved)} days ({days(best.low)} to {days(best.high)})."


def _waits(result: PlanResult) -> str:
    everywhere = next((queue for queue in result.instant if queue.name == "all"), result.instant[0] if result.instant else None)
    if everywhere is None:
        return ""
    where = "" if everywhere.name == "all" else f" at {everywhere.name}"
    return f"Instant issuance{where} waits {wait(everywhere.wait_p50)} at the median and {wait(everywhere.wait_p95)} at P95."


def _chance(deadline: Deadline | None) -> str:
    return "" if deadline is None else f"The chance to be done by {deadline.by}, that day included, is {percent(deadline.chance)}."


def sweep(one: Sweep) -> str:
    """What a sweep shows: from which value to which date."""
    if not one.points:
        return ""
    first, last = one.points[0], one.points[-1]
    return (
        f"From {one.field} {first.value:g} (P50 {finish(first.p50)}, limited by {first.bottleneck}) "
        f"to {last.value:g} (P50 {finish(last.p50)}, limited by {last.bottleneck})."
    )
