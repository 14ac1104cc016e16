"""A part as Parquet: one row a card; its number and serials, then each key's cryptogram and check value.

Columns: `card` (row of the population, from 0), `chip_serial` and `<pool>_serial` where keys descend from them, then for each key
`application/keyset/name` (16 or 24 bytes) and `application/keyset/name.kcv` (3 bytes). Card numbers are not repeated in it. The file
carries profile, wrapping scheme and key-encryption keys in its metadata. Uncompressed: cryptograms have nothing to compress.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.personalize.columns import Column, as_matrix
from engine.rekey.request import Request
from engine.rekey.sink import HashingSink

if TYPE_CHECKING:
    import pyarrow as pa

ByteArray = npt.NDArray[np.uint8]


class ParquetPart:
    """Writes one part. Call `add` for each stretch of cards, then `close`."""

    def __init__(self, sink: HashingSink, request: Request, cards: range) -> None:
        from pyarrow import parquet

        self._request = request
        self._first = cards.start
        self._schema: pa.Schema | None = None
        self._writer: parquet.ParquetWriter | None = None
        self._sink = sink

    def add(self, columns: Mapping[str, Column], cryptograms: ByteArray, kcvs: ByteArray) -> None:
        """Cryptograms (k, n, w) and check values (k, n, 3) of the next n cards."""
        import pyarrow as pa

        rows = cryptograms.shape[1]
        names, arrays = ["card"], [pa.array(np.arange(self._first, self._first + rows, dtype=np.uint64))]
        for name, column in columns.items():
            if name.endswith("_serial"):
                names.append(name)
                arrays.append(_binary(np.ascontiguousarray(as_matrix(column))))
        for at, key in enumerate(self._request.keys):
            names += [key.label, f"{key.label}.kcv"]
            arrays += [_binary(cryptograms[at]), _binary(kcvs[at])]
        self._first += rows
        self._open(names, arrays).write_batch(pa.record_batch(arrays, schema=self._schema), row_group_size=rows)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _open(self, names: list[str], arrays: list[pa.Array]) -> Any:  # noqa: ANN401 - pyarrow has no types for it
        import pyarrow as pa
        from pyarrow import parquet

        if self._writer is None:
            profile = self._request.compiled.loaded
            about = {
                "profile": profile.profile.name,
                "profile_sha256": profile.sha256,
                "wrap": self._request.scheme,
                "keks": dict(sorted({(key.algorithm, kek) for key, kek in zip(self._request.keys, self._request.keks, strict=True)})),
            }
            fields = [pa.field(name, array.type, nullable=False) for name, array in zip(names, arrays, strict=True)]
            self._schema = pa.schema(fields, metadata={"citycard.rekey": json.dumps(about)})
            self._writer = parquet.ParquetWriter(
                self._sink, self._schema, compression="none", use_dictionary=False, write_statistics=False, store_schema=False
            )
        return self._writer


def _binary(rows: ByteArray) -> pa.Array:
    """(n, width) bytes as a fixed-size binary column over the same memory."""
    import pyarrow as pa

    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, pa.py_buffer(rows)])
