"""Chips of a real one's speed, in process and through PC/SC."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.chip.inprocess import InProcessTransport
from engine.chip.pcsc import PcscTransport
from engine.virtual.faults import Plan, load_plan
from engine.virtual.hopper import Hopper
from engine.virtual.pcscd_rig import PcscdRig
from engine.virtual.speed import Speed
from keys.errors import InvalidInput

SELECT = bytes.fromhex("00A4040000")
GET_DATA = bytes.fromhex("80CA9F7F00")
LOT = bytes.fromhex("4101")


def test_time_is_bytes_times_etu_and_the_chips_own_work() -> None:
    assert Speed(11_000).seconds(bytes(5), bytes(7)) == pytest.approx(20 / 1000)
    assert Speed(9600).seconds(bytes(5), bytes(7)) / Speed(38_400).seconds(bytes(5), bytes(7)) == pytest.approx(4)
    worked = Speed(11_000, {"store-data": 30.0, "other": 5.0})
    assert worked.seconds(bytes.fromhex("84E2000000"), b"\x90\x00") == pytest.approx(0.015 + 0.030)
    assert worked.seconds(bytes.fromhex("84E2800100"), b"\x90\x00") == worked.seconds(bytes.fromhex("80E2000000"), b"\x90\x00")
    assert worked.seconds(bytes.fromhex("84D8000000"), b"\x90\x00") == pytest.approx(0.015)
    assert worked.seconds(b"\x00", b"\x90\x00") == pytest.approx(0.011 + 0.005)


def test_what_the_chip_itself_took_is_part_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], []
    monkeypatch.setattr("engine.virtual.speed.time", FakeTime(now, slept))

    def slow(apdu: bytes) -> bytes:
        now[0] += 0.004
        return bytes(7)

    speed = Speed(11_000)
    assert speed.paced(slow, bytes(5)) == bytes(7)
    assert slept == [pytest.approx(0.016)]
    assert speed.paced(lambda _: b"", bytes(5)) == b""
    assert len(slept) == 1, "no answer takes no time: nothing was waited for"


class FakeTime:
    def __init__(self, now: list[float], slept: list[float]) -> None:
        self._now = now
        self.sleep = slept.append

    def monotonic(self) -> float:
        return self._now[0]


@pytest.fixture(params=["in-process", "pcsc"])
def timed(request: pytest.FixtureRequest, tmp_path: Path):
    """Puts a blank into a head of a given speed and times one command."""

    def time_of(speed: Speed | None) -> float:
        hopper = Hopper(tmp_path / f"h{speed and speed.bits_per_s}", speed=speed)
        hopper.feeder.load(LOT, [7])
        hopper.feeder.draw()
        if request.param == "pcsc":
            rig: PcscdRig = request.getfixturevalue("pcsc_rig")
            rig.remove()
            rig.insert(hopper.slot())
            transport = PcscTransport(rig.readers[0], wait_s=5)
        else:
            transport = InProcessTransport(hopper.slot())
        transport.connect()
        transport.transmit(SELECT)
        began = time.perf_counter()
        answer = transport.transmit(GET_DATA)
        took = time.perf_counter() - began
        transport.disconnect()
        hopper.close()
        if speed is not None:
            assert took >= speed.seconds(GET_DATA, answer)
        return took

    return time_of


def test_a_chip_takes_its_time_at_every_door(timed) -> None:
    # 58 bytes on the contacts: 33 ms at 19200, and a good deal more than a virtual chip takes
    assert timed(Speed(4800)) > timed(Speed(19_200)) > timed(None)


def test_a_plan_may_set_the_speed(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"speed": {"bits_per_s": 38400, "fixed_ms": {"put-key": 40}}}')
    assert load_plan(path) == Plan(speed=Speed(38_400, {"put-key": 40.0}))
    assert Hopper(tmp_path / "h", plan=load_plan(path)).speed == Speed(38_400, {"put-key": 40.0})
    assert Hopper(tmp_path / "h2").speed is None
    for wrong in (
        '{"bits_per_s": 0}',
        '{"bits_per_s": 9600, "fixed_ms": {"dance": 1}}',
        '{"bits_per_s": 9600, "fixed_ms": {"other": -1}}',
        "{}",
    ):
        path.write_text(f'{{"speed": {wrong}}}')
        with pytest.raises(InvalidInput, match=r"plan\.json"):
            load_plan(path)
