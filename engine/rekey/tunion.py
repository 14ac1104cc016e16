"""A part as a T-Union data preparation file: key sets of the transport application in the layout that its lines read.

    file   id[8] || "V01-" || MIC[15] "TUnionDPGCTYV01" || LCCA[8] || number of DGIs[4] || per DGI: length[2] || name ("DGIB0A0")
    card   sequence[4] || LDATA[2] || per DGI: 86 || BER length || DGI[2] || length || value
    value  per key: cryptogram[16] under the transport key, ECB || check value[3]

A DGI's length is one byte up to FE; longer ones (the 285 bytes of B0A0 and B1A0) have a bare two-byte length, without FF. Assumptions,
since no text was at hand: numbers are big-endian binary, `id` is the part's number, LCCA the length of all card records, 3DES sets are
wrapped under the 3DES transport key and SM4 sets under the SM4 one, and a file without the application's other DGIs is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.personalize.columns import Column
from engine.rekey.request import Request, tunion_groups
from engine.rekey.sink import HashingSink

ByteArray = npt.NDArray[np.uint8]

VERSION: Final = b"V01-"
MIC: Final = b"TUnionDPGCTYV01"
_ENTRY: Final = 19  # cryptogram and check value
_SEQUENCE: Final = 4


def dgi_length(count: int) -> bytes:
    """Length of a DGI's value: one byte up to FE, else two bytes without an FF before them."""
    return bytes([count]) if count < 0xFF else count.to_bytes(2, "big")


def ber_length(count: int) -> bytes:
    """ISO/IEC 8825-1 definite length."""
    if count < 0x80:
        return bytes([count])
    octets = count.to_bytes((count.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


class TUnionPart:
    """Writes one part; a card's record is the same bytes for every card but for its number, cryptograms and check values."""

    def __init__(self, sink: HashingSink, request: Request, cards: range) -> None:
        self._sink = sink
        self._next = 1
        self._places: list[int] = []
        groups = tunion_groups(request.compiled)
        record = bytearray()
        for dgi, keys in groups:
            value = bytes(_ENTRY * len(keys))
            head = bytes.fromhex(dgi) + dgi_length(len(value))
            record += b"\x86" + ber_length(len(head) + len(value)) + head
            self._places += range(len(record) + 6, len(record) + 6 + len(value), _ENTRY)
            record += value
        self._record = np.frombuffer(bytes(_SEQUENCE) + len(record).to_bytes(2, "big") + bytes(record), np.uint8)
        number = cards.start // request.part_rows + 1
        names = [b"DGI" + dgi.encode() for dgi, _ in groups]
        sink.write(number.to_bytes(8, "big") + VERSION + MIC + (len(self._record) * len(cards)).to_bytes(8, "big"))
        sink.write(len(names).to_bytes(4, "big") + b"".join(len(name).to_bytes(2, "big") + name for name in names))

    def add(self, _columns: Mapping[str, Column], cryptograms: ByteArray, kcvs: ByteArray) -> None:
        """Cryptograms (k, n, 16) and check values (k, n, 3) of the next n cards."""
        rows = cryptograms.shape[1]
        records = np.empty((rows, len(self._record)), np.uint8)
        records[:] = self._record
        records[:, :_SEQUENCE] = np.arange(self._next, self._next + rows, dtype=">u4").view(np.uint8).reshape(rows, 4)
        for at, place in enumerate(self._places):
            records[:, place : place + 16] = cryptograms[at]
            records[:, place + 16 : place + _ENTRY] = kcvs[at]
        self._next += rows
        self._sink.write(records.data)

    def close(self) -> None:
        """Nothing follows the last card."""
