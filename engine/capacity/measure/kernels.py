"""Keys a second of the compiled kernels on one core: derived only, and derived with check value and cryptogram under one key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

import cext
from cext.cpu import kernel_level
from engine.capacity.distribution import Distribution
from engine.capacity.measure.probe import rounds, shares
from engine.capacity.profile import Measurement

BATCH: Final = 16_384


def kernel_keys(seconds: float, batch: int = BATCH) -> list[Measurement]:
    """`kernel_keys`, keys/s, for each algorithm and operation, at the level that runs; random bytes in the place of keys."""
    works = _works(batch)
    found = []
    for (algorithm, operation), work in works.items():
        rates = batch / np.asarray(rounds(work, shares(seconds, list(works))))
        labels = {"algorithm": algorithm, "operation": operation, "level": kernel_level(), "batch": str(batch)}
        found.append(Measurement("kernel_keys", "keys/s", labels, Distribution.of(rates)))
    return found


def _works(n: int) -> dict[tuple[str, str], Callable[[], object]]:
    random = np.random.default_rng(1)
    master, kek = random.integers(0, 256, (2, 16), np.uint8)
    factors, messages = random.integers(0, 256, (n, 8), np.uint8), random.integers(0, 256, (n, 32), np.uint8)
    out, kcvs = np.empty((n, 16), np.uint8), np.empty((n, 3), np.uint8)
    return {
        ("3des", "derive"): lambda: cext.tdes_pboc(master, factors, True, out=out),
        ("3des", "full"): lambda: cext.tdes_pboc_wrapped(master, factors, True, kek, out=out, kcv_out=kcvs),
        ("sm4", "derive"): lambda: cext.sm4_pboc(master, factors, out=out),
        ("sm4", "full"): lambda: cext.sm4_pboc_wrapped(master, factors, kek, out=out, kcv_out=kcvs),
        ("aes", "derive"): lambda: cext.aes_cmac(master, messages, out=out),
        ("aes", "full"): lambda: cext.aes_cmac_wrapped(master, messages, kek, out=out, kcv_out=kcvs),
    }
