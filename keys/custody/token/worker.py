"""The one thread of this process that speaks to PKCS#11 modules.

python-pkcs11 calls C_Initialize without locking and yet releases the GIL, so two threads in a module corrupt it. Every call of this
package runs here, one after the other; long work comes in pieces, so that a card at a station does not wait for a re-key.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from keys.errors import Precondition

T = TypeVar("T")

_thread = ThreadPoolExecutor(1, thread_name_prefix="pkcs11")
_process = os.getpid()


def run(work: Callable[[], T]) -> T:
    """`work` on the PKCS#11 thread; raises what it raises, and Precondition TOKEN_NOT_INHERITED in a fork: a module survives none."""
    if os.getpid() != _process:
        raise Precondition("TOKEN_NOT_INHERITED", "a token cannot be used in a forked process; start a new one")
    return _thread.submit(work).result()
