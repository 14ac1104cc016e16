"""A virtual chip in a real PC/SC stack: the card side of vpcd's protocol (vsmartcard, virtual smart card reader).

vpcd, loaded into pcscd, listens; the card connects. Frames: length[2] || body. A body of one byte is a control: 0 power off,
1 power on, 2 reset, 4 give the ATR (the only one answered); anything longer is an APDU, answered by a frame.

vpcd waits for ever on an empty frame, and pcscd with it. So a chip that does not answer is shown as a chip that is pulled out:
the connection closes, and the program in front of PC/SC sees an empty answer or a removed chip.

vpcd itself listens on all interfaces and knows no authentication. Serve only chips with TEST keys on it, and keep the port
away from the network; `engine.virtual.pcscd_rig` runs it inside a network namespace of its own.
"""

from __future__ import annotations

import ipaddress
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from engine.virtual.birth import TRANSPORT_KVN
from engine.virtual.factory import make_blank, open_chip
from engine.virtual.faults import Faults
from keys.errors import InvalidInput, Unavailable

_POWER_OFF, _POWER_ON, _RESET, _GET_ATR = 0, 1, 2, 4
# How long a read may sleep before it looks at the stop event, and the pause between two attempts to connect.
_POLL_S = 0.2
_RETRY_S = 0.1
# pcscd looks at a reader every 0.4 s. A chip that is swapped faster goes unseen: old handles then speak to the new chip, and a
# handle closed in between leaves the reader empty in pcscd's eyes until the chip is pulled again. A rig makes it look; a plain
# vpcd is given the time.
SWAP_S = 0.6
_TEST_LOT = b"\x7e\x57"


class Chip(Protocol):
    """What is served: a virtual chip or a head's slot."""

    def power_on(self) -> bytes:
        """The ATR, or b""."""

    def transmit(self, apdu: bytes) -> bytes:
        """data || SW1 SW2, or b""."""

    def power_off(self) -> None:
        """Takes the power away."""


class Facts(NamedTuple):
    """What a user of the served chip needs to know, whatever the reader is called."""

    chip_id: str
    atr: str
    kvn: int
    address: str


def serve(chip: Chip, host: str, port: int, stop_event: threading.Event, *, give_up_after_s: float = 10.0) -> None:
    """Keeps the chip inserted in the vpcd slot at host:port until `stop_event`; connects again when pcscd restarts.

    Raises InvalidInput NOT_LOOPBACK, and Unavailable VPCD_GONE when vpcd cannot be reached for `give_up_after_s` seconds.
    """
    _need_loopback(host)
    deadline = time.monotonic() + give_up_after_s
    while not stop_event.is_set():
        if not answers_to_reset(chip):
            stop_event.wait(SWAP_S)
            continue
        try:
            link = socket.create_connection((host, port), timeout=1.0)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise Unavailable("VPCD_GONE", f"vpcd at {host}:{port} does not answer: {error.strerror or error}") from None
            stop_event.wait(_RETRY_S)
            continue
        serve_socket(chip, link, stop_event)
        deadline = time.monotonic() + give_up_after_s
        stop_event.wait(SWAP_S)


def answers_to_reset(chip: Chip) -> bool:
    """False for a dead chip, which must not be inserted at all: see the module's word on empty frames."""
    alive = bool(chip.power_on())
    chip.power_off()
    return alive


def serve_socket(chip: Chip, link: socket.socket, stop_event: threading.Event) -> None:
    """Serves the chip over a connected socket until vpcd closes it, the chip dies or `stop_event` is set; closes the socket."""
    with link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.settimeout(_POLL_S)
        try:
            atr = b""
            while (frame := _receive(link, stop_event)) is not None:
                if len(frame) != 1:
                    answer = chip.transmit(frame)
                elif frame[0] == _GET_ATR:
                    # vpcd asks before it powers; a contact card's ATR exists only with power.
                    answer = atr = atr or chip.power_on()
                else:
                    if frame[0] in (_POWER_ON, _RESET):
                        atr = chip.power_on()
                    elif frame[0] == _POWER_OFF:
                        chip.power_off()
                    continue
                if not answer:
                    return
                link.sendall(len(answer).to_bytes(2, "big") + answer)
        except OSError:
            # The other end is gone in the middle of a frame: for the chip that is a loss of power.
            return
        finally:
            chip.power_off()


def run(
    host: str,
    port: int,
    *,
    data: Path | None = None,
    chip_id: str | None = None,
    faults: Faults | None = None,
    announce: Callable[[Facts], None] | None = None,
    stop_event: threading.Event | None = None,
) -> Facts:
    """Serves one chip until `stop_event`: `chip_id` out of the directory `data`, or a fresh TEST blank in a temporary directory.

    `announce` is called once, before the chip is inserted. Raises as `open_chip` and `serve`.
    """
    _need_loopback(host)
    stop = stop_event or threading.Event()
    if data is not None and chip_id is None:
        raise InvalidInput("CHIP_ID_INVALID", "a data directory holds many chips: name one by its chip id")
    with tempfile.TemporaryDirectory(prefix="citycard-chip-") as fresh:
        if data is not None and chip_id is not None:
            chip = open_chip(data, chip_id, faults)
        else:
            chip = make_blank(Path(fresh), lot=_TEST_LOT, serial=_fresh_serial(), faults=faults)
        atr = chip.power_on()
        kvns = chip.key_versions
        chip.power_off()
        facts = Facts(chip.chip_id, atr.hex().upper(), kvns[0] if kvns else TRANSPORT_KVN, f"{host}:{port}")
        if announce is not None:
            announce(facts)
        serve(chip, host, port, stop)
        return facts


def _fresh_serial() -> bytes:
    return time.time_ns().to_bytes(8, "big")


def _need_loopback(host: str) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise InvalidInput("NOT_LOOPBACK", f"vpcd host {host!r}: a virtual chip is served on this machine only, as in 127.0.0.1")


def _receive(link: socket.socket, stop_event: threading.Event) -> bytes | None:
    """One frame's body, or None at the end of the connection or when stopped."""
    header = _receive_exactly(link, 2, stop_event)
    if header is None:
        return None
    return _receive_exactly(link, int.from_bytes(header, "big"), stop_event)


def _receive_exactly(link: socket.socket, size: int, stop_event: threading.Event) -> bytes | None:
    received = b""
    while len(received) < size:
        try:
            part = link.recv(size - len(received))
        except TimeoutError:
            if stop_event.is_set():
                return None
            continue
        if not part:
            return None
        # vpcd sends length and body apart; without this each APDU waits 40 ms for a delayed ACK.
        if hasattr(socket, "TCP_QUICKACK"):
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        received += part
    return received
