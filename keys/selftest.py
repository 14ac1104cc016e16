"""Known answers before first use: every kernel at every level this machine runs, on more rows than any level has lanes.

The answers are data (cext/selftest.json, made by tests/keys/selftest_answers.py). That file and the extension are compared with
their digests when `cext` is imported (see `cext.integrity`); here the kernels must show that they compute. A key store runs this
before it lets a key in or out.
"""

from __future__ import annotations

import functools
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

import cext
from cext import integrity
from keys.errors import Corrupt

ByteArray = npt.NDArray[np.uint8]
Hex = str | list[str]

# More than the 512 lanes of the widest level, and no multiple of any.
ROWS: Final = 515


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One known answer: `shared` arguments are one for all rows, each row of `rows` and of the results is the same."""

    id: str
    kernel: str
    shared: dict[str, str]
    rows: dict[str, Hex]
    options: dict[str, bool | str | list[list[int]]]
    expect: list[str]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    standard: str
    provenance: str
    tests: list[Answer]


def answers() -> list[Answer]:
    """All known answers; raises Corrupt SELF_TEST."""
    try:
        return msgspec.json.decode(integrity.ANSWERS.read_bytes(), type=_File).tests
    except (OSError, msgspec.MsgspecError):
        raise Corrupt("SELF_TEST", f"self-test: {integrity.ANSWERS} cannot be read") from None


@functools.cache
def require() -> None:
    """Runs all known answers once per process. Raises Corrupt SELF_TEST naming kernel and level; then no key may be used."""
    known = answers()
    for level in cext.available_levels():
        with cext.at_level(level):
            for answer in known:
                check(answer, level)


def check(answer: Answer, level: str) -> None:
    """Raises Corrupt SELF_TEST unless the kernel gives that answer in every row."""
    arguments: dict[str, object] = {name: _row(text) for name, text in answer.shared.items()}
    arguments |= {name: np.repeat(_row(text)[None], ROWS, axis=0) for name, text in answer.rows.items()}
    arguments |= answer.options
    apdus = answer.options.get("apdus")
    if isinstance(apdus, list):
        arguments["apdus"] = np.array([tuple(fields) for fields in apdus], cext.APDU)
    made = getattr(cext, answer.kernel)(**arguments)
    results = made if isinstance(made, tuple) else (made,)
    expected = [_row(text) for text in answer.expect]
    if len(results) != len(expected) or any((rows != row).any() for rows, row in zip(results, expected, strict=True)):
        raise Corrupt("SELF_TEST", f"self-test: kernel {answer.kernel} gives a wrong answer at level {level} ({answer.id}); no key is used")


def _row(text: Hex) -> ByteArray:
    if isinstance(text, list):
        return np.stack([_row(part) for part in text])
    return np.frombuffer(bytes.fromhex(text), np.uint8)
