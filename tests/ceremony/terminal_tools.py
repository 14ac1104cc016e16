"""A real process at a real pseudo-terminal, and somebody who reads its screen and types. Nothing here waits without an end."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROMPTS = {
    "call": rb"or type pause: $",
    "component": rb"\(not shown\): $",
    "digits": rb"Its check digits: $",
    "read": rb"Check digits printed in envelope (\d+): $",
    "closed": rb"then press Enter: $",
    "confirm": rb"to agree: $",
    "witness": rb"that you watched all of it: $",
    "done": rb"the work is done\s+$",
}
# Seconds without a byte on the screen: long, because a loaded machine is slow and not stuck.
SILENCE = 60


class Screen:
    """The other end of a terminal a process runs at."""

    def __init__(self, master, pid, wait):
        """`wait(seconds)` gives the exit status, or raises TimeoutError."""
        self.master = master
        self.pid = pid
        self._wait = wait
        self.output = b""
        self.status = None

    @classmethod
    def command(cls, *arguments, module="engine.cli.main"):
        """The real command line in a process of its own, the terminal its controlling one."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", module, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
        )
        os.close(slave)

        def wait(seconds):
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise TimeoutError from None

        return cls(master, process.pid, wait)

    def play(self, answer):
        """Answers prompts with `answer(name, match)` (text without the Enter, or None to kill) until the process ends; its status."""
        try:
            seen = 0
            while self._read():
                for name, pattern in PROMPTS.items():
                    found = re.search(pattern, self.output[seen:])
                    if found:
                        seen = len(self.output)
                        self.type(answer(name, found))
                        break
        finally:
            self.finish()
        return self.status

    def type(self, text):
        """A line, or kill -9 for None."""
        if text is None:
            os.kill(self.pid, signal.SIGKILL)
        else:
            os.write(self.master, text.encode() + b"\r")

    def _read(self):
        """Whether there was more; False when the process has closed its terminal."""
        ready, _, _ = select.select([self.master], [], [], SILENCE)
        if not ready:
            raise AssertionError(f"the process says nothing any more after {self.output[-300:]!r}")
        try:
            chunk = os.read(self.master, 65536)
        except OSError:
            return False
        self.output += chunk
        return bool(chunk)

    def finish(self):
        """Waits for the process, or ends it."""
        if self.status is not None:
            return
        try:
            self.status = self._wait(5 if sys.exc_info()[0] else SILENCE)
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            self.status = self._wait(SILENCE)
        finally:
            os.close(self.master)


class Forks:
    """A server of processes that start at once: Python is loaded one time, in a process with no other threads, and forked there."""

    def __init__(self):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ceremony.forks", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
        )
        theirs.close()

    def start(self, **work):
        """A process at a terminal of its own that does `work` (see `tests.ceremony.forks`)."""
        master, slave = pty.openpty()
        socket.send_fds(self._socket, [json.dumps(work).encode()], [slave])
        os.close(slave)
        return Screen(master, int(self._receive(SILENCE)), lambda seconds: int(self._receive(seconds)))

    def _receive(self, seconds):
        self._socket.settimeout(seconds)
        return self._socket.recv(100)

    def close(self):
        self._socket.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def read_until(master, marker):
    """What comes to a terminal's other end, up to `marker`."""
    seen = b""
    end = time.monotonic() + SILENCE
    while marker not in seen:
        ready, _, _ = select.select([master], [], [], max(0, end - time.monotonic()))
        if not ready:
            raise AssertionError(f"{marker!r} did not come, only {seen!r}")
        seen += os.read(master, 65536)
    return seen
