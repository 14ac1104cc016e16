"""The kernels at every level this machine runs."""

import pytest

import cext
from cext import _kernels


@pytest.fixture(scope="module", params=cext.available_levels())
def level(request):
    """Tests that use this run once per level, with the kernels set to it."""
    before = cext.kernel_level()
    _kernels.use_level(request.param)
    yield request.param
    _kernels.use_level(before)
