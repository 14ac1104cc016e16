"""`citycard token`: a PKCS#11 token made ready and looked at; and what `citycard keys show` and `inventory` print of any custody.

PINs come from a file or are typed unseen, and go into locked memory byte by byte; never from the command line or the environment.
"""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import typer

from engine.cli import output
from engine.cli.job import Json
from keys.custody.policy import KeyEntry
from keys.custody.token import TokenConfig, TokenCustody, initialize, unlock
from keys.errors import InvalidInput, NotFound
from keys.secrets import SecretBytes

app = typer.Typer(help="A PKCS#11 token that holds master keys.", no_args_is_help=True)

# longer than any PIN, and than 33 words of a share
LINE_MAX: Final = 511
Module = Annotated[Path, typer.Option("--module", envvar="CITYCARD_PKCS11_MODULE", help="The vendor's PKCS#11 module (.so).")]
Label = Annotated[str, typer.Option("--label", help="The token's label.")]
Serial = Annotated[str | None, typer.Option("--serial", help="The token's serial number, where labels are not unique.")]
PinFile = Annotated[Path | None, typer.Option("--pin-file", help="File whose first line is the user PIN; default: asked for, unseen.")]
SoPinFile = Annotated[
    Path | None, typer.Option("--so-pin-file", help="File whose first line is the security officer's PIN; default: asked for, unseen.")
]
SOFTHSM: Final = Path("/usr/lib/softhsm/libsofthsm2.so")


class Listing(Protocol):
    """A custody that knows its keys' policies."""

    def entries(self) -> list[KeyEntry]:
        """All records with policies and warnings."""


def inventory(custody: Listing) -> list[dict[str, object]]:
    """Every key of a custody: what it is, who holds it, what it may do, its state, check value and cryptoperiod; no key bytes."""
    return [entry.as_dict() for entry in custody.entries()]


def show(custody: Listing, key_id: str) -> list[dict[str, object]]:
    """All versions of one key. Raises NotFound KEY_UNKNOWN."""
    found = [entry.as_dict() for entry in custody.entries() if entry.record.key_id == key_id]
    if not found:
        raise NotFound("KEY_UNKNOWN", f"there is no key {key_id!r}")
    return found


def print_inventory(entries: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """A table for people, or JSON; warnings stand in the last column."""
    if as_json:
        output.emit_json({"keys": list(entries)})
        return
    names = ("key", "version", "custody", "domain", "algorithm", "state", "kcv", "kcv_method", "origin", "not_after", "warning")
    rows = [tuple("" if entry[name] is None else entry[name] for name in names) for entry in entries]
    output.table(names, rows, "no keys")


def read_pin(file: Path | None, whose: str, *, confirm: bool = False) -> SecretBytes:
    """A PIN from the first line of a file, or typed without echo. Raises NotFound PIN_UNREADABLE, InvalidInput (PIN_MISSING,
    PIN_DIFFERS).
    """
    if file is not None:
        try:
            handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound("PIN_UNREADABLE", f"PIN file {file}: {error.strerror}") from None
        try:
            return _line(handle)
        finally:
            os.close(handle)
    pin = read_secret(f"PIN of the {whose}: ")
    if confirm:
        with read_secret("The same again: ") as again:
            if pin != again:
                pin.close()
                raise InvalidInput("PIN_DIFFERS", "the two PINs are not the same")
    return pin


def read_secret(prompt: str) -> SecretBytes:
    """A line typed without echo at the terminal of this process. Raises InvalidInput (PIN_MISSING, PIN_LENGTH)."""
    with _unseen() as terminal:
        os.write(terminal, prompt.encode())
        typed = _line(terminal)
        os.write(terminal, b"\n")
    return typed


@app.command("init")
def init(
    label: Label,
    module: Module = SOFTHSM,
    test: Annotated[bool, typer.Option("--test", help="For TEST keys: a production server refuses the token.")] = False,
    pin_file: PinFile = None,
    so_pin_file: SoPinFile = None,
    as_json: Json = False,
) -> None:
    """Make a blank token ready: label, PINs, root secret and sealing key. A token that has a label is never initialized again.

    For SoftHSM: install Debian's softhsm2, let SOFTHSM2_CONF name a file with `directories.tokendir = DIR`, and run this command.
    """
    config = TokenConfig(module, label)
    with read_pin(so_pin_file, "security officer", confirm=True) as so_pin:
        pin = read_pin(pin_file, "user", confirm=True)
        try:
            serial = initialize(config, so_pin, pin)
            with TokenCustody.create(TokenConfig(module, label, serial), SecretBytes(pin.reveal()), test=test):
                made = {"label": label, "serial": serial, "module": str(module), "test": test}
        finally:
            pin.close()
    mark = ", for TEST keys" if test else ""
    output.emit_json(made) if as_json else output.say(f"token {label}, serial number {serial}, is ready{mark}")


@app.command("status")
def status(label: Label, module: Module = SOFTHSM, serial: Serial = None, pin_file: PinFile = None, as_json: Json = False) -> None:
    """Log in, ask the known answers, and say what the token holds."""
    with TokenCustody.open(TokenConfig(module, label, serial), read_pin(pin_file, "user"), mode="test") as custody:
        entries = inventory(custody)
        facts = {"label": label, "state": str(custody.state), "test": custody.test, "keys": len(entries)}
        facts["warnings"] = sum(entry["warning"] is not None for entry in entries)
        facts["at"] = datetime.now().astimezone().isoformat(timespec="seconds")
    output.emit_json(facts) if as_json else output.pairs([(name, str(value)) for name, value in facts.items()])


@app.command("keys")
def keys(label: Label, module: Module = SOFTHSM, serial: Serial = None, pin_file: PinFile = None, as_json: Json = False) -> None:
    """The keys of a token with their policies, check values and warnings."""
    with TokenCustody.open(TokenConfig(module, label, serial), read_pin(pin_file, "user"), mode="test") as custody:
        print_inventory(inventory(custody), as_json=as_json)


@app.command("unlock")
def unlock_token(
    label: Label, module: Module = SOFTHSM, serial: Serial = None, pin_file: PinFile = None, so_pin_file: SoPinFile = None
) -> None:
    """A new user PIN, set by the security officer after the old one was locked or forgotten."""
    with (
        read_pin(so_pin_file, "security officer") as so_pin,
        read_pin(pin_file, "user, new", confirm=True) as pin,
    ):
        unlock(TokenConfig(module, label, serial), so_pin, pin)
    output.say(f"token {label} has a new user PIN")


def _line(handle: int) -> SecretBytes:
    """A line, byte by byte into memory that is wiped. Raises InvalidInput PIN_MISSING for an empty one, PIN_LENGTH."""
    line, one = bytearray(LINE_MAX + 1), bytearray(1)
    length = 0
    try:
        while os.readv(handle, [one]) and one[0] not in (0x0A, 0x0D):
            if length > LINE_MAX:
                raise InvalidInput("PIN_LENGTH", f"a PIN or share has at most {LINE_MAX} characters")
            line[length] = one[0]
            length += 1
        if not length:
            raise InvalidInput("PIN_MISSING", "no PIN was given")
        return SecretBytes(memoryview(line)[:length])
    finally:
        line[:] = bytes(len(line))
        one[:] = b"\0"


@contextmanager
def _unseen() -> Iterator[int]:
    """The terminal of this process without echo. Raises InvalidInput PIN_MISSING where there is none."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise InvalidInput("PIN_MISSING", "no terminal to ask for the PIN: give --pin-file and --so-pin-file") from None
    try:
        before = termios.tcgetattr(terminal)
        without = list(before)
        without[3] &= ~termios.ECHO
        termios.tcsetattr(terminal, termios.TCSAFLUSH, without)
        try:
            yield terminal
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
    finally:
        os.close(terminal)
