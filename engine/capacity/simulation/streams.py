"""Random streams by name: what belongs to one station, day or question draws from a stream of its own, so that two scenarios differ only
where they were made to differ (common random numbers).
"""

from __future__ import annotations

from zlib import crc32

import numpy as np


def stream(seed: int, *names: object) -> np.random.Generator:
    """Always the same generator for the same seed and names. Draws of shape (n, replications) are the beginning of those of a larger n."""
    return np.random.Generator(np.random.SFC64([seed & (1 << 63) - 1, *(crc32(str(name).encode()) for name in names)]))
