"""What the PC/SC rig runs inside its namespaces: mounts, loopback, pcscd, and a door through which readers are used.

Started as a program by `engine.virtual.pcscd_rig`, with the standard library only:
python -I pcscd_inner.py HOME ISOLATED FIRST_PORT READER PARENT; READER is pcscd's name for a reader, without the slot's number.

The door is a stream socket; a request is a letter and a slot number, a byte each:
C   connect: once pcscd has seen the slot empty, a socket to vpcd is passed out, and pcscd looks at it at once
E   empty: answered when pcscd has seen the slot empty
The answer is one byte: 1 for done, 0 for not.

pcscd looks into a reader every 0.4 s and sleeps in between, so a chip swapped faster goes unseen: old handles then speak to the
new chip. SIGUSR1, by which an operator has pcscd look for readers anew, ends a sleep of the thread it is sent to.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_PR_SET_PDEATHSIG = 1
_RUN = Path("/run/pcscd")
_SCOPE_SYSTEM = 2
# By then pcscd has looked by itself, twice.
_SEEN_S = 1.0
_LOOK_S = 0.002


class _ReaderState(ctypes.Structure):
    """SCARD_READERSTATE of pcsc-lite."""

    _fields_ = (
        ("reader", ctypes.c_char_p),
        ("user_data", ctypes.c_void_p),
        ("current", ctypes.c_ulong),
        ("event", ctypes.c_ulong),
        ("atr_len", ctypes.c_ulong),
        ("atr", ctypes.c_ubyte * 33),
    )


class _Eyes:
    """What pcscd has seen, asked through PC/SC, and the means to make it look."""

    def __init__(self, home: Path, pid: int, reader: str) -> None:
        os.environ["PCSCLITE_CSOCK_NAME"] = str(home / "run" / "pcscd.comm")
        self._winscard = ctypes.CDLL("libpcsclite.so.1")
        self._libc = ctypes.CDLL(None)
        self._pid = pid
        self._reader = reader
        # Before the first client: main, the signals' thread and one per reader. Waking the wrong one of them changes nothing.
        self._threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if task.name != str(pid)]
        self._context = ctypes.c_long()
        if self._winscard.SCardEstablishContext(_SCOPE_SYSTEM, None, None, ctypes.byref(self._context)) != 0:
            raise OSError("pcscd accepts no client")
        self._lock = threading.Lock()

    def see(self, slot: int, *, chip: bool) -> None:
        """Makes pcscd look until it has seen a chip in the slot, or none."""
        deadline = time.monotonic() + _SEEN_S
        while self._sees_chip(slot) is not chip and time.monotonic() < deadline:
            for thread in self._threads:
                self._libc.tgkill(self._pid, thread, signal.SIGUSR1)
            time.sleep(_LOOK_S)

    def _sees_chip(self, slot: int) -> bool:
        """By the upper half of the state, in which pcsc-lite numbers what it saw: a slot begins empty, so odd numbers are insertions.

        The lower half is not what it saw: a client's power-down of a pulled chip writes there too.
        """
        state = _ReaderState(reader=f"{self._reader} {slot:02X}".encode())
        with self._lock:
            self._winscard.SCardGetStatusChange(self._context, ctypes.c_ulong(0), ctypes.byref(state), ctypes.c_ulong(1))
        return bool(state.event >> 16 & 1)


def main(home: Path, *, isolated: bool, first_port: int, reader: str, parent: int) -> None:
    """Runs pcscd until it ends, this program is told to end, or whoever started the rig is gone: then with the rig's directory."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    _end_with_parent()
    pcscd = None
    try:
        if os.getppid() != parent:
            return
        _RUN.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", str(home / "run"), str(_RUN)], check=True)  # noqa: S603, S607 - fixed words
        if isolated:
            _loopback_up()
        (home / "run" / "pcscd.comm").unlink(missing_ok=True)
        pcscd = subprocess.Popen(  # noqa: S603 - fixed words
            ["pcscd", "--foreground", "--config", str(home / "conf")],  # noqa: S607 - found on PATH, as the rig has checked
            env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - single-threaded
        )
        while pcscd.poll() is None and not (home / "run" / "pcscd.comm").exists():
            time.sleep(0.005)
        if pcscd.poll() is None:
            _keep_door(home, pcscd, _Eyes(home, pcscd.pid, reader), first_port)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if pcscd is not None:
            pcscd.terminate()
            pcscd.wait()
        if os.getppid() != parent:
            shutil.rmtree(home, ignore_errors=True)


def _keep_door(home: Path, pcscd: subprocess.Popen[bytes], eyes: _Eyes, first_port: int) -> None:
    """Answers requests until pcscd ends; each in a thread of its own, since one slot may have to wait for its chip."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.bind(str(home / "door"))
        door.listen(8)
        door.settimeout(0.1)
        while pcscd.poll() is None:
            with suppress(OSError):
                caller, _ = door.accept()
                threading.Thread(target=_answer, args=(caller, eyes, first_port), daemon=True).start()


def _answer(caller: socket.socket, eyes: _Eyes, first_port: int) -> None:
    """One request."""
    with caller, suppress(OSError):
        caller.settimeout(1.0)
        request = caller.recv(2)
        if len(request) != 2:
            return
        kind, slot = request[:1], request[1]
        eyes.see(slot, chip=False)
        if kind == b"E":
            caller.sendall(b"\x01")
            return
        try:
            with socket.create_connection(("127.0.0.1", first_port + slot), timeout=1.0) as link:
                link.settimeout(None)
                socket.send_fds(caller, [b"\x01"], [link.fileno()])
        except ConnectionError:
            caller.sendall(b"\x00")
        else:
            eyes.see(slot, chip=True)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(probe, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    home, isolated, first_port, reader, parent = sys.argv[1:]
    main(Path(home), isolated=isolated == "1", first_port=int(first_port), reader=reader, parent=int(parent))
