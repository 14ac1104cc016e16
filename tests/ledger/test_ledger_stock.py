"""Every blank is accounted for, and one that is not shows."""

from __future__ import annotations

import pytest

from engine.ledger import attempts, jobs, reconcile, stock
from engine.ledger.attempts import AttemptState as S
from engine.ledger.stock import Counted
from keys.errors import Conflict, Exhausted, InvalidInput, NotFound


def test_store_and_stations(world, refused):
    assert world.do(stock.receive, "L1", "chip-a", 100, "keeper") == 100
    assert world.do(stock.receive, "L1", "chip-a", 50, "keeper") == 150
    assert world.do(stock.receive, "L2", "chip-b", 10, "keeper") == 10
    assert world.do(stock.issue, "L1", "S1", 120, "keeper") == 30
    refused(lambda: world.do(stock.issue, "L1", "S1", 31, "keeper"), Exhausted, "NO_BLANKS")
    refused(lambda: world.do(stock.issue, "L9", "S1", 1, "keeper"), NotFound, "LOT_UNKNOWN")
    refused(lambda: world.do(stock.receive, "L1", "chip-b", 1, "keeper"), Conflict, "LOT_TYPE")
    for wrong in (0, -1):
        refused(lambda n=wrong: world.do(stock.receive, "L1", "chip-a", n, "keeper"), InvalidInput, "STOCK_COUNT")
        refused(lambda n=wrong: world.do(stock.issue, "L1", "S1", n, "keeper"), InvalidInput, "STOCK_COUNT")
    refused(lambda: world.do(stock.issue, "L1", "S1", 1, " "), InvalidInput, "STOCK_BY")
    assert world.do(stock.return_, "L1", "S1", 20, "keeper") == 50
    assert world.do(stock.return_, "L1", "S1", 3, "keeper", kind="setup") == 50
    assert world.do(stock.return_, "L1", "S1", 2, "keeper", kind="spoiled") == 50
    refused(lambda: world.do(stock.return_, "L1", "S1", 96, "keeper"), Exhausted, "NO_BLANKS")
    refused(lambda: world.do(stock.return_, "L1", "S2", 1, "keeper"), Exhausted, "NO_BLANKS")
    refused(lambda: world.do(stock.return_, "L1", "S1", 1, "keeper", kind="released"), Exhausted, "NO_BLANKS")
    refused(lambda: world.do(stock.return_, "L1", "S1", 1, "keeper", kind="issue"), InvalidInput, "STOCK_KIND")
    refused(lambda: world.do(stock.return_, "L1", "S1", 1, "keeper", kind="gift"), InvalidInput, "STOCK_KIND")
    assert [(one.lot, one.chip_type, one.in_store) for one in world.see(stock.lots)] == [("L1", "chip-a", 50), ("L2", "chip-b", 10)]
    assert world.see(stock.stations) == ["S1"]


@pytest.fixture
def shift_done(world):
    """20 blanks issued; 3 good, 1 torn, 1 rejected blank, 1 released, 1 sample, 2 for setting up; the rest lies in the feeder."""
    world.start(count=10)
    world.blanks(20)
    world.card(1)
    world.card(2)
    world.card(3)
    sample = world.card(4)
    torn = world.advance(world.reserve(5), S.ENCODED)
    world.do(attempts.scrap, torn.token, "torn")
    world.do(attempts.stacked, torn.token, "reject")
    bad = world.reserve(6)
    world.do(attempts.blank_rejected, bad.token, "no-answer")
    world.do(attempts.stacked, bad.token, "reject")
    back = world.advance(world.reserve(7), S.PRESENTED)
    world.do(attempts.release, back.token, "job-paused")
    world.do(attempts.stacked, back.token, "returned")
    # Never had a piece: the feeder was empty when it asked.
    world.do(attempts.release, world.reserve(8).token, "no-blank")
    world.do(attempts.sample_drawn, sample.attempt_id, "Li Wei")
    world.do(stock.return_, "LOT", "S1", 2, "keeper", kind="setup")
    return world


TRUE_COUNT = Counted(feeder_remaining=11, good=4, reject=2, returned=1, in_heads=0)


def test_the_books_balance(shift_done):
    world = shift_done
    world.do(stock.count, "S1", TRUE_COUNT, "machine")
    for scope in ({}, {"station_id": "S1"}):
        result = world.see(reconcile.reconcile, **scope)
        assert result.differences == []
        assert result.balanced
        held = result.figures
        assert (held.issued, held.good, held.scrapped, held.blank_rejected) == (20, 3, 1, 1)
        assert (held.samples, held.returned, held.setup, held.in_making) == (1, 1, 2, 0)
        assert result.in_feeder_expected == 11
        assert held.issued == held.drawn + held.setup + held.in_feeder
    of_job = world.see(reconcile.reconcile, job_id="J1")
    assert of_job.balanced
    assert (of_job.figures.issued, of_job.figures.drawn, of_job.in_feeder_expected) == (7, 7, 0)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"feeder_remaining": 10}, "feeder and heads: counted 1 fewer"),
        ({"feeder_remaining": 12}, "feeder and heads: counted 1 more"),
        ({"in_heads": 1}, "feeder and heads: counted 1 more"),
        ({"good": 3}, "good bin: counted 1 fewer"),
        ({"reject": 4}, "reject bin: counted 2 more"),
        ({"returned": 0}, "return bin: counted 1 fewer"),
    ],
    ids=str,
)
def test_one_hidden_blank_shows_wherever_it_is_missing(shift_done, change, place):
    world = shift_done
    numbers = {name: getattr(TRUE_COUNT, name) for name in TRUE_COUNT.__slots__} | change
    world.do(stock.count, "S1", Counted(**numbers), "machine")
    for scope in ({}, {"station_id": "S1"}):
        assert world.see(reconcile.reconcile, **scope).differences == [f"station S1, {place} than the ledger holds"]


def test_without_the_heads_counted_the_feeder_stands_alone(shift_done):
    world = shift_done
    world.do(stock.count, "S1", Counted(11, 4, 2, 1), "keeper")
    assert world.see(reconcile.reconcile).balanced
    world.do(stock.count, "S1", Counted(10, 4, 2, 1), "keeper")
    assert world.see(reconcile.reconcile).differences == ["station S1, feeder: counted 1 fewer than the ledger holds"]


def test_a_blank_on_its_way_into_a_head_is_no_difference(world):
    world.start()
    world.blanks(5)
    world.reserve(1)
    # The blank is drawn, the station has not reported it yet.
    world.do(stock.count, "S1", Counted(4, 0, 0, 0, in_heads=1), "machine")
    assert world.see(reconcile.reconcile).balanced


def test_a_station_that_was_not_counted_or_moved_on_is_named(world):
    world.start()
    world.blanks(5)
    assert world.see(reconcile.reconcile).differences == ["station S1 was never counted"]
    world.do(stock.count, "S1", Counted(5, 0, 0, 0, 0), "machine")
    assert world.see(reconcile.reconcile).balanced
    world.card(1)
    assert world.see(reconcile.reconcile).differences == ["station S1: pieces moved since it was last counted; count it again"]


def test_more_used_than_issued_shows(world):
    world.start()
    world.card(1)
    world.do(stock.count, "S1", Counted(0, 1, 0, 0, 0), "machine")
    assert "1 more blanks were used than were issued" in world.see(reconcile.reconcile).differences


def test_a_piece_in_the_wrong_bin_shows(world):
    world.start()
    world.blanks(5)
    torn = world.advance(world.reserve(1), S.ENCODED)
    world.do(attempts.scrap, torn.token, "torn")
    world.do(attempts.stacked, torn.token, "good")
    world.do(stock.count, "S1", Counted(4, 1, 0, 0, 0), "machine")
    assert world.see(reconcile.reconcile).differences == ["1 pieces fell into a bin where they do not belong"]


def test_a_job_with_pieces_in_hand_is_not_balanced(world):
    world.start()
    world.blanks(5)
    attempt = world.advance(world.reserve(1), S.GOOD)
    assert world.see(reconcile.reconcile, job_id="J1").differences == ["job J1: 1 pieces were not seen falling into a bin yet"]
    world.do(attempts.stacked, attempt.token, "good")
    world.do(stock.count, "S1", Counted(0, 2, 0, 0, 0), "machine", "J1")
    assert world.see(reconcile.reconcile, job_id="J1").differences == ["station S1, good bin: counted 1 more than the ledger holds"]
    with pytest.raises(NotFound):
        world.see(reconcile.reconcile, job_id="J9")


def test_a_shift_answers_for_its_own_losses_only(world):
    world.start()
    world.blanks(10)
    opening = world.do(stock.count, "S1", Counted(9, 0, 0, 0, 0), "Li Wei")  # one was missing before this shift
    world.card(1)
    middle = world.do(stock.count, "S1", Counted(8, 1, 0, 0, 0), "Li Wei")
    world.card(2)
    closing = world.do(stock.count, "S1", Counted(7, 1, 0, 0, 0), "Zhang Min")
    assert world.see(reconcile.shift, "S1", opening, middle) == []
    assert world.see(reconcile.shift, "S1", middle, closing) == ["station S1, good bin: -1 in this shift"]


def test_released_blanks_come_back_from_the_return_bin(shift_done):
    world = shift_done
    assert world.do(stock.return_, "LOT", "S1", 1, "keeper", kind="released") == 1
    with pytest.raises(Exhausted):
        world.do(stock.return_, "LOT", "S1", 1, "keeper", kind="released")
    world.do(stock.count, "S1", TRUE_COUNT, "machine")
    assert world.see(reconcile.reconcile).balanced


def test_recalled_cards_had_fallen_into_the_good_bin(world):
    world.start()
    world.blanks(3)
    card = world.card(1)
    world.do(jobs.set_state, "J1", "CANCELLING")
    world.do(attempts.recalled, card.attempt_id, "Li Wei")
    world.do(stock.count, "S1", Counted(2, 1, 0, 0, 0), "machine")
    result = world.see(reconcile.reconcile)
    assert result.balanced
    assert (result.figures.good, result.figures.scrapped) == (0, 1)


def test_counts_are_not_negative_and_signed(world, refused):
    refused(lambda: world.do(stock.count, "S1", Counted(-1, 0, 0, 0), "machine"), InvalidInput, "STOCK_COUNT")
    refused(lambda: world.do(stock.count, "S1", Counted(1, 0, 0, 0), ""), InvalidInput, "STOCK_COUNT")
