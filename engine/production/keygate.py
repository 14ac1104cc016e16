"""Whether the keys can be used now, and the waiting for them: a card whose keys are out of reach waits, it is not given up.

A sealed server and a token that is gone, or refuses its PIN, are trouble that ends: work goes on by itself. Zeroized keys do not come
back in this process: who waits for them is told so and ends its card.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from keys.custody import Custody
from keys.errors import CitycardError

# Reasons that speak of a custody that cannot be asked now, not of a key, a card or a request.
OUT_OF_REACH: Final = frozenset(
    {
        "SEALED",
        "SELF_TEST",
        "TOKEN_AMBIGUOUS",
        "TOKEN_CLOSED",
        "TOKEN_EMPTY",
        "TOKEN_FAILED",
        "TOKEN_GONE",
        "TOKEN_KEY",
        "TOKEN_KEY_MISSING",
        "TOKEN_MODULE",
        "TOKEN_NEWER",
        "TOKEN_PIN_LOCKED",
        "TOKEN_PIN_WRONG",
        "TOKEN_RECORD",
    }
)
ZEROIZED: Final = "ZEROIZED"
_PROBE: Final = bytes(32)
_LOOK_S: Final = 0.5


def keys_to_blame(error: CitycardError) -> bool:
    """Whether an error speaks of a key or of its holder: no chip and no station is to blame, and another card would fare no better."""
    return error.reason in OUT_OF_REACH or error.reason.startswith(("KEY_", "TOKEN_")) or error.reason == ZEROIZED


class KeyGate:
    """Open while a custody answers. One event loop."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody
        self._passable = asyncio.Event()
        self._passable.set()
        self.trouble: CitycardError | None = None

    async def look(self) -> None:
        """Asks the custody for something small."""
        try:
            await asyncio.to_thread(self._custody.wrap_data_key, _PROBE)
        except CitycardError as error:
            self.shut(error)
        else:
            self.trouble = None
            self._passable.set()

    def shut(self, error: CitycardError) -> None:
        """The custody cannot be asked. Zeroized is for good: nobody waits for that to end."""
        self.trouble = error
        if error.reason == ZEROIZED:
            self._passable.set()
        else:
            self._passable.clear()

    @property
    def zeroized(self) -> bool:
        """Whether the keys are gone for good."""
        return self.trouble is not None and self.trouble.reason == ZEROIZED

    async def passed(self, error: CitycardError, wanted: Callable[[], bool] = lambda: True) -> bool:
        """What to do after `error`: False when it is about something else, the keys are gone for good, or nobody wants them any more.
        True: they were out of reach and are back, so that it is worth trying again; this takes as long as it takes.
        """
        if error.reason not in OUT_OF_REACH:
            return False
        if not self.zeroized:
            self.shut(error)
        while wanted() and not self._passable.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._passable.wait(), _LOOK_S)
        return wanted() and not self.zeroized
