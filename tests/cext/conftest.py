"""The kernels at every level this machine runs."""

import pytest

import cext
from cext import _kernels

LEVELS = [pytest.param((name, ()), id=name) for name in cext.available_levels()]
if "avx2" in cext.available_levels():
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
