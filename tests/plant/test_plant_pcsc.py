"""The same job through real pcscds with more readers than one of them has, and a finished card shown to any PC/SC program."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli import demo
from engine.cli.demo import run_demo
from engine.orders.synthetic import order_file
from engine.virtual.hopper import read_counts
from engine.virtual.pcscd_rigs import PcscdRigs
from keys.errors import Unavailable


class FakeVpcd:
    """The reader's side of vpcd's protocol: length[2] and body; one byte is a control: 0 off, 1 on, 2 reset, 4 ATR."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(20)
        self.port = self._listener.getsockname()[1]
        self._link: socket.socket | None = None

    def accept(self) -> None:
        self._link, _ = self._listener.accept()
        self._link.settimeout(10)

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._link.recv(count - len(data))
            assert part, "the card went away"
            data += part
        return data

    def send(self, body: bytes) -> None:
        self._link.sendall(len(body).to_bytes(2, "big") + body)

    def exchange(self, body: bytes) -> bytes:
        self.send(body)
        return self._receive(int.from_bytes(self._receive(2), "big"))

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
        self._listener.close()


def served(port: int, *extra: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "engine.cli.main", "virtual", "serve", "--vpcd", f"127.0.0.1:{port}", "--json", *extra]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ.copy())


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0


@pytest.mark.timeout(180)
def test_a_job_through_pcscd_and_its_card_shown_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three readers, so two pcscds; none has more blanks than its third of the job, so that each must make its part."""
    monkeypatch.setattr(demo, "blanks_for", lambda *_: 3)
    orders = tmp_path / "orders.csv"
    orders.write_bytes(b"".join(order_file(9)))
    place = tmp_path / "demo"
    result = run_demo(orders, 3, "zhengzhou-citizen-card", place, pcsc=True, quiet=True, time_limit=120)
    assert (result["good"], result["reconciled"], result["transport"]) == (9, True, "pcsc")
    assert [read_counts(place / "stations" / f"station-{i}" / "hopper")["good"] for i in (1, 2, 3)] == [3, 3, 3]

    chip_id = Path(result["results_file"]).read_text().splitlines()[1].split(",")[2]
    chips = next(p.parent for p in place.glob(f"stations/*/hopper/chips/{chip_id}.nvm"))
    vpcd = FakeVpcd()
    process = served(vpcd.port, "--data", str(chips), "--card", chip_id)
    try:
        vpcd.accept()
        vpcd.send(b"\x01")
        atr = vpcd.exchange(b"\x04")
        facts = json.loads(process.stdout.readline())
        assert facts["chip_id"] == chip_id
        assert facts["atr"] == atr.hex().upper()
        assert facts["kvn"] == "31", "a finished card carries the issuer's key version"
        assert atr[-9:-1].hex().upper() == chip_id[-16:], "the last eight historical bytes are the chip's serial"
        fci = vpcd.exchange(bytes.fromhex("00A404000F7378312E73682EC9E7BBE1B1A3D5CF00"))
        assert fci[-2:] == b"\x90\x00"
        card_number = vpcd.exchange(bytes.fromhex("00B2072C00"))
        assert card_number[:2] == bytes.fromhex("0709")
        vpcd.send(b"\x02")
        assert vpcd.exchange(b"\x04") == atr, "it survives a reset"
    finally:
        end(process)
        vpcd.close()


@pytest.mark.timeout(120)
def test_pcscd_killed_under_a_job_costs_the_cards_in_hand_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The readers are gone for a second and come back: both stations go on with fresh contexts, and the books agree."""
    rigs: list[PcscdRigs] = []

    def made(readers: int) -> PcscdRigs:
        rigs.append(PcscdRigs(readers))
        return rigs[0]

    monkeypatch.setattr(demo, "PcscdRigs", made)
    orders = tmp_path / "orders.csv"
    orders.write_bytes(b"".join(order_file(10)))
    place = tmp_path / "demo"
    result = {}

    def work() -> None:
        # some 12 KB go over the contacts of a card: each is in hand for about a second
        result.update(run_demo(orders, 2, "zhengzhou-citizen-card", place, pcsc=True, chip_speed=150_000, quiet=True, time_limit=100))

    def good(station: int) -> int:
        hopper = place / "stations" / f"station-{station}" / "hopper"
        return read_counts(hopper)["good"] if (hopper / "sensors.log").exists() else 0

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wait_until(lambda: good(1) > 0 and good(2) > 0, 30)
        os.kill(rigs[0].rigs[0].pid, signal.SIGKILL)
        time.sleep(1.0)
        before = good(1), good(2)
        rigs[0].rigs[0].restart()
        wait_until(lambda: good(1) > before[0] and good(2) > before[1], 5)
    finally:
        thread.join(100)
    assert (result["good"], result["reconciled"], result["state"]) == (10, True, "COMPLETE")
    assert result["scrapped"] <= 2, "one card in each reader"


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_fresh_blank_is_what_the_maker_ships() -> None:
    vpcd = FakeVpcd()
    process = served(vpcd.port)
    try:
        vpcd.accept()
        vpcd.send(b"\x01")
        answer = vpcd.exchange(bytes.fromhex("8050300008000102030405060700"))
        assert answer[-2:] == b"\x90\x00"
        assert answer[10:13] == bytes.fromhex("300370")
    finally:
        end(process)
        vpcd.close()


def test_pcsc_without_pyscard_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("engine.cli.demo.find_spec", lambda _: None)
    with pytest.raises(Unavailable) as caught:
        run_demo(Path("tests/data/orders-1000.csv"), 2, "zhengzhou-citizen-card", tmp_path / "d", pcsc=True, quiet=True, time_limit=5)
    assert caught.value.reason == "PCSC_MISSING"
    assert not (tmp_path / "d").exists()


def test_a_demo_that_cannot_go_on_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """More orders than blanks in the feeders: no card comes any more, and the reason is told instead of waiting for ever."""
    monkeypatch.setattr("engine.cli.demo.STALL_S", 2.0)
    monkeypatch.setattr("engine.cli.demo.blanks_for", lambda *_: 2)
    orders = tmp_path / "orders.csv"
    orders.write_bytes(b"".join(order_file(6)))
    with pytest.raises(Unavailable, match="feeders are empty") as caught:
        run_demo(orders, 1, "zhengzhou-citizen-card", tmp_path / "d", pcsc=False, quiet=True, time_limit=60)
    assert caught.value.reason == "STALLED"
