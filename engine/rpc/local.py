"""What keeps a plant to one machine and a data directory to one process; needs nothing of the server itself."""

from __future__ import annotations

import fcntl
import ipaddress
import os
from pathlib import Path
from typing import IO, Final

from keys.errors import Conflict, InvalidInput, NotFound

LEDGER_FILE: Final = "ledger.sqlite"


def check_bind(address: str) -> str:
    """HOST:PORT with a loopback host; InvalidInput BIND_REFUSED otherwise."""
    host, _, port = address.rpartition(":")
    bare = host.strip("[]")
    try:
        loopback = bare == "localhost" or ipaddress.ip_address(bare).is_loopback
        number = int(port)
    except ValueError:
        raise InvalidInput("BIND_INVALID", f"{address!r} is no address like 127.0.0.1:7443") from None
    if not loopback:
        raise InvalidInput("BIND_REFUSED", f"{address}: only loopback is served until mutual TLS exists; use 127.0.0.1 or [::1]")
    if not 0 <= number < 65536:
        raise InvalidInput("BIND_INVALID", f"{address}: {port} is no port")
    return address


class DataLock:
    """Exclusive use of a data directory, for as long as the process lives; Conflict DATA_LOCKED names the holder's pid, NotFound
    DATA_MISSING: a mistyped path shall not become a second, empty plant.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise NotFound("DATA_MISSING", f"there is no data directory {directory}: `citycard keys init` makes one")
        self._file: IO[str] = (directory / "lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise Conflict("DATA_LOCKED", f"data directory {directory} is in use by another server or station, process {holder}") from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        self._file.close()
