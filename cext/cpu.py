"""Which compiled level of the kernels runs in this process: chosen once, at import.

`portable` runs everywhere; `avx2` and `avx512` are the same sources compiled for wider vectors, built on x86-64 with GCC or clang
and used where the CPU and the operating system support them. The environment variable CITYCARD_CPU names a level; `auto`, the
default, takes the widest.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from cext import _kernels

VARIABLE: Final = "CITYCARD_CPU"
LEVELS: Final = ("portable", "avx2", "avx512")


def choose(wanted: str, available: Sequence[str]) -> str:
    """The level to run, of those `available`, narrowest first.

    ValueError for a name that is no level; RuntimeError for a level that this build or this CPU lacks: whoever names a level
    measures or audits it, and another one in its place would go unnoticed.
    """
    if wanted == "auto":
        return available[-1]
    if wanted not in LEVELS:
        raise ValueError(f"{VARIABLE} must be auto, {', '.join(LEVELS[:-1])} or {LEVELS[-1]}, not {wanted!r}")
    if wanted not in available:
        raise RuntimeError(f"{VARIABLE}={wanted}: not on this CPU or not in this build, which run {', '.join(available)}")
    return wanted


def available_levels() -> tuple[str, ...]:
    """The levels this build has and this CPU and operating system run, narrowest first; `portable` is always among them."""
    return _kernels.levels()


def kernel_level() -> str:
    """The level every kernel call runs at."""
    return _kernels.level()


def features() -> tuple[str, ...]:
    """Those of avx2, aesni, avx512 (F, BW, DQ and VL), gfni and vaes that this CPU and operating system have, as far as this build asks."""
    return _kernels.features()


def running() -> dict[str, str]:
    """What runs for each family of algorithms at this level, such as {"tdes": "avx512", "sm4": "gfni", "aes": "vaes"}."""
    return _kernels.running()


@contextmanager
def at_level(name: str) -> Iterator[None]:
    """The whole process at that level for a while, for self-tests and tests; ValueError for a level that is not available."""
    before = kernel_level()
    _kernels.use_level(name)
    try:
        yield
    finally:
        _kernels.use_level(before)


_kernels.use_level(choose(os.environ.get(VARIABLE) or "auto", available_levels()))
