"""The kernels at every level this machine runs."""

import os

import pytest

import cext
from cext import _kernels
from cext.cpu import VARIABLE

# Of its own choice a process tests every level; told one (`make levels`), that one, and all the rest of the tests at it.
ASKED = os.environ.get(VARIABLE, "auto")
NAMES = cext.available_levels() if ASKED == "auto" else (cext.kernel_level(),)
LEVELS = [pytest.param((name, ()), id=name) for name in NAMES]
if "avx2" in NAMES:
    # What a CPU without AES-NI runs: the same level with other kernels.
    LEVELS.append(pytest.param(("avx2", ("aesni",)), id="avx2-without-aesni"))


@pytest.fixture(scope="module", params=LEVELS)
def level(request):
    """Tests that use this run once per level, with the kernels set to it."""
    before = cext.kernel_level()
    name, without = request.param
    _kernels.use_level(name, without)
    yield name
    _kernels.use_level(before)
