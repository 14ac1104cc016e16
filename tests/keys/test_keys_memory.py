"""Memory for secrets is locked, guarded, left out of dumps, zero in a fork, overwritten when given back, and refused where it cannot be."""

from __future__ import annotations

import gc
import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keys import memory
from keys.errors import Precondition
from keys.memory import PAGE, SecretBuffer
from keys.secrets import SecretArray, SecretBytes

ROOT = Path(__file__).parents[2]
SIZES = [1, 16, 17, 4096, 4097, 100_000, 3_000_000]


def address(buffer):
    return np.frombuffer(buffer.view(), np.uint8).ctypes.data


def region(at):
    """The line of /proc/self/smaps about an address, and its facts."""
    found, facts = None, {}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        span = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line)
        if span:
            found = int(span[1], 16) <= at < int(span[2], 16)
            facts |= {"start": int(span[1], 16), "end": int(span[2], 16), "access": span[3]} if found else {}
        elif found:
            name, _, text = line.partition(":")
            facts[name] = text.split()
    return facts


@pytest.mark.parametrize("size", SIZES)
def test_memory_is_locked_not_dumped_and_wiped_in_a_fork(size):
    buffer = SecretBuffer(size)
    facts = region(address(buffer))
    flags = facts["VmFlags"]
    assert {"lo", "dd", "wf"} <= set(flags) or ({"dd", "wf"} <= set(flags) and memory.shortfall())
    assert facts["access"].startswith("rw-p")


@pytest.mark.parametrize("size", [4096, 3_000_000])
@pytest.mark.parametrize("side", ["before", "after"])
def test_either_side_is_a_guard_page(size, side):
    """A read just outside kills the process, so it is made in one of its own."""
    facts = region(address(SecretBuffer(size)))
    outside = region(facts["start"] - 1 if side == "before" else facts["end"])
    assert outside["access"] == "---p"
    program = f"""
import ctypes, numpy as np
from keys.memory import SecretBuffer, SLAB_LEN
buffer = SecretBuffer({size})
start = np.frombuffer(buffer.view(), np.uint8).ctypes.data
length = SLAB_LEN if {size} <= 4096 else len(memoryview(buffer._block).cast("B"))
ctypes.string_at(start, 1)
ctypes.string_at(start - 1 if {side!r} == "before" else start + length, 1)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == -signal.SIGSEGV


@pytest.mark.parametrize("size", SIZES)
def test_memory_comes_zeroed_and_is_used_again(size):
    first = SecretBuffer(size)
    first.view()[:] = b"\xa5" * size
    place = address(first)
    del first
    gc.collect()
    again = SecretBuffer(size)
    assert address(again) == place
    assert bytes(again.view()) == bytes(size)


def test_secrets_do_not_overlap():
    secrets = {n: SecretBytes(n.to_bytes(2, "big") * (n % 70 + 1)) for n in range(3000)}
    for n in range(0, 3000, 3):
        del secrets[n]
    secrets |= {n: SecretBytes(n.to_bytes(2, "big") * (n % 70 + 1)) for n in range(3000, 4000)}
    assert all(secret.reveal() == n.to_bytes(2, "big") * (n % 70 + 1) for n, secret in secrets.items())
    places = sorted((np.frombuffer(s.reveal(), np.uint8).ctypes.data, len(s)) for s in secrets.values())
    assert all(a + length <= b for (a, length), (b, _) in itertools.pairwise(places))


def test_large_memory_is_not_kept_without_bound():
    before = memory.locked_bytes()
    held = [SecretBuffer(8 << 20) for _ in range(8)]
    assert memory.locked_bytes() - before >= 32 << 20 or memory.shortfall()
    del held
    gc.collect()
    assert memory.locked_bytes() - before <= memory.POOL_LEN


def test_a_fork_inherits_no_secret():
    secret, array = SecretBytes(b"\x5a" * 16), SecretArray(np.full((2, 16), 0x5A, np.uint8))
    view = secret.reveal()
    child = os.fork()
    if child == 0:
        refused = 0
        for use in (secret.reveal, lambda: array.array):
            try:
                use()
            except Precondition as error:
                refused += error.reason == "SECRET_NOT_INHERITED"
        del array
        fresh = bytes(SecretBytes(b"\x77" * 16).reveal()) == b"\x77" * 16
        os._exit(0 if refused == 2 and bytes(view) == bytes(16) and fresh else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert secret.reveal() == b"\x5a" * 16


# As a user who may lock nothing, which root becomes by giving up two capabilities.
NOTHING_LOCKED = ["prlimit", "--memlock=0:0"] + (["setpriv", "--bounding-set=-ipc_lock,-sys_resource"] if os.geteuid() == 0 else [])


def limited(*arguments):
    return subprocess.run([*NOTHING_LOCKED, sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_without_the_right_to_lock_memory_is_used_and_says_so():
    program = "from keys import memory; memory.raise_limit(); b = memory.SecretBuffer(16); b.view()[0] = 1; print(memory.shortfall())"
    done = limited("-c", program)
    assert done.returncode == 0
    assert "cannot be locked" in done.stdout
    assert f"{16 * PAGE >> 10} KiB" in done.stdout
    assert "ulimit -l" in done.stdout


def test_production_refuses_what_cannot_be_locked():
    program = "from keys import memory\ntry:\n    memory.require_locked()\nexcept Exception as e:\n    print(e.reason, e)"
    done = limited("-c", program)
    assert done.stdout.startswith("LOCKED_MEMORY ")


def test_what_is_locked_when_the_room_ends_is_refused_too():
    """Room for one slab: the start succeeds, and the next large secret is an error, not unlocked memory."""
    program = """
from keys import memory
memory.require_locked()
try:
    memory.SecretBuffer(1 << 20)
except Exception as e:
    print(e.reason)
print(memory.shortfall() == "")
"""
    command = ["prlimit", "--memlock=131072:131072", *NOTHING_LOCKED[2:], sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["LOCKED_MEMORY", "True"]
