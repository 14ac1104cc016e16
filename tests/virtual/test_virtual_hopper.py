from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.virtual.faults import Death, Faults, Plan
from engine.virtual.hopper import BINS, Hopper, read_counts
from keys.errors import CitycardError, Conflict, Exhausted, InvalidInput, NotFound, Precondition

ROOT = Path(__file__).parents[2]
LOT = bytes.fromhex("4101")


def conserved(counts: dict[str, int]) -> bool:
    """What a reconciliation asks of feeder and bins."""
    dropped = sum(counts[name] for name in BINS)
    return counts["remaining"] == counts["loaded"] - counts["drawn"] and counts["drawn"] == dropped + counts["in_heads"]


def test_a_piece_goes_from_magazine_through_head_to_bin(tmp_path):
    hopper = Hopper(tmp_path)
    chips = hopper.feeder.load(LOT, range(1, 4))
    assert chips == [f"4101{n:016X}" for n in (1, 2, 3)]
    assert hopper.head() is None
    assert hopper.feeder.draw() == chips[0]
    assert hopper.head() == chips[0]
    hopper.bins.drop("good", chips[0])
    assert hopper.head() is None
    assert hopper.feeder.draw() == chips[1]
    hopper.bins.drop("reject", chips[1])
    hopper.feeder.draw()
    wanted = {"loaded": 3, "drawn": 3, "remaining": 0, "good": 1, "reject": 1, "returned": 0, "sample": 0, "in_heads": 1}
    assert hopper.counts() == wanted
    hopper.bins.drop("returned", chips[2])
    assert hopper.feeder.draw() is None
    assert hopper.bins.contents("good") == [chips[0]]
    hopper.bins.drop("sample", chips[0])
    assert (hopper.counts()["good"], hopper.counts()["sample"]) == (0, 1)
    assert conserved(hopper.counts())


def test_everything_is_there_for_the_next_process(tmp_path):
    first = Hopper(tmp_path, heads=2)
    chips = first.feeder.load(LOT, range(5))
    first.feeder.draw(1)
    second = Hopper(tmp_path, heads=2)
    assert (second.head(0), second.head(1)) == (None, chips[0])
    second.feeder.draw(0)
    # And for those that were there before, without opening anything again.
    assert first.head(0) == chips[1]
    first.feeder.load(LOT, range(5, 7))
    assert second.feeder.remaining == 5
    assert read_counts(tmp_path) == first.counts() == second.counts()


def test_a_hidden_blank_shows(tmp_path):
    hopper = Hopper(tmp_path)
    hopper.feeder.load(LOT, range(3))
    assert conserved(hopper.counts())
    hidden = hopper.hide_blank()
    counts = hopper.counts()
    assert counts["loaded"] - counts["drawn"] == 3
    assert counts["remaining"] == 2
    assert not conserved(read_counts(tmp_path))
    assert hopper.feeder.draw() != hidden
    hopper.hide_blank()
    with pytest.raises(Exhausted):
        hopper.hide_blank()


def test_returned_blanks_can_be_loaded_again(tmp_path):
    hopper = Hopper(tmp_path)
    chips = hopper.feeder.load(LOT, [7])
    hopper.feeder.draw()
    hopper.bins.drop("returned", chips[0])
    with pytest.raises(Conflict):
        hopper.feeder.load(LOT, [7])
    assert hopper.bins.empty("returned") == chips
    assert hopper.bins.empty("returned") == []
    hopper.feeder.load(LOT, [7])
    assert hopper.feeder.draw() == chips[0]
    assert conserved(hopper.counts())


def test_refusals(tmp_path):
    hopper = Hopper(tmp_path)
    chips = hopper.feeder.load(LOT, [(1).to_bytes(8, "big"), 5])
    with pytest.raises(Conflict, match="given twice"):
        hopper.feeder.load(LOT, [8, 8])
    with pytest.raises(NotFound):
        hopper.bins.drop("good", chips[0])
    hopper.feeder.draw()
    with pytest.raises(Precondition):
        hopper.feeder.draw()
    with pytest.raises(InvalidInput):
        hopper.bins.drop("floor", chips[0])
    with pytest.raises(InvalidInput):
        hopper.head(1)
    with pytest.raises(InvalidInput):
        Hopper(tmp_path, heads=0)
    with pytest.raises(NotFound):
        read_counts(tmp_path / "elsewhere")
    hopper.bins.drop("reject", chips[0])
    with pytest.raises(NotFound):
        hopper.bins.drop("good", chips[0])


def test_a_slot_speaks_with_whatever_lies_in_the_head(tmp_path):
    hopper = Hopper(tmp_path)
    slot = hopper.slot()
    assert slot.power_on() == b""
    assert slot.transmit(bytes(5)) == b""
    chips = hopper.feeder.load(LOT, range(2))
    for chip_id in chips:
        hopper.feeder.draw()
        assert slot.power_on()[9:17] == bytes.fromhex(chip_id)[2:]
        assert slot.transmit(bytes.fromhex("80CA004500"))[2:12] == bytes.fromhex(chip_id)
        slot.power_off()
        hopper.bins.drop("good", chip_id)


def test_planned_faults_count_commands_across_resets(tmp_path):
    chip_id = f"4101{1:016X}"
    hopper = Hopper(tmp_path, plan=Plan(chips={chip_id: Faults(die=Death(2, revive=True))}))
    hopper.feeder.load(LOT, [1])
    hopper.feeder.draw()
    slot = hopper.slot()
    select = bytes.fromhex("00A4040000")
    slot.power_on()
    assert slot.transmit(select)
    assert slot.power_on()
    assert slot.transmit(select)
    assert slot.transmit(select) == b""


@pytest.mark.parametrize("log", ["pieces.log", "sensors.log"])
def test_files_cut_at_any_byte_lose_no_piece(tmp_path, log):
    hopper = Hopper(tmp_path)
    hopper.feeder.load(LOT, range(2))
    chip_id = hopper.feeder.draw()
    hopper.bins.drop("good", chip_id)
    hopper.close()
    pieces, sensors = (tmp_path / "pieces.log").read_bytes(), (tmp_path / "sensors.log").read_bytes()
    # kill -9 between or inside the two writes of the last move: the sensor's comes first.
    before = len(pieces) - _last_record(pieces), len(sensors) - _last_record(sensors)
    cuts = range(before[0], len(pieces) + 1) if log == "pieces.log" else range(before[1], len(sensors))
    for cut in cuts:
        (tmp_path / "pieces.log").write_bytes(pieces[:cut] if log == "pieces.log" else pieces[: before[0]])
        (tmp_path / "sensors.log").write_bytes(sensors if log == "pieces.log" else sensors[:cut])
        again = Hopper(tmp_path)
        counts = again.counts()
        assert conserved(counts)
        assert (counts["good"], counts["in_heads"]) == ((1, 0) if log == "pieces.log" else (0, 1))
        again.close()


def _last_record(content: bytes) -> int:
    at = last = 0
    while at < len(content):
        last = 8 + int.from_bytes(content[at : at + 4], "big")
        at += last
    return last


WORKER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from engine.virtual.hopper import Hopper
    hopper = Hopper(Path(sys.argv[1]))
    while True:
        held = hopper.head()
        if held is not None:
            hopper.bins.drop("good", held)
        chip_id = hopper.feeder.draw()
        if chip_id is None:
            break
        sys.stdout.write("x")
        sys.stdout.flush()
    """
)


def test_kill_9_never_loses_or_doubles_a_piece(tmp_path):
    chips = Hopper(tmp_path).feeder.load(LOT, range(20000))
    for pause in (0.01, 0.03, 0.02, 0.045):
        worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
        worker.stdout.read(1)
        time.sleep(pause)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        hopper = Hopper(tmp_path)
        assert conserved(hopper.counts())
        good, held = hopper.bins.contents("good"), hopper.head()
        gone = good + ([held] if held else [])
        assert gone == chips[: len(gone)]
        hopper.close()


class HopperMachine(RuleBasedStateMachine):
    """Random work on two handles of one station; the sums must always fit."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self._directory = tempfile.TemporaryDirectory()
        self.path = Path(self._directory.name)
        self.handles = [Hopper(self.path, heads=2), Hopper(self.path, heads=2)]
        self.next = 0

    def teardown(self) -> None:
        for hopper in self.handles:
            hopper.close()
        self._directory.cleanup()

    @rule(handle=st.integers(0, 1), count=st.integers(1, 5))
    def load(self, handle, count):
        self.handles[handle].feeder.load(LOT, range(self.next, self.next + count))
        self.next += count

    @rule(handle=st.integers(0, 1), head=st.integers(0, 1))
    def draw(self, handle, head):
        occupied = self.handles[1 - handle].head(head)
        try:
            self.handles[handle].feeder.draw(head)
        except CitycardError as error:
            assert occupied is not None
            assert error.reason == "HEAD_OCCUPIED"

    @rule(handle=st.integers(0, 1), head=st.integers(0, 1), name=st.sampled_from(BINS))
    def drop(self, handle, head, name):
        held = self.handles[1 - handle].head(head)
        if held is not None:
            self.handles[handle].bins.drop(name, held)

    @rule(handle=st.integers(0, 1))
    def reopen(self, handle):
        self.handles[handle].close()
        self.handles[handle] = Hopper(self.path, heads=2)

    @invariant()
    def sums_fit(self):
        counts = read_counts(self.path)
        assert conserved(counts)
        assert counts["loaded"] == self.next
        assert counts == self.handles[0].counts()


HopperMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestHopperMachine = HopperMachine.TestCase
