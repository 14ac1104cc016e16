"""Kernel throughput, one core: keys per second by batch shape, beside the best bulk path of `cryptography` in the same run.

    python -m pytest bench/test_bench_kernels.py --benchmark-only

Every result's `extra_info` states the kernels' level, the batch and the keys per second; CITYCARD_CPU=portable|avx2|avx512 compares levels.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from pytest_benchmark.fixture import BenchmarkFixture

import cext

ByteArray = npt.NDArray[np.uint8]

BATCHES = (100, 4096, 16384)


def _random(seed: int, *shape: int) -> ByteArray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _measure(benchmark: BenchmarkFixture, n: int, call: Callable[[], object]) -> None:
    benchmark(call)
    stats = benchmark.stats
    benchmark.extra_info |= {
        "batch": n,
        "million_per_second": round(n / stats["min"] / 1e6, 2) if stats is not None else None,
        "kernel": f"bitslice, {cext.kernel_level()}",
        "machine": platform.machine(),
    }


@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize("per_lane", [False, True], ids=["one-master", "master-per-lane"])
def test_tdes_pboc(benchmark: BenchmarkFixture, n: int, per_lane: bool) -> None:
    masters, factors = (_random(1, n, 16) if per_lane else _random(1, 16)), _random(2, n, 8)
    _measure(benchmark, n, lambda: cext.tdes_pboc(masters, factors, True))


@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize("per_lane", [False, True], ids=["one-master", "master-per-lane"])
def test_sm4_pboc(benchmark: BenchmarkFixture, n: int, per_lane: bool) -> None:
    masters, factors = (_random(1, n, 16) if per_lane else _random(1, 16)), _random(2, n, 8)
    _measure(benchmark, n, lambda: cext.sm4_pboc(masters, factors))


@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize("per_lane", [False, True], ids=["one-key", "key-per-lane"])
def test_aes_ecb(benchmark: BenchmarkFixture, n: int, per_lane: bool) -> None:
    keys, blocks = (_random(1, n, 16) if per_lane else _random(1, 16)), _random(2, n, 16)
    _measure(benchmark, n, lambda: cext.aes_ecb(keys, blocks))


@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize("kernel", [cext.tdes_kcv, cext.sm4_kcv, cext.aes_kcv01], ids=["3des", "sm4", "aes"])
def test_kcv(benchmark: BenchmarkFixture, n: int, kernel: Callable[[ByteArray], ByteArray]) -> None:
    keys = _random(1, n, 16)
    _measure(benchmark, n, lambda: kernel(keys))


def test_cryptography_bulk_3des(benchmark: BenchmarkFixture) -> None:
    """The yardstick: one context, the X || ~X stream made by numpy."""
    n, factors, key = 16384, _random(2, 16384, 8), _random(1, 16).tobytes()
    encryptor = Cipher(TripleDES(key + key[:8]), modes.ECB()).encryptor()
    _measure(benchmark, n, lambda: encryptor.update(np.concatenate([factors, ~factors], axis=1).tobytes()))


def test_cryptography_bulk_sm4(benchmark: BenchmarkFixture) -> None:
    """The yardstick for SM4."""
    n, factors = 16384, _random(2, 16384, 8)
    encryptor = Cipher(SM4(_random(1, 16).tobytes()), modes.ECB()).encryptor()
    _measure(benchmark, n, lambda: encryptor.update(np.concatenate([factors, ~factors], axis=1).tobytes()))
