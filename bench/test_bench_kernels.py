"""Kernel throughput, one core: every operation, and the chunk sizes that callers choose between.

    python -m pytest bench/test_bench_kernels.py --benchmark-only

Every result's `extra_info` states what ran, the batch and the millions of results per second; CITYCARD_CPU=portable|avx2|avx512
compares levels. `python -m bench.ratios` sets the same kernels beside other libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import cext
from cext import cpu

ByteArray = npt.NDArray[np.uint8]

CHUNKS = tuple(512 << shift for shift in range(12))
BATCH = 16_384
CARDS = 4096


def _random(seed: int, *shape: int) -> ByteArray:
    made: ByteArray = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return made


MASTER, KEK = _random(1, 16), _random(2, 16)


def _measure(benchmark: BenchmarkFixture, family: str, n: int, call: Callable[[], object]) -> None:
    benchmark(call)
    stats: Any = benchmark.stats
    benchmark.extra_info |= {
        "batch": n,
        "million_per_second": round(n / stats["min"] / 1e6, 2) if stats is not None else None,
        "kernel": cpu.running()[family],
    }


def _derivations(n: int) -> dict[str, tuple[str, Callable[[], object]]]:
    factors, messages, out, kcvs = _random(3, n, 8), _random(4, n, 32), np.empty((n, 16), np.uint8), np.empty((n, 3), np.uint8)
    return {
        "3des-derive": ("tdes", lambda: cext.tdes_pboc(MASTER, factors, True, out=out)),
        "3des-full": ("tdes", lambda: cext.tdes_pboc_wrapped(MASTER, factors, True, KEK, out=out, kcv_out=kcvs)),
        "sm4-derive": ("sm4", lambda: cext.sm4_pboc(MASTER, factors, out=out)),
        "sm4-full": ("sm4", lambda: cext.sm4_pboc_wrapped(MASTER, factors, KEK, out=out, kcv_out=kcvs)),
        "aes-derive": ("aes", lambda: cext.aes_cmac(MASTER, messages, out=out)),
        "aes-full": ("aes", lambda: cext.aes_cmac_wrapped(MASTER, messages, KEK, out=out, kcv_out=kcvs)),
    }


@pytest.mark.parametrize("n", CHUNKS)
@pytest.mark.parametrize("operation", list(_derivations(1)))
def test_chunks(benchmark: BenchmarkFixture, operation: str, n: int) -> None:
    """One master, n cards: how large a call must be before the kernels reach their speed."""
    family, call = _derivations(n)[operation]
    _measure(benchmark, family, n, call)


def _operations() -> dict[str, tuple[str, int, Callable[[], object]]]:
    keys, factors, blocks, messages = _random(5, BATCH, 16), _random(6, BATCH, 8), _random(7, BATCH, 16), _random(8, CARDS, 256)
    few, levels, kek = keys[:CARDS], _random(9, BATCH, 3, 8), _random(10, 16)
    wrapped = np.empty((BATCH, 24), np.uint8)
    return {
        "3des-derive-master-per-lane": ("tdes", BATCH, lambda: cext.tdes_pboc(keys, factors, True)),
        "3des-derive-three-levels": ("tdes", BATCH, lambda: cext.tdes_pboc(MASTER, levels, True)),
        "3des-derive-kcv": ("tdes", BATCH, lambda: cext.tdes_pboc(MASTER, factors, True, kcv="zero-block")),
        "3des-kcv": ("tdes", BATCH, lambda: cext.tdes_kcv(keys)),
        "3des-retail-mac-256": ("tdes", CARDS, lambda: cext.tdes_retail_mac(few, messages)),
        "sm4-derive-master-per-lane": ("sm4", BATCH, lambda: cext.sm4_pboc(keys, factors)),
        "sm4-derive-three-levels": ("sm4", BATCH, lambda: cext.sm4_pboc(MASTER, levels)),
        "sm4-derive-kcv": ("sm4", BATCH, lambda: cext.sm4_pboc(MASTER, factors, kcv="zero-block")),
        "sm4-kcv": ("sm4", BATCH, lambda: cext.sm4_kcv(keys)),
        "sm4-cmac-256": ("sm4", CARDS, lambda: cext.sm4_cmac(few, messages)),
        "aes-ecb-one-key": ("aes", BATCH, lambda: cext.aes_ecb(MASTER, blocks)),
        "aes-ecb-key-per-lane": ("aes", BATCH, lambda: cext.aes_ecb(keys, blocks)),
        "aes-kcv": ("aes", BATCH, lambda: cext.aes_kcv(keys)),
        "aes-cmac-256": ("aes", CARDS, lambda: cext.aes_cmac(few, messages)),
        "aes-kw": ("aes", BATCH, lambda: cext.aes_kw(kek, keys, out=wrapped)),
    }


@pytest.mark.parametrize("operation", list(_operations()))
def test_operations(benchmark: BenchmarkFixture, operation: str) -> None:
    """Everything else the kernels do, at one batch."""
    family, n, call = _operations()[operation]
    _measure(benchmark, family, n, call)
