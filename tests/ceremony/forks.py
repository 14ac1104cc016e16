"""Ceremonies in forked processes, one at a time, each at the terminal that is sent with it: see `terminal_tools.Forks`."""

import json
import os
import signal
import socket
import sys
from pathlib import Path

from keys.ceremony.desk import TerminalDesk
from keys.ceremony.envelopes import DevicePrinter
from keys.ceremony.planfile import require_plan
from keys.ceremony.run import Ceremony
from keys.ceremony.software import SoftwareVault
from keys.errors import CitycardError
from tests.ceremony.ceremony_tools import PASSPHRASE


class KillAt:
    """Dies at the Nth durable step: right before or right after a call of fsync."""

    def __init__(self, number):
        self.left = number
        self.fsync = os.fsync
        os.fsync = self.step

    def step(self, handle):
        self.tick()
        self.fsync(handle)
        self.tick()

    def tick(self):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def printer(plan):
    return DevicePrinter(plan.output) if plan.output else None


def ceremony(data, plan, ceremonies, directory=None, kill_at=0):
    """Starts the plan, or resumes `directory`; the exit status."""
    if kill_at:
        KillAt(kill_at)
    vault = SoftwareVault.open(Path(data), PASSPHRASE)
    desk = TerminalDesk(0)
    try:
        if directory is None:
            wanted = require_plan(Path(plan).read_text(), "plan.toml")
            Ceremony.start(wanted, vault, desk, printer(wanted), Path(ceremonies)).run()
        else:
            Ceremony.resume(Path(directory), vault, desk, printer).run()
    except CitycardError as error:
        os.write(1, f"{error.reason}: {error}\r\n".encode())
        return 1
    return 0


def child(terminal, work):
    status = 99
    try:
        os.setsid()
        for standard in range(3):
            os.dup2(terminal, standard)
        status = ceremony(**work)
    finally:
        os._exit(status)


def serve(requests):
    while True:
        work, terminals, _, _ = socket.recv_fds(requests, 1 << 16, 1)
        if not work:
            return
        pid = os.fork()
        if pid == 0:
            child(terminals[0], json.loads(work))
        os.close(terminals[0])
        requests.send(str(pid).encode())
        _, raw = os.waitpid(pid, 0)
        requests.send(str(os.waitstatus_to_exitcode(raw)).encode())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
