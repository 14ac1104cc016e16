"""The PC/SC rig for tests: one per test process, because libpcsclite reads its socket's name once and keeps it."""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Iterator

import pytest

from engine.virtual.pcscd_rig import PcscdRig


@functools.cache
def shared_rig() -> PcscdRig:
    """Starts the rig, and points this process's PC/SC at it. Fails loudly where pcscd or vpcd is missing."""
    rig = PcscdRig()
    rig.start()
    atexit.register(rig.stop)
    os.environ.update(rig.environment)
    return rig


@pytest.fixture
def pcsc_rig() -> Iterator[PcscdRig]:
    rig = shared_rig()
    yield rig
    for slot in range(rig.slots):
        rig.remove(slot)
