"""What the PC/SC rig runs inside its namespaces: mounts, loopback, pcscd, and a door through which sockets are passed out.

Started as a program by `engine.virtual.pcscd_rig`, with the standard library only: python -I pcscd_inner.py HOME ISOLATED.
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
from contextlib import suppress
from pathlib import Path

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_PR_SET_PDEATHSIG = 1
_RUN = Path("/run/pcscd")


def main(home: Path, *, isolated: bool) -> int:
    """Runs pcscd until it ends; its exit status."""
    # Whoever started the rig may be killed; a pcscd without anybody to stop it must not stay behind.
    parent = os.getppid()
    _end_with_parent()
    _RUN.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", str(home / "run"), str(_RUN)], check=True)  # noqa: S603, S607 - fixed words
    if isolated:
        _loopback_up()
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(str(home / "door"))
    door.listen(8)
    door.settimeout(0.1)
    pcscd = subprocess.Popen(  # noqa: S603 - fixed words
        ["pcscd", "--foreground", "--config", str(home / "conf")],  # noqa: S607 - found on PATH, as the rig has checked
        env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
        preexec_fn=_end_with_parent,  # noqa: PLW1509 - single-threaded
    )
    signal.signal(signal.SIGTERM, lambda *_: pcscd.terminate())
    while pcscd.poll() is None:
        with suppress(OSError):
            _answer(door)
    if os.getppid() != parent:
        # Nobody is left to clean up after the rig.
        shutil.rmtree(home, ignore_errors=True)
    return pcscd.returncode


def _answer(door: socket.socket) -> None:
    """One request: port[2] -> a connected socket, or none when nothing listens there."""
    caller, _ = door.accept()
    with caller:
        caller.settimeout(1.0)
        port = caller.recv(2)
        if len(port) != 2:
            return
        try:
            with socket.create_connection(("127.0.0.1", int.from_bytes(port, "big")), timeout=1.0) as link:
                link.settimeout(None)
                socket.send_fds(caller, [b"\x01"], [link.fileno()])
        except ConnectionError:
            caller.sendall(b"\x00")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(probe, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), isolated=sys.argv[2] == "1"))
