"""The key desk: what can be asked of a server's keys. What changes their state is in the audit chain before it is done."""

from __future__ import annotations

import asyncio
import unicodedata
from typing import Any, Final

import structlog

from engine.production.context import Context
from engine.production.keyroom import KeyRoom
from engine.production.line import Line
from engine.production.upkeep import Upkeep
from keys import memory
from keys.errors import CitycardError, Denied, InvalidInput, Precondition
from keys.secrets import SecretBytes

log = structlog.get_logger("keys")

SUBJECT: Final = "server"


class KeyDesk:
    """Operations on the keys of a running server."""

    def __init__(self, room: KeyRoom, context: Context, line: Line, upkeep: Upkeep) -> None:
        self._room = room
        self._context = context
        self._ledger = context.ledger
        self._line = line
        self._upkeep = upkeep

    def status(self) -> dict[str, Any]:
        """What can be said without asking a token: states, what `unseal` needs, trouble, and whether key memory is locked."""
        shortfall = memory.shortfall()
        return {
            "state": str(self._room.state),
            "custody": self._room.setup.custody,
            "parts": self._room.parts(),
            "needs": list(self._room.needs),
            "trouble": self._line.trouble,
            "key_memory": "unlocked" if shortfall else "locked",
            "key_memory_why": shortfall,
        }

    async def inventory(self) -> list[dict[str, object]]:
        """Every key with its policy; no key bytes. Raises Precondition SEALED, ZEROIZED."""
        return [known.as_dict() for known in await asyncio.to_thread(self._room.entries)]

    async def unseal(self, secret: SecretBytes | None, store_key: SecretBytes | None, by: str) -> None:
        """Opens the keys, and lets what waited for them go on. Takes both secrets over. Raises InvalidInput BY_MISSING, and as
        `KeyRoom.unseal`.
        """
        try:
            await self._audit("keys.unseal", by=_named(by))
            await asyncio.to_thread(self._room.unseal, secret, store_key)
        finally:
            for given in (secret, store_key):
                if given is not None:
                    given.close()
        log.info("keys unsealed", by=by)
        await self._upkeep.look()

    async def seal(self, by: str) -> None:
        """Wipes the keys from memory until the next `unseal`; cards past INTENT are finished. Raises InvalidInput BY_MISSING."""
        await self._audit("keys.seal", by=_named(by))
        await asyncio.to_thread(self._room.seal)
        log.warning("keys sealed", by=by)
        await self._upkeep.look()

    async def zeroize(self, by: str, second: str) -> None:
        """Wipes the keys from memory for good, with those of cards in hand. Raises Denied DUAL_CONTROL unless two people agree."""
        if not _plain(by) or not _plain(second) or _plain(by) == _plain(second):
            raise Denied("DUAL_CONTROL", "zeroizing takes the names of two different people")
        await self._audit("keys.zeroize", by=[by.strip(), second.strip()])
        await self._wipe()

    async def zeroize_now(self, by: str) -> None:
        """The same at once, whatever the ledger says: for a signal, which comes where nothing else gets through. The audit leaf follows."""
        await self._wipe()
        try:
            await self._audit("keys.zeroize", by=[by])
        except CitycardError as error:
            log.error("zeroizing is not in the audit chain", reason=error.reason, detail=error.message)

    async def _wipe(self) -> None:
        began = asyncio.get_running_loop().time()
        wiping = asyncio.create_task(asyncio.to_thread(self._room.zeroize))
        self._context.wipe_cards()
        await wiping
        self._context.wipe_cards()  # of a card that was prepared meanwhile
        log.error("keys zeroized", seconds=round(asyncio.get_running_loop().time() - began, 3))
        await self._line.zeroized(Precondition("ZEROIZED", "the keys of this server were zeroized: start it anew"))
        await self._upkeep.look()

    async def _audit(self, kind: str, /, **facts: Any) -> None:  # noqa: ANN401 - facts of the chain
        await self._ledger.write(lambda tx: tx.audit(kind, SUBJECT, **facts))


def _named(by: str) -> str:
    if not by.strip():
        raise InvalidInput("BY_MISSING", "who does this must be named")
    return by.strip()


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
