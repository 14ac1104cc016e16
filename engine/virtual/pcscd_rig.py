"""A private PC/SC stack: a real pcscd with the vpcd driver and two slots, apart from any other on the machine.

pcscd and its socket live at a fixed path, and vpcd listens on all interfaces. So both run in namespaces of their own: a mount
namespace in which /run/pcscd is a directory of the rig, and, by default, a network namespace whose only interface is
loopback. Clients reach pcscd through the environment variable PCSCLITE_CSOCK_NAME; chips reach vpcd through `connect`, which
passes a socket out of the namespace once pcscd has seen the slot empty, so that no swap of chips goes unseen. With
`isolate_network=False`, vpcd's ports are on the machine's own loopback, and on all its other interfaces too: only where nobody
else can reach the machine.

Needs root, or a kernel that lets users make user namespaces; pcscd and vpcd from Debian's pcscd and vsmartcard-vpcd.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from engine.virtual.vpcd import SWAP_S, Chip, answers_to_reset, serve_socket
from keys.errors import InvalidInput, Precondition, Unavailable

DRIVER = Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
# vpcd has two slots, no more: a second stanza in reader.conf corrupts its state.
MAX_SLOTS = 2
_START_S = 10.0
_NAME = "citycard rig"


class PcscdRig:
    """Context manager: `environment` for child processes, `readers`, `ports`, and slots to insert chips into.

    Raises Unavailable PCSCD_MISSING when pcscd, vpcd or unshare is not installed, PCSCD_FAILED when they do not come up.
    """

    def __init__(self, slots: int = MAX_SLOTS, *, isolate_network: bool = True) -> None:
        if not 1 <= slots <= MAX_SLOTS:
            raise InvalidInput("SLOTS_INVALID", f"a rig has 1 or {MAX_SLOTS} slots, not {slots}: vpcd cannot do more")
        self.slots = slots
        self.isolate_network = isolate_network
        self.ports: list[int] = []
        self.readers = [f"{_NAME} 00 {slot:02X}" for slot in range(slots)]
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._owned = True
        self._served: dict[int, tuple[threading.Thread, threading.Event, list[socket.socket]]] = {}

    @classmethod
    def attach(cls, home: Path) -> PcscdRig:
        """Another process's way into a rig: its slots can be filled from here, it is not ended from here."""
        rig = cls()
        rig._directory = home
        rig._owned = False
        return rig

    @property
    def home(self) -> Path:
        """The rig's directory, for `attach`; Precondition RIG_NOT_STARTED."""
        return self._home

    def __enter__(self) -> PcscdRig:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """What a PC/SC client's environment needs on top of its own."""
        return {"PCSCLITE_CSOCK_NAME": str(self._home / "run" / "pcscd.comm")}

    @property
    def pid(self) -> int:
        """Process id of pcscd, for tests that kill it."""
        return int((self._home / "run" / "pcscd.pid").read_text().split("\n")[0])

    def start(self) -> None:
        """Starts pcscd and waits until it can be used."""
        self.begin()
        self.await_up()

    def begin(self) -> None:
        """The first half of `start`: after it, several rigs can come up at the same time."""
        for need in ("pcscd", "unshare", "mount"):
            if shutil.which(need) is None and not Path(f"/usr/sbin/{need}").exists():
                raise Unavailable("PCSCD_MISSING", f"the PC/SC rig needs {need}: install pcscd and util-linux")
        if not DRIVER.exists():
            raise Unavailable("PCSCD_MISSING", f"the PC/SC rig needs vpcd at {DRIVER}: install vsmartcard-vpcd")
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="citycard-pcsc-"))
            (self._directory / "run").mkdir()
            (self._directory / "conf").mkdir()
            first = _free_ports()
            self.ports = [first + slot for slot in range(self.slots)]
            (self._directory / "conf" / "reader.conf").write_text(
                f'FRIENDLYNAME "{_NAME}"\nDEVICENAME /dev/null:0x{first:X}\nLIBPATH {DRIVER}\nCHANNELID 0x{first:X}\n'
            )
        self._launch()

    def await_up(self) -> None:
        """The second half of `start`; Unavailable PCSCD_FAILED, and nothing is left of the rig then."""
        deadline = time.monotonic() + _START_S
        while not self._up():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._home / "log").read_text(errors="replace")[-500:].strip()
                self.stop()
                raise Unavailable("PCSCD_FAILED", f"the private pcscd did not come up: {said or 'it said nothing'}")
            time.sleep(0.02)

    def restart(self) -> None:
        """Starts pcscd again after it died or was stopped; chips that are served come back by themselves."""
        self._end_process()
        self._launch()
        self.await_up()

    def stop(self) -> None:
        for slot in list(self._served):
            self.remove(slot)
        self._end_process()
        if self._directory is not None and self._owned:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def connect(self, slot: int = 0) -> socket.socket:
        """A fresh connection to vpcd's slot, for `vpcd.serve_socket`; waits until pcscd has seen the slot empty. Unavailable VPCD_GONE."""
        self._check(slot)
        descriptors = self._ask(b"C", slot)
        if not descriptors:
            raise Unavailable("VPCD_GONE", f"vpcd takes no chip in slot {slot} of the rig")
        return socket.socket(fileno=descriptors[0])

    def insert(self, chip: Chip, slot: int = 0) -> None:
        """Puts a chip into a slot and serves it in a thread until `remove`; Precondition SLOT_OCCUPIED."""
        self._check(slot)
        if slot in self._served:
            raise Precondition("SLOT_OCCUPIED", f"slot {slot} of the rig holds a chip already")
        stop = threading.Event()
        links: list[socket.socket] = []
        thread = threading.Thread(target=self._serve, args=(chip, slot, stop, links), name=f"vpcd-slot-{slot}", daemon=True)
        self._served[slot] = (thread, stop, links)
        thread.start()

    def remove(self, slot: int = 0) -> None:
        """Pulls the chip out, whatever it is doing, and waits until pcscd has seen that; nothing happens when the slot is empty."""
        served = self._served.pop(slot, None)
        if served is not None:
            thread, stop, links = served
            stop.set()
            for link in links:
                try:
                    link.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # closed by itself meanwhile
            thread.join(5.0)
            with suppress(Unavailable):  # a pcscd that is gone sees nothing, and begins anew
                self._ask(b"E", slot)

    def _serve(self, chip: Chip, slot: int, stop: threading.Event, links: list[socket.socket]) -> None:
        while not stop.is_set():
            if not answers_to_reset(chip):
                stop.wait(SWAP_S)
                continue
            try:
                link = self.connect(slot)
            except Unavailable:
                stop.wait(0.1)
                continue
            links[:] = [link]
            serve_socket(chip, link, stop)

    def _ask(self, request: bytes, slot: int) -> list[int]:
        """The rig's door, see `pcscd_inner`: the descriptors it gives. Unavailable VPCD_GONE."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
                door.settimeout(5.0)
                door.connect(str(self._home / "door"))
                door.sendall(request + bytes((slot,)))
                return socket.recv_fds(door, 1, 1)[1]
        except OSError as error:
            raise Unavailable("VPCD_GONE", f"the rig's door does not answer: {error.strerror or error}") from None

    @property
    def _home(self) -> Path:
        if self._directory is None:
            raise Precondition("RIG_NOT_STARTED", "the PC/SC rig is not running")
        return self._directory

    def _check(self, slot: int) -> None:
        if not 0 <= slot < self.slots:
            raise InvalidInput("SLOTS_INVALID", f"slot {slot}: the rig has slots 0 to {self.slots - 1}")

    def _launch(self) -> None:
        home = self._home
        (home / "door").unlink(missing_ok=True)
        flags = ["--mount"] + (["--net"] if self.isolate_network else [])
        if os.geteuid() != 0:
            flags = ["--user", "--map-root-user", *flags]
        inner = Path(__file__).with_name("pcscd_inner.py")
        words = [str(home), str(int(self.isolate_network)), str(self.ports[0]), f"{_NAME} 00", str(os.getpid())]
        command = ["unshare", *flags, "--", sys.executable, "-I", str(inner), *words]
        with (home / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)  # noqa: S603 - fixed words

    def _up(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
                door.connect(str(self._home / "door"))
                return True
        except OSError:
            return False

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_ports() -> int:
    """The first of two consecutive ports that are free on this machine now."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
