"""Every figure is stored with the machine and the commit it was measured on."""

from __future__ import annotations

from typing import Any

import pytest

from bench.context import context


@pytest.fixture
def benchmark(benchmark: Any) -> Any:
    """pytest-benchmark's fixture, with the context already noted."""
    benchmark.extra_info |= context()
    return benchmark
