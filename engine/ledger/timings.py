"""Where the time of one attempt went, as its station measured it: every APDU, feeding, printing, ejecting, and waiting for the server.

Written once, in the transaction in which the piece was seen falling, so that it costs no commit of its own. An attempt whose piece
was never seen, or that outlived its server, has none: half a measurement would pass for a quick card.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from sqlalchemy.dialects.sqlite import insert

from engine.ledger import schema
from engine.ledger.prepared import Prepared
from engine.ledger.tx import Tx
from keys.errors import Corrupt

_COUNT: Final = np.dtype("<u2")
_TIME: Final = np.dtype("<u4")
_insert = Prepared(insert(schema.timings).on_conflict_do_nothing(), *(column.name for column in schema.timings.columns))
_READER_CHARS: Final = 128
# no card has so many: a station that goes on for ever fills no memory
_MAX_COMMANDS: Final = 4096


@dataclass(slots=True)
class Timings:
    """What a station said of one attempt so far. All times are microseconds; `counts` has the lease's commands first."""

    reader: str = ""
    transport: str = ""
    feed_us: int = 0
    print_us: int = 0
    eject_us: int = 0
    waited_us: int = 0
    counts: list[int] = field(default_factory=list)
    apdu_us: bytearray = field(default_factory=bytearray)

    def played(self, apdu_us: Sequence[int]) -> None:
        """The lease's commands or one segment were played; each command took so long."""
        count = min(len(apdu_us), _MAX_COMMANDS - len(self.apdu_us) // _TIME.itemsize)
        self.counts.append(count)
        self.apdu_us += struct.pack(f"<{count}I", *apdu_us[:count])

    @property
    def measured(self) -> bool:
        """Whether the station said anything of it; one of an older version does not."""
        return bool(self.apdu_us or self.reader)


def record(tx: Tx, attempt_id: int, timings: Timings) -> None:
    """Writes them with the rest of the transaction; a second report of the same attempt changes nothing."""
    counts = struct.pack(f"<{len(timings.counts)}H", *timings.counts)
    _insert.run(
        tx.db,
        attempt_id,
        timings.reader[:_READER_CHARS],
        timings.transport,
        _stored(timings.feed_us),
        _stored(timings.print_us),
        _stored(timings.eject_us),
        _stored(timings.waited_us),
        counts,
        bytes(timings.apdu_us),
    )


def unpack(counts: bytes, apdu_us: bytes) -> list[npt.NDArray[np.uint32]]:
    """Microseconds per command: the lease's, then each segment's in the order played. Raises Corrupt TIMINGS_INVALID."""
    if len(counts) % _COUNT.itemsize or len(apdu_us) % _TIME.itemsize:
        raise Corrupt("TIMINGS_INVALID", "the timings of an attempt are cut off")
    ends = np.frombuffer(counts, _COUNT).astype(np.intp).cumsum()
    times = np.frombuffer(apdu_us, _TIME)
    if (int(ends[-1]) if len(ends) else 0) != len(times):
        raise Corrupt("TIMINGS_INVALID", "the timings of an attempt do not match its number of commands")
    return list(np.split(times, ends[:-1])) if len(ends) else []


def _stored(microseconds: int) -> int:
    """The wire's numbers have 64 bits without a sign, the ledger's have one."""
    return min(microseconds, 2**63 - 1)
