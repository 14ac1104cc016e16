"""Which cards are re-keyed, as columns a stretch at a time: chip serials, serial numbers of the pools, card numbers with their PSN.

A Parquet file says it for real cards. Without one, made-up cards numbered from 0 measure a machine or rehearse a run; their numbers
follow the profile's pools and belong to nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from engine.personalize.columns import Column
from engine.profiles.model import Profile
from keys.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

Bytes2D = npt.NDArray[np.uint8]

MAX_CARDS: Final = 1_000_000_000
# A bank identification number that is nobody's: 9 is for national assignment, and the digits say what it is.
_MADE_UP_BIN: Final = b"999999"
_PAN_DIGITS: Final = 19
_ZERO: Final = np.uint8(ord("0"))


class Population(Protocol):
    """Cards numbered 0 to cards - 1."""

    cards: int
    digest: str
    """What the run's record knows it by: SHA-256 of the file, or `made up`."""

    def columns(self, first: int, count: int) -> Mapping[str, Column]:
        """Columns of the cards `first` to `first + count - 1`, as `engine.personalize.image.card_factors` wants them. Thread-safe."""


def digits_of(numbers: npt.NDArray[np.uint64], width: int) -> Bytes2D:
    """Decimal digits of whole numbers, (n, width) ASCII, leading zeros."""
    out = np.empty((len(numbers), width), np.uint8)
    left = numbers
    for at in range(width - 4, -4, -4):
        above = left // np.uint64(10_000)  # by vectors, which divmod is not
        text = np.take(_FOUR, (left - above * np.uint64(10_000)).astype(np.intp), axis=0)
        out[:, max(at, 0) : at + 4] = text[:, max(-at, 0) :]
        left = above
    return out


_FOUR: Final[Bytes2D] = np.array([list(f"{i:04d}".encode()) for i in range(10_000)], np.uint8)


def with_luhn(digits: Bytes2D) -> Bytes2D:
    """Digits (n, w) and the check digit of ISO/IEC 7812-1, (n, w + 1)."""
    values = digits - _ZERO
    doubled = values[:, ::-1][:, 0::2] * np.uint8(2)
    doubled -= (doubled > 9) * np.uint8(9)
    total = doubled.sum(axis=1, dtype=np.uint32) + values[:, ::-1][:, 1::2].sum(axis=1, dtype=np.uint32)
    check = ((10 - total % 10) % 10).astype(np.uint8) + _ZERO
    return np.column_stack((digits, check))


class MadeUp:
    """`cards` cards that nobody has."""

    digest = "made up"

    def __init__(self, profile: Profile, cards: int, needed: Iterable[str] | None = None) -> None:
        """`needed`: the columns that are asked for, None for all.

        Raises InvalidInput CARDS unless 1 to a thousand million, or fewer where a pool of the profile ends.
        """
        room = min([MAX_CARDS, *(pool.last - pool.first + 1 for pool in profile.serials)])
        if not 1 <= cards <= room:
            raise InvalidInput("CARDS", f"1 to {room:,} cards can be made up for this profile, not {cards:,}")
        self.cards = cards
        names = None if needed is None else set(needed)
        self._pools = [pool for pool in profile.serials if names is None or f"{pool.name}_serial" in names]
        self._with_pan = names is None or "pan" in names

    def columns(self, first: int, count: int) -> Mapping[str, Column]:
        numbers = np.arange(first, first + count, dtype=np.uint64)
        columns: dict[str, Column] = {"chip_serial": numbers.astype(">u8").view(np.uint8).reshape(count, 8)}
        for pool in self._pools:
            digits = np.empty((count, pool.digits), np.uint8)
            digits[:, : len(pool.prefix)] = np.frombuffer(pool.prefix.encode(), np.uint8)
            digits[:, len(pool.prefix) :] = digits_of(numbers + np.uint64(pool.first), pool.digits - len(pool.prefix))
            columns[f"{pool.name}_serial"] = digits
        if not self._with_pan:
            return columns
        pan = np.empty((count, _PAN_DIGITS - 1), np.uint8)
        pan[:, :6] = np.frombuffer(_MADE_UP_BIN, np.uint8)
        pan[:, 6:] = digits_of(numbers, _PAN_DIGITS - 7)
        columns["pan"] = with_luhn(pan).view(f"S{_PAN_DIGITS}")[:, 0]
        columns["psn"] = np.full(count, b"00", "S2")
        return columns


class ParquetPopulation:
    """Cards from a Parquet file, one a row: `chip_serial` of 16 hex digits, `<pool>_serial` digits, `pan`, `psn`; only what the
    keys need must be there. Read a row group at a time.
    """

    def __init__(self, path: Path, needed: Iterable[str]) -> None:
        """Raises InvalidInput (POPULATION_UNREADABLE, POPULATION_COLUMN, POPULATION_EMPTY)."""
        import pyarrow as pa
        from pyarrow import parquet

        self._path = path
        self._needed = sorted(set(needed))
        try:
            with path.open("rb") as file:
                self.digest = hashlib.file_digest(file, "sha256").hexdigest().upper()
            meta = parquet.read_metadata(path)
            names = set(parquet.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            raise InvalidInput("POPULATION_UNREADABLE", f"population file {path.name}: {error}") from None
        missing = [name for name in self._needed if name not in names]
        if missing:
            raise InvalidInput("POPULATION_COLUMN", f"population file {path.name} has no column {', '.join(missing)}, which the keys need")
        self._ends = np.cumsum([meta.row_group(i).num_rows for i in range(meta.num_row_groups)])
        self.cards = int(meta.num_rows)
        if not self.cards:
            raise InvalidInput("POPULATION_EMPTY", f"population file {path.name} has no rows")

    def columns(self, first: int, count: int) -> Mapping[str, Column]:
        """Raises InvalidInput POPULATION_VALUE naming column and row."""
        from pyarrow import parquet

        groups = range(
            int(np.searchsorted(self._ends, first, side="right")), int(np.searchsorted(self._ends, first + count - 1, side="right")) + 1
        )
        before = int(self._ends[groups.start - 1]) if groups.start else 0
        with parquet.ParquetFile(self._path) as file:
            table = file.read_row_groups(list(groups), columns=self._needed).slice(first - before, count)
        return {name: _column(name, table.column(name), first) for name in self._needed}


def _column(name: str, values: pa.ChunkedArray, first: int) -> Column:
    """One column as characters; rows are counted from 1 in messages."""
    texts: npt.NDArray[Any] = np.array(values.cast("string").fill_null("").to_pylist())
    if name != "chip_serial":
        digits = np.char.isdigit(texts) & np.char.isalnum(texts)
        if not digits.all():
            raise InvalidInput("POPULATION_VALUE", f"{name} of row {first + int(np.argmin(digits)) + 1} is not a number")
        return texts.astype(np.bytes_)
    try:
        whole = "".join(texts.tolist())
        if (np.char.str_len(texts) == 16).all():
            return np.frombuffer(bytes.fromhex(whole), np.uint8).reshape(-1, 8)
    except ValueError:
        pass
    bad = next(row for row, text in enumerate(texts.tolist()) if len(text) != 16 or any(c not in "0123456789abcdefABCDEF" for c in text))
    raise InvalidInput("POPULATION_VALUE", f"chip_serial of row {first + bad + 1} is not 16 hex digits")


def needed_columns(card_factors: Iterable[str]) -> list[str]:
    """The columns that key factors come from (`KeySet.factors`)."""
    needed: dict[str, None] = {}
    for factor in card_factors:
        kind, _, pool = factor.partition(":")
        names = {"chip-serial": ["chip_serial"], "serial": [f"{pool}_serial"], "pan-psn": ["pan", "psn"]}[kind]
        needed.update(dict.fromkeys(names))
    return list(needed)
