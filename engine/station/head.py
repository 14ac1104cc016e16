"""One head: the piece in it, its journal, and the playing of commands. Blocking; knows nothing of the network."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from engine.chip.transport import Transport
from engine.station.equipment import CardPath, Printer
from engine.station.journal import Journal, Record, Step
from keys.errors import CitycardError, Unavailable


@dataclass(frozen=True)
class Played:
    """Answers in order, the microseconds of each, and why playing stopped early ("" when it did not)."""

    responses: list[bytes]
    apdu_us: list[int]
    stopped: str


@dataclass(frozen=True)
class Presented:
    """A blank in the head: its ATR, what it answered, and the microseconds from the feeder to its answer to reset."""

    atr: bytes
    played: Played
    feed_us: int


@dataclass(frozen=True)
class FoundPiece:
    """What lies in the head when the agent starts or reconnects."""

    token: int
    kdd: bytes
    step: str
    sequence: int
    responses: bytes
    bin: str


class Head:
    """Card path, printer and journal of one head."""

    def __init__(self, index: int, path: CardPath, printer: Printer, journal: Journal) -> None:
        self.index = index
        self.path = path
        self._printer = printer
        self._journal = journal
        self._transport: Transport | None = None
        self.token = 0
        # since the lease, with nothing to do but wait for the server
        self.waited_us = 0
        self.restarted = True

    def _note(self, step: Step, *, sequence: int = 0, responses: bytes = b"", bin_name: str = "") -> None:
        self._journal.write(Record(step, self.token, sequence, responses, bin_name))

    def found(self) -> FoundPiece | None:
        """The piece in the head and the journal's word on it; None when the head is empty and nothing is unsettled.

        After a restart the chip is asked who it is before anything else happens to it.
        """
        last = self._journal.last
        if self.restarted:
            self._transport = self.path.current()
            kdd = self._ask_identity()
            self.restarted = False
        else:
            kdd = b""
        empty = self.path.current() is None
        if last is not None and last.step == "ejecting" and empty:
            # told to fall into that bin, and gone from the head: that is where it is
            return FoundPiece(last.token, kdd, "ejected", 0, b"", last.bin)
        if last is None:
            return None if empty else FoundPiece(0, kdd, "", 0, b"", "")
        if empty and self.token == 0 and last.step == "leased":
            return None
        self.token = last.token
        return FoundPiece(last.token, kdd, last.step, last.sequence, self._journal.answers(1), "")

    def _ask_identity(self) -> bytes:
        if self._transport is None:
            return b""
        try:
            self._transport.connect()
            self._transport.transmit(bytes.fromhex("00A4040000"))
            answer = self._transport.transmit(b"\x80\x50\x00\x00\x08" + os.urandom(8) + b"\x00")
        except CitycardError:
            return b""
        return answer[:10] if answer[-2:] == b"\x90\x00" else b""

    @property
    def reader(self) -> str:
        """The reader that the piece in the head lies in; empty while none does."""
        return "" if self._transport is None else self._transport.name

    def present(self, token: int, commands: list[bytes]) -> Presented:
        """Takes a blank, resets it and plays the lease's commands.

        Raises Unavailable NO_BLANK when the feeder is empty; CHIP_GONE and READER_GONE come from the transport.
        """
        self.token = token
        self._note("leased")
        began = time.perf_counter_ns()
        self._transport = self.path.take()
        if self._transport is None:
            raise Unavailable("NO_BLANK", "the feeder is empty")
        atr = self._transport.connect()
        feed_us = _since(began)
        return Presented(atr, self._play(self._transport, commands, None), feed_us)

    def play(self, sequence: int, commands: list[bytes], expected: list[int], *, journal_answers: bool) -> Played:
        """Plays a segment; stops at the first answer that is not the expected one."""
        if self._transport is None:
            raise Unavailable("READER_GONE", "no piece lies in the head")
        if not journal_answers:
            # proofs are begun anew after a restart, so nothing of them is worth keeping, and their answers may be personal data
            return self._play(self._transport, commands, expected)
        self._note("playing", sequence=sequence)
        played = self._play(self._transport, commands, expected)
        kept = b"".join(len(r).to_bytes(2, "big") + r for r in played.responses)
        self._note("played", sequence=sequence, responses=kept)
        return played

    @staticmethod
    def _play(transport: Transport, commands: list[bytes], expected: list[int] | None) -> Played:
        responses: list[bytes] = []
        times: list[int] = []
        for index, command in enumerate(commands):
            began = time.perf_counter_ns()
            try:
                response = transport.transmit(command)
            except CitycardError as error:
                return Played(responses, times, error.reason)
            times.append(_since(began))
            responses.append(response)
            if expected is not None and int.from_bytes(response[-2:], "big") != expected[index]:
                return Played(responses, times, "REFUSED")
        return Played(responses, times, "")

    @property
    def prints(self) -> bool:
        """Whether this head has a printer."""
        return self._printer.prints

    def print_card(self) -> int:
        """Prints, and gives the microseconds it took; journaled before and after: a print that may have begun must not be repeated."""
        self._note("printing")
        began = time.perf_counter_ns()
        self._printer.print_card()
        took = _since(began)
        self._note("printed")
        return took

    def eject(self, bin_name: str) -> int:
        """Drops the piece into a bin; microseconds. The journal says so first: an empty head after that is a piece that fell there."""
        began = time.perf_counter_ns()
        if self._transport is not None:
            self._transport.disconnect()
            self._transport = None
        self._note("ejecting", bin_name=bin_name)
        if self.path.current() is not None:
            self.path.eject(bin_name)
        return _since(began)

    def settle(self) -> None:
        """The engine knows the end of this piece: the journal may forget it with the next lease."""
        self.token = 0

    def close(self) -> None:
        if self._transport is not None:
            self._transport.disconnect()
        self.path.close()
        self._journal.close()


def _since(began_ns: int) -> int:
    """Microseconds."""
    return (time.perf_counter_ns() - began_ns) // 1000
