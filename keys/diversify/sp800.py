"""Key derivation in counter mode with CMAC (NIST SP 800-108 rev. 1, 4.1), AES."""

from __future__ import annotations

from typing import Final

import numpy as np

from keys.algorithms import KEY_LENS, byte_array, require_rows
from keys.diversify.common import ByteArray, BytesOrArray, check_masters
from keys.errors import InvalidInput
from keys.mac import cmac

COUNTER_LEN: Final = 4
LENGTH_LEN: Final = 4
# More than any key needs; a longer answer is a mistake in the request.
MAX_LEN: Final = 1024


def sp800_108(masters: BytesOrArray, label: bytes, contexts: BytesOrArray, length: int) -> ByteArray:
    """Keys (n, length): CMAC over counter[4] || label || 00 || context || bits[4], counter from 1.

    `contexts` is one context, bytes, or (n, any) of them. Raises InvalidInput DERIVED_LENGTH outside of 1 to 1,024 bytes.
    """
    if not 1 <= length <= MAX_LEN:
        raise InvalidInput("DERIVED_LENGTH", f"a derived key has 1 to {MAX_LEN} bytes, not {length}")
    context = byte_array(contexts, "contexts")
    context = context.reshape(1, -1) if context.ndim == 1 else context
    n = require_rows(context, "contexts")
    keys = check_masters("aes", masters, n, KEY_LENS["aes"])
    head = np.frombuffer(label + b"\x00", np.uint8)
    tail = np.frombuffer((8 * length).to_bytes(LENGTH_LEN, "big"), np.uint8)
    fixed = np.concatenate([np.broadcast_to(head, (n, len(head))), context, np.broadcast_to(tail, (n, LENGTH_LEN))], axis=1)
    return counter_mode(keys, np.empty((n, 0), np.uint8), COUNTER_LEN, fixed, length)


def counter_mode(keys: ByteArray, before: ByteArray, counter_len: int, after: ByteArray, length: int) -> ByteArray:
    """`length` bytes a row of CMAC(before || counter || after), the counter from 1 in `counter_len` bytes."""
    n, at = before.shape
    message = np.concatenate([before, np.zeros((n, counter_len), np.uint8), after], axis=1)
    blocks = []
    for counter in range(1, (length + 15) // 16 + 1):
        message[:, at : at + counter_len] = np.frombuffer(counter.to_bytes(counter_len, "big"), np.uint8)
        blocks.append(cmac("aes", keys, message))
    return blocks[0] if length == 16 else np.ascontiguousarray(np.concatenate(blocks, axis=1)[:, :length])
