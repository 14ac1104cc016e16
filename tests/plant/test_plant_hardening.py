"""A real server process: no dump, no core, private files, locked keys; and what it does where it may lock nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTHING_LOCKED = ["prlimit", "--memlock=0:0"] + (["setpriv", "--bounding-set=-ipc_lock,-sys_resource"] if os.geteuid() == 0 else [])


def said(log, event):
    return [line for line in map(json.loads, log.splitlines()) if line.get("event") == event]


def test_a_running_server_is_hardened(works):
    process = Path(f"/proc/{works.plant.pid('server')}")
    limits = {line[:26].strip(): line[26:].split()[:2] for line in (process / "limits").read_text().splitlines()}
    assert limits["Max core file size"] == ["0", "0"]
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    assert status["Umask"].strip() == "0077"
    assert int(status["VmLck"].split()[0]) >= 64
    # files of a process that may not be dumped belong to root, and only root may look into it
    assert (process / "mem").stat().st_uid == 0
    if os.geteuid() == 0:
        stranger = ["setpriv", "--reuid=65534", "--clear-groups", "cat", str(process / "environ")]
        assert subprocess.run(stranger, capture_output=True, check=False).returncode != 0
    for path in works.plant.server_data.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert said(works.log("server"), "serving")[0]["key_memory"] == "locked"


def test_a_server_process_may_not_be_dumped():
    """PR_GET_DUMPABLE of a process that did what the server does first."""
    program = "from keys.hardening import harden; import ctypes; harden(production=False); print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]


@pytest.mark.parametrize("dev", [True, False])
def test_where_nothing_can_be_locked(works, dev):
    works.plant.stop("server")
    arguments = ["--data", str(works.plant.server_data), "--passphrase-file", str(works.plant.passphrase_file), *(["--dev"] if dev else [])]
    command = [*NOTHING_LOCKED, sys.executable, "-m", "engine.cli.main", "serve", "--bind", "127.0.0.1:0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        log = ""
        deadline = time.monotonic() + 30
        while dev and not said(log, "serving") and time.monotonic() < deadline:
            log += process.stderr.readline()
        if dev:
            process.terminate()
        log += process.communicate(timeout=60)[1]
    if dev:
        assert len(said(log, "keys are not locked in memory")) == 1
        assert "ulimit -l" in said(log, "keys are not locked in memory")[0]["why"]
        assert said(log, "serving")[0]["key_memory"] == "unlocked"
    else:
        assert process.returncode == 1
        assert "[LOCKED_MEMORY]" in log
        assert "ulimit -l" in log
