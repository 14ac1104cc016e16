"""The bill adds up, knows what each command is for, names the slow reader, and raises no false alarm."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.capacity.evidence.bill import bill
from engine.capacity.evidence.commands import segments_of
from engine.capacity.evidence.readers import Cards, below_promise, slower, wire_of
from engine.chip.atr import parse
from engine.cli.capacity import app
from engine.personalize.segment import from_slab, to_slab
from engine.production.card import CardInMaking, lease_commands
from engine.profiles.compile import compile_profile
from engine.profiles.model import load
from engine.virtual.birth import CHIP_TYPE_SCP02
from engine.virtual.factory import make_blank
from keys.errors import NotFound, Precondition
from tests.capacity.past import ATR, COUNTS, PROFILE, Made, Past
from tests.personalize.perso_tools import LOT, columns_for, make_custody, pan_of
from tests.profiles.profile_tools import NAME

PLAN = [sent for segment in segments_of(compile_profile(load(PROFILE))) for sent in segment]
BYTES = np.array([np.nan if sent.received is None else sent.sent + sent.received for sent in PLAN])
READS = np.array([sent.ins in (0xB0, 0xB2) for sent in PLAN])


@pytest.mark.parametrize("name", [NAME, "zhengzhou-citizen-card-scp02"])
def test_the_commands_are_those_that_a_card_is_sent(tmp_path, name):
    """Every length as foretold, of commands and of the answers that are foretold at all."""
    profile = load(name)
    compiled = compile_profile(profile)
    blank = {} if name == NAME else {"chip_type": CHIP_TYPE_SCP02}
    with make_custody(tmp_path / "custody", profile.profile) as custody:
        chip = make_blank(tmp_path, lot=LOT, serial=os.urandom(8), **blank)
        chip.power_on()
        challenge = os.urandom(8)
        played = [[(command, chip.transmit(command)) for command in lease_commands(compiled, challenge)]]
        card = CardInMaking(compiled, custody, 5)
        identity = card.open(challenge, played[0][-1][1][:-2])
        card.prepare(columns_for(identity.serial, pan_of(19)))
        segment = card.personalization()
        while segment is not None:
            played.append([(command, chip.transmit(command)) for command in segment.commands])
            slab = to_slab([answer for _, answer in played[-1]])
            assert len(from_slab(slab)) == len(segment.commands)
            if not card.proving:
                card.accept_personalization(slab)
                segment = card.first_proof(slab)
            else:
                segment = card.next_proof(slab)
        card.close()
    foretold = segments_of(compiled)
    assert [len(segment) for segment in foretold] == [len(segment) for segment in played]
    told = 0
    for told_segment, played_segment in zip(foretold, played, strict=True):
        for sent, (command, answer) in zip(told_segment, played_segment, strict=True):
            assert (sent.ins, sent.sent) == (command[1], len(command))
            if sent.received is not None:
                told += 1
                assert sent.received == len(answer), f"INS {sent.ins:02X} of {sent.domain}, {sent.phase}"
    assert told > 100
    domains = {application.domain for application in profile.profile.applications}
    assert {sent.domain for segment in foretold for sent in segment} == domains | {"issuer"}


# -- which reader is slow: synthetic cards -----------------------------------------------------------------------------


def cards(name, rng, *, rate=154_839.0, per_command=0.004, write=30e-6, n=40, noise=0.1, atr=ATR):
    """Readers of a bit rate; chips that work on every command and on every byte written; `noise` is the sd of each command's time."""
    octets = np.where(np.isfinite(BYTES), BYTES, 40.0)
    clean = per_command + octets * 11 / rate + np.where(READS, 0.0, octets * write)
    seconds = clean * np.maximum(0.2, rng.normal(1.0, noise, (n, len(PLAN))))
    return Cards(name, seconds, BYTES, READS, seconds.sum(axis=1) + rng.normal(1.5, 0.1, n), parse(atr))


@pytest.mark.parametrize("seed", range(10))
def test_equal_readers_raise_no_alarm(seed):
    rng = np.random.default_rng(seed)
    for noise in (0.02, 0.3):
        assert slower([cards(f"R{i}", rng, noise=noise, n=6 + 3 * i) for i in range(20)]) == []
    # what differs, but hardly: within the threshold
    assert slower([*(cards(f"R{i}", rng) for i in range(4)), cards("R9", rng, rate=140_000)]) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_low_bit_rate_is_found_with_its_cost(seed):
    rng = np.random.default_rng(seed)
    (slow,) = slower([*(cards(f"R{i}", rng) for i in range(3)), cards("R9", rng, rate=38_400.0)])
    octets = np.nansum(BYTES)
    assert (slow.name, slow.by_bit_rate) == ("R9", True)
    assert slow.seconds == pytest.approx(octets * 11 * (1 / 38_400 - 1 / 154_839), rel=0.15)
    assert slow.bits_per_s == pytest.approx(38_400, rel=0.2)
    assert slow.others_bits_per_s == pytest.approx(154_839, rel=0.35)
    usual = np.median(cards("x", rng).cycle_s)
    assert slow.cards_per_hour == pytest.approx(3600 / usual - 3600 / (usual + slow.seconds), rel=0.15)


def test_a_delay_of_every_command_is_not_called_a_bit_rate():
    rng = np.random.default_rng(1)
    (slow,) = slower([cards("R1", rng), cards("R2", rng, per_command=0.044)])
    assert (slow.name, slow.reference, slow.by_bit_rate) == ("R2", "R1", False)
    assert slow.per_command_s == pytest.approx(0.04, rel=0.1)


def test_too_few_cards_accuse_nobody():
    rng = np.random.default_rng(1)
    assert slower([cards("R1", rng), cards("R2", rng, rate=9600, n=4)]) == []
    assert slower([cards("R1", rng)]) == []


def test_the_wire_is_measured_where_nothing_is_written():
    rng = np.random.default_rng(2)
    found = wire_of(cards("R1", rng, noise=0.02, n=200))
    assert found.bits_per_s == pytest.approx(154_839, rel=0.1)
    assert found.per_command_s == pytest.approx(0.004, rel=0.1)


def test_a_reader_below_what_the_answer_to_reset_allows():
    """TA1 = 96 allows 223 kbit/s at 3.57 MHz: 9600 is a reader that never asked for it."""
    rng = np.random.default_rng(3)
    rate, allowed = below_promise(cards("R1", rng, rate=9600.0, noise=0.02))
    assert (rate, allowed) == (pytest.approx(9600, rel=0.1), pytest.approx(3_571_000 * 32 / 512))
    assert below_promise(cards("R1", rng, noise=0.02)) is None
    assert below_promise(cards("R1", rng, rate=9600.0, noise=0.02, atr=b"\x3b\x00")) is None


# -- from a ledger -----------------------------------------------------------------------------------------------------


@pytest.fixture
def past(tmp_path):
    made = Past(tmp_path / "ledger.sqlite")
    made.job(0, 12)
    made.station(0)
    made.station(0, "S2")
    return made


def apdus(rate, rng):
    octets = np.where(np.isfinite(BYTES), BYTES, 40.0)
    return [round(us) for us in (2_000 + octets * 11e6 / rate) * rng.normal(1.0, 0.02, sum(COUNTS))]


def test_the_parts_add_up_to_the_card(past):
    past.made(Made(1, 4.0, 1, chip=1.42), Made(6, 5.0, 2, chip=2.84, print_=0.75), Made(12, 2.0, 3, end="torn"))
    found = bill(past.tell(), "J1")
    assert (found.cards, found.of_cards, found.cycle_s) == (2, 2, 4.5)
    assert sum(part.seconds for part in found.phases) == pytest.approx(4.5)
    by_name = {part.name: part for part in found.phases}
    assert by_name["printing"].seconds == pytest.approx(0.5)
    assert by_name["feeding"].seconds == pytest.approx(0.001)
    # every command took as long: a phase's share is its share of the commands
    assert by_name["personalization"].seconds == pytest.approx(2.13 * 62 / 142)
    assert by_name["lease"].commands == 3
    assert sum(part.seconds for part in found.domains) == pytest.approx(2.13)
    assert {part.name for part in found.domains} == {"issuer", "social-security", "finance", "transport", "health", "city"}


def test_the_slow_reader_is_named_in_words(past):
    rng = np.random.default_rng(4)
    for i in range(6):
        past.made(Made(1 + 9 * i, 3.0, 1 + i, apdus=apdus(154_839, rng)))
        past.made(Made(1 + 9 * i, 6.0, 7 + i, "S2", "R7", apdus=apdus(38_400, rng)))
    path = past.tell()
    found = bill(path)
    (finding,) = found.findings
    assert finding.startswith(("reader R7 of S2 runs at 38", "reader R7 of S2 runs at 39")), finding
    assert "R1 of S1 at 1" in finding
    assert "cards an hour lost while it works alone" in finding
    assert [row.name for row in found.rows] == ["R7 of S2", "R1 of S1"]
    assert found.rows[0].bits_per_s == pytest.approx(38_400, rel=0.1)
    assert {row.name for row in bill(path, by="station").rows} == {"S1", "S2"}
    assert [row.name for row in bill(path, by="lot").rows] == ["0001"]
    assert len(bill(path, by="card").rows) == 12
    assert bill(path, by="domain").rows == []


def test_chips_of_another_lot_do_not_accuse_the_reader(past):
    """Only cards of one lot are compared: the slow lot went through one reader alone."""
    rng = np.random.default_rng(5)
    for i in range(6):
        past.made(Made(1 + 9 * i, 3.0, 1 + i, apdus=apdus(154_839, rng)))
        past.made(Made(1 + 9 * i, 6.0, 7 + i, "S2", "R7", lot="0002", apdus=apdus(38_400, rng)))
    assert not [finding for finding in bill(past.tell()).findings if "the others" in finding or "R1" in finding]


def test_a_slow_lot_in_the_same_reader_is_named(past):
    rng = np.random.default_rng(6)
    for i in range(12):
        past.made(Made(1 + 9 * i, 6.0, 1 + i, lot=f"000{1 + i % 2}", apdus=apdus(154_839 if i % 2 else 38_400, rng)))
    (finding,) = [text for text in bill(past.tell()).findings if "lot" in text]
    assert finding.startswith("chips of lot 0001 take 2."), finding


def test_a_card_of_another_script_is_told_apart(past):
    past.made(Made(1, 4.0, 1), Made(6, 4.0, 2))
    path = past.tell()
    found = bill(path)
    assert not found.notes
    # as many timings as a profile of two commands less would give
    import sqlite3

    with sqlite3.connect(path) as db:
        db.execute("UPDATE timings SET counts = ?, apdu_us = ? WHERE attempt_id = 1", (b"\x02\x00", bytes(8)))
    db.close()
    found = bill(path)
    assert any("1 cards were sent other commands" in note for note in found.notes)
    assert sum(part.seconds for part in found.phases) == pytest.approx(4.0)


def test_what_cannot_be_billed_is_said(past, tmp_path):
    past.made(Made(1, 4.0, 1, timed=False))
    path = past.tell()
    with pytest.raises(Precondition) as caught:
        bill(path, "J1")
    assert caught.value.reason == "NO_TIMINGS"
    with pytest.raises(NotFound):
        bill(path, "J9")


def test_the_commands_print_what_was_found(past, tmp_path):
    rng = np.random.default_rng(7)
    for i in range(6):
        past.made(Made(1 + 9 * i, 3.0, 1 + i, apdus=apdus(154_839, rng)))
        past.made(Made(1 + 9 * i, 6.0, 7 + i, "S2", "R7", apdus=apdus(38_400, rng)))
    past.tell()
    runner = CliRunner()
    told = runner.invoke(app, ["bill", "J1", "--ledger", str(past.path)])
    assert told.exit_code == 0, told.exception
    assert "reader R7 of S2 runs at" in told.output
    as_json = json.loads(runner.invoke(app, ["bill", "--ledger", str(past.path), "--by", "station", "--json"]).output)
    assert {row["name"] for row in as_json["rows"]} == {"S1", "S2"}
    out = tmp_path / "profile.json"
    fitted = runner.invoke(app, ["fit", "--ledger", str(past.path), "--out", str(out)])
    assert fitted.exit_code == 0, fitted.exception
    assert "fitted from 1 job" in fitted.output
    from engine.capacity.profile import load as load_profile

    assert load_profile(out).one("chip_seconds", station="S2").distribution.n == 6
    for wrong in (["bill"], ["bill", "--ledger", "a", "--data", "b"], ["bill", "--ledger", str(past.path), "--by", "colour"]):
        assert runner.invoke(app, wrong).exit_code != 0
