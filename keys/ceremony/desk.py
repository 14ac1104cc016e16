"""The desk where custodians sit one at a time: what is said to them, what they type, and nothing left on the screen.

`Desk` is the interface; `TerminalDesk` the real one. Secrets are read byte by byte from the terminal's descriptor with echo off, into
memory that is overwritten; they never pass through Python's text layer or line editor.
"""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from keys.errors import Precondition
from keys.secrets import SecretBytes

CLEAR: Final = b"\x1b[H\x1b[2J\x1b[3J"
MAX_TYPED: Final = 640
_CTRL_C: Final = 0x03
_CTRL_D: Final = 0x04
_CTRL_U: Final = 0x15
_ERASE: Final = (0x08, 0x7F)
_ENTER: Final = (0x0A, 0x0D)


class Topic(StrEnum):
    """What a question is about."""

    CALL = "call"
    """Is the custodian sitting down, alone?"""
    COMPONENT = "component"
    SHARE = "share"
    CHECK_DIGITS = "check-digits"
    ENVELOPE_READ = "envelope-read"
    """The check digits in the printed envelope, which prove that it can be read."""
    ENVELOPE_CLOSED = "envelope-closed"
    CONFIRM = "confirm"
    """The check digits of a key that is to be destroyed or to leave."""
    WITNESS = "witness"


class Question(NamedTuple):
    """What is asked of whom: `custodian` and `key` count from 0, -1 for none."""

    topic: Topic
    text: str
    custodian: int = -1
    key: int = -1


class Desk(Protocol):
    """Raises Precondition CEREMONY_PAUSED from every question when the person interrupts."""

    def say(self, line: str) -> None:
        """A line for whoever is in the room. Never a secret."""

    def clear(self) -> None:
        """Wipes the screen and what scrolled off it."""

    def secret(self, question: Question) -> SecretBytes:
        """What is typed, unseen, as ASCII."""

    def ask(self, question: Question) -> str:
        """A short open answer. Never a secret."""


class TerminalDesk:
    """A desk at a terminal."""

    def __init__(self, terminal: int | None = None) -> None:
        """`terminal` is a descriptor, by default standard input's. Raises Precondition NO_TERMINAL."""
        self._in = sys.stdin.fileno() if terminal is None else terminal
        if not os.isatty(self._in):
            raise Precondition("NO_TERMINAL", "a ceremony needs a terminal: components are not taken from a pipe or a file")

    def say(self, line: str) -> None:
        """See `Desk.say`."""
        self._write(line.encode() + b"\r\n")

    def clear(self) -> None:
        """See `Desk.clear`. What was typed ahead is thrown away with it."""
        self._write(CLEAR)
        termios.tcflush(self._in, termios.TCIFLUSH)

    def secret(self, question: Question) -> SecretBytes:
        """See `Desk.secret`. Backspace and Ctrl-U correct, Ctrl-C interrupts."""
        typed = bytearray(MAX_TYPED)
        try:
            with self._raw():
                self._write(question.text.encode() + b" ")
                count = self._line(typed, echo=False)
            return SecretBytes(memoryview(typed)[:count])
        finally:
            typed[:] = bytes(MAX_TYPED)

    def ask(self, question: Question) -> str:
        """See `Desk.ask`."""
        typed = bytearray(MAX_TYPED)
        with self._raw():
            self._write(question.text.encode() + b" ")
            count = self._line(typed, echo=True)
        return typed[:count].decode("ascii", "replace").strip()

    def _line(self, typed: bytearray, *, echo: bool) -> int:
        count = 0
        one = bytearray(1)
        while True:
            if not os.readv(self._in, [one]) or one[0] in (_CTRL_C, _CTRL_D):
                self._write(b"\r\n")
                raise Precondition("CEREMONY_PAUSED", "interrupted at the desk: the ceremony is paused")
            character = one[0]
            one[0] = 0
            if character in _ENTER:
                self._write(b"\r\n")
                return count
            if character in _ERASE and count:
                count -= 1
                typed[count] = 0
                self._write(b"\b \b" if echo else b"")
            elif character == _CTRL_U:
                self._write(b"\b \b" * count if echo else b"")
                typed[:count] = bytes(count)
                count = 0
            elif 0x20 <= character < 0x7F and count < MAX_TYPED:
                typed[count] = character
                count += 1
                self._write(bytes([character]) if echo else b"")

    @contextmanager
    def _raw(self) -> Iterator[None]:
        """No echo, no line editing and no signals from the terminal while a line is read."""
        before = termios.tcgetattr(self._in)
        raw = [*before[:3], before[3] & ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN), *before[4:]]
        termios.tcsetattr(self._in, termios.TCSADRAIN, raw)
        try:
            yield
        finally:
            termios.tcsetattr(self._in, termios.TCSAFLUSH, before)

    def _write(self, text: bytes) -> None:
        while text:
            text = text[os.write(self._in, text) :]
