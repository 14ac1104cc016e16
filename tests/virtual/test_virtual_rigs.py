"""More PC/SC readers than one pcscd has, and nothing of them left behind, whatever ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.virtual.factory import make_blank
from engine.virtual.pcscd_rig import PcscdRig
from engine.virtual.pcscd_rigs import MAX_READERS, PcscdRigs
from keys.errors import InvalidInput, Unavailable

LOT = bytes.fromhex("4101")
# A process has one pcscd: the reader is looked at from another one.
READ_SERIAL = """
import sys
from engine.chip.pcsc import PcscTransport, list_readers
print(len(list_readers()), PcscTransport(sys.argv[1], wait_s=5).connect()[9:17].hex())
"""
HOLD_RIGS = """
import sys, time
from engine.virtual.pcscd_rigs import PcscdRigs
rigs = PcscdRigs(3)
for rig in rigs.rigs:
    rig.begin()
    if sys.argv[1] == "up":
        rig.await_up()
        print(rig.pid, end=" ")
    print(rig._process.pid, rig.home, end=" ")
print(flush=True)
time.sleep(60)
"""


def serial(reader: int) -> bytes:
    return bytes(7) + bytes((reader,))


def alive(pid: int) -> bool:
    """A process that is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], places: list[Path]) -> bool:
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) or any(place.exists() for place in places):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def pids_of(rigs: PcscdRigs) -> list[int]:
    return [pid for rig in rigs.rigs for pid in (rig._process.pid, rig.pid)]


def test_three_readers_are_two_pcscds_and_each_holds_its_own_chip(tmp_path: Path) -> None:
    with PcscdRigs(3) as rigs:
        pids, places = pids_of(rigs), [rig.home for rig in rigs.rigs]
        assert len(places) == 2
        seen = []
        for reader in range(3):
            rig, slot = rigs.place(reader)
            rig.insert(make_blank(tmp_path, lot=LOT, serial=serial(reader)), slot)
            done = subprocess.run(
                [sys.executable, "-c", READ_SERIAL, rig.readers[slot]],
                capture_output=True,
                text=True,
                env=os.environ | rig.environment,
                timeout=30,
                check=True,
            )
            seen.append(done.stdout.split())
        assert seen == [["2", serial(reader).hex()] for reader in range(3)], "vpcd always has two slots"
        with pytest.raises(InvalidInput):
            rigs.place(3)
        assert all(map(alive, pids))
    assert gone(pids, places)


def test_how_many_readers_there_may_be() -> None:
    for wrong in (0, MAX_READERS + 1):
        with pytest.raises(InvalidInput, match=str(MAX_READERS)):
            PcscdRigs(wrong)
    assert [len(PcscdRigs(MAX_READERS).rigs), PcscdRigs(5).place(4)[1]] == [MAX_READERS // 2, 0]


def test_an_exception_leaves_nothing_behind() -> None:
    rigs, left = PcscdRigs(3), []

    def work() -> None:
        with rigs:
            left.extend((pids_of(rigs), [rig.home for rig in rigs.rigs]))
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert gone(*left)


def test_one_rig_that_does_not_come_up_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    rigs, begun = PcscdRigs(3), []
    begin = PcscdRig.begin

    def spoilt(rig: PcscdRig) -> None:
        begin(rig)
        begun.append((rig._process.pid, rig.home))
        if len(begun) == 2:
            rig._process.kill()

    monkeypatch.setattr(PcscdRig, "begin", spoilt)
    with pytest.raises(Unavailable) as caught:
        rigs.__enter__()
    assert caught.value.reason == "PCSCD_FAILED"
    assert gone([pid for pid, _ in begun], [place for _, place in begun])


@pytest.mark.parametrize("state", ["up", "starting"])
def test_rigs_end_with_the_process_that_started_them(state: str) -> None:
    """Also when it is killed, and has no chance to clean up."""
    with subprocess.Popen([sys.executable, "-c", HOLD_RIGS, state], stdout=subprocess.PIPE, text=True) as process:
        words = process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
    pids, places = [int(word) for word in words if word.isdecimal()], [Path(word) for word in words if not word.isdecimal()]
    assert (len(pids), len(places)) == (4 if state == "up" else 2, 2)
    assert gone(pids, places)
