"""What leaves for a station, and what must be durable before it does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from engine.ledger.states import ScrapReason
from engine.production import judging
from engine.production.judging import Judging
from engine.production.stationlink import Run
from keys.errors import Corrupt, Denied, Precondition

TOKEN = 7


@dataclass
class Ledger:
    """Writes stay under way until the test lets them be durable, or fail."""

    waiting: list[asyncio.Future] = field(default_factory=list)

    def submit(self, function, *, patience_s=0.0):
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    async def write(self, function, *, patience_s=0.0):
        return await self.submit(function)


@dataclass
class Card:
    """Personalization, then two segments of proof."""

    segment: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(sequence=1))
    sequence: int = 1
    compiled: object = None
    proving: bool = False
    judged: list[bytes] = field(default_factory=list)

    def accept_personalization(self, slab):
        self.judge(slab)

    def judge(self, slab):
        if slab == b"wrong":
            raise Denied("VERIFY_FAILED", "wrong")
        self.judged.append(slab)

    def emit(self):
        self.sequence += 1
        self.segment = SimpleNamespace(sequence=self.sequence)
        return self.segment

    def first_proof(self, slab):
        self.proving = True
        return self.emit()

    def next_proof(self, slab):
        self.judge(slab)
        return self.emit() if self.sequence < 3 else None

    def close(self):
        self.proving = False


@dataclass
class Line:
    """What a station was sent, and what became of the card."""

    printer: bool = True
    runs: dict[int, Run] = field(default_factory=dict)
    sent: list[object] = field(default_factory=list)
    keys: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(zeroized=False, passed=never_passed))

    def run(self, token):
        return self.runs.get(token)

    def link_of(self, run):
        return SimpleNamespace(
            segment=lambda token, segment: self.sent.append(("segment", segment.sequence)),
            print_card=lambda token: self.sent.append("print"),
            eject=lambda token, bin_name, reason: self.sent.append(("eject", bin_name)),
        )

    def patience_s(self):
        return 0.0

    def prints(self, run):
        return self.printer

    def wanted(self, run):
        return True

    async def scrap(self, run, token, reason, detail):
        run.over = True
        self.sent.append(("scrap", reason))

    async def stray(self, token):
        self.sent.append("stray")


async def never_passed(error, wanted):
    return False


class Outcomes:
    def __init__(self):
        self.good = 0

    def note(self, run, failure, reason=""):
        self.good += failure is None


@pytest.fixture
def table(monkeypatch):
    """(line, ledger, judging) with one card that was sent its personalization."""
    monkeypatch.setattr(judging, "grade_counts", lambda compiled: {})

    def lay(*, printer=True):
        line, ledger = Line(printer=printer), Ledger()
        line.runs[TOKEN] = Run(SimpleNamespace(token=TOKEN), "p", "s", card=Card())
        return line, ledger, Judging(line, ledger, Outcomes())

    return lay


async def hear(judge, sequence, slab=b"right", stopped=""):
    """A message as the door hands it on; the task of what is left, if anything is."""
    rest = judge.played(TOKEN, sequence, slab, stopped)
    if rest is None:
        return None
    task = asyncio.create_task(rest)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_the_proof_begins_before_encoded_is_durable_and_its_next_step_waits(table):
    line, ledger, judge = table()
    assert await hear(judge, 1) is None
    assert line.sent == [("segment", 2)]
    task = await hear(judge, 2)
    assert (line.sent, line.runs[TOKEN].card.judged) == ([("segment", 2)], [b"right"])
    ledger.waiting[0].set_result(None)
    await task
    assert line.sent == [("segment", 2), ("segment", 3)]


@pytest.mark.parametrize("late", [False, True], ids=["known before the answers", "after them"])
async def test_a_card_whose_encoded_could_not_be_written_ends(table, late):
    line, ledger, judge = table()
    await hear(judge, 1)
    error = Precondition("STALE_TOKEN", "given up meanwhile")
    if not late:
        ledger.waiting[0].set_exception(error)
        await asyncio.sleep(0)
    task = await hear(judge, 2)
    if late:
        ledger.waiting[0].set_exception(error)
    await task
    assert line.sent == [("segment", 2), ("scrap", ScrapReason.REFUSED)]
    assert len(line.runs[TOKEN].card.judged) == 1


@pytest.mark.parametrize("printer", [True, False])
async def test_a_proven_card_is_printed_or_good_but_only_once_that_is_durable(table, printer):
    line, ledger, judge = table(printer=printer)
    await hear(judge, 1)
    ledger.waiting[0].set_result(None)
    await asyncio.sleep(0)
    await hear(judge, 2)
    before = list(line.sent)
    task = await hear(judge, 3)
    assert line.sent == before
    ledger.waiting[1].set_result(None)
    await task
    assert line.sent[len(before) :] == (["print"] if printer else [("eject", "good")])
    assert judge._outcomes.good == (not printer)


async def test_answers_count_once(table):
    """A finished proof that is asked again would read as proven."""
    line, ledger, judge = table()
    await hear(judge, 1)
    ledger.waiting[0].set_result(None)
    await asyncio.sleep(0)
    assert await hear(judge, 2) is None
    line.runs[TOKEN].card.segment = SimpleNamespace(sequence=2)
    assert await hear(judge, 2) is None
    assert line.sent == [("segment", 2), ("segment", 3)]


async def test_a_wrong_answer_scraps_the_card_and_nothing_later_saves_it(table):
    line, ledger, judge = table()
    await hear(judge, 1)
    ledger.waiting[0].set_result(None)
    await asyncio.sleep(0)
    first = await hear(judge, 2, b"wrong")
    await first
    assert await hear(judge, 2) is None
    assert line.sent == [("segment", 2), ("scrap", ScrapReason.VERIFY_FAILED)]


async def test_a_card_that_died_is_torn(table):
    line, _ledger, judge = table()
    await (await hear(judge, 1, stopped="CHIP_GONE"))
    assert line.sent == [("scrap", ScrapReason.TORN)]


async def test_who_has_ended_is_told_once(table):
    """Its eject is on the way: another one could meet the station's next card."""
    line, _ledger, judge = table()
    line.runs[TOKEN].over = True
    assert await hear(judge, 1) is None
    await judge.printed(TOKEN, ok=True, detail="")
    assert line.sent == []


async def test_answers_to_another_segment_are_stray(table):
    line, _ledger, judge = table()
    await (await hear(judge, 2))
    assert line.sent == ["stray"]


async def test_a_good_card_is_not_scrapped_for_what_follows(table):
    """Once GOOD is durable, nothing that goes wrong with its station's stream touches it."""
    line, ledger, judge = table(printer=False)
    await hear(judge, 1)
    ledger.waiting[0].set_result(None)
    await asyncio.sleep(0)
    await hear(judge, 2)
    judge._outcomes.note = lambda *_: (_ for _ in ()).throw(Corrupt("X", "x"))
    task = await hear(judge, 3)
    ledger.waiting[1].set_result(None)
    with pytest.raises(Corrupt):
        await task
    assert line.sent == [("segment", 2), ("segment", 3)]
