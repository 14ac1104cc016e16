"""Opening a sealed store by its custodians, at a terminal: for a server that waits, and for a ceremony on a store under shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keys.ceremony.clerk import Clerk
from keys.ceremony.desk import Desk
from keys.ceremony.plan import Kind, Plan
from keys.ceremony.run import Ceremony
from keys.ceremony.sealed import SealedVault
from keys.errors import CitycardError, InvalidInput
from keys.secrets import SecretBytes


def unseal_at_desk(plan: Plan, desk: Desk, clerk: Clerk, ceremonies: Path, open_store: Callable[[SecretBytes], None]) -> None:
    """Carries out a plan of kind unseal: the custodians' pieces become the 32-byte store key, and `open_store` takes it: opens a store with
    it, or brings it to a server. It raises Denied SEAL_KEY when the key does not fit; the key is wiped when it returns.

    The record is kept in `ceremonies`, signed by the clerk. It is done in one go: an interruption aborts it, so that no share rests.
    Raises Denied (STORE_KEY_WRONG, ENTRY_ATTEMPTS, DUAL_CONTROL), InvalidInput PLAN_KIND, Precondition CEREMONY_PAUSED, as `open_store`.
    """
    if plan.kind is not Kind.UNSEAL:
        raise InvalidInput("PLAN_KIND", f"a plan of kind unseal opens a sealed store, not one of kind {plan.kind}")
    ceremony = Ceremony.start(plan, SealedVault(clerk, ceremonies, open_store), desk, None, ceremonies)
    try:
        ceremony.run()
    except CitycardError as error:
        if not ceremony.ended:
            ceremony.abort(error.reason)
        raise
