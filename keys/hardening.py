"""Process hardening for a server that holds keys: no core dump, no debugger, no file that others may read, memory that locks, and
kernels that have passed their self-test.

`harden` comes first of all, before a passphrase is read. Linux: prctl(2), getrlimit(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final

from keys import memory, selftest

PR_SET_DUMPABLE: Final = 4
PRIVATE_UMASK: Final = 0o077


def harden(*, production: bool) -> None:
    """Hardens this process for good.

    Not dumpable: no core, and only the superuser may attach to it or read /proc/PID/mem. With `production` keys whose memory cannot
    be locked are refused, now and later: Exhausted LOCKED_MEMORY. Raises Corrupt SELF_TEST; OSError when the system refuses the rest.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.umask(PRIVATE_UMASK)
    memory.raise_limit()
    if production:
        memory.require_locked()
    selftest.require()
