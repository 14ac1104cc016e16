"""The contract of every transport, run over the in-process one and over a real pcscd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.chip import pcsc
from engine.chip.inprocess import InProcessTransport
from engine.chip.transport import exchange
from engine.virtual.factory import make_blank
from engine.virtual.faults import Death, Faults, Garbage
from keys.errors import Precondition, Unavailable

SELECT = bytes.fromhex("00A4040000")
LOT = bytes.fromhex("4101")


def serial(tmp_path) -> bytes:
    return abs(hash(str(tmp_path))).to_bytes(8, "big")


@pytest.fixture(params=["in-process", "pcsc"])
def reader(request):
    """A function that puts a chip into a reader and gives the transport to it."""
    opened = []

    def put(chip):
        if request.param == "in-process":
            transport = InProcessTransport(chip)
        else:
            rig = request.getfixturevalue("pcsc_rig")
            rig.insert(chip)
            transport = pcsc.PcscTransport(rig.readers[0], wait_s=5)
        opened.append(transport)
        return transport

    yield put
    for transport in opened:
        transport.disconnect()


def reason(call, *args) -> str:
    with pytest.raises(Unavailable) as caught:
        call(*args)
    return caught.value.reason


def test_connect_talk_disconnect(reader, tmp_path):
    chip = make_blank(tmp_path, lot=LOT, serial=serial(tmp_path))
    transport = reader(chip)
    assert transport.name
    atr = transport.connect()
    assert atr[4:17] == b"ZZC01" + serial(tmp_path)
    assert transport.transmit(SELECT)[-2:] == b"\x90\x00"
    # Raw status words come back as they are.
    assert transport.transmit(bytes.fromhex("80CA123400")) == b"\x6a\x88"
    long = transport.transmit(bytes.fromhex("80F24002024F00"))
    assert len(long) > 100
    transport.disconnect()
    transport.disconnect()
    with pytest.raises(Precondition):
        transport.transmit(SELECT)


def test_connect_is_a_reset(reader, tmp_path):
    chip = make_blank(tmp_path, lot=LOT, serial=serial(tmp_path))
    transport = reader(chip)
    for _ in range(2):
        transport.connect()
        assert transport.transmit(bytes.fromhex("00B2010C00"))[-2:] in (b"\x6d\x00", b"\x6e\x00")
        assert transport.transmit(bytes.fromhex("00A4040008A000000333010101"))[-2:] == b"\x90\x00"
        assert transport.transmit(bytes.fromhex("00B2010C00")) == b"\x69\x85"


def test_what_was_written_is_there_after_the_next_connect(reader, tmp_path):
    chip = make_blank(tmp_path, lot=LOT, serial=serial(tmp_path))
    transport = reader(chip)
    for expected in (1, 2):
        transport.connect()
        answer = transport.transmit(bytes.fromhex("8050300008" + "11" * 8 + "00"))
        assert answer[-3] == expected
        transport.disconnect()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_chip_that_dies_is_gone_and_its_last_command_unknown(reader, tmp_path, when):
    chip = make_blank(tmp_path, lot=LOT, serial=serial(tmp_path), faults=Faults(die=Death(1, when)))
    transport = reader(chip)
    transport.connect()
    transport.transmit(SELECT)
    assert reason(transport.transmit, SELECT) == "CHIP_GONE"
    assert reason(transport.transmit, SELECT) == "CHIP_GONE"


def test_an_answer_without_status_word_is_no_answer(reader, tmp_path):
    chip = make_blank(tmp_path, lot=LOT, serial=serial(tmp_path), faults=Faults(garbage=[Garbage(1, "length")]))
    transport = reader(chip)
    transport.connect()
    assert transport.transmit(bytes.fromhex("80CA123400")) == b"\x6a\x88"
    assert reason(transport.transmit, bytes.fromhex("80CA123400")) == "CHIP_GONE"


def test_a_mute_chip_does_not_connect(tmp_path):
    class Mute:
        def power_on(self) -> bytes:
            return b""

        def transmit(self, apdu: bytes) -> bytes:
            return b""

        def power_off(self) -> None:
            return

    assert reason(InProcessTransport(Mute()).connect) == "CHIP_GONE"


def test_get_response_is_transport():
    sent = []
    answers = [b"\x01\x61\x02", b"\x02\x03\x61\x00", b"\x04\x90\x00"]

    def send(apdu: bytes) -> bytes:
        sent.append(apdu.hex())
        return answers[len(sent) - 1]

    assert exchange(send, bytes.fromhex("84CA00E000"), "r") == b"\x01\x02\x03\x04\x90\x00"
    assert sent == ["84ca00e000", "00c0000002", "00c0000000"]
    assert exchange(lambda _: b"\x6c\x10", SELECT, "r") == b"\x6c\x10"
    assert reason(exchange, lambda _: b"\x61\x01", SELECT, "r") == "CHIP_GONE"


# PC/SC alone


def test_readers_are_listed(pcsc_rig):
    assert pcsc.list_readers() == pcsc_rig.readers


def test_no_chip_in_time(pcsc_rig):
    started = time.monotonic()
    assert reason(pcsc.PcscTransport(pcsc_rig.readers[1], wait_s=0.3).connect) == "CHIP_GONE"
    assert time.monotonic() - started < 3


def test_no_such_reader(pcsc_rig):
    assert reason(pcsc.PcscTransport("no such reader", wait_s=0.1).connect) == "READER_GONE"


def test_a_chip_that_comes_later_is_waited_for(pcsc_rig, tmp_path):
    import threading

    chip = make_blank(tmp_path, lot=LOT, serial=serial(tmp_path))
    timer = threading.Timer(0.5, pcsc_rig.insert, (chip,))
    timer.start()
    transport = pcsc.PcscTransport(pcsc_rig.readers[0], wait_s=5)
    assert transport.connect()
    timer.join()
    transport.disconnect()


def test_the_connection_is_exclusive(pcsc_rig, tmp_path):
    pcsc_rig.insert(make_blank(tmp_path, lot=LOT, serial=serial(tmp_path)))
    first = pcsc.PcscTransport(pcsc_rig.readers[0], wait_s=5)
    first.connect()
    assert reason(pcsc.PcscTransport(pcsc_rig.readers[0], wait_s=0.2).connect) == "READER_BUSY"
    first.disconnect()
    second = pcsc.PcscTransport(pcsc_rig.readers[0], wait_s=5)
    assert second.connect()
    second.disconnect()


def test_a_removed_chip_is_gone_and_the_next_one_works(pcsc_rig, tmp_path):
    pcsc_rig.insert(make_blank(tmp_path, lot=LOT, serial=bytes(7) + b"\x01"))
    transport = pcsc.PcscTransport(pcsc_rig.readers[0], wait_s=5)
    transport.connect()
    pcsc_rig.remove()
    assert reason(transport.transmit, SELECT) == "CHIP_GONE"
    pcsc_rig.insert(make_blank(tmp_path, lot=LOT, serial=bytes(7) + b"\x02"))
    assert transport.connect()[9:17] == bytes(7) + b"\x02"
    transport.disconnect()


def test_two_slots_hold_two_chips(pcsc_rig, tmp_path):
    transports = []
    for slot, name in enumerate(pcsc_rig.readers):
        pcsc_rig.insert(make_blank(tmp_path, lot=LOT, serial=bytes(7) + bytes((slot,))), slot)
        transports.append(pcsc.PcscTransport(name, wait_s=5))
    assert [transport.connect()[16] for transport in transports] == [0, 1]
    for transport in transports:
        assert transport.transmit(SELECT)[-2:] == b"\x90\x00"
        transport.disconnect()


def test_pcscd_killed_and_started_again(pcsc_rig, tmp_path):
    pcsc_rig.insert(make_blank(tmp_path, lot=LOT, serial=serial(tmp_path)))
    transport = pcsc.PcscTransport(pcsc_rig.readers[0], wait_s=5)
    transport.connect()
    os.kill(pcsc_rig.pid, signal.SIGKILL)
    assert reason(transport.transmit, SELECT) in ("READER_GONE", "CHIP_GONE")
    down = pcsc.PcscTransport(pcsc_rig.readers[0], wait_s=0.2)
    assert reason(down.connect) == "READER_GONE"
    assert reason(pcsc.list_readers) == "READER_GONE"
    pcsc_rig.restart()
    started = time.monotonic()
    assert transport.connect()
    assert time.monotonic() - started < 5
    assert transport.transmit(SELECT)[-2:] == b"\x90\x00"
    transport.disconnect()


def test_without_pyscard_it_says_what_to_install():
    program = (
        "import sys; sys.modules['smartcard'] = None\n"
        "from engine.chip import pcsc\n"
        "from keys.errors import Unavailable\n"
        "for call in (pcsc.list_readers, lambda: pcsc.PcscTransport('x')):\n"
        "    try:\n"
        "        call()\n"
        "    except Unavailable as error:\n"
        "        print(error.reason, 'pcsc extra' in error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": "."})
    assert done.stdout.split() == ["PCSC_MISSING", "True"] * 2


def test_nothing_is_left_open_in_pcscd(pcsc_rig, tmp_path):
    """A station makes a transport per card; pcscd must not run out of contexts on the way."""
    chip = make_blank(tmp_path, lot=LOT, serial=serial(tmp_path))

    def open_after(cards: int) -> int:
        pcsc_rig.insert(chip)
        for _ in range(cards):
            transport = pcsc.PcscTransport(pcsc_rig.readers[0], wait_s=5)
            transport.connect()
            transport.disconnect()
        # the chip's own files are this process's too, and are closed when it is out
        pcsc_rig.remove()
        return len(list(Path("/proc/self/fd").iterdir()))

    assert open_after(1) == open_after(300)
