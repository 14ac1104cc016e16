"""Random histories against a model of a few dictionaries: whatever happens in whatever order, the promises hold."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.ledger import attempts, audit, jobs, lines, reconcile, stock
from engine.ledger.attempts import AttemptState as S
from engine.ledger.attempts import Verdict
from engine.ledger.states import ENDED, OPEN
from engine.ledger.stock import Counted
from keys.errors import Conflict, Precondition

from_index = st.integers(min_value=0, max_value=10_000)
LINES = 4
GOOD_WAY = (S.RESERVED, S.PRESENTED, S.INTENT, S.ENCODED, S.VERIFIED, S.PRINTED, S.GOOD)
MAX_CHIP_US, LEASE_US = 120_000_000, 30_000_000


class LedgerMachine(RuleBasedStateMachine):
    """The model: what each line and attempt must be, which chips and serials are burned, and where every piece of plastic is."""

    World: type

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.world = self.World(self.folder / "ledger.db")
        self.world.start(count=LINES)
        self.world.blanks(1000)
        self.line = dict.fromkeys(range(1, LINES + 1), "READY")
        self.state: dict[int, S] = {}
        self.attempt: dict[int, object] = {}
        self.burned_chips: set[str] = set()
        self.bins = {"good": 0, "reject": 0, "returned": 0}
        self.pieces: set[int] = set()
        self.paused = False
        self.deadline: dict[int, int] = {}
        self.lease: dict[int, int] = {}

    def teardown(self) -> None:
        self.world.close()
        shutil.rmtree(self.folder)

    def _pick(self, index: int, *states: S):
        fitting = [number for number, state in self.state.items() if state in states]
        return fitting[index % len(fitting)] if fitting else None

    def _lease_is_over(self, number: int, error: Precondition) -> None:
        assert error.reason == "LEASE_EXPIRED"
        assert self.world.clock.boot > self.lease[number]

    def _chip_is_burned(self, chip_id: str, error: Conflict) -> None:
        assert error.reason == "CHIP_USED"
        assert chip_id in self.burned_chips

    def _end(self, number: int, state: S) -> None:
        self.state[number] = state
        self.line[self.attempt[number].line_no] = "READY"

    @rule(line=st.integers(1, LINES), station=st.sampled_from(["S1", "S2"]))
    def reserve(self, line: int, station: str) -> None:
        try:
            made = self.world.reserve(line, station)
        except Precondition:
            assert self.paused or self.line[line] != "READY" or self.world.job().state == "COMPLETE"
            return
        assert not self.paused
        assert self.line[line] == "READY"
        self.line[line] = "HELD"
        self.state[made.attempt_id], self.attempt[made.attempt_id] = S.RESERVED, made
        self.lease[made.attempt_id] = self.world.clock.boot + LEASE_US

    @rule(index=from_index, chip=st.integers(1, 6))
    def present(self, index: int, chip: int) -> None:
        number = self._pick(index, S.RESERVED)
        if number is None:
            return
        name = f"{chip:020X}"
        attempt = self.attempt[number]
        sighting = self.world.do(attempts.chip_seen, name, attempt.station_id)
        if sighting.verdict in (Verdict.TORN_ELSEWHERE, Verdict.RELEASED_ELSEWHERE):
            other = sighting.attempt.attempt_id
            torn = sighting.verdict is Verdict.TORN_ELSEWHERE
            assert self.state[other] in ((S.INTENT, S.ENCODED, S.VERIFIED, S.PRINTED) if torn else (S.PRESENTED,))
            self._end(other, S.SCRAP_PENDING if torn else S.RELEASED)
        if not sighting.usable:
            if sighting.verdict is not Verdict.HERE:
                assert name in self.burned_chips
            return
        assert name not in self.burned_chips
        try:
            self.attempt[number] = self.world.present(attempt, name)
        except Precondition as error:
            self._lease_is_over(number, error)
            return
        self.state[number] = S.PRESENTED
        self.pieces.add(number)

    @rule(index=from_index)
    def intent(self, index: int) -> None:
        number = self._pick(index, S.PRESENTED)
        if number is None:
            return
        attempt = self.attempt[number]
        psn = self.world.see(attempts.psn_for, "J1", attempt.line_no)
        try:
            self.world.intent(attempt, psn=psn)
        except Conflict as error:
            self._chip_is_burned(attempt.chip_id, error)
            return
        except Precondition as error:
            self._lease_is_over(number, error)
            return
        assert attempt.chip_id not in self.burned_chips
        assert not self.paused
        self.burned_chips.add(attempt.chip_id)
        self.state[number] = S.INTENT
        self.deadline[number] = self.world.clock.boot + MAX_CHIP_US

    @rule(index=from_index)
    def step(self, index: int) -> None:
        number = self._pick(index, S.INTENT, S.ENCODED, S.VERIFIED, S.PRINTED)
        if number is None:
            return
        state = self.state[number]
        self.state[number] = GOOD_WAY[GOOD_WAY.index(state) + 1]
        self.world.advance(self.world.attempt(self.attempt[number]), self.state[number])
        if self.state[number] is S.GOOD:
            self.line[self.attempt[number].line_no] = "GOOD"

    @rule(index=from_index)
    def held(self, index: int) -> None:
        number = self._pick(index, S.GOOD)
        if number is not None:
            self.world.do(attempts.held, self.attempt[number].token)
            self.state[number] = S.HELD
            self.line[self.attempt[number].line_no] = "HELD"

    @rule(index=from_index, wrong=st.booleans())
    def stack(self, index: int, wrong: bool) -> None:
        number = self._pick(index, S.GOOD, S.HELD)
        if number is None:
            return
        name = "reject" if wrong else "good"
        self.world.do(attempts.stacked, self.attempt[number].token, name)
        self.bins[name] += 1
        if wrong:
            self._end(number, S.SCRAP_PENDING)
        else:
            self.state[number] = S.STACKED
            self.line[self.attempt[number].line_no] = "GOOD"

    @rule(index=from_index)
    def drop_ended(self, index: int) -> None:
        waiting = [n for n in self.pieces if self.state[n] in ENDED and self.world.attempt(self.attempt[n]).bin is None]
        if waiting:
            number = waiting[index % len(waiting)]
            name = "returned" if self.state[number] is S.RELEASED else "reject"
            self.world.do(attempts.stacked, self.attempt[number].token, name)
            self.bins[name] += 1

    @rule(index=from_index, how=st.sampled_from(["release", "blank", "scrap"]))
    def end(self, index: int, how: str) -> None:
        if how == "scrap":
            number = self._pick(index, S.INTENT, S.ENCODED, S.VERIFIED, S.PRINTED)
            if number is not None:
                self.world.do(attempts.scrap, self.attempt[number].token, "torn")
                self._end(number, S.SCRAP_PENDING)
            return
        number = self._pick(index, S.RESERVED, S.PRESENTED)
        if number is None:
            return
        if how == "release":
            self.world.do(attempts.release, self.attempt[number].token, "x")
            self._end(number, S.RELEASED)
        else:
            self.world.do(attempts.blank_rejected, self.attempt[number].token, "x")
            self.pieces.add(number)
            if self.attempt[number].chip_id is not None:
                self.burned_chips.add(self.attempt[number].chip_id)
            self._end(number, S.BLANK_REJECTED)

    @rule(index=from_index)
    def destroy(self, index: int) -> None:
        number = self._pick(index, S.SCRAP_PENDING)
        if number is not None:
            self.world.do(attempts.destroyed, number, "A", "B")
            self.state[number] = S.DESTROYED

    @rule(index=from_index)
    def sample(self, index: int) -> None:
        number = self._pick(index, S.STACKED)
        if number is not None:
            self.world.do(attempts.sample_drawn, number, "A")
            self._end(number, S.SCRAP_PENDING)

    @precondition(lambda self: self.world.job().state in ("RUNNING", "PAUSED"))
    @rule()
    def pause_or_resume(self) -> None:
        self.paused = not self.paused
        self.world.do(jobs.set_state, "J1", "PAUSED" if self.paused else "RUNNING")
        if self.paused:
            self._release_all()

    def _release_all(self) -> None:
        for number, state in list(self.state.items()):
            if state in (S.RESERVED, S.PRESENTED):
                self._end(number, S.RELEASED)

    @rule()
    def restart(self) -> None:
        self.world.reopen()
        self._release_all()
        self.deadline = dict.fromkeys(self.deadline, self.world.clock.boot + MAX_CHIP_US)

    @rule(seconds=st.integers(1, 200), wall=st.integers(-7200, 7200))
    def time_passes(self, seconds: int, wall: int) -> None:
        self.world.clock.boot += seconds * 1_000_000
        self.world.clock.wall += wall * 1_000_000
        now = self.world.clock.boot
        torn = {one.attempt_id for one in self.world.do(attempts.tear_overdue)}
        on_chip = (S.INTENT, S.ENCODED, S.VERIFIED, S.PRINTED)
        assert torn == {n for n, state in self.state.items() if state in on_chip and self.deadline[n] < now}
        for number in torn:
            self._end(number, S.SCRAP_PENDING)
        expired = {one.attempt_id for one in self.world.do(attempts.expire_leases)}
        assert expired == {n for n, state in self.state.items() if state in (S.RESERVED, S.PRESENTED) and self.lease[n] < now}
        for number in expired:
            self._end(number, S.RELEASED)

    @invariant()
    def every_row_is_what_the_model_says(self) -> None:
        every = self.world.see(attempts.in_states, list(S))
        assert {one.attempt_id: one.state for one in every} == self.state
        assert {n: self.world.line(n) for n in self.line} == self.line
        finished = [one.line_no for one in every if one.state in (S.GOOD, S.HELD, S.STACKED)]
        assert len(finished) == len(set(finished))
        complete = all(state == "GOOD" for state in self.line.values()) and not any(state in OPEN for state in self.state.values())
        assert (self.world.job().state == "COMPLETE") == complete
        if complete:
            self.paused = False
        person = [b"person %d".ljust(16, b".") % n for n in self.line]
        issued = {bytes(h) for h in self.world.see(lines.issued, person, [])[0]}
        holding = {one.line_no for one in every if one.state in (S.GOOD, S.HELD, S.STACKED)}
        assert len(issued) == len(holding)

    @invariant()
    def no_chip_and_no_serial_twice(self) -> None:
        begun = [one for one in self.world.see(attempts.in_states, list(S)) if one.intent_us is not None]
        assert len({one.chip_id for one in begun}) == len(begun)
        serials = [self.world.see(attempts.serials_of, one.attempt_id)["city"] for one in begun]
        assert len(set(serials)) == len(serials)
        assert len({(one.line_no, one.psn) for one in begun}) == len(begun)

    @invariant()
    def the_books_balance_and_a_hidden_blank_shows(self) -> None:
        heads = len(self.pieces) - sum(self.bins.values())
        feeder = 1000 - len(self.pieces)
        for missing in (1, 0):
            for number, station in enumerate(("S1", "S2")):
                held = self.world.see(reconcile.figures, station_id=station)
                # S2's blanks come out of S1's feeder in this world: count the two as one, at S1.
                if number == 0:
                    first = held
                else:
                    both = self.world.see(reconcile.figures)
                    assert both.drawn == first.drawn + held.drawn == len(self.pieces)
            assert both.in_feeder == feeder
            assert both.in_hand == heads
            assert (both.fell_good, both.fell_reject, both.fell_returned) == tuple(self.bins.values())
            here = Counted(first.in_feeder - missing, first.fell_good, first.fell_reject, first.fell_returned, first.in_hand)
            self.world.do(stock.count, "S1", here, "machine")
            assert self.world.see(reconcile.reconcile, station_id="S1").balanced == (missing == 0)

    @invariant()
    def the_audit_chain_holds(self) -> None:
        self.world.see(audit.verify)


def test_random_histories_keep_every_promise(world):
    LedgerMachine.World = type(world)
    machine = LedgerMachine.TestCase
    machine.settings = settings(max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    machine("runTest").runTest()
