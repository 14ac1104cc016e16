"""Which ledger a command of `citycard capacity` reads: a server's, or any file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.rpc.local import LEDGER_FILE
from keys.errors import InvalidInput

Data = Annotated[Path | None, typer.Option("--data", help="Data directory of a server, running or not.")]
LedgerFile = Annotated[Path | None, typer.Option("--ledger", help="The ledger's file itself, such as a copy.")]


def ledger_path(data: Path | None, ledger: Path | None) -> Path:
    """The file; InvalidInput LEDGER_WHICH unless exactly one of the two is given."""
    if (data is None) == (ledger is None):
        raise InvalidInput("LEDGER_WHICH", "say whose ledger to read: --data DIR or --ledger FILE")
    return ledger if ledger is not None else Path(data or "") / LEDGER_FILE
