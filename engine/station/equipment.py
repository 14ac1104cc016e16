"""The mechanics a station drives: card path and printer. Real machines and the virtual ones stand behind the same two protocols."""

from __future__ import annotations

from typing import Final, Protocol

from engine.chip.transport import Transport


class CardPath(Protocol):
    """Feeder, head and bins of one head. Calls block; each head has its own thread."""

    def available(self) -> bool:
        """Whether the feeder has a blank."""
        ...

    def take(self) -> Transport | None:
        """Moves the next blank into the head; None when the feeder is empty. The transport is not connected yet."""
        ...

    def current(self) -> Transport | None:
        """The piece that lies in the head, after a restart; None when the head is empty."""
        ...

    def eject(self, bin_name: str) -> None:
        """Drops the piece in the head into a bin: good, reject, returned or sample."""
        ...

    def close(self) -> None:
        """Lets go of reader and mechanics; the piece stays where it is."""
        ...


class Printer(Protocol):
    """Prints the face of the card in the head. `prints`: whether anything is printed at all."""

    @property
    def prints(self) -> bool: ...

    def print_card(self) -> None:
        """Returns when printed; raises Unavailable PRINT_FAILED."""
        ...


class NoPrinter:
    """Encoding stations print nothing: the step is there and always done."""

    prints: Final = False

    def print_card(self) -> None:
        return
