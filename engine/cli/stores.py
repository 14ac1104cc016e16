"""What commands share that open keys: where they lie, and how passphrase, PIN and custodians' shares come in unseen.

Never from the command line or the environment, where every process could read them.
"""

from __future__ import annotations

import getpass
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.token import read_pin, read_secret
from engine.production.keyroom import KeyRoom
from engine.production.keysetup import Mode
from keys.errors import InvalidInput, NotFound
from keys.secrets import SecretBytes
from keys.shares import check_share, combine_shares, parse_share, share_info

Data = Annotated[Path, typer.Option("--data", help="Data directory.")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File whose first line is the passphrase; default: asked for, unseen.")
]
SecretFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", "--pin-file", help="File whose first line is the passphrase or PIN; default: asked for, unseen."),
]


def read_passphrase(file: Path | None, *, confirm: bool = False) -> str:
    """The passphrase from a file, or typed without echo."""
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise NotFound("PASSPHRASE_UNREADABLE", f"passphrase file {file}: {why}") from None
    else:
        if not sys.stdin.isatty():
            raise InvalidInput("PASSPHRASE_MISSING", "no terminal to ask for the passphrase: give --passphrase-file")
        text = getpass.getpass("Passphrase of the key store: ")
        if confirm and text != getpass.getpass("The same again: "):
            raise InvalidInput("PASSPHRASE_DIFFERS", "the two passphrases are not the same")
    if not text:
        raise InvalidInput("PASSPHRASE_EMPTY", "the passphrase is empty")
    return text


def read_needed(needs: tuple[str, ...], file: Path | None) -> tuple[SecretBytes | None, SecretBytes | None]:
    """What opens the keys: passphrase or PIN, and the store key that custodians' shares rebuild, for `KeyRoom.unseal`."""
    secret = None
    if "passphrase" in needs:
        secret = SecretBytes(read_passphrase(file).encode())
    elif "pin" in needs:
        secret = read_pin(file, "token's user")
    try:
        return secret, read_shares() if "store-key" in needs else None
    except BaseException:
        if secret is not None:
            secret.close()
        raise


def read_shares() -> SecretBytes:
    """The store key from the custodians' shares (SLIP-39), each typed unseen. A share that is wrong is asked for again.

    Raises InvalidInput PIN_MISSING where there is no terminal, Denied SHARE_DIGEST when the shares do not fit together.
    """
    with ExitStack() as stack:
        shares: list[SecretBytes] = []
        needed = 2
        while len(shares) < needed:
            with read_secret(f"Share {len(shares) + 1} of {needed if shares else 'the store key'}, all words: ") as typed:
                try:
                    with typed.reveal() as raw:
                        share = stack.enter_context(parse_share(raw))
                    check_share(share, shares)
                except InvalidInput as error:
                    sys.stderr.write(f"{error.message}; this custodian enters it again\n")
                    continue
            shares.append(share)
            needed = share_info(share).threshold
        return combine_shares(shares)


def open_offline(data: Path, file: Path | None, *, mode: Mode = "test") -> KeyRoom:
    """The keys of a data directory, open, for a command that needs no server. Raises as `KeyRoom.unseal`."""
    room = KeyRoom(data, mode=mode)
    room.unseal(*read_needed(room.needs, file))
    return room
