"""Taking in a hand-over set of an upper level: opened under its key-encryption key in one vault, installed in that or another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from keys.ceremony.plan import planned_key
from keys.ceremony.stored import StoreVault
from keys.ceremony.vault import Vault
from keys.errors import CitycardError, Conflict
from keys.hierarchy import MasterKeyRecord
from keys.keyblock.handover import Agreed, HandedKey


def receive(
    keys: Sequence[HandedKey], scheme: str, kek: str, agreed: Agreed, *, under: StoreVault, into: Vault, origin: str
) -> list[MasterKeyRecord]:
    """All keys of a set or none, active. `under` has the key-encryption key `kek`; between the two vaults a key is in locked memory.

    Every key is opened and its check value compared before the first is installed. Raises as `Vault.unwrap` and `Vault.install`,
    Precondition SEALED.
    """
    under.require_open()
    into.require_open()
    planned = [planned_key(handed) for handed in keys]
    for key in planned:
        if into.find(key.key_id, key.version) is not None:
            raise Conflict("KEY_EXISTS", f"key {key.name} exists already: a master is never replaced")
    with ExitStack() as held:
        secrets = [held.enter_context(under.unwrap(handed, scheme, kek, agreed)) for handed in keys]
        installed: list[MasterKeyRecord] = []
        try:
            for key, secret in zip(planned, secrets, strict=True):
                installed.append(into.install(key, secret, origin))
        except CitycardError:
            for record in installed:
                into.destroy(record.key_id, record.version)
            raise
    return [into.activate(record.key_id, record.version) for record in installed]
