"""Once a second: whether ledger and keys can be used, leases that are over, cards past their time. Says so when trouble begins and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from engine.ledger import attempts
from engine.ledger.pulse import pulse
from engine.ledger.store import Ledger
from engine.production.line import Line
from keys.errors import CitycardError

log = structlog.get_logger("line")

SWEEP_S: Final = 1.0
DRAIN_STEP_S: Final = 0.05


class Upkeep:
    """Keeps a line. One event loop."""

    def __init__(self, ledger: Ledger, line: Line, changed: Callable[[str], Awaitable[None]]) -> None:
        """`changed` is told when trouble begins or ends: its plain words, or an empty text."""
        self._ledger = ledger
        self._line = line
        self._changed = changed
        self._said = ""

    async def forever(self) -> None:
        """`look`, once a second."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.look()
            except CitycardError as error:  # what goes on when trouble ends needs the ledger too
                self._line.trouble = error.message

    async def look(self) -> None:
        """Proves that the ledger can be written and the keys can be asked, expires leases before INTENT, tears cards past their time."""
        line = self._line
        try:
            await self._ledger.write(pulse)
            await line.keys.look()
            line.trouble = "" if line.keys.trouble is None else line.keys.trouble.message
            line.given_up(await self._ledger.write(attempts.expire_leases), "lease-lost")
            line.given_up(await self._ledger.write(attempts.tear_overdue), "torn")
        except CitycardError as error:
            line.trouble = error.message
        if line.trouble != self._said:
            log.error("trouble" if line.trouble else "trouble over", detail=line.trouble or self._said)
            self._said = line.trouble
            await self._changed(line.trouble)
        await line.pump()

    async def drain(self, grace_s: float) -> None:
        """Leases nothing more, lets cards in hand finish for up to `grace_s`, then lets the stations go."""
        await self._line.stop_leasing()
        for _ in range(int(grace_s / DRAIN_STEP_S)):
            if not self._line.in_flight():
                break
            await asyncio.sleep(DRAIN_STEP_S)
        self._line.let_go()
