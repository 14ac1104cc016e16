"""The virtual chip in a real PC/SC stack, driven by programs that know nothing of this project."""

from __future__ import annotations

import os
import socket
import subprocess
import threading

import pytest
from yubikit.core import TRANSPORT
from yubikit.core.smartcard import ApduError, SmartCardConnection
from yubikit.core.smartcard.scp import KeyRef, Scp03KeyParams, StaticKeys
from yubikit.securitydomain import SecurityDomainSession

from engine.chip.pcsc import PcscTransport
from engine.virtual import pcscd_rig, vpcd
from engine.virtual.factory import make_blank, open_chip
from engine.virtual.faults import Death, Faults
from engine.virtual.pcscd_rig import PcscdRig
from keys.errors import InvalidInput, Precondition, Unavailable
from tests.virtual.card_driver import key, transport_keys

LOT = bytes.fromhex("4101")


class YubikitOverPcsc(SmartCardConnection):
    """yubikit's connection, over pyscard's own high-level interface."""

    transport = TRANSPORT.NFC

    def __init__(self, reader: str) -> None:
        from smartcard.System import readers

        self._card = next(r for r in readers() if r.name == reader).createConnection()
        self._card.connect()

    def send_and_receive(self, apdu: bytes) -> tuple[bytes, int]:
        data, sw1, sw2 = self._card.transmit(list(apdu))
        return bytes(data), sw1 << 8 | sw2

    def close(self) -> None:
        self._card.disconnect()


@pytest.fixture
def blank(pcsc_rig, tmp_path):
    """A blank in the first reader, as pcscd has seen it."""
    chip = make_blank(tmp_path, lot=LOT, serial=bytes.fromhex("1122334455667788"))
    pcsc_rig.insert(chip)
    transport = PcscTransport(pcsc_rig.readers[0], wait_s=5)
    transport.connect()
    transport.disconnect()
    return chip


def test_yubikit_opens_the_channel_reads_and_changes_keys(pcsc_rig, blank):
    connection = YubikitOverPcsc(pcsc_rig.readers[0])
    session = SecurityDomainSession(connection)
    assert sorted((ref.kid, ref.kvn) for ref in session.get_key_information()) == [(1, 0x30), (2, 0x30), (3, 0x30)]
    assert bytes.fromhex("2A864886FC6B040370") in session.get_card_recognition_data()
    with pytest.raises(ApduError, match="6982"):
        session.protocol.send_apdu(0x80, 0xD8, 0, 0x81, b"\x20")
    session.authenticate(Scp03KeyParams(KeyRef(1, 0x30), StaticKeys(*transport_keys(blank.chip_id))))
    assert session.get_key_information()[KeyRef(1, 0x30)] == {0x88: 16}
    session.put_key(KeyRef(1, 0x20), StaticKeys(key(1), key(2), key(3)), replace_kvn=0x30)
    session = SecurityDomainSession(connection)
    session.authenticate(Scp03KeyParams(KeyRef(1, 0x20), StaticKeys(key(1), key(2), key(3))))
    assert {ref.kvn for ref in session.get_key_information()} == {0x20}
    connection.close()


def test_opensc_tool_talks_to_the_blank(pcsc_rig, blank):
    done = subprocess.run(
        [
            "opensc-tool",
            "--reader",
            "0",
            "--atr",
            "-s",
            "00A4040000",
            "-s",
            "80CA9F7F00",
            "-s",
            "00A4040008A000000333010101",
            "-s",
            "00B2010C00",
        ],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | pcsc_rig.environment,
        timeout=30,
    )
    assert "3b:8d:80:01:5a:5a:43:30:31:11:22:33:44:55:66:77:88:c6" in done.stdout
    words = [line for line in done.stdout.splitlines() if "SW1" in line]
    assert [("0x90" in line, "0x69, SW2=0x85" in line) for line in words] == [(True, False)] * 3 + [(False, True)]
    assert "9F 7F 2A" in done.stdout


def test_a_chip_is_served_to_a_vpcd_by_host_and_port(tmp_path):
    """`serve` against a vpcd of our own, byte by byte, and again after that one restarts."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)
    stop = threading.Event()
    chip = make_blank(tmp_path, lot=LOT, serial=bytes(8))
    thread = threading.Thread(target=vpcd.serve, args=(chip, "127.0.0.1", listener.getsockname()[1], stop))
    thread.start()
    for _ in range(2):
        link, _ = listener.accept()
        link.settimeout(5)
        link.sendall(b"\x00\x01\x04")
        assert answer_of(link)[:4].hex() == "3b8d8001"
        link.sendall(b"\x00\x01\x01\x00")
        link.sendall(b"\x05\x00\xa4")
        link.sendall(b"\x04\x00\x00")
        assert answer_of(link)[-2:] == b"\x90\x00"
        link.sendall(b"\x00\x01\x02\x00\x01\x00\x00\x01\x09\x00\x05\x00\xa4\x04\x00\x00")
        # Without power the chip says nothing, and vpcd must see that as a pulled chip: it would wait for ever on an empty frame.
        assert link.recv(2) == b""
        link.close()
    stop.set()
    listener.close()
    thread.join(5)
    assert not thread.is_alive()


def answer_of(link: socket.socket) -> bytes:
    def exactly(size: int) -> bytes:
        got = b""
        while len(got) < size:
            part = link.recv(size - len(got))
            assert part
            got += part
        return got

    return exactly(int.from_bytes(exactly(2), "big"))


def test_serving_gives_up_in_bounded_time_and_stays_on_this_machine(tmp_path):
    chip = make_blank(tmp_path, lot=LOT, serial=bytes(8))
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(Unavailable, match=str(port)):
        vpcd.serve(chip, "127.0.0.1", port, threading.Event(), give_up_after_s=0.3)
    for host in ("0.0.0.0", "192.0.2.1", "example.org", ""):
        with pytest.raises(InvalidInput, match="this machine"):
            vpcd.serve(chip, host, port, threading.Event())


@pytest.mark.parametrize("stored", [True, False])
def test_run_announces_what_a_user_must_know(tmp_path, stored):
    stop = threading.Event()
    facts = []
    listener = socket.create_server(("127.0.0.1", 0))
    made = make_blank(tmp_path, lot=LOT, serial=bytes(8))

    def announce(fact: vpcd.Facts) -> None:
        facts.append(fact)
        stop.set()

    where = {"data": tmp_path, "chip_id": made.chip_id} if stored else {}
    given = vpcd.run("127.0.0.1", listener.getsockname()[1], announce=announce, stop_event=stop, **where)
    listener.close()
    assert facts == [given]
    assert (given.chip_id == made.chip_id) == stored
    assert given.atr.startswith("3B8D8001")
    assert given.atr[18:34] == given.chip_id[4:]
    assert given.kvn == 0x30
    with pytest.raises(InvalidInput):
        vpcd.run("127.0.0.1", 1, data=tmp_path)


def test_a_served_chip_keeps_its_memory(pcsc_rig, blank, tmp_path):
    transport = PcscTransport(pcsc_rig.readers[0], wait_s=5)
    transport.connect()
    transport.transmit(bytes.fromhex("8050300008" + "11" * 8 + "00"))
    transport.disconnect()
    pcsc_rig.remove()
    again = open_chip(tmp_path, blank.chip_id)
    again.power_on()
    assert again.transmit(bytes.fromhex("80CA00C100"))[-3] == 1


def test_the_rig_listens_nowhere_on_the_machine(pcsc_rig):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", pcsc_rig.ports[0]), timeout=1)


def test_the_rig_fails_loudly(monkeypatch, tmp_path):
    with pytest.raises(InvalidInput):
        PcscdRig(slots=3)
    with pytest.raises(Precondition):
        PcscdRig().environment  # noqa: B018 - the property is what is tried
    monkeypatch.setattr(pcscd_rig, "DRIVER", tmp_path / "libifdvpcd.so")
    with pytest.raises(Unavailable) as caught:
        PcscdRig().start()
    assert caught.value.reason == "PCSCD_MISSING"
    assert "vsmartcard-vpcd" in caught.value.message


def test_slots_of_the_rig(pcsc_rig, tmp_path):
    chip = make_blank(tmp_path, lot=LOT, serial=bytes(8))
    pcsc_rig.insert(chip)
    with pytest.raises(Precondition):
        pcsc_rig.insert(chip)
    with pytest.raises(InvalidInput):
        pcsc_rig.insert(chip, 2)
    pcsc_rig.remove()
    pcsc_rig.remove()
    with pytest.raises(InvalidInput):
        pcsc_rig.connect(5)


def test_a_rig_with_open_ports_serves_by_host_and_port(tmp_path):
    """Without the network namespace, a chip reaches vpcd as any vpicc does; the environment is for a child process."""
    stop = threading.Event()
    chip = make_blank(tmp_path, lot=LOT, serial=bytes(8))
    with PcscdRig(isolate_network=False) as rig:
        thread = threading.Thread(target=vpcd.serve, args=(chip, "127.0.0.1", rig.ports[0], stop))
        thread.start()
        done = subprocess.run(
            ["opensc-tool", "--wait", "--reader", "0", "-s", "00A4040000"],
            capture_output=True,
            text=True,
            env=os.environ | rig.environment,
            timeout=30,
            check=False,
        )
        stop.set()
        thread.join(5)
    assert "SW1=0x90" in done.stdout, done.stderr
    assert not thread.is_alive()


def test_a_dead_chip_in_the_reader_hangs_nobody(pcsc_rig, tmp_path):
    dead = make_blank(tmp_path, lot=LOT, serial=bytes(8), faults=Faults(die=Death(0)))
    dead.power_on()
    assert dead.transmit(bytes(5)) == b""
    pcsc_rig.insert(dead)
    with pytest.raises(Unavailable) as caught:
        PcscTransport(pcsc_rig.readers[0], wait_s=1).connect()
    assert caught.value.reason == "CHIP_GONE"


def test_a_chip_that_revives_is_found_again(pcsc_rig, tmp_path):
    pcsc_rig.insert(make_blank(tmp_path, lot=LOT, serial=bytes(8), faults=Faults(die=Death(1, revive=True))))
    transport = PcscTransport(pcsc_rig.readers[0], wait_s=5)
    transport.connect()
    assert transport.transmit(bytes.fromhex("80CA00C100"))
    with pytest.raises(Unavailable):
        transport.transmit(bytes.fromhex("80CA00C100"))
    transport.connect()
    assert transport.transmit(bytes.fromhex("80CA00C100"))[-2:] == b"\x90\x00"
    transport.disconnect()


def test_no_swap_goes_unseen(pcsc_rig, tmp_path):
    """However fast chips follow each other, a handle belongs to one of them, and the next one is found."""
    old = None
    for number in range(21):
        pcsc_rig.insert(make_blank(tmp_path, lot=LOT, serial=number.to_bytes(8, "big")))
        if old is not None:
            with pytest.raises(Unavailable):
                old.transmit(bytes.fromhex("80CA00C100"))
            old.disconnect()
        transport = PcscTransport(pcsc_rig.readers[0], wait_s=5)
        assert transport.connect()[9:17] == number.to_bytes(8, "big")
        assert transport.transmit(bytes.fromhex("80CA00C100"))[-2:] == b"\x90\x00"
        # Pulled at every moment of a connection: closed before, left open, or found dead by its user first.
        if number % 3 == 0:
            transport.disconnect()
        old = transport if number % 3 == 1 else None
        pcsc_rig.remove()
        if number % 3 == 2:
            with pytest.raises(Unavailable):
                transport.transmit(bytes.fromhex("80CA00C100"))
            transport.disconnect()


def test_an_empty_reader_is_known_as_soon_as_the_chip_is_out(pcsc_rig, tmp_path):
    pcsc_rig.insert(make_blank(tmp_path, lot=LOT, serial=bytes(8)))
    transport = PcscTransport(pcsc_rig.readers[0], wait_s=5)
    transport.connect()
    transport.disconnect()
    pcsc_rig.remove()
    with pytest.raises(Unavailable) as caught:
        PcscTransport(pcsc_rig.readers[0], wait_s=0).connect()
    assert (caught.value.reason, "no chip in the reader" in caught.value.message) == ("CHIP_GONE", True)
