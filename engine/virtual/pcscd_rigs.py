"""As many PC/SC readers as asked for: a private pcscd with two slots each, because vpcd has no more."""

from __future__ import annotations

from types import TracebackType
from typing import Final

from engine.virtual.pcscd_rig import MAX_SLOTS, PcscdRig
from keys.errors import InvalidInput

MAX_READERS: Final = 64


class PcscdRigs:
    """Context manager: readers 0 to `readers` - 1, each a slot of one of `rigs`.

    A process talks to one pcscd only (libpcsclite reads its socket's name once), so to two of these readers.
    Raises as `PcscdRig`; InvalidInput READERS_INVALID.
    """

    def __init__(self, readers: int) -> None:
        if not 1 <= readers <= MAX_READERS:
            raise InvalidInput("READERS_INVALID", f"a bench has 1 to {MAX_READERS} PC/SC readers, not {readers}")
        self.readers = readers
        self.rigs = [PcscdRig(min(MAX_SLOTS, readers - first)) for first in range(0, readers, MAX_SLOTS)]

    def place(self, reader: int) -> tuple[PcscdRig, int]:
        """The rig and the slot of a reader."""
        if not 0 <= reader < self.readers:
            raise InvalidInput("READERS_INVALID", f"reader {reader}: there are readers 0 to {self.readers - 1}")
        return self.rigs[reader // MAX_SLOTS], reader % MAX_SLOTS

    def __enter__(self) -> PcscdRigs:
        try:
            for rig in self.rigs:
                rig.begin()
            for rig in self.rigs:
                rig.await_up()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        for rig in self.rigs:
            rig.stop()
