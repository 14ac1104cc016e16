"""Durable means durable: processes killed at random moments, and disks that fail at the Nth write, sync or truncation."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from engine.ledger import attempts, audit, jobs
from engine.ledger.attempts import AttemptState as S

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ORDER = [S.RESERVED, S.PRESENTED, S.INTENT, S.ENCODED, S.VERIFIED, S.PRINTED, S.GOOD, S.STACKED]
BEFORE_INTENT = (S.RESERVED, S.PRESENTED)
# More than a victim can make before it is killed.
LINES = 3000


def victim(path: Path, base: int, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "ledger_victim.py"), str(path), str(base)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def acknowledged(output: str) -> dict[int, S]:
    """attempt -> the furthest state that was said to be durable. A last line cut short by the kill was never said."""
    reached: dict[int, S] = {}
    for line in output[: output.rfind("\n") + 1].splitlines():
        if line.startswith("ack "):
            _ack, number, state = line.split()
            reached[int(number)] = S(state)
    return reached


def check(world, said: dict[int, S]) -> None:
    """Everything acknowledged is there, and the promises hold. Attempts before INTENT may have been released by the opening."""
    for number, state in said.items():
        found = world.see(attempts.by_id, number)
        if state in BEFORE_INTENT and found.state is S.RELEASED:
            continue
        assert ORDER.index(found.state) >= ORDER.index(state), f"attempt {number}: {state} was acknowledged, found {found.state}"
    every = world.see(attempts.in_states, list(S))
    assert not [one for one in every if one.state in BEFORE_INTENT]
    finished = Counter(one.line_no for one in every if one.state in (S.GOOD, S.STACKED))
    assert max(finished.values(), default=1) == 1
    counts = world.see(jobs.counts, "J1")
    assert counts.lines.get("GOOD", 0) == len(finished)
    assert sum(counts.lines.values()) == LINES
    world.see(audit.verify)
    assert world.ledger.run(lambda tx: tx.conn.exec_driver_sql("PRAGMA integrity_check").scalar_one()) == "ok"


def test_killed_at_random_moments_nothing_acknowledged_is_lost(world):
    rng = random.Random(20260101)
    world.start(count=LINES)
    said: dict[int, S] = {}
    for kill in range(8):
        world.close()
        process = victim(world.path, kill)
        first = process.stdout.readline()
        assert first.startswith("ack")
        time.sleep(rng.uniform(0.0, 0.4))
        process.kill()
        output = first + process.communicate(timeout=30)[0]
        said |= acknowledged(output)
        world.__post_init__()
        check(world, said)
        # The engine gives up what was on a chip; the line is made again in the next round.
        for one in world.see(attempts.in_states, [S.INTENT, S.ENCODED, S.VERIFIED, S.PRINTED, S.GOOD]):
            world.do(attempts.scrap, one.token, "torn")
            said.pop(one.attempt_id, None)
    assert len(said) > 20


@pytest.fixture(scope="module")
def failing_disk(tmp_path_factory) -> Path:
    library = tmp_path_factory.mktemp("disk") / "failing_disk.so"
    source = HERE / "failing_disk.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True, capture_output=True)
    return library


@pytest.mark.parametrize(
    ("disk", "reasons"),
    [
        ({"FAIL_ERRNO": str(int(errno.ENOSPC)), "FAIL_WRITES": "1"}, {"DISK_FULL"}),
        ({"FAIL_ERRNO": str(int(errno.EIO))}, {"LEDGER_IO", "LEDGER_STOPPED"}),
    ],
    ids=["full", "broken"],
)
def test_whichever_write_fails_nothing_acknowledged_is_lost(world, failing_disk, tmp_path, disk, reasons):
    world.start(count=LINES)
    world.close()
    pristine = tmp_path / "pristine.db"
    shutil.copy(world.path, pristine)
    refused, broken = 0, 0
    # Every one of the first calls, from the opening on, then ever wider apart into the run.
    for at in [*range(1, 16), *range(16, 60, 5), 100, 250, 700]:
        for side in world.path.parent.glob("ledger.db*"):
            side.unlink()
        shutil.copy(pristine, world.path)
        process = victim(world.path, at, LD_PRELOAD=str(failing_disk), FAIL_NAME="ledger.db", FAIL_AT=str(at), **disk)
        output = process.communicate(timeout=60)[0]
        assert process.returncode in (3, 4), output
        told = set(output.splitlines()[-1].split()[1:])
        assert told, output
        # While opening, the failing call may also be the one that makes the memory shared by readers and writer.
        assert told <= (reasons if process.returncode == 4 else {*reasons, "LEDGER_IO", "LEDGER_READ_ONLY"}), output
        refused += process.returncode == 3
        broken += process.returncode == 4
        world.__post_init__()
        check(world, acknowledged(output))
        world.close()
    assert refused >= 1
    assert broken >= 5
