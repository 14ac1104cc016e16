"""A SoftHSM token with a directory of its own, for demo, development and tests: nothing here protects anything real."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engine.cli.token import SOFTHSM
from keys.custody.token import TokenConfig, initialize
from keys.errors import Unavailable
from keys.secrets import SecretBytes

LABEL: Final = "citycard-demo"
CONF: Final = "SOFTHSM2_CONF"


class SoftHsm:
    """One installation: `softhsm2.conf`, the directory of tokens, and the PINs in files beside them."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.tokens = self.home / "tokens"
        self.conf = self.home / "softhsm2.conf"
        self.pin_file = self.home / "pin"
        self.so_pin_file = self.home / "so-pin"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find the token."""
        return {CONF: str(self.conf)}

    def make(self) -> TokenConfig:
        """Initializes a token under random PINs. Raises Unavailable SOFTHSM_MISSING."""
        if not SOFTHSM.exists():
            raise Unavailable("SOFTHSM_MISSING", f"there is no {SOFTHSM}: install Debian's softhsm2")
        self.tokens.mkdir(parents=True, mode=0o700)
        self.conf.write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        for file in (self.pin_file, self.so_pin_file):
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(12) + "\n")
        with self.in_this_process(), SecretBytes(_line(self.so_pin_file)) as so_pin, SecretBytes(self.pin()) as pin:
            serial = initialize(TokenConfig(SOFTHSM, LABEL), so_pin, pin)
        return TokenConfig(SOFTHSM, LABEL, serial)

    def pin(self) -> bytes:
        """The user PIN."""
        return _line(self.pin_file)

    @contextmanager
    def in_this_process(self) -> Iterator[None]:
        """Within the block SoftHSM finds this token; it reads its environment whenever it is initialized."""
        before = os.environ.get(CONF)
        os.environ[CONF] = str(self.conf)
        try:
            yield
        finally:
            if before is None:
                del os.environ[CONF]
            else:
                os.environ[CONF] = before


def _line(file: Path) -> bytes:
    return file.read_bytes().split(b"\n", 1)[0]
