"""What stations measure is in the ledger, adds up, and names the slow reader; real server and station processes."""

from __future__ import annotations

import pytest

from engine.capacity.evidence.bill import bill
from engine.capacity.evidence.fit import fit
from engine.capacity.evidence.pastjob import job_inputs
from engine.ledger.events import StationEvent
from engine.rpc.local import LEDGER_FILE
from tests.plant.conftest import PROFILE

SLOW, QUICK = 600_000, 2_400_000


def test_a_real_run_is_timed_fitted_and_billed(works, orders):
    works.add_station("quick", 60, faults={"speed": {"bits_per_s": QUICK}})
    works.add_station("slow", 60, faults={"speed": {"bits_per_s": SLOW}})
    works.all_connected("quick", "slow")
    job = works.submit(orders(36)).job_id
    works.wait(job, lambda j: j.state == "COMPLETE")
    ledger = works.plant.server_data / LEDGER_FILE
    # the server still runs: nothing of this needs it to stop
    found = fit(ledger, [job])

    def mean(quantity, **labels):
        (measured,) = [m for m in found.measurements if m.quantity == quantity and m.labels == labels]
        return measured.distribution.n, measured.distribution.mean

    cards = {name: mean("cycle_seconds", profile=PROFILE, outcome="good", station=name)[0] for name in ("quick", "slow")}
    assert sum(cards.values()) == 36 == mean("chip_seconds", profile=PROFILE, transport="in-process")[0]
    # bytes of a card over the contacts at 11 units each are the least a chip can take, in the station's clock and in the ledger's alike
    told = bill(ledger, job)
    octets = sum(part.bytes for part in told.phases)
    for name, rate in (("quick", QUICK), ("slow", SLOW)):
        chip, cycle = (
            mean("chip_seconds", profile=PROFILE, transport="in-process", station=name)[1],
            mean("cycle_seconds", profile=PROFILE, outcome="good", station=name)[1],
        )
        printing, handling = (mean(q, profile=PROFILE, station=name)[1] for q in ("print_seconds", "handling_seconds"))
        assert octets * 11 / rate < chip < cycle
        assert chip + printing + handling == pytest.approx(cycle, rel=1e-6)
        assert mean("gap_seconds", station=name)[0] >= cards[name] - 2
    assert sum(part.seconds for part in told.phases) == pytest.approx(told.cycle_s, rel=1e-3)
    assert {part.name for part in told.domains} == {"issuer", "social-security", "finance", "transport", "health", "city"}
    (finding,) = told.findings
    assert finding.startswith("reader in-process 0 of slow runs at "), finding

    inputs = job_inputs(ledger, job)
    assert inputs.job.lines == 36
    assert inputs.attempts == {"good": 36}
    assert [(s.station_id, s.heads, s.blanks) for s in inputs.stations] == [("quick", 1, 60), ("slow", 1, 60)]
    assert 0 < inputs.measured_s < 120


def test_standstills_are_written_down_and_a_taken_over_card_is_not_timed(works, orders):
    """A server that is killed leaves cards whose beginning nobody heard; they are made good, and stand in no measurement."""
    works.add_station("one", 30, faults={"speed": {"bits_per_s": QUICK}})
    works.all_connected("one")
    job = works.submit(orders(12)).job_id
    works.wait(job, lambda j: j.good >= 3)
    works.plant.kill("server")
    works.restart_server()
    works.wait(job, lambda j: j.state == "COMPLETE")
    works.plant.stop("one")
    works.wait(job, lambda j: _events(works) == ["connected", "connected", "disconnected left"])
    ledger = works.plant.server_data / LEDGER_FILE
    timed = next(m.distribution.n for m in fit(ledger, [job]).measurements if m.quantity == "chip_seconds")
    assert 12 - timed <= 1
    assert [m for m in fit(ledger, [job]).measurements if m.quantity == "repair_seconds"] == []
    assert bill(ledger, job).of_cards == timed
    (station,) = job_inputs(ledger, job).stations
    assert len(station.working) == 2


def _events(works) -> list[str]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(works.plant.server_data / LEDGER_FILE)) as db:
        rows = db.execute("SELECT event, cause FROM station_events ORDER BY event_id").fetchall()
    assert {StationEvent(event) for event, _ in rows} <= set(StationEvent)
    return [f"{event} {cause}".strip() for event, cause in rows]
